"""Squeeze as a method of the compression bench: `Method(f"squeeze {ratio}", squeezed(ratio))` in its list."""

from __future__ import annotations

from collections.abc import Callable

from farthing.compress.squeeze import Target, squeeze

__all__ = ["squeezed"]

Count = Callable[[str], int]


def squeezed(ratio: float) -> Callable[[str, str, Count], tuple[str, tuple[str, ...]]]:
    """Takes a text, the question and a token counter; gives the text squeezed to the ratio, and which rule did it."""

    def shorten(text: str, question: str, count: Count) -> tuple[str, tuple[str, ...]]:
        found = squeeze(text, question, Target(ratio=ratio), count)
        return found.text, () if found.reason else ("squeeze",)

    return shorten
