"""Have the topics changed? The distance between mean embeddings, and bets on it that may be asked for ever. Pure.

The maximum mean discrepancy with the inner product as its kernel: how far the mean of today's unit vectors is from the
reference's. Only sums are kept, which is all that the distance needs, and from which no single text can be read.

Rules of this file:
1. Vectors have length 1. The sums of vectors are float64.
2. The null hypothesis is 'the mean is within `slack` of the reference's', not 'nothing at all has changed': the slack
   is what the reference itself doesn't know (Hoeffding's bound in a Hilbert space) and the operator's tolerance.
3. The direction that is bet on is made of what came before, so that each bet is fair however it was chosen.

Sources: Gretton et al., A kernel two-sample test (JMLR 13, 2012), sections 2 and 6 (the unbiased estimate; linear
time); Shekhar & Ramdas, Nonparametric two-sample testing by betting (IEEE Trans. Inf. Theory 2023, arXiv 2112.09162),
the witness as a payoff; Pinelis, Optimum bounds for the distributions of martingales in Banach spaces (Ann. Probab.
22, 1994); policies/shares.py for bets in time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from farthing.policies.shares import Reference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Distance", "Mean", "distance", "slack"]

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


class Distance:
    """The watched distance. `tolerance`: one that is borne. First the reference is learnt, then every vector is bet on.

    `since_s`: when an alarm was raised, None while none stands. It stands until the reference is learnt anew.
    """

    def __init__(self, wanted: Reference, tolerance: float) -> None:
        self.wanted, self.tolerance = wanted, tolerance
        self.reference: Mean | None = None
        self.now: Mean | None = None  # None while the reference is learnt
        self.began_s = self.last_budget = self.limit = 0.0
        self.since_s: float | None = None
        self._levels = [0.0] * len(_PARTS)

    @property
    def ready(self) -> bool:
        """Whether the reference is complete."""
        return self.now is not None

    @property
    def level(self) -> float:
        """The evidence, in the budget's unit; an alarm is due when it reaches the patience."""
        return sum(self._levels) / len(self._levels)

    @property
    def value(self) -> float | None:
        """The distance of the present from the reference; None: too early to say."""
        if self.reference is None or self.now is None or self.now.n < _LEAST:
            return None
        return distance(self.reference, self.now)

    def add(self, vector: NDArray[np.float32], at_s: float, budget: float, patience: float) -> bool:
        """Take a unit vector; whether it raises a new alarm. `budget`, `patience`: as of policies/shares.py."""
        if self.reference is None:
            import numpy as np

            self.reference, self.began_s = Mean(np.zeros(len(vector))), at_s
        if self.now is None:
            self.reference.add(vector)
            if self.reference.n >= self.wanted.observations and at_s - self.began_s >= self.wanted.span_s:
                self._complete(budget)
            return False
        step, self.last_budget = max(0.0, budget - self.last_budget), max(budget, self.last_budget)
        self._levels = [(level + step) * gain for level, gain in zip(self._levels, self._gains(vector), strict=True)]
        self.now.add(vector, 1.0 - 1.0 / _RECENT)
        if self.level < patience:
            return False
        self._levels = [0.0] * len(_PARTS)
        fresh, self.since_s = self.since_s is None, at_s if self.since_s is None else self.since_s
        return fresh

    def dump(self) -> dict[str, Any] | None:
        """As JSON values; None while the reference is learnt: a sum of few would tell too much of each."""
        if self.reference is None or self.now is None:
            return None
        return {
            "reference": [self.reference.total.tolist(), self.reference.n],
            "now": [self.now.total.tolist(), self.now.n] if self.now.n >= _LEAST else None,
            "levels": self._levels,
            "since_s": self.since_s,
        }

    def load(self, dumped: dict[str, Any], budget: float) -> None:
        """Take over what `dump` gave, into a new one. Raises ValueError, KeyError, TypeError where it is damaged."""
        import numpy as np

        reference = Mean(np.array(dumped["reference"][0], dtype=np.float64), float(dumped["reference"][1]))
        levels = [float(level) for level in dumped["levels"]]
        if len(levels) != len(_PARTS) or reference.n < 1 or not np.isfinite(reference.total).all():
            raise ValueError("sums are damaged")
        self.reference, self._levels = reference, levels
        self._complete(budget)
        if dumped["now"] is not None:
            self.now = Mean(np.array(dumped["now"][0], dtype=np.float64), float(dumped["now"][1]))
        self.since_s = None if dumped["since_s"] is None else float(dumped["since_s"])

    def _complete(self, budget: float) -> None:
        import numpy as np

        assert self.reference is not None
        self.now = Mean(np.zeros_like(self.reference.total))
        self.limit, self.last_budget = slack(int(self.reference.n)) + self.tolerance, budget

    def _gains(self, vector: NDArray[np.float32]) -> list[float]:
        """What each bet makes of its capital."""
        reference, now = self.reference, self.now
        assert reference is not None and now is not None
        if now.n < _LEAST:
            return [1.0] * len(_PARTS)
        way = now.value - reference.value
        length = math.sqrt(float(way @ way))
        if length == 0.0:
            return [1.0] * len(_PARTS)
        expected = float(way @ reference.value) / length + self.limit
        # The payoff is at least -1, so a bet of 1 / (1 + expected) can lose everything and no more.
        won = (float(way @ vector) / length - expected) / (1.0 + max(expected, 0.0))
        return [max(0.0, 1.0 + part * won) for part in _PARTS]
