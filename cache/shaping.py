"""What every turning of a stream into a whole answer, or back, needs: certainty, and cutting a text into pieces. Pure.

Rules of this file:
1. What isn't surely so isn't done: `Unsure` is raised, and the caller counts a miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.sse import DONE, events

__all__ = ["PIECE_CHARS", "Unsure", "a", "agree", "in_order", "named", "once", "said", "slices"]

PIECE_CHARS = 64
_PIECES = 8


class Unsure(Exception):
    """Nobody can know how these pieces belong together."""


def a(kind: type, value: Any) -> Any:
    """The value, which must be of that kind. Raises Unsure."""
    if not isinstance(value, kind):
        raise Unsure(f"not a {kind.__name__}")
    return value


def once(target: dict[str, Any], name: str, value: Any) -> None:
    """Set a field that may come once: whether two pieces are parts or repetitions can't be known. Raises Unsure."""
    if value is None:
        target.setdefault(name, None)
    elif target.get(name) is not None:
        raise Unsure(f"{name} twice")
    else:
        target[name] = value


def agree(target: dict[str, Any], name: str, value: Any) -> None:
    """Set a field that may come often, but always the same. Raises Unsure."""
    if value is None:
        target.setdefault(name, None)
    elif target.get(name) not in (None, value):
        raise Unsure(f"two values of {name}")
    else:
        target[name] = value


def in_order(parts: dict[int, Any]) -> list[Any]:
    """The parts by their index, which has no gaps. Raises Unsure."""
    if sorted(parts) != list(range(len(parts))):
        raise Unsure("indices with gaps")
    return [parts[i] for i in range(len(parts))]


def slices(whole: Any, least: int) -> Iterator[Any]:
    """A text or list in at most eight pieces, none but the last shorter than `least`; none where it is empty."""
    size = max(least, -(-len(whole) // _PIECES))
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def said(sse: bytes) -> Iterator[dict[str, Any]]:
    """The events of a stream whose events tell their `type`; an `event:` line says the same, or is left out.

    `[DONE]`, which some servers send after the last one, isn't among them. Raises Unsure (an error, something after
    the end), ValueError, RecursionError.
    """
    done = False
    for event in events(sse):
        if done or event.name == "error":
            raise Unsure("an error, or something after the end")
        if event.data == DONE:
            done = True
        elif event.data:
            value = a(dict, loads(event.data))
            if event.name and event.name != value.get("type"):
                raise Unsure("an event of two names")
            yield value


def named(value: dict[str, Any]) -> bytes:
    """One event with its type on an `event:` line, as OpenAI's Responses and Anthropic's messages have it."""
    kind: str = a(str, value["type"])
    return b"event: " + kind.encode() + b"\ndata: " + dumps(value) + b"\n\n"
