"""How many examples a property is tried on: counts in tests are of the long form; `make test` runs a part of them."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

__all__ = ["LONG", "SHORT", "examples"]

LONG: Final = 100  # hypothesis' own default
SHORT: Final = 40


def examples(long: int) -> int:
    """As many as the form that runs has, where the long one has so many."""
    return max(1, long * settings.default.max_examples // LONG)
