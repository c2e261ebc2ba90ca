"""Has the mix of something changed: lengths, languages, hits and misses? One series of bins, watched for ever. Pure.

First a reference is learnt: how often each bin came. Then every observation is bet on against it. A bet is on a set of
bins ('1,024 tokens or more', 'a refusal') coming more often than a limit allows, and the limit is generous: the highest
share that the reference still permits, its odds raised by the tolerance. So an alarm says: this set has come more often
than the reference and the tolerance together can explain. Shares sum to 1, so where one falls another rises, and bets
on rises see everything.

Rules of this file:
1. Whatever the time from one observation to the next, whatever the order, and however dependent the observations are:
   as long as each set's chance, given all that came before, is within its limit, the expected number of false alarms in
   any span of the budget is at most (what of the budget went by in that span) / patience. See docs/watching.md.
2. A reference is a count, the present is a fading count. No single observation is kept.
3. An alarm stands until the present is back within the limits or the reference is learnt anew.

Sources: Shin, Ramdas & Rinaldo, E-detectors (arXiv 2203.03532), Shiryaev-Roberts form, here with increments of time in
place of ones; Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting (JRSS B 2024); Clopper &
Pearson (Biometrika 26, 1934) for what a reference permits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from farthing.policies.exact import upper
from farthing.policies.psi import noise, psi

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Kind", "Moved", "Reference", "Shares", "height", "limit_of"]

# Odds of a set's share, as multiples of its limit's odds, that are bet on; equal parts of the capital on each.
_ODDS = (1.2, 1.6, 3.0, 8.0)
# The chance that some limit of a series lies below its true share, before any tolerance.
_RISK = 1e-3
_RECENT = 250.0  # observations that the present is made of, about
_MOST_WEIGHT = 1e9
_CALM = 1_000  # observations without a new alarm, before one may be over
_LEAST_SHARE = 0.02  # of the reference, on both sides of an edge that is bet on


class Kind:
    """How bins hang together: `ORDERED` from low to high, or `NAMED` in no order."""

    ORDERED = "ordered"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Reference:
    """When a series knows enough: so many observations, over so long."""

    observations: int = 2_000
    span_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Moved:
    """What an alarm found. `first`, `last`: the set's first and last bin. Shares: in the reference, the limit, now."""

    first: int
    last: int
    was: float
    limit: float
    now: float
    psi: float
    reference: int


def limit_of(count: int, n: int, risk: float, tolerance: float) -> float:
    """The share that a set may have: the highest that `count` of `n` still permits, its odds times `tolerance`.

    The first part is Clopper and Pearson's upper limit at `risk`, one-sided. 0 < risk < 1, tolerance >= 1.
    """
    if count >= n:
        return 1.0
    most = upper(count, n, risk)
    odds = tolerance * most / (1.0 - most)
    return odds / (1.0 + odds)


def height(level: float) -> float:
    """Evidence as a share of what raises an alarm, on a scale of logarithms: 0 twelve decades below, 1 at the alarm."""
    return min(1.0, max(0.0, 1.0 + math.log10(level) / 12)) if level > 0 else 0.0


class Shares:
    """See the module. `bins`: how many, two at least. `tolerance`: how much any set's odds may grow, 1 or more.

    `moved`: what the last alarm found, None while none stands; `since_s`: when it was raised. `seen`: observations
    since the reference was complete. Memory: some 200 bytes a bin.
    """

    def __init__(self, bins: int, kind: str, reference: Reference, tolerance: float) -> None:
        if bins < 2 or tolerance < 1.0:
            raise ValueError("two bins at least, and a tolerance of 1 or more")
        self.bins, self.kind, self.wanted, self.tolerance = bins, kind, reference, tolerance
        self.reference: list[int] = [0] * bins
        self.began_s: float | None = None
        self.complete_s: float | None = None
        self._now: list[float] = [0.0] * bins
        self._weight = 1.0
        self.moved: Moved | None = None
        self.since_s: float | None = None
        self.seen = self.calm = 0
        self.last_budget = 0.0
        self._sets: list[tuple[int, int]] = []
        self._limits: list[float] = []
        self._gains: NDArray[np.float64] | None = None
        self._levels: NDArray[np.float64] | None = None

    @property
    def ready(self) -> bool:
        """Whether the reference is complete."""
        return self.complete_s is not None

    @property
    def n(self) -> int:
        """Observations in the reference."""
        return sum(self.reference)

    @property
    def now(self) -> list[float]:
        """The present: counts that fade, some 250 in all once so many have come."""
        return [count / self._weight for count in self._now]

    def add(self, place: int, at_s: float, budget: float, patience: float) -> Moved | None:
        """Take an observation's bin; what has moved where that raises a new alarm, else None.

        `budget`: what of the false-alarm budget has gone by in all, never falling; `patience`: what of it may go by, on
        the average, between false alarms, in the same unit (years, say). IndexError: no such bin.
        """
        if self.complete_s is None:
            self._learn(place, at_s, budget)
            return None
        assert self._levels is not None and self._gains is not None
        self.seen += 1
        self.calm += 1
        self._fade(place)
        step = max(0.0, budget - self.last_budget)
        self.last_budget = max(budget, self.last_budget)
        self._levels += step
        self._levels *= self._gains[place]
        height = float(self._levels.mean())
        if height < patience:
            if self.moved is not None and self.calm >= _CALM and self._within():
                self.moved = self.since_s = None
            return None
        fresh = self.moved is None
        self.moved, self.calm = self._found(), 0
        self._levels[:] = 0.0
        if not fresh:
            return None
        self.since_s = at_s
        return self.moved

    def height(self, patience: float) -> float:
        """How far the evidence has come towards an alarm, on a scale of logarithms from 0 to 1. 1 while one stands."""
        if self.moved is not None:
            return 1.0
        if self._levels is None or patience <= 0:
            return 0.0
        return height(float(self._levels.mean()) / patience)

    def psi(self) -> tuple[float, float] | None:
        """The index of the present against the reference, and what chance alone would make of it; None: too early."""
        now = self.now
        n = sum(now)
        if not self.ready or n < 1:
            return None
        bins = sum(1 for one, other in zip(self.reference, now, strict=True) if one or other)
        return psi(self.reference, now), noise(self.n, n, bins)

    def dump(self) -> dict[str, Any]:
        """As JSON values: counts, and how far the evidence is."""
        return {
            "reference": self.reference,
            "began_s": self.began_s,
            "complete_s": self.complete_s,
            "now": [round(count, 3) for count in self.now],
            "moved": None if self.moved is None else [getattr(self.moved, name) for name in Moved.__slots__],
            "since_s": self.since_s,
            "seen": self.seen,
            "calm": self.calm,
            "levels": None if self._levels is None else self._levels.ravel().tolist(),
        }

    def load(self, dumped: dict[str, Any], budget: float) -> None:
        """Take over what `dump` gave, into a new series. Raises ValueError, KeyError, TypeError where it doesn't fit.

        `budget`: where the budget stands now. What went by meanwhile is nobody's.
        """
        reference, now = [int(count) for count in dumped["reference"]], [float(count) for count in dumped["now"]]
        if not len(reference) == len(now) == self.bins or min(*reference, *now) < 0:
            raise ValueError("counts of other bins")
        self.reference, self._now, self.began_s = reference, now, _optional(dumped["began_s"])
        if dumped["complete_s"] is None:
            return
        self._fit(float(dumped["complete_s"]), budget)
        assert self._levels is not None
        levels = _array(dumped["levels"])
        if levels.size == self._levels.size and (levels >= 0).all():  # else they were of other limits
            self._levels[:] = levels.reshape(self._levels.shape)
        self.moved = None if dumped["moved"] is None else Moved(*dumped["moved"])
        self.since_s, self.seen, self.calm = _optional(dumped["since_s"]), int(dumped["seen"]), int(dumped["calm"])

    # -- inside

    def _learn(self, place: int, at_s: float, budget: float) -> None:
        self.reference[place] += 1
        if self.began_s is None:
            self.began_s = at_s
        if self.n >= self.wanted.observations and at_s - self.began_s >= self.wanted.span_s:
            self._fit(at_s, budget)

    def _fit(self, at_s: float, budget: float) -> None:
        """The limits, and what each bin wins or loses for each bet."""
        import numpy as np

        n = self.n
        possible = list(_sets(self.bins, self.kind))
        counts = {one: sum(self.reference[one[0] : one[1] + 1]) for one in possible}
        chosen = self._worth(counts, n)
        risk = _RISK / len(possible)  # of all, since the reference itself has chosen among them
        limits = {one: limit_of(counts[one], n, risk, self.tolerance) for one in chosen}
        self._sets = [one for one in chosen if limits[one] < 1.0]
        self._limits = [limits[one] for one in self._sets]
        gains = np.empty((self.bins, max(1, len(self._sets)), len(_ODDS)))
        gains[:] = 1.0
        for at, ((first, last), limit) in enumerate(zip(self._sets, self._limits, strict=True)):
            for which, odds in enumerate(_ODDS):
                whole = 1.0 + (odds - 1.0) * limit
                gains[:, at, which] = 1.0 / whole
                gains[first : last + 1, at, which] = odds / whole
        self._gains = gains
        self._levels = np.zeros(gains.shape[1:])
        self.complete_s, self.last_budget = at_s, budget

    def _worth(self, counts: dict[tuple[int, int], int], n: int) -> list[tuple[int, int]]:
        """Named bins are all bet on, the ones that never came too; of edges those that divide the reference, and what
        lies just outside of it on either side: values that are all alike are divided by none."""
        if self.kind == Kind.NAMED:
            return list(counts)
        rare = [one for one, count in counts.items() if count / n < _LEAST_SHARE]
        above = min((one for one in rare if one[0]), default=None)
        below = max((one for one in rare if not one[0]), default=None)
        divide = [one for one, count in counts.items() if _LEAST_SHARE <= count / n <= 1.0 - _LEAST_SHARE]
        return divide + [one for one in (below, above) if one is not None]

    def _fade(self, place: int) -> None:
        """Count it. Instead of all counts that fade, the weight of new ones grows."""
        self._weight /= 1.0 - 1.0 / _RECENT
        self._now[place] += self._weight
        if self._weight > _MOST_WEIGHT:
            self._now, self._weight = self.now, 1.0

    def _within(self) -> bool:
        now = self.now
        n = sum(now)
        pairs = zip(self._sets, self._limits, strict=True)
        return all(sum(now[first : last + 1]) <= limit * n for (first, last), limit in pairs)

    def _found(self) -> Moved:
        assert self._levels is not None
        at = int(self._levels.sum(axis=1).argmax())
        first, last = self._sets[at]
        index, now = self.psi(), self.now
        return Moved(
            first,
            last,
            sum(self.reference[first : last + 1]) / self.n,
            self._limits[at],
            sum(now[first : last + 1]) / sum(now),
            index[0] if index is not None else 0.0,
            self.n,
        )


def _sets(bins: int, kind: str) -> Iterator[tuple[int, int]]:
    """What may be bet on: each named bin; each edge's upper and lower side."""
    if kind == Kind.NAMED:
        yield from ((at, at) for at in range(bins))
        return
    for edge in range(1, bins):
        yield edge, bins - 1
        yield 0, edge - 1


def _array(values: Sequence[float]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(values, dtype=np.float64).ravel()


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
