"""Which of the known words somebody may have meant. Pure; difflib is imported only where a fault needs it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The known word most like it, one of the very same letters before all others; '' where none is like it.

    `cutoff`: how like, 0 to 1, by difflib's ratio. That takes a lost letter for less than two that changed places
    (`modle` is nearer to `mode` than to `model`), which fingers do more often.
    """
    import difflib

    every = list(dict.fromkeys(known))
    found = difflib.get_close_matches(word, every, n=max(1, len(every)), cutoff=cutoff)
    return min(found, key=lambda one: sorted(one) != sorted(word), default="")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that nobody knows: '; did you mean ...?', or nothing."""
    found = nearest(word, known)
    return f"; did you mean {found!r}?" if found else ""
