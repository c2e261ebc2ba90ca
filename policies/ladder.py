"""Which score is high enough? A ladder of thresholds, each with its own evidence, tested together. Pure.

Rules of this file:
1. The rungs and the shares of the level are fixed before the evidence that tests them is seen.
2. With probability 1 - level no rung is ever called proved whose rate is at or above the claim, however often asked.
3. A rung that was proved stops counting as proved once its evidence no longer speaks for it, and must be proved anew.

Sources: Angelopoulos et al., Learn then Test (arXiv 2110.01052), for thresholds as hypotheses; Wiens, A fixed sequence
Bonferroni procedure (Pharmaceutical Statistics 2, 2003), the fallback procedure; Bretz et al., A graphical approach to
sequentially rejective multiple test procedures (Statistics in Medicine 28, 2009), of which it is a case.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farthing.policies.sequence import NOTHING, Evidence, Test

__all__ = ["Book", "Ladder", "build", "promising"]

# Shares of the would-be hits that the rungs let through, judged by the pilot's scores. One is far stricter than seems
# needed: a cache that fills finds nearer neighbours, and more and more reach it.
_CUTS = (0.03, 0.1, 0.25, 0.5, 1.0)
_FIRST_GUESS = 0.6


@dataclass(frozen=True, slots=True)
class Ladder:
    """Thresholds from the strictest (highest) down, and the share of the level that each starts with (1 in all)."""

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False))
        if not self.thresholds or not falling or not all(map(math.isfinite, self.thresholds)):
            raise ValueError("thresholds fall, and there is one at least")
        if len(self.shares) != len(self.thresholds) or not math.isclose(sum(self.shares), 1.0, abs_tol=1e-9):
            raise ValueError("one share for every threshold, 1 in all")

    @property
    def guess(self) -> int:
        """The rung that got the largest share: the pilot's guess at the lowest safe one."""
        return max(range(len(self.shares)), key=self.shares.__getitem__)

    def passed(self, score: float) -> int:
        """The strictest rung that `score` reaches; the number of rungs where it reaches none."""
        return len(self.thresholds) - bisect_right(self.thresholds[::-1], score)


def build(pilot: Sequence[tuple[float, float]], claim: float) -> Ladder:
    """A ladder from a pilot: (score, outcome) pairs that will not be used as evidence. ValueError without any.

    Rungs at quantiles of the scores; most of the level on the lowest rung whose pilot outcomes are within the claim.
    """
    rungs = _rungs(pilot)
    good = [i for i, seen in enumerate(rungs.values()) if sum(seen) <= claim * len(seen)]
    guess = good[-1] if good else 0
    rest = (1.0 - _FIRST_GUESS) / (len(rungs) - 1) if len(rungs) > 1 else 0.0
    shares = tuple((1.0 - rest * (len(rungs) - 1)) if i == guess else rest for i in range(len(rungs)))
    return Ladder(tuple(rungs), shares)


def promising(pilot: Sequence[tuple[float, float]], claim: float, labels: int) -> bool:
    """Whether some rung of a ladder from this pilot has so many labels, and they are within the claim."""
    return any(len(seen) >= labels and sum(seen) <= claim * len(seen) for seen in _rungs(pilot).values())


def _rungs(pilot: Sequence[tuple[float, float]]) -> dict[float, list[float]]:
    """Thresholds at quantiles of the scores, the strictest first, and the outcomes that each lets through."""
    ranked = sorted(pilot, reverse=True)
    counts = sorted({max(1, math.ceil(cut * len(ranked))) for cut in _CUTS}) if ranked else []
    cuts = dict.fromkeys(ranked[count - 1][0] for count in counts)
    return {cut: [outcome for score, outcome in ranked if score >= cut] for cut in cuts}


class Book:
    """The evidence for every rung of one ladder. `per_request`: a score below a rung is a good outcome there."""

    def __init__(self, ladder: Ladder, test: Test, *, per_request: bool = False) -> None:
        self.ladder = ladder
        self.test = test
        self.per_request = per_request
        self.evidence: list[Evidence] = [NOTHING] * len(ladder.thresholds)
        # Per rung: the highest log e-value since the evidence last spoke against it, and the one now.
        self.best: list[float] = [0.0] * len(ladder.thresholds)
        self.now: list[float] = [0.0] * len(ladder.thresholds)

    def add(self, score: float, outcome: float, weight: float) -> None:
        """Learn one outcome. Rungs above the score learn nothing, or (per request) that nothing bad came of them."""
        for rung, threshold in enumerate(self.ladder.thresholds):
            if score >= threshold:
                self._put(rung, self.evidence[rung].add(outcome, weight))
            elif self.per_request:
                self._put(rung, self.evidence[rung].add(0.0, weight))

    def complained(self, score: float) -> None:
        """Learn of a bad answer that nobody sampled."""
        for rung, threshold in enumerate(self.ladder.thresholds):
            if score >= threshold:
                self._put(rung, self.evidence[rung].complained())

    def _put(self, rung: int, evidence: Evidence) -> None:
        value = self.test.log_e(evidence)
        self.evidence[rung] = evidence
        self.now[rung] = value
        self.best[rung] = value if value < 0 else max(self.best[rung], value)

    def proved(self, level: float) -> tuple[int, float] | None:
        """The lowest proved rung, and the level at which it was; None: none is.

        The fallback procedure: a rung that is proved hands its level on to the next lower one.
        """
        found, carried = None, 0.0
        for rung, share in enumerate(self.ladder.shares):
            own = (share + carried) * level
            carried = share + carried if own > 0 and self.best[rung] >= -math.log(own) else 0.0
            if carried:
                found = rung, own
        return found

    def dump(self) -> dict[str, Any]:
        """Everything but the ladder, as JSON values."""
        return {
            "claim": self.test.mean,
            "per_request": self.per_request,
            "evidence": [[one.seen, one.bad] for one in self.evidence],
            "best": list(self.best),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what `dump` gave. ValueError where it doesn't fit the ladder; then nothing is changed.

        What was proved of another claim is not proved of this one, but the evidence is as good as ever.
        """
        if dumped["per_request"] is not self.per_request:
            raise ValueError("evidence for another promise: per hit, or per request")
        evidence = [Evidence(float(seen), float(bad)) for seen, bad in dumped["evidence"]]
        best = [float(value) for value in dumped["best"]]
        if not len(evidence) == len(best) == len(self.evidence):
            raise ValueError("evidence for another ladder")
        if not all(0 <= one.seen < math.inf and 0 <= one.bad < math.inf for one in evidence):
            raise ValueError("evidence is out of range")
        if not all(math.isfinite(value) for value in best):
            raise ValueError("evidence is out of range")
        self.evidence = evidence
        self.now = [self.test.log_e(one) for one in evidence]
        self.best = best if dumped["claim"] == self.test.mean else list(self.now)
