"""The indexes that bench/index.py compares: the product's two, and the FAISS kinds that were not taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from farthing.cache.index import BruteIndex
from farthing.cache.index_growing import GrowingIndex

__all__ = ["CANDIDATES", "TRAIN_AT"]

TRAIN_AT = 10_000


class Faiss:
    """Any FAISS index behind add, search and remove; one that must be trained waits for `train_at` vectors, flat."""

    def __init__(self, dim: int, spec: str, train_at: int = 0, nprobe: int = 0) -> None:
        faiss.omp_set_num_threads(1)
        self._index: Any = faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)
        self._train_at = train_at
        self._nprobe = nprobe
        self._waiting: list[tuple[int, Any]] = []

    def add(self, number: int, vector: Any) -> None:
        """Add one; the one that completes the training set trains."""
        if self._train_at and not self._index.is_trained:
            self._waiting.append((number, vector))
            if len(self._waiting) < self._train_at:
                return
            self._index.train(np.stack([one for _, one in self._waiting]))
            faiss.extract_index_ivf(self._index).nprobe = self._nprobe
            for known, one in self._waiting:
                self._add(known, one)
            self._waiting.clear()
            return
        self._add(number, vector)

    def _add(self, number: int, vector: Any) -> None:
        self._index.add_with_ids(vector.reshape(1, -1), np.array([number], np.int64))

    def remove(self, number: int) -> None:
        """Remove one."""
        self._index.remove_ids(np.array([number], np.int64))

    def search(self, vector: Any, k: int) -> list[tuple[int, float]]:
        """The k nearest."""
        cosines, numbers = self._index.search(vector.reshape(1, -1), k)
        return [(int(n), float(c)) for c, n in zip(cosines[0], numbers[0], strict=True) if n >= 0]


class Lists(GrowingIndex):
    """The product's as it is beyond `GROW_AT`, which is as early here as others are trained."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, TRAIN_AT - 1)

    def add(self, number: int, vector: Any) -> None:
        """Add one; whatever is to be rebuilt is rebuilt at once."""
        super().add(number, vector)
        while self.tend():
            pass


CANDIDATES: dict[str, Callable[[int], Any]] = {
    "flat (numpy)": BruteIndex,
    "IVF-fp16 nprobe 32": Lists,
    "flat (FAISS)": lambda dim: Faiss(dim, "IDMap2,Flat"),
    "flat fp16 (FAISS)": lambda dim: Faiss(dim, "IDMap2,SQfp16"),
    "IVF-SQ8 nprobe 16": lambda dim: Faiss(dim, "IVF256,SQ8", TRAIN_AT, 16),
    "IVF-SQ8 nprobe 48": lambda dim: Faiss(dim, "IVF256,SQ8", TRAIN_AT, 48),
}
