"""Which slices a request belongs to: what one would ask for when a mean looks well and somebody complains. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from farthing.policies.accept import schema_of, spoken
from farthing.proxy.text import signals

__all__ = ["length_class", "slices_of"]

_SHORT_CHARS, _LONG_CHARS, _HUGE_CHARS = 200, 2_000, 20_000
_READ_CHARS = 2_000
_TENANT_DIGITS = 8


def slices_of(
    endpoint: str, body: Mapping[str, Any], tags: Iterable[tuple[str, str]] = (), tenant: str = ""
) -> dict[str, str]:
    """Each slice's name with this request's value: model, endpoint, length, language, tools, turns, format, tag:NAME.

    `length` is the whole prompt's, in characters; `language` the last message's, else its script.
    """
    last = spoken(dict(body))
    found = signals(last[:_READ_CHARS])
    turns = body.get("messages", body.get("input"))
    scripts = found.scripts - {"latin"}
    slices = {
        "endpoint": endpoint,
        "model": str(body.get("model") or ""),
        "length": length_class(_chars(turns if turns is not None else body.get("prompt"))),
        "language": next(iter(sorted(scripts)), "") or found.language or "unknown",
        "tools": "yes" if body.get("tools") or body.get("functions") else "no",
        "turns": "several" if isinstance(turns, list) and _said_before(turns) else "one",
        "format": "json" if schema_of(dict(body))[0] else "text",
    }
    if tenant:
        slices["tenant"] = tenant[:_TENANT_DIGITS]
    slices.update({f"tag:{name}": value for name, value in tags})
    return slices


def length_class(chars: int) -> str:
    """A prompt's length in a word; a token is some four characters."""
    for most, word in ((_SHORT_CHARS, "short"), (_LONG_CHARS, "middling"), (_HUGE_CHARS, "long")):
        if chars < most:
            return word
    return "huge"


def _chars(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_chars, value))
    if isinstance(value, dict):
        return sum(_chars(inner) for name, inner in value.items() if name in ("content", "text", "output", "arguments"))
    return 0


def _said_before(turns: list[Any]) -> bool:
    return any(isinstance(turn, dict) and turn.get("role") == "assistant" for turn in turns)
