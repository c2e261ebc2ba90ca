"""Topics out of embeddings, without keeping any: groups of the first vectors, and from then on which group is nearest.
Pure.

Rules of this file:
1. The vectors that groups are made of wait in memory only, and are let go when the groups stand.
2. What is kept are means of several vectors each; a group of fewer than `_LEAST` different ones is none, so that a text
   that comes again and again leaves no vector of its own.
3. The same vectors in the same order give the same groups: nothing is drawn.

Sources: Dhillon & Modha, Concept decompositions for large sparse text data using clustering (Machine Learning 42,
2001), spherical k-means; Gonzalez (Theoretical Computer Science 38, 1985), farthest-first beginnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Topics", "group"]

_ROUNDS = 12
_LEAST = 5
_ENOUGH = 20  # different vectors, before there are groups
_FAR_SHARE = 0.1  # of the vectors that groups were made of, that are near none of them


def group(vectors: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Unit centres of at most `most` groups of unit vectors [n, dim], the largest first. ValueError: too few."""
    import numpy as np

    if len(vectors) < _LEAST:
        raise ValueError("too few vectors for a group")
    centres = [_unit(vectors.sum(axis=0))]
    while len(centres) < most:
        nearest = (vectors @ np.stack(centres).T).max(axis=1)
        centres.append(vectors[int(nearest.argmin())])
    found = np.stack(centres)
    for _ in range(_ROUNDS):
        which = (vectors @ found.T).argmax(axis=1)
        counts = np.bincount(which, minlength=len(found))
        kept = [at for at in range(len(found)) if counts[at] >= _LEAST]
        found = np.stack([_unit(vectors[which == at].sum(axis=0)) for at in kept])
    counts = np.bincount((vectors @ found.T).argmax(axis=1), minlength=len(found))
    return found[np.argsort(-counts, kind="stable")]


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float((vector @ vector) ** 0.5), 1e-12)


class Topics:
    """`most`: groups. `wanted`: vectors that they are made of."""

    def __init__(self, most: int, wanted: int) -> None:
        self._most, self._wanted = most, max(wanted, _LEAST)
        self._waiting: dict[bytes, NDArray[np.float32]] = {}
        self._seen = 0
        self._centres: NDArray[np.float64] | None = None
        self._far = -1.0

    @property
    def ready(self) -> bool:
        """Whether the groups stand."""
        return self._centres is not None

    @property
    def waiting(self) -> int:
        """Vectors that have come while groups are still to be made."""
        return 0 if self.ready else self._seen

    def place(self, vector: NDArray[np.float32]) -> int | None:
        """The nearest group's number; `most` where all are far; None while they are still being found."""
        import numpy as np

        if self._centres is None:
            self._seen += 1
            if len(self._waiting) < self._wanted:
                self._waiting[vector.tobytes()] = vector
            if self._seen >= self._wanted and len(self._waiting) >= _ENOUGH:
                vectors = np.stack(list(self._waiting.values())).astype(np.float64)
                self._centres = group(vectors, self._most)
                self._far = float(np.quantile((vectors @ self._centres.T).max(axis=1), _FAR_SHARE))
                self._waiting = {}
            return None
        near = self._centres @ vector
        at = int(near.argmax())
        return at if float(near[at]) >= self._far else self._most

    def dump(self) -> dict[str, Any] | None:
        """The centres as JSON values; None while there are none."""
        if self._centres is None:
            return None
        return {"centres": [[round(x, 5) for x in centre] for centre in self._centres.tolist()], "far": self._far}

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what `dump` gave. Raises ValueError, KeyError, TypeError where it is damaged."""
        import numpy as np

        centres = np.array(dumped["centres"], dtype=np.float64)
        if centres.ndim != 2 or not 0 < len(centres) <= self._most or not np.isfinite(centres).all():
            raise ValueError("centres are damaged")
        self._centres, self._far, self._waiting = centres, float(dumped["far"]), {}
