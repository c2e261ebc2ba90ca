"""Which part before the last message keeps a request apart from what is stored: system prompt, tools, settings, turns.

Rules of this file: numbers alone are remembered, no text; only of the requests whose answers were stored last, and a
tenant's are compared with its own alone. It explains a miss, and decides nothing. Used on the event loop only.
"""

from __future__ import annotations

from collections import deque
from operator import eq
from typing import Any, NamedTuple

import orjson

from farthing.cache.key import NOT_IN_KEY
from farthing.proxy.exchange import Endpoint

__all__ = ["Parts", "Walls", "parts_of"]

_KEPT = 64  # looked through within 30 µs of a processor
_TOOLS = ("tools", "functions", "tool_choice", "function_call")
_APART = frozenset({"model", "messages", "input", "system", "instructions", *_TOOLS})


class Parts(NamedTuple):
    """A number for each part, the same for the same part within a process."""

    model: int
    system_prompt: int
    tools: int
    settings: int
    earlier_turns: int


_NAMES = tuple(name.replace("_", " ") for name in Parts._fields)


def parts_of(payload: dict[str, Any], endpoint: Endpoint) -> Parts:
    """The parts of a request's body; the last message is in none."""
    turns = payload.get("input" if endpoint is Endpoint.RESPONSES else "messages")
    before = turns[:-1] if isinstance(turns, list) else []
    said = [turn for turn in before if isinstance(turn, dict) and turn.get("role") in ("system", "developer")]
    return Parts(
        _number(payload.get("model")),
        _number([payload.get("system"), payload.get("instructions"), said]),
        _number([payload.get(name) for name in _TOOLS]),
        _number({name: value for name, value in payload.items() if name not in _APART and name not in NOT_IN_KEY}),
        _number([turn for turn in before if turn not in said]),
    )


def _number(value: Any) -> int:
    return hash(orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS))


class Walls:
    """The parts of what was stored last, with whose it was and a number for its last message."""

    def __init__(self) -> None:
        self._held: deque[tuple[str, int, Parts, str]] = deque(maxlen=_KEPT)

    def note(self, tenant: str, text: str, parts: Parts, key: str) -> None:
        """An answer to that was stored under `key`."""
        self._held.append((tenant, hash(text), parts, key))

    def differing(self, tenant: str, text: str, parts: Parts, key: str) -> tuple[str, ...]:
        """What of the nearest one differs: of those with the same last message, else of all, the one that shares most
        parts, the latest of several. Nothing where none is known, or the difference lies elsewhere (headers).
        A request's own answer, which may be stored before somebody has looked, is none of them."""
        asked = hash(text)
        mine = [one for one in self._held if one[0] == tenant and one[3] != key]
        if not mine:
            return ()
        nearest = max(reversed(mine), key=lambda one: (one[1] == asked, _shared(one[2], parts)))[2]
        return tuple(name for name, one, other in zip(_NAMES, nearest, parts, strict=True) if one != other)


def _shared(one: Parts, other: Parts) -> int:
    return sum(map(eq, one, other))
