"""May this student serve now? What was seen of it on live requests decides, for as long as it serves. Pure.

A student begins in observe: it says what it would, the teacher answers, the two are compared. It serves once the share
of its answers that aren't the teacher's is proved to be at most its bound, however often one looked meanwhile
(policies/sequence.py). What was proved of a student stays true as long as requests and teacher stay as they were, so
while it serves a share of its answers is compared on, and it goes back to observe where these speak for a change: for
each bet that it is worse than its bound, the capital of the best moment to have begun betting (a CUSUM of e-values,
averaged over bets). Old good answers don't outweigh new bad ones.

Rules of this file:
1. Each turn at proving has half of the level of the one before, so that all of them err with probability `level`.
2. While the student is at its bound exactly, false alarms come every `alarm_every` comparisons on average or more
   rarely; while it is better, far more rarely.

Source: Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for sequential change detection" (New England
J. of Statistics in Data Science 2024, arXiv 2203.03532): e-CUSUM, average run length at least 1/alpha at a threshold
of 1/alpha.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from farthing.policies.sequence import NOTHING, OVER, Evidence, upper

__all__ = ["Standing", "Turned"]

_ALARM_EVERY = 2_000


@dataclass(frozen=True, slots=True)
class Turned:
    """The student begins to serve, or goes back to observe. `why`: with the evidence, for people."""

    serves: bool
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a student. `turn`: how often it fell back. `bets`: the capital of each bet that it is worse than
    its bound, since it began to serve. `whose`: the answers that its own are compared with, for `Turned.why`.

    A route that serves on its operator's word is judged by the same rule, and begins with `serves`."""

    bound: float
    level: float = 0.05
    alarm_every: int = _ALARM_EVERY
    serves: bool = False
    turn: int = 0
    evidence: Evidence = NOTHING
    bets: tuple[float, ...] = field(default=tuple(1.0 for _ in OVER.odds))
    whose: str = "the teacher's"

    @property
    def upper(self) -> float:
        """The share of answers that aren't the teacher's is at most that; 1: nothing is known."""
        return upper(self.evidence, self.level / 2 ** (self.turn + 1))

    @property
    def seen(self) -> str:
        """The evidence, for people."""
        return f"{self.evidence.bad:.0f} of {self.evidence.seen:.0f} answers were not {self.whose}"

    def learned(self, wrong: bool) -> tuple[Standing, Turned | None]:
        """One comparison more."""
        known = replace(self, evidence=self.evidence.add(float(wrong)))
        if not self.serves:
            if known.upper <= self.bound:
                said = f"{known.seen}: at most {known.upper:.2%}, the bound is {self.bound:.2%}"
                return replace(known, serves=True, bets=tuple(1.0 for _ in OVER.odds)), Turned(True, said)
            return known, None
        bets = tuple(self._bet(one, odds, wrong) for one, odds in zip(self.bets, OVER.odds, strict=True))
        if sum(share * one for share, one in zip(OVER.shares, bets, strict=True)) < self.alarm_every:
            return replace(known, bets=bets), None
        anew = Standing(self.bound, self.level, self.alarm_every, turn=self.turn + 1, whose=self.whose)
        why = f"its latest answers differ from {self.whose} more often than {self.bound:.2%}"
        return anew, Turned(False, f"{why}; in all {known.seen}")

    def _bet(self, capital: float, odds: float, wrong: bool) -> float:
        return max(capital, 1.0) * (odds if wrong else 1.0) / (1.0 + (odds - 1.0) * self.bound)

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "serves": self.serves, "turn": self.turn, "seen": self.evidence.seen, "bad": self.evidence.bad,
            "bets": list(self.bets),
        }  # fmt: skip

    def with_plain(self, plain: dict[str, Any]) -> Standing:
        """With what `plain` gave. Raises KeyError, TypeError, ValueError."""
        bets = tuple(float(one) for one in plain["bets"])
        if len(bets) != len(OVER.odds):
            raise ValueError("other bets")
        evidence = Evidence(float(plain["seen"]), float(plain["bad"]))
        return replace(self, serves=bool(plain["serves"]), turn=int(plain["turn"]), evidence=evidence, bets=bets)
