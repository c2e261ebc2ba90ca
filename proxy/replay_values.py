"""One recorded request, and how logs of all formats say times, counts, tags and JSON texts. Pure.

Rules of this file: what can't be read is None, never an error; nothing is made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from farthing.proxy.exchange import Endpoint
from farthing.proxy.usage import Usage, from_payload

__all__ = [
    "TARGETS", "NotARequest", "Recorded", "choice", "endpoint_of_body", "first", "model_of", "number", "object_of",
    "plain_usage", "said", "seconds", "tags_of", "tokens_of", "usage_of", "value_of", "whole",
]  # fmt: skip

_PATHS = {
    "chat/completions": Endpoint.CHAT,
    "embeddings": Endpoint.EMBEDDINGS,
    "completions": Endpoint.COMPLETIONS,
    "responses": Endpoint.RESPONSES,
    "messages": Endpoint.MESSAGES,
}
TARGETS = MappingProxyType({endpoint: f"/v1/{path}" for path, endpoint in _PATHS.items()})
_MOST_TOKENS = 10**9  # as usage.py has it
_MILLISECONDS_FROM = 1e11  # a time in seconds this large lies in the year 5138


class NotARequest(ValueError):
    """The line holds no request: it is broken (`kind` ''), or something else by design (`kind` says what)."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind


class Recorded(NamedTuple):
    """One request as it was recorded. `body` None: the format holds no prompts. `response`: the whole answer's body.

    `ts`: seconds since the epoch, None where unknown. `latency_s`: how long the answer took. `status`: 0 where the log
    doesn't say. `usage`: as billed then. `row`: farthing's own ledger columns.
    """

    format: str
    ts: float | None
    tenant: str
    user: str
    tags: tuple[tuple[str, str], ...]
    endpoint: Endpoint
    target: str
    body: dict[str, Any] | None
    response: dict[str, Any] | None
    status: int
    latency_s: float | None
    usage: Usage | None
    model_served: str
    row: Mapping[str, Any] | None = None


def endpoint_of_body(path: str, body: Mapping[str, Any]) -> Endpoint:
    """Which API call a body is: by its path where that is known, else by its members."""
    path = path.partition("?")[0].rstrip("/")
    named = next((endpoint for end, endpoint in _PATHS.items() if path.endswith(end)), None)
    if isinstance(body.get("messages"), list) and body["messages"]:
        if named in (Endpoint.CHAT, Endpoint.MESSAGES):
            return named
        return Endpoint.MESSAGES if "system" in body else Endpoint.CHAT
    if "model" not in body:
        return Endpoint.OTHER
    if isinstance(body.get("input"), str | list):
        if named in (Endpoint.RESPONSES, Endpoint.EMBEDDINGS):
            return named
        if named is None:
            return Endpoint.EMBEDDINGS if "embed" in str(body["model"]) else Endpoint.RESPONSES
    if isinstance(body.get("prompt"), str | list) and named in (None, Endpoint.COMPLETIONS):
        return Endpoint.COMPLETIONS
    return Endpoint.OTHER


def tags_of(value: Any) -> tuple[tuple[str, str], ...]:
    """Tags as pairs, sorted: an object, a list of names (or NAME=VALUE, NAME:VALUE), or `x-farthing-tags`'s text."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, Mapping):
        pairs = [(str(name), str(one)) for name, one in value.items() if isinstance(one, str | int | float | bool)]
        return tuple(sorted(pairs))
    found = []
    for one in value if isinstance(value, list) else []:
        if isinstance(one, str):
            cut = "=" if "=" in one else ":"
            name, _, rest = one.partition(cut)
            found.append((name.strip(), rest.strip()) if rest else ("tag", name.strip()))
    return tuple(sorted(found))


def usage_of(endpoint: Endpoint, response: Mapping[str, Any] | None) -> Usage | None:
    if response is None:
        return None
    used = response.get("usage")
    return from_payload(endpoint, used, response.get("service_tier")) if isinstance(used, Mapping) else None


def plain_usage(value: Mapping[str, Any], given: str, made: str, read: str = "", written: str = "") -> Usage | None:
    """Counts that a log keeps for itself, taken as OpenAI means them: the input includes what was read from a cache."""
    whole_in, whole_out = tokens_of(value.get(given)), tokens_of(value.get(made))
    if not whole_in or whole_out is None:
        return None
    cached = min(whole_in, tokens_of(value.get(read)) or 0)
    wrote = min(whole_in - cached, tokens_of(value.get(written)) or 0)
    return Usage(whole_in - cached - wrote, cached, wrote, whole_out)


def said(text: str) -> dict[str, Any]:
    """A text as the answer that says it."""
    return choice({"role": "assistant", "content": text})


def choice(message: dict[str, Any]) -> dict[str, Any]:
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def model_of(response: Mapping[str, Any] | None) -> str:
    model = response.get("model") if response is not None else None
    return model if isinstance(model, str) else ""


def first(value: Mapping[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def value_of(value: Any) -> Any:
    """A JSON text's value; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except ValueError:
            return value
    return value


def object_of(value: Any) -> dict[str, Any] | None:
    found = value_of(value)
    return dict(found) if isinstance(found, Mapping) else None


def whole(value: Any) -> int | None:
    """An integer, also as a whole real or as digits; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        return int(value)
    return value if isinstance(value, int) else None


def tokens_of(value: Any) -> int | None:
    """A count of tokens; None where it is none, negative, or larger than any request is."""
    count = whole(value)
    return count if count is not None and 0 <= count <= _MOST_TOKENS else None


def number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MILLISECONDS_FROM
    return float(value) if good else None


def seconds(value: Any) -> float | None:
    """Seconds since the epoch, of a number (seconds or milliseconds) or an ISO text (UTC where it names no zone)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value / 1000 if value >= _MILLISECONDS_FROM else float(value)
        return seconds if 0 < seconds < _MILLISECONDS_FROM else None
    if not isinstance(value, str) or not value:
        return None
    try:
        moment = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
