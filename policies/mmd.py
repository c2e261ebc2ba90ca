"""Have the topics changed? The distance between mean embeddings, and bets on it that may be asked for ever. Pure.

The maximum mean discrepancy with the inner product as its kernel: how far the mean of today's unit vectors is from the
reference's. Only sums are kept, which is all that the distance needs, and from which no single text can be read.

Rules of this file:
1. Vectors have length 1. The sums of vectors are float64.
2. The null hypothesis is 'the mean is within `slack` of the reference's', not 'nothing at all has changed': the slack is
   what the reference itself doesn't know (Hoeffding's bound in a Hilbert space) and the operator's tolerance.
3. The direction that is bet on is made of what came before, so that each bet is fair however it was chosen.

Sources: Gretton et al., A kernel two-sample test (JMLR 13, 2012), sections 2 and 6 (the unbiased estimate; linear
time); Shekhar & Ramdas, Nonparametric two-sample testing by betting (IEEE Trans. Inf. Theory 2023, arXiv 2112.09162), the
witness as a payoff; Pinelis, Optimum bounds for the distributions of martingales in Banach spaces (Ann. Probab. 22, 1994);
policies/shares.py for bets in time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Mean", "Witness", "distance", "slack"]

_RISK = 1e-3
_PARTS = (0.1, 0.3, 0.6, 0.95)  # of the most that may be bet without risking to owe
_RECENT = 300.0
_LEAST = 30.0  # vectors, before there is a direction to bet on


class Mean:
    """A sum of unit vectors and how many there were."""

    def __init__(self, total: NDArray[np.float64], n: float = 0.0) -> None:
        self.total, self.n = total, n

    def add(self, vector: NDArray[np.float32], kept: float = 1.0) -> None:
        """One more; `kept`: the weight that those before it keep."""
        if kept < 1.0:
            self.total *= kept
        self.total += vector
        self.n = self.n * kept + 1.0

    @property
    def value(self) -> NDArray[np.float64]:
        """The mean. ZeroDivisionError: of nothing."""
        return self.total / self.n


def distance(one: Mean, other: Mean) -> float:
    """The estimated distance of two means; never negative. The squares' bias is taken out, as for an unbiased estimate.

    Each has two vectors at least. For a fading mean, whose weights differ, the correction is about right.
    """
    if one.n < 2 or other.n < 2:
        raise ValueError("two vectors at least")
    squares = [(float(mean.total @ mean.total) - mean.n) / (mean.n * (mean.n - 1)) for mean in (one, other)]
    return math.sqrt(max(0.0, sum(squares) - 2 * float(one.value @ other.value)))


def slack(n: int, risk: float = _RISK) -> float:
    """How far the mean of `n` unit vectors may be from the true one, but for a chance of `risk`, in any dimension."""
    return (1.0 + math.sqrt(2.0 * math.log(1.0 / risk))) / math.sqrt(n)


class Witness:
    """The bets. `reference`: complete. `tolerance`: a distance that is borne."""

    def __init__(self, reference: Mean, tolerance: float) -> None:
        import numpy as np

        self._centre = reference.value
        self.slack = slack(int(reference.n)) + tolerance
        self.now = Mean(np.zeros_like(self._centre))
        self.levels = np.zeros(len(_PARTS))
        self._parts = np.array(_PARTS)

    def add(self, vector: NDArray[np.float32], step: float) -> float:
        """Take one unit vector; the level of the evidence, whose mean stays within the sum of `step` while the null
        hypothesis holds."""
        import numpy as np

        gain = np.ones(len(_PARTS))
        if self.now.n >= _LEAST:
            way = self.now.value - self._centre
            length = float(np.linalg.norm(way))
            if length > 0.0:
                way /= length
                expected = float(way @ self._centre) + self.slack
                # The payoff is at least -1, so a bet of 1 / (1 + expected) can lose everything and no more.
                gain += self._parts * (float(way @ vector) - expected) / (1.0 + max(expected, 0.0))
        self.levels = (self.levels + step) * np.maximum(gain, 0.0)
        self.now.add(vector, 1.0 - 1.0 / _RECENT)
        return float(self.levels.mean())

    def restart(self) -> None:
        """Begin to bet anew."""
        self.levels[:] = 0.0

    def dump(self) -> dict[str, Any]:
        """As JSON values, the reference left out."""
        return {"total": self.now.total.tolist(), "n": self.now.n, "levels": self.levels.tolist()}
