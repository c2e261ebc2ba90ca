"""From which confidence on may a classifier answer, so that few of its answers aren't its teacher's? Learn, then test.
Pure; needs scipy.

A confidence is a threshold's worth: with a higher threshold less is answered, and better. Candidates and the order in
which they are tested come from one part of the data (validation), the tests from another (calibration) that nothing
was chosen on. A candidate passes where an exact binomial test rejects 'of what it lets answer at least `bound` is
wrong'. They are tested from the most promising one on towards answering more, and the first that fails ends it, so
that all tests together err with probability `level` at most (fixed-sequence testing).

What is promised: with probability 1 - level over the draw of the calibration part, the share of wrong answers among
all that the chosen threshold would answer is at most `bound`. What it assumes: calibration cases and later requests are
independent draws of one distribution, and the teacher goes on as it was. Neither can be proved beforehand, which is
why what is served is checked for ever (policies/student_standing.py).

Sources: Angelopoulos, Bates, Candes, Jordan & Lei, "Learn then Test" (Annals of Applied Statistics 2025, arXiv
2110.01052), sections 2 and 4; Bauer, "Multiple testing in clinical trials" (1991) for fixed sequences; Geifman &
El-Yaniv, "Selective classification for deep neural networks" (2017) for the risk of what is answered.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from farthing.policies.scipy_here import special

__all__ = ["Chosen", "Scored", "chosen", "least_cases", "outcome"]

_SHARES = 50  # candidates: the thresholds that let 2 %, 4 %, ... of the validation part answer


class Scored(NamedTuple):
    """Cases of one part. `confidence`: float [n]. `wrong`: bool [n], whether the classifier's answer isn't the
    teacher's."""

    confidence: NDArray[np.float64]
    wrong: NDArray[np.bool_]


class Chosen(NamedTuple):
    """A threshold, and what it did on some part. `upper`: Clopper and Pearson's one-sided bound on the share of wrong
    answers, at the level; 1 where nothing was answered."""

    threshold: float
    cases: int
    answered: int
    wrong: int
    upper: float

    @property
    def share(self) -> float:
        """Of the cases, how many were answered."""
        return self.answered / self.cases if self.cases else 0.0

    @property
    def rate(self) -> float:
        """Of what was answered, how much was wrong."""
        return self.wrong / self.answered if self.answered else math.nan


def chosen(validation: Scored, calibration: Scored, bound: float, level: float) -> Chosen | None:
    """The lowest threshold that passes, with what it did on the calibration part; None: none does, so nothing may be
    answered. ValueError: bound and level lie between 0 and 1."""
    if not (0.0 < bound < 1.0 and 0.0 < level < 1.0):
        raise ValueError("bound and level lie between 0 and 1")
    candidates = _candidates(validation)
    if not candidates:
        return None
    scale = calibration.confidence.size / validation.confidence.size
    promise = [_p_value(outcome(validation, one, level), bound, scale, pessimism=0.5) for one in candidates]
    begin = min(range(len(candidates)), key=lambda at: promise[at])
    found = None
    for threshold in candidates[begin:]:
        tried = outcome(calibration, threshold, level)
        if _p_value(tried, bound) > level:
            break
        found = tried
    return found


def outcome(part: Scored, threshold: float, level: float) -> Chosen:
    """What a threshold does on a part."""
    answered = part.confidence >= threshold
    count, wrong = int(answered.sum()), int(part.wrong[answered].sum())
    upper = 1.0 if wrong >= count else float(special().betaincinv(wrong + 1, count - wrong, 1 - level))
    return Chosen(float(threshold), int(part.confidence.size), count, wrong, upper)


def least_cases(bound: float, level: float) -> int:
    """How many answered cases without a single wrong one pass the test: with fewer nothing can."""
    return math.ceil(math.log(level) / math.log1p(-bound))


def _candidates(part: Scored) -> list[float]:
    """Thresholds from the highest to the lowest, none twice."""
    if not part.confidence.size:
        return []
    shares = 1 - np.arange(1, _SHARES + 1) / _SHARES
    return sorted({float(one) for one in np.quantile(part.confidence, shares)}, reverse=True)


def _p_value(tried: Chosen, bound: float, scale: float = 1.0, pessimism: float = 0.0) -> float:
    """Of 'at least `bound` of what is answered is wrong'. `scale`, `pessimism`: of a forecast for a part of another
    size, with that many wrong answers more than were seen."""
    count = tried.answered * scale
    wrong = (tried.wrong + pessimism) * scale
    of = max(1, round(count))
    return float(special().bdtr(min(math.floor(wrong), of), of, bound)) if count >= 1 else 1.0
