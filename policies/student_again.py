"""May a student that was trained anew stand beside the old one? Pure; needs scipy.

The new one must be *not worse* than the old one on requests that the new one never saw: in how often a request gets
an answer that isn't the teacher's, and in how often it gets one at all (estimate.not_worse, each at the level). The old
one may have learnt from some of these requests, which is in its favour: a doubt keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from farthing.policies.estimate import NonInferiority, not_worse
from farthing.policies.selective import Scored

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Beside", "beside"]

_FEWER = 0.05


class Beside(NamedTuple):
    """The new student beside the old one. `differs`: of requests that get the teacher's answer or none; `answers`: of
    requests that get one."""

    differs: NonInferiority
    answers: NonInferiority

    @property
    def passed(self) -> bool:
        """Whether it may go on."""
        return self.differs.word == self.answers.word == "not worse"

    @property
    def said(self) -> str:
        """Both, for people."""
        differs, answers = self.differs, self.answers
        return (
            f"on {differs.cases:,} requests that it never saw it is {differs.word} in differing from the teacher "
            f"({0.0 - differs.difference.value:+.2%} of requests, {differs.margin:.2%} may be lost), and "
            f"{answers.word} in answering ({answers.difference.value:+.2%}, {answers.margin:.2%})"
        )


def beside(
    new: Scored, new_threshold: float, old: Scored, old_threshold: float, bound: float, rng: np.random.Generator,
    level: float = 0.05,
) -> Beside:  # fmt: skip
    """Both students on the same requests. `bound`: the share of differing answers that is allowed, which is what may
    be lost of them; of answering, 5 % of requests may be."""
    ours, theirs = _answers(new, new_threshold), _answers(old, old_threshold)
    good = [1.0 - (answers & part.wrong) for answers, part in ((ours, new), (theirs, old))]
    return Beside(
        not_worse(good[0], good[1], bound, rng, level=level),
        not_worse(ours.astype(float), theirs.astype(float), _FEWER, rng, level=level),
    )


def _answers(part: Scored, threshold: float) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = part.confidence >= threshold
    return found
