"""Nearest neighbours by inner product: one protocol, and its exact form in plain numpy.

Rules of this file: vectors are float32 of one length and L2-normalised by the caller, so inner product is cosine;
nothing here locks, since an index lives on one thread. No import of numpy at import time: it is heavy.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

__all__ = ["BruteIndex", "Index", "check", "is_finite"]


class Index(Protocol):
    """Vectors by number. `search` is exact in BruteIndex; where it isn't, it misses but never invents."""

    def __len__(self) -> int:
        """How many vectors it holds."""
        ...

    def add(self, number: int, vector: Vector) -> None:
        """Keep `vector` (shape [dim]) under `number`, a new one of 0 to 2**63 - 1. Raises ValueError otherwise."""
        ...

    def remove(self, *numbers: int) -> None:
        """Forget these; unknown ones are passed over."""
        ...

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """The up to `k` nearest as (number, cosine), nearest first, equal ones by number. A NaN query finds none."""
        ...

    def numbers(self) -> list[int]:
        """The numbers of all that it holds."""
        ...

    def vector(self, number: int) -> Vector:
        """The vector under `number`. Raises KeyError."""
        ...

    def items(self) -> list[tuple[int, Vector]]:
        """Everything it holds."""
        ...


class BruteIndex:
    """One matrix that doubles as it fills. Removal moves the last row into the gap: the same cost at any size."""

    # How many vectors move into it in one slice of a rebuild: about 1 ms.
    slice = 200

    def __init__(self, dim: int) -> None:
        import numpy as np

        self._dim = dim
        self._rows: Vector = np.zeros((1, dim), np.float32)
        self._numbers: list[int] = []
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, vector: Vector) -> None:
        """Index.add: amortised O(dim)."""
        import numpy as np

        check(number, vector, self._dim, self._row_of)
        row = len(self._numbers)
        if row == len(self._rows):
            grown = np.zeros((2 * row, self._dim), np.float32)
            grown[:row] = self._rows
            self._rows = grown
        self._rows[row] = vector
        self._row_of[number] = row
        self._numbers.append(number)

    def extend(self, items: Iterable[tuple[int, Vector]]) -> None:
        """`add` each."""
        for number, vector in items:
            self.add(number, vector)

    def remove(self, *numbers: int) -> None:
        """Index.remove: O(dim) each; the memory stays for the next ones."""
        for number in numbers:
            row = self._row_of.pop(number, None)
            if row is None:
                continue
            last = self._numbers.pop()
            if last != number:
                self._rows[row] = self._rows[len(self._numbers)]
                self._numbers[row] = last
                self._row_of[last] = row

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Index.search: O(n · dim)."""
        import numpy as np

        size = len(self._numbers)
        if size == 0 or k <= 0 or not is_finite(vector):
            return []
        cosines = self._rows[:size] @ np.asarray(vector, np.float32)
        # All that tie with the k-th are sorted too, so that equal cosines come in the order of their numbers.
        least = np.partition(cosines, size - k)[size - k] if k < size else -np.inf
        rows = np.flatnonzero(cosines >= least)
        found = sorted((-float(cosines[row]), self._numbers[row]) for row in rows)
        return [(number, -negated) for negated, number in found[:k]]

    def __contains__(self, number: int) -> bool:
        return number in self._row_of

    def numbers(self) -> list[int]:
        """Index.numbers."""
        return list(self._numbers)

    def vector(self, number: int) -> Vector:
        """Index.vector: a copy."""
        found: Vector = self._rows[self._row_of[number]].copy()
        return found

    def items(self) -> list[tuple[int, Vector]]:
        """Index.items: the vectors are copies."""
        return [(number, self._rows[row].copy()) for number, row in self._row_of.items()]


def check(number: int, vector: Vector, dim: int, taken: Container[int]) -> None:
    """Raises ValueError: a number that is taken or out of range, a vector that doesn't fit."""
    if number in taken or not 0 <= number < 2**63:
        raise ValueError(f"{number} is taken or out of range")
    if vector.shape != (dim,) or not is_finite(vector):
        raise ValueError(f"a vector of {dim} finite numbers is wanted, not shape {vector.shape}")


def is_finite(vector: Vector) -> bool:
    """Whether all numbers of a vector of length 1 are: by the sum of their squares, at a third of the cost of asking
    each. Of one that isn't of length 1 the sum may overflow, of which numpy warns."""
    import numpy as np

    return math.isfinite(vector.dot(vector)) or bool(np.isfinite(vector).all())
