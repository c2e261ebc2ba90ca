"""An index for large scopes: FAISS's inverted lists over half-precision vectors, round centres that are trained here.

Rules of this file:
1. It is approximate: it may miss a neighbour that lies in a list it doesn't look into (a lost hit), and its cosines are
   right to 0.001. It never invents one.
2. It removes in place, and adds at any time; only its centres are those of what it was trained on. `worn` says that as
   much has come since as there was, and whoever owns the index trains a new one then.
Sources: Sivic and Zisserman, "Video Google" (2003), inverted lists of nearest centres; Dhillon and Modha, "Concept
decompositions for large sparse text data using clustering" (2001), k-means on the sphere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from farthing.cache.index import BruteIndex, check, is_finite

if TYPE_CHECKING:
    from farthing.cache.index import Vector

__all__ = ["IvfIndex", "Training"]

# Chosen by bench.index_training (docs/semantic-cache.md).
LISTS_PER_ROOT = 2  # lists: so many times the square root of the entries
SAMPLED_PER_LIST = 16
PASSES = 2
NPROBE = 32  # lists that a search looks into
_READ_AT_ONCE = 200
_MACS_AT_ONCE = 10_000_000  # some 1 ms
_FEWEST_AT_ONCE = 20  # from there on FAISS multiplies matrices, in half the time


class Training:
    """An IvfIndex for what an index holds, in steps of about 1 ms: a sample is read, and moved to its means in passes.

    `numbers`: of its entries. One that is gone when it would be read is passed over.
    """

    def __init__(self, numbers: Sequence[int], lists_per_root: int = LISTS_PER_ROOT, passes: int = PASSES) -> None:
        self._size, self._passes = len(numbers), passes
        self._lists = max(1, min(lists_per_root * math.isqrt(self._size), self._size))
        sampled = min(self._size, SAMPLED_PER_LIST * self._lists)
        # Evenly over all, so that no time of day or topic is left out.
        self._unread = [numbers[at * self._size // sampled] for at in range(sampled)]
        self._sample: Any = None
        self._sampled, self._read = sampled, 0  # rows that it shall have, and that are filled
        self._centres: Any = None
        self._near: Any = None  # finds the nearest of them
        self._sums: Any = None
        self._at = self._passed = 0

    @property
    def stale(self) -> bool:
        """Whether so much of the sample has gone while it was read that it says little: begin anew."""
        return not self._unread and 2 * self._read < self._sampled

    def step(self, held: BruteIndex | IvfIndex) -> IvfIndex | None:
        """Do a little more; the index, empty, once its centres are done. Not for one that is stale."""
        if self._unread:
            self._read_some(held)
        elif self._centres is None:
            self._begin()
        elif self._passed < self._passes:
            self._assign()
        else:
            return IvfIndex(self._centres, self._size)
        return None

    def _read_some(self, held: BruteIndex | IvfIndex) -> None:
        import numpy as np

        for number in self._unread[-_READ_AT_ONCE:]:
            if number in held:
                vector = held.vector(number)
                if self._sample is None:
                    self._sample = np.empty((len(self._unread), len(vector)), np.float32)
                self._sample[self._read] = vector
                self._read += 1
        del self._unread[-_READ_AT_ONCE:]

    def _begin(self) -> None:
        import numpy as np

        self._sample = self._sample[: self._read]
        lists = min(self._lists, self._read)
        self._centres = self._sample[np.arange(lists) * self._read // lists]
        self._sums = np.zeros_like(self._centres)
        self._near = nearest_of(self._centres)

    def _assign(self) -> None:
        import numpy as np

        block = self._sample[self._at : self._at + max(1, _MACS_AT_ONCE // self._centres.size)]
        _, nearest = self._near.search(block, 1)
        np.add.at(self._sums, nearest[:, 0], block)
        self._at += len(block)
        if self._at < len(self._sample):
            return
        lengths = np.linalg.norm(self._sums, axis=1, keepdims=True)
        # A centre that none is nearest to stays where it is.
        self._centres = np.where(lengths > 0, self._sums / np.where(lengths > 0, lengths, 1), self._centres)
        self._near = nearest_of(self._centres)
        self._sums[:] = 0
        self._at, self._passed = 0, self._passed + 1


def nearest_of(centres: Vector) -> Any:
    """FAISS's index that finds the nearest of these exactly, on one thread, which is all that a look-up may take: FAISS
    would start one for each core for one query, and numpy's products do."""
    import faiss

    faiss.omp_set_num_threads(1)
    found: Any = faiss.IndexFlatIP(centres.shape[1])
    found.add(centres)
    return found


class IvfIndex:
    """See the module. `centres`: float32 [lists, dim]. `size`: of the index that they were trained for.

    Memory: 2 bytes a dimension and some 100 an entry. Add: O(lists); remove: O(1); search: O(lists), and NPROBE lists.
    """

    def __init__(self, centres: Vector, size: int, nprobe: int = NPROBE) -> None:
        import faiss

        make: Any = faiss.IndexIVFScalarQuantizer
        self._lists: int = centres.shape[0]
        self._dim: int = centres.shape[1]
        quantizer = nearest_of(centres)
        fp16, by_residual = faiss.ScalarQuantizer.QT_fp16, False
        self._ivf: Any = make(quantizer, self._dim, self._lists, fp16, faiss.METRIC_INNER_PRODUCT, by_residual)
        self._ivf.is_trained = True  # half precision has nothing to learn, and the centres are given
        self._ivf.nprobe = nprobe
        by_number: Any = faiss
        self._ivf.set_direct_map_type(by_number.DirectMap.Hashtable)
        self._held: set[int] = set()
        self._worn_at = 2 * size
        self._added = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, number: int) -> bool:
        return number in self._held

    @property
    def worn(self) -> bool:
        """Whether as many have come since the training as were there."""
        return self._added > self._worn_at

    @property
    def slice(self) -> int:
        """How many vectors move into it in one slice of a rebuild: some 1 ms."""
        return min(max(_FEWEST_AT_ONCE, _MACS_AT_ONCE // (self._lists * self._dim)), _READ_AT_ONCE)

    def numbers(self) -> list[int]:
        """Index.numbers."""
        return list(self._held)

    def add(self, number: int, vector: Vector) -> None:
        """Index.add."""
        check(number, vector, self._dim, self._held)
        self.extend([(number, vector)])

    def extend(self, items: Sequence[tuple[int, Vector]]) -> None:
        """Keep these of another index, which has checked them; their numbers are new here."""
        import numpy as np

        if items:
            numbers, vectors = zip(*items, strict=True)
            self._ivf.add_with_ids(np.asarray(vectors, np.float32), np.asarray(numbers, np.int64))
            self._held.update(numbers)
            self._added += len(numbers)

    def remove(self, *numbers: int) -> None:
        """Index.remove: O(1) each."""
        import numpy as np

        gone = [number for number in set(numbers) if number in self._held]
        if gone:
            self._ivf.remove_ids(np.asarray(gone, np.int64))
            self._held.difference_update(gone)

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Index.search, approximate."""
        import numpy as np

        if not self._held or k <= 0 or not is_finite(vector):
            return []
        query = np.ascontiguousarray(vector, np.float32).reshape(1, self._dim)
        cosines, numbers = self._ivf.search(query, min(k, len(self._held)))
        found = zip((-cosines[0]).tolist(), numbers[0].tolist(), strict=True)
        return [(number, -negated) for negated, number in sorted(found) if number >= 0]

    def vector(self, number: int) -> Vector:
        """Index.vector, as rounded to half precision."""
        if number not in self._held:
            raise KeyError(number)
        found: Vector = self._ivf.reconstruct(number)
        return found

    def items(self) -> list[tuple[int, Vector]]:
        """Index.items."""
        return [(number, self.vector(number)) for number in self._held]
