"""A graph index for large scopes: FAISS's HNSW over half-precision vectors, with tombstones.

Rules of this file:
1. It is approximate: it may miss a neighbour (a lost hit), and its cosines are right to 0.001. It never invents one.
2. A removed vector stays in the graph as a tombstone, which a search steps over; `dead` says how many there are, and
   whoever owns the index builds a new one when they are too many.
Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs" (2016).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from farthing.cache.index import check

if TYPE_CHECKING:
    from farthing.cache.index import Vector

__all__ = ["HnswIndex"]

# Chosen by bench/index.py (docs/semantic-cache.md): recall@1 against search and add at 100,000 entries.
LINKS = 32
EF_BUILD = 200
EF_SEARCH = 128
_SPARE = 8
_MOST_FETCHED = 1024
_TOMBSTONE = -1


class HnswIndex:
    """See the module. Memory: 2 bytes a dimension and about 8 a link and entry. Add and search: O(log n), in effect."""

    # How many vectors move into it in one slice of a rebuild: some 2 ms at 100,000 entries.
    slice = 3

    def __init__(self, dim: int) -> None:
        import faiss

        # FAISS would start a thread for each core for one query; here one thread is all that a look-up may take.
        faiss.omp_set_num_threads(1)
        make: Any = faiss.IndexHNSWSQ
        self._dim = dim
        self._graph: Any = make(dim, faiss.ScalarQuantizer.QT_fp16, LINKS, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = EF_BUILD
        self._graph.hnsw.efSearch = EF_SEARCH
        self._numbers = array("q")  # by row
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, number: int) -> bool:
        return number in self._row_of

    @property
    def dead(self) -> int:
        """How many tombstones it holds."""
        return len(self._numbers) - len(self._row_of)

    def numbers(self) -> list[int]:
        """Index.numbers."""
        return list(self._row_of)

    def add(self, number: int, vector: Vector) -> None:
        """Index.add."""
        import numpy as np

        check(number, vector, self._dim, self._row_of)
        self._graph.add(np.ascontiguousarray(vector, np.float32).reshape(1, self._dim))
        self._row_of[number] = len(self._numbers)
        self._numbers.append(number)

    def remove(self, *numbers: int) -> None:
        """Index.remove: O(1) each."""
        for number in numbers:
            row = self._row_of.pop(number, None)
            if row is not None:
                self._numbers[row] = _TOMBSTONE

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Index.search, approximate. Where tombstones crowd round the query it looks further, to a bound."""
        import numpy as np

        if not self._row_of or k <= 0 or not np.isfinite(vector).all():
            return []
        query = np.ascontiguousarray(vector, np.float32).reshape(1, self._dim)
        wanted, total = min(k, len(self._row_of)), len(self._numbers)
        fetched = min(wanted + (_SPARE if self.dead else 0), total)
        while True:
            cosines, rows = self._graph.search(query, fetched)
            found = [
                (-float(cosine), number)
                for cosine, row in zip(cosines[0], rows[0], strict=True)
                if row >= 0 and (number := self._numbers[row]) != _TOMBSTONE
            ]
            if len(found) >= wanted or fetched >= min(total, _MOST_FETCHED):
                return [(number, -negated) for negated, number in sorted(found)[:k]]
            fetched = min(4 * fetched, total, _MOST_FETCHED)

    def vector(self, number: int) -> Vector:
        """Index.vector, as rounded to half precision."""
        found: Vector = self._graph.reconstruct(self._row_of[number])
        return found

    def items(self) -> list[tuple[int, Vector]]:
        """Index.items."""
        return [(number, self.vector(number)) for number in self._row_of]
