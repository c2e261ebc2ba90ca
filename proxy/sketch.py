"""Percentiles that can be added up: counts of values in log-spaced bins, within 2 % of the exact percentile.

A bin's borders are GAMMA apart, and its values are told as the one that is at most 2 % from both borders. Everything up
to a microsecond is one bin and told as zero. Source: Masson, Rim and Lee, "DDSketch" (PVLDB 12, 2019), section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from farthing.proxy.figures_values import Key, Percentiles

__all__ = [
    "BINS",
    "ERROR",
    "LONGEST_BYTES",
    "PACKED_BYTES",
    "Tally",
    "bins_of",
    "compacted",
    "pack",
    "percentiles",
    "unpack",
]

ERROR = 0.02
GAMMA = (1 + ERROR) / (1 - ERROR)
LEAST_MS = 0.001
BINS = 1024  # up to 4e14 ms
PACKED_BYTES = 8  # of a bin and its count
LONGEST_BYTES = 512 * PACKED_BYTES
"""Of a line, until it is compacted."""

Counts = NDArray[np.int64]


def bins_of(values_ms: NDArray[np.float64]) -> Counts:
    """The bin of each value; a value that is no time (negative, infinite) is in the first or the last."""
    within = np.clip(np.nan_to_num(values_ms, nan=0.0), LEAST_MS, 1e14)
    return np.ceil(np.log(within / LEAST_MS) / math.log(GAMMA)).astype(np.int64).clip(0, BINS - 1)


def pack(bins: Counts, counts: Counts) -> bytes:
    """Bins and their counts as bytes: pairs of 32 bits, little-endian."""
    return np.stack([bins, counts], axis=1).astype("<u4").tobytes()


def unpack(packed: Iterable[bytes]) -> Counts:
    """The counts of all BINS bins, summed over what is packed. Raises ValueError for what isn't."""
    pairs = np.frombuffer(b"".join(packed), dtype="<u4").reshape(-1, 2)
    if pairs.size and pairs[:, 0].max() >= BINS:
        raise ValueError("no histogram")
    # Counts are below 2**32 each, so that doubles hold their sums exactly.
    return np.bincount(pairs[:, 0], weights=pairs[:, 1], minlength=BINS).astype(np.int64)


def compacted(packed: bytes) -> bytes:
    """The same with each bin once. What is packed is added up by appending it, and so gets longer."""
    counts = unpack((packed,))
    bins = np.flatnonzero(counts)
    return pack(bins, counts[bins])


def percentiles(counts: Counts) -> Percentiles:
    """Nearest-rank percentiles of what was counted."""
    n = int(counts.sum())
    if not n:
        return Percentiles()
    ranks = [math.ceil(n * percent / 100) for percent in (50, 95, 99)]
    p50, p95, p99 = (_told(int(at)) for at in np.searchsorted(np.cumsum(counts), ranks))
    return Percentiles(n, p50, p95, p99, approximate=True)


def _told(at: int) -> float:
    """The value that stands for a bin, in milliseconds."""
    return float(2 * LEAST_MS * GAMMA**at / (GAMMA + 1)) if at else 0.0


class Tally:
    """Counts for many groups and times at once, of the `wanted` groups alone."""

    def __init__(self, wanted: Iterable[Key]) -> None:
        self._values: dict[tuple[Key, str], list[float]] = {}
        self._packed: dict[tuple[Key, str, int], list[bytes]] = {}
        self._wanted = {*wanted}

    def add_values(self, name: str, values: Iterable[tuple[Key, float]]) -> None:
        """Count values of a time."""
        for key, value in values:
            if key in self._wanted:
                self._values.setdefault((key, name), []).append(value)

    def add_packed(self, name: str, key: Key, packed: bytes, *, sign: int = 1) -> None:
        """Count what is packed, or take it away where `sign` is -1."""
        if key in self._wanted:
            self._packed.setdefault((key, name, sign), []).append(packed)

    def counts(self) -> dict[tuple[Key, str], Counts]:
        """By group and time."""
        found: dict[tuple[Key, str], Counts] = {}
        for place, values in self._values.items():
            found[place] = np.bincount(bins_of(np.array(values, dtype=np.float64)), minlength=BINS)
        for (key, name, sign), packed in self._packed.items():
            found[key, name] = found.get((key, name), np.zeros(BINS, dtype=np.int64)) + sign * unpack(packed)
        return found
