"""What a comparator says of two answers. No logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Agreement", "Embed", "Opinion", "different", "same", "unsure"]

# Texts -> float32 [len(texts), dim], rows of length 1. May raise ValueError: a text beyond the model's window.
Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]


class Agreement(StrEnum):
    """Whether two answers say the same."""

    SAME = "same"
    DIFFERENT = "different"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Opinion:
    """`by`: the comparator, a key of `agree_measured.MEASURED`. `reason`: a few words for ledger and screens, never
    text of an answer."""

    agreement: Agreement
    by: str
    reason: str

    @property
    def wrong(self) -> bool:
        """Whether one must count as wrong where the other is right: unless they say the same, so in doubt too."""
        return self.agreement is not Agreement.SAME


def same(by: str, reason: str) -> Opinion:
    """They say the same."""
    return Opinion(Agreement.SAME, by, reason)


def different(by: str, reason: str) -> Opinion:
    """They don't."""
    return Opinion(Agreement.DIFFERENT, by, reason)


def unsure(by: str, reason: str) -> Opinion:
    """This comparator can't tell, and no other one should try."""
    return Opinion(Agreement.UNSURE, by, reason)
