"""Requests out of a file, for `farthing compress advise`: where their instructions and users' texts stand. Pure.

A file is JSON lines, an array, or one request. A request is a body (chat, Responses, Anthropic messages), or a line of
any log that `farthing replay` reads (proxy/replay_formats.py).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from farthing.proxy.errors import ConfigFault
from farthing.proxy.exchange import Endpoint
from farthing.proxy.replay_formats import recorded
from farthing.proxy.replay_values import NotARequest

__all__ = ["Asked", "Spoken", "Spot", "in_body", "read_requests", "replaced"]

Spoken = Literal["system", "user"]
Path = tuple[str | int, ...]
_SPOKEN = (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES)
_SYSTEM = frozenset({"system", "developer"})


class Spot(NamedTuple):
    """A text in a request's body, and who speaks it."""

    path: Path
    spoken: Spoken
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `slice`: the name of its kind, from its tags; '' where it has none. `line`: counts from 1."""

    line: int
    endpoint: str
    body: Mapping[str, Any]
    slice: str
    spots: tuple[Spot, ...]

    @property
    def model(self) -> str:
        """The model asked for; '' where none is named."""
        return str(self.body.get("model") or "")

    @property
    def replayable(self) -> bool:
        """Whether it can be asked again alone: what refers to a stored conversation can't."""
        return not (self.body.get("previous_response_id") or self.body.get("conversation"))


def read_requests(text: str, name: str) -> tuple[list[Asked], int]:
    """The requests, and how many lines or items were none. Raises ConfigFault: not JSON, or no request at all."""
    values, unread = _values(text)
    found = [asked for line, value in values if (asked := _asked(line, value)) is not None]
    skipped = unread + len(values) - len(found)
    if not found and not values:
        raise ConfigFault(f"{name} holds no JSON: expected request bodies, one a line, an array, or a single one")
    if not found:
        raise ConfigFault(
            f"{name} holds no request: none of its {skipped:,} JSON values has `messages`, or `model` and `input`"
        )
    return found, skipped


def in_body(body: Mapping[str, Any], path: Path) -> Any:
    """What stands at a path."""
    value: Any = body
    for step in path:
        value = value[step]
    return value


def replaced(body: Mapping[str, Any], path: Path, text: str) -> dict[str, Any]:
    """A copy of the body with another text at a path."""
    copied: dict[str, Any] = copy.deepcopy(dict(body))
    in_body(copied, path[:-1])[path[-1]] = text
    return copied


def _values(text: str) -> tuple[list[tuple[int, Any]], int]:
    """JSON values with their numbers, and how many lines are none."""
    try:
        whole = json.loads(text)
        return list(enumerate(whole if isinstance(whole, list) else [whole], 1)), 0
    except (ValueError, RecursionError):
        pass
    values, unread = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append((number, json.loads(line)))
            except (ValueError, RecursionError):
                unread += 1
    return values, unread


def _asked(line: int, value: Any) -> Asked | None:
    try:
        one = recorded(value)
    except NotARequest:
        return None
    if one.body is None or one.endpoint not in _SPOKEN:
        return None
    named = _slice(value) or ", ".join(f"{name}={held}" for name, held in one.tags)
    spots = tuple(spot for spot in _spots(one.endpoint, one.body) if spot.text.strip())
    return Asked(line, one.endpoint._value_, one.body, named, spots)


def _slice(value: Mapping[str, Any]) -> str:
    if isinstance(value.get("slice"), str):
        return str(value["slice"])
    tags = value.get("tags")
    headers = value.get("headers")
    if tags is None and isinstance(headers, dict):
        tags = next((held for name, held in headers.items() if str(name).lower() == "x-farthing-tags"), None)
    if isinstance(tags, dict):
        return ", ".join(f"{name}={held}" for name, held in sorted(tags.items()))
    return tags if isinstance(tags, str) else ""


def _spots(endpoint: str, body: Mapping[str, Any]) -> list[Spot]:
    if endpoint == "responses":
        found = _content(("instructions",), "system", body.get("instructions"))
        if isinstance(body["input"], str):
            return [*found, Spot(("input",), "user", body["input"])]
        return found + _turns("input", body["input"])
    found = _content(("system",), "system", body.get("system")) if endpoint == "messages" else []
    return found + _turns("messages", body["messages"])


def _turns(name: str, turns: list[Any]) -> list[Spot]:
    found = []
    for at, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role in _SYSTEM or role == "user":
            found += _content((name, at, "content"), "system" if role in _SYSTEM else "user", turn.get("content"))
    return found


def _content(path: Path, spoken: Spoken, content: Any) -> list[Spot]:
    if isinstance(content, str):
        return [Spot(path, spoken, content)]
    if not isinstance(content, list):
        return []
    return [
        Spot((*path, at, "text"), spoken, part["text"])
        for at, part in enumerate(content)
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]
