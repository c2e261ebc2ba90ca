"""Is the candidate worse than the active policy? Errors, slow answers, cost and bad ratings, as they come in. Pure.

Rules of this file:
1. Each metric is a race (race.py): a level of its own, valid at every look. All metrics in all steps of a roll-out
   share `level`, so that is the chance that a candidate which is no worse is ever sent back.
2. What is bad is fixed before it happens: 'slow' is above the 99th percentile of the active one's answers so far.
3. Where a unit (a user, a session) stays in its arm, its requests are no independent draws: of each, only the first
   failure, the first slow answer, the first bad rating and the first cost count in a step.
4. Nothing here reads a clock; outcomes come in the order in which they ended.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from farthing.policies.race import Race

__all__ = ["METRICS", "Bounds", "Guard", "Outcome", "Reading", "Verdict", "Word"]

METRICS = ("errors", "latency", "cost", "ratings")
_LATEST = 1000  # answers of the active one by which slow and dear are told
_FIRST = 200  # before that many, nothing is called slow or dear
_MOST_UNITS = 100_000  # remembered of each metric; later ones don't count
_DEAR = 2.0  # times the 99th percentile: a cost above counts as that much


class Word(StrEnum):
    """What the guard says."""

    GO = "go on"
    HOLD = "hold"
    BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is accepted of a candidate. Ratios: times the active one's, 1 or more. `*_points`: a smaller difference in
    shares, as it was seen, is never a reason."""

    level: float = 0.05
    error_ratio: float = 1.25
    error_points: float = 0.005
    latency_ratio: float = 1.25
    cost_ratio: float = 1.1
    rating_ratio: float = 1.25
    rating_points: float = 0.002


class Outcome(NamedTuple):
    """How one request ended. `unit`: who must not change sides; '' where each request is drawn by itself.
    `latency_ms` None: it wasn't completed. `cost`: in any unit of money; None: unknown, or somebody else paid."""

    candidate: bool
    failed: bool
    latency_ms: float | None
    cost: float | None
    unit: str = ""


class Reading(NamedTuple):
    """A metric as it was seen in this step. `evidence`: 1 is proof that the candidate is worse, 0 or less is none."""

    metric: str
    active: float | None
    candidate: float | None
    evidence: float


class Verdict(NamedTuple):
    """What the guard says, why, and on what."""

    word: Word
    reason: str
    readings: tuple[Reading, ...]


class Latest:
    """The 99th percentile of the latest values."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(self, value: float) -> None:
        """One more; the oldest goes."""
        self._order.append(value)
        insort(self._sorted, value)
        if len(self._order) > _LATEST:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    @property
    def p99(self) -> float | None:
        """The smallest value that 99 % don't exceed; None while there is none."""
        return self._sorted[math.ceil(0.99 * len(self._sorted)) - 1] if self._sorted else None

    @property
    def usual(self) -> float | None:
        """The same, None while there are too few to go by."""
        return self.p99 if len(self._sorted) >= _FIRST else None


@dataclass(slots=True)
class Arm:
    """What was seen of one arm in a step."""

    requests: int = 0
    failed: int = 0
    costed: int = 0
    cost: float = 0.0
    bad_ratings: int = 0
    latest_ms: Latest = field(default_factory=Latest)

    def told(self) -> dict[str, Any]:
        """As plain values, without the latest answers."""
        return {name: getattr(self, name) for name in ("requests", "failed", "costed", "cost", "bad_ratings")}


class Guard:
    """Watches one roll-out. `steps`: in which there are two arms."""

    def __init__(self, bounds: Bounds, steps: int) -> None:
        self._bounds = bounds
        self._goal = math.log(len(METRICS) * max(1, steps) / bounds.level)
        self._usual_ms, self._usual_cost = Latest(), Latest()
        self.begin(0.5)

    def begin(self, share: float) -> None:
        """A step begins; evidence starts anew. `share`: of units that are the candidate's."""
        bounds = self._bounds
        ratios = (bounds.error_ratio, bounds.latency_ratio, bounds.cost_ratio, bounds.rating_ratio)
        self._share = share
        # A slow answer's tolerance is in what counts as slow.
        self._races = {
            name: Race(share, 1.0 if name == "latency" else ratio) for name, ratio in zip(METRICS, ratios, strict=True)
        }
        self._counted: dict[str, set[str]] = {name: set() for name in METRICS}
        self.active, self.candidate = Arm(), Arm()

    def seen(self, outcome: Outcome) -> None:
        """A request has ended."""
        arm = self.candidate if outcome.candidate else self.active
        arm.requests += 1
        if outcome.failed:
            arm.failed += 1
            self._bad("errors", outcome, 1.0)
        if outcome.latency_ms is not None:
            self._took(arm, outcome, outcome.latency_ms)
        if outcome.cost is not None:
            arm.costed += 1
            arm.cost += outcome.cost
            usual = self._usual_cost.usual
            if usual:
                self._bad("cost", outcome, min(1.0, max(0.0, outcome.cost) / (_DEAR * usual)))
            if not outcome.candidate:
                self._usual_cost.add(outcome.cost)

    def rated_bad(self, *, candidate: bool, unit: str = "", badness: float = 1.0) -> None:
        """Somebody says that an answer was bad: a person, or a judge that looks at both arms alike."""
        (self.candidate if candidate else self.active).bad_ratings += 1
        self._bad("ratings", Outcome(candidate, False, None, None, unit), badness)

    def verdict(self) -> Verdict:
        """What is to be said now; asking changes nothing."""
        readings = self._readings()
        worst = max(readings, key=lambda one: one.evidence)
        if worst.evidence >= 1.0:
            return Verdict(Word.BACK, f"{_told(worst)}: worse than accepted, proved", readings)
        if worst.evidence >= 0.5:
            return Verdict(Word.HOLD, f"{_told(worst)}: perhaps worse than accepted", readings)
        return Verdict(Word.GO, "", readings)

    def _took(self, arm: Arm, outcome: Outcome, latency_ms: float) -> None:
        arm.latest_ms.add(latency_ms)
        usual = self._usual_ms.usual
        ratio = self._bounds.latency_ratio if outcome.candidate else 1.0
        if usual is not None and latency_ms > ratio * usual:
            self._bad("latency", outcome, 1.0)
        if not outcome.candidate:
            self._usual_ms.add(latency_ms)

    def _bad(self, metric: str, outcome: Outcome, badness: float) -> None:
        if outcome.unit:
            counted = self._counted[metric]
            if outcome.unit in counted or len(counted) >= _MOST_UNITS:
                return
            counted.add(outcome.unit)
        self._races[metric].add(candidate=outcome.candidate, badness=badness)

    def _readings(self) -> tuple[Reading, ...]:
        a, c, bounds = self.active, self.candidate, self._bounds
        rates = {
            "errors": (_share(a.failed, a.requests), _share(c.failed, c.requests)),
            "latency": (a.latest_ms.p99, c.latest_ms.p99),
            "cost": (_share(a.cost, a.costed), _share(c.cost, c.costed)),
            "ratings": (_share(a.bad_ratings, a.requests), _share(c.bad_ratings, c.requests)),
        }
        least = {"errors": bounds.error_points, "ratings": bounds.rating_points}
        found = []
        for name, (before, now) in rates.items():
            evidence = self._races[name].log_e / self._goal
            if name in least and (now or 0.0) - (before or 0.0) < least[name]:
                evidence = min(evidence, 0.0)
            found.append(Reading(name, before, now, evidence))
        return tuple(found)

    def dump(self) -> dict[str, Any]:
        """The evidence of this step as plain values. The latest answers are not in it: they are met again."""
        return {
            "share": self._share,
            "active": self.active.told(),
            "candidate": self.candidate.told(),
            "races": {name: race.logs for name, race in self._races.items()},
            "counted": {name: sorted(units) for name, units in self._counted.items()},
        }

    def load(self, held: Mapping[str, Any]) -> None:
        """Go on from a dump. ValueError, KeyError, TypeError: it is none."""
        self.begin(float(held["share"]))
        self.active, self.candidate = Arm(**held["active"]), Arm(**held["candidate"])
        for name, race in self._races.items():
            self._races[name] = Race(race.share, race.ratio, [float(log) for log in held["races"][name]])
            self._counted[name] = set(held["counted"][name])


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _told(reading: Reading) -> str:
    """The reading in words."""
    before, now = reading.active or 0.0, reading.candidate or 0.0
    if reading.metric == "latency":
        return f"p99 latency {now:.0f} ms against {before:.0f} ms"
    if reading.metric == "cost":
        return f"cost per request ${now:.6f} against ${before:.6f}"
    name = "errors" if reading.metric == "errors" else "bad ratings"
    return f"{name} {now:.2%} against {before:.2%} of requests"
