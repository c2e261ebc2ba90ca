"""Does a confidence mean what it says? Of answers that were 90 % sure, are 90 % right? Bins, errors, intervals. Pure.

Fed by pairs of a confidence (of a near-duplicate's score, of an answer's token probabilities) and whether the answer
was wrong (an audit, a rating). Only sums by bin are kept.

Rules of this file:
1. Too few pairs say so: an interval is then wide, and nothing is called calibrated or not.
2. Intervals hold at one look. What is watched for ever is policies/shares.py.

Sources: Naeini, Cooper & Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning (AAAI 2015), for
the expected calibration error; Clopper & Pearson (Biometrika 26, 1934); Brier (Monthly Weather Review 78, 1950);
Hanley & McNeil (Radiology 143, 1982) for the area under the curve.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from farthing.policies.exact import lower, upper

__all__ = ["Bin", "Calibration", "Told"]

_BINS = 10
_ENOUGH = 30


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose confidence lies in [low, high): how many, their mean confidence, the share that was right, and where
    that share lies at the asked-for level."""

    low: float
    high: float
    n: int
    confidence: float
    right: float
    right_low: float
    right_high: float


@dataclass(frozen=True, slots=True)
class Told:
    """`ece`: the mean distance of confidence and share of right ones, over the pairs; between `ece_low` and `ece_high`
    all bins' intervals at once leave it. `auc`: how often a right answer's confidence is above a wrong one's, by bin,
    ties half; None unless there are both. `enough`: pairs to say anything."""

    n: int
    wrong: int
    ece: float
    ece_low: float
    ece_high: float
    brier: float
    auc: float | None
    enough: bool
    bins: tuple[Bin, ...]


@dataclass(slots=True)
class Calibration:
    """Sums by tenth of the confidence's range."""

    n: list[int] = field(default_factory=lambda: [0] * _BINS)
    wrong: list[float] = field(default_factory=lambda: [0.0] * _BINS)
    total: list[float] = field(default_factory=lambda: [0.0] * _BINS)
    squares: float = 0.0

    def add(self, confidence: float, wrong: float) -> None:
        """One pair. ValueError unless both lie in [0, 1]."""
        if not (0.0 <= confidence <= 1.0 and 0.0 <= wrong <= 1.0):
            raise ValueError(f"confidence and outcome lie in [0, 1]: {confidence!r}, {wrong!r}")
        at = min(_BINS - 1, int(confidence * _BINS))
        self.n[at] += 1
        self.wrong[at] += wrong
        self.total[at] += confidence
        self.squares += (confidence - (1.0 - wrong)) ** 2

    def told(self, level: float = 0.95) -> Told:
        """Everything, intervals at `level`: each bin's own, and those of the error from all bins at once."""
        n = sum(self.n)
        bins = tuple(self._bin(at, 1.0 - level) for at in range(_BINS) if self.n[at])
        together = [self._bin(at, (1.0 - level) / max(1, len(bins))) for at in range(_BINS) if self.n[at]]
        low = sum(one.n * _off(one.confidence, one.right_low, one.right_high) for one in together)
        high = sum(
            one.n * max(abs(one.confidence - one.right_low), abs(one.confidence - one.right_high)) for one in together
        )
        off = sum(one.n * abs(one.confidence - one.right) for one in bins)
        share = 1.0 / n if n else 0.0
        return Told(
            n,
            round(sum(self.wrong)),
            off * share,
            low * share,
            high * share if n else 1.0,
            self.squares * share,
            self._auc(),
            n >= _ENOUGH,
            bins,
        )

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return {"n": self.n, "wrong": self.wrong, "total": self.total, "squares": self.squares}

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Calibration:
        """What `dump` gave. Raises ValueError, KeyError, TypeError where it is damaged."""
        counts = [int(count) for count in dumped["n"]]
        wrong, total = ([float(value) for value in dumped[name]] for name in ("wrong", "total"))
        if not len(counts) == len(wrong) == len(total) == _BINS or min(*counts, *wrong, *total) < 0:
            raise ValueError("sums of other bins")
        return cls(counts, wrong, total, float(dumped["squares"]))

    def _bin(self, at: int, risk: float) -> Bin:
        n, right = self.n[at], self.n[at] - self.wrong[at]
        low, high = lower(right, n, risk / 2), upper(right, n, risk / 2)
        return Bin(at / _BINS, (at + 1) / _BINS, n, self.total[at] / n, right / n, low, high)

    def _auc(self) -> float | None:
        wrong, right = self.wrong, [n - bad for n, bad in zip(self.n, self.wrong, strict=True)]
        if not sum(wrong) or not sum(right):
            return None
        below = found = 0.0
        for bad, good in zip(wrong, right, strict=True):
            found += good * (below + bad / 2)
            below += bad
        return found / (sum(wrong) * sum(right))


def _off(value: float, low: float, high: float) -> float:
    """How far a value lies outside an interval."""
    return max(0.0, low - value, value - high)
