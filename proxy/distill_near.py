"""Which texts are nearly the same: by the embedder's cosine, all pairs, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from farthing.cache.embedder import Embedder

__all__ = ["near_pairs", "vectors_of"]

_BLOCK = 1024


def vectors_of(
    texts: Sequence[str], embedder: Embedder, tell: Callable[[int, int], None] = lambda done, total: None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """float32 [n, dim], and bool [n]: which texts fit the model's window; the others' rows are zero.

    Cost: some 5 ms of a core for each different text.
    """
    vectors = np.zeros((len(texts), embedder.dim), np.float32)
    fits = np.ones(len(texts), bool)
    first: dict[str, int] = {}
    for at, text in enumerate(texts):
        known = first.setdefault(text, at)
        if known != at:
            vectors[at], fits[at] = vectors[known], fits[known]
            continue
        try:
            vectors[at] = embedder.embed([text])[0]
        except ValueError:
            fits[at] = False
        tell(at + 1, len(texts))
    return vectors, fits


def near_pairs(vectors: NDArray[np.float32], cosine: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows at least that near. O(n^2) multiplications: seconds for 20,000 rows."""
    count = vectors.shape[0]
    for low in range(0, count, _BLOCK):
        for right in range(low, count, _BLOCK):
            alike = vectors[low : low + _BLOCK] @ vectors[right : right + _BLOCK].T >= cosine
            for i, j in zip(*np.nonzero(alike), strict=True):
                if low + i < right + j:
                    yield int(low + i), int(right + j)
