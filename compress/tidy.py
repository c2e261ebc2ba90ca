"""Tidy: JSON white space inside tool results. Lossless, since the model reads the same value. Pure.

Each result is decided alone, from itself only, so the earlier turns of a growing conversation keep the same bytes and
the provider's own prompt cache keeps matching. Which texts may be touched: compress/places.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farthing.compress.places import places
from farthing.compress.rewrite import Span, rewrite
from farthing.proxy.jsontext import has_gaps, minify

__all__ = ["Tidied", "tidied_text", "tidy"]


@dataclass(frozen=True, slots=True)
class Tidied:
    """`chars_saved`: characters of the decoded strings. `spans`: of the replaced literals in the original body."""

    body: bytes
    edits: int = 0
    chars_saved: int = 0
    spans: tuple[Span, ...] = ()


def tidy(endpoint: str, payload: dict[str, Any], body: bytes) -> Tidied:
    """The body with the JSON in its tool results made compact; the same object where there is nothing to do.

    `payload`: the body decoded. Idempotent; never raises for a body that a JSON decoder takes. Cost: about a
    microsecond where there are no tool results; else linear in the body.
    """
    short = {
        place: text
        for place in places(endpoint, payload)
        if place.kind == "tool" and not place.frozen and (text := tidied_text(place.text)) is not None
    }
    made = rewrite(body, payload, short)
    if not made.texts:
        return Tidied(body)
    saved = sum(len(place.text) - len(text) for place, text in short.items())
    return Tidied(made.body, made.texts, saved, made.spans)


def tidied_text(text: str) -> str | None:
    """The compact form of a text that is one JSON object or array with white space to spare; else None."""
    if text.lstrip(" \t\r\n")[:1] not in ("{", "[") or not has_gaps(text):
        return None
    return minify(text)
