"""What is known of one route, and the rules by which that is judged. Pure.

Rules of this file:
1. A route's own evidence is the only one that speaks of it without an assumption. The pool's speaks of the average hit
   of its members; a route may lean on it only after labels of its own that don't speak against it.
2. The levels of all tests of a route whose quality never changed sum to the operator's, restarts included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from farthing.policies.account import Account
from farthing.policies.drift import Fall, Rise
from farthing.policies.ladder import Book, Ladder, build, promising
from farthing.policies.reuse import Bound
from farthing.policies.sequence import NOTHING, OVER, Comparator, Test

__all__ = ["Place", "Rules", "Standing", "new_book"]

# How the level is shared: the pool gets half, since small routes are many; of the rest a twentieth is kept for starting
# again where evidence is hopeless, of the pool's three tenths, since it does so whenever a member leaves. A share costs
# ln(1/(1 - share)) / claim labels: 69, 5 and 36 at a claim of 1 %.
_POOL_SHARE = 0.5
_RESTART_SHARE = 0.05
_POOL_RESTART_SHARE = 0.3
# Evidence is hopeless where going on needs this many times the labels of starting again on a smaller level.
_HOPELESS_TIMES = 2.0
# Labels of its own that a route needs before it may lean on the pool, as a share of an error-free proof.
_OWN_PART = 0.2
_PILOT_PART = 0.1
_PILOT_AT_LEAST, _PILOT_AT_MOST = 20, 100
# The latest comparisons that a pilot keeps, in pilots: so many that the strictest rung, a tenth, is a pilot's worth.
_PILOT_KEPT = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """What is promised, and how carefully. `patience_*`: average observations between false alarms, at least.

    `chosen`: whether comparisons choose the thresholds, or they are given.
    """

    bound: Bound
    comparator: Comparator
    pooled: bool
    patience_wrong: float
    patience_scores: float
    chosen: bool = True

    @property
    def claim(self) -> float:
        """The rate of 'different' labels that must be refuted for the promise to hold."""
        return self.comparator.seen_rate(self.bound.max_wrong)

    @property
    def seen(self) -> float:
        """The least probability that a comparison finds a wrong answer."""
        return 1.0 - self.comparator.false_same

    @property
    def unit(self) -> float:
        """About how many error-free labels prove the claim: ln(1/level) / claim."""
        return math.log(1.0 / self.bound.level) / self.claim

    @property
    def pilot(self) -> int:
        """How many comparisons go into choosing thresholds, at least."""
        return min(_PILOT_AT_MOST, max(_PILOT_AT_LEAST, math.ceil(_PILOT_PART * self.unit)))

    def ladder(self, pilot: list[tuple[float, float]]) -> Ladder | None:
        """The ladder from a pilot, as soon as it promises something; None: not yet, and what is too old is dropped.

        A cache that is still empty finds poor neighbours only: thresholds chosen then would fit nothing later, and
        evidence for them would be waste. Waiting costs no level, since no evidence counts before.
        """
        del pilot[: -_PILOT_KEPT * self.pilot]
        return build(pilot, self.claim) if promising(pilot, self.claim, self.pilot) else None

    def own_level(self, restarts: int) -> float:
        """The level of a route's own test after that many restarts."""
        mine = self.bound.level * (1.0 - _POOL_SHARE if self.pooled else 1.0)
        return mine * (_RESTART_SHARE / (restarts * (restarts + 1)) if restarts else 1.0 - _RESTART_SHARE)

    def pool_level(self, restarts: int) -> float:
        """The level of the pool's test after that many restarts."""
        ours = self.bound.level * _POOL_SHARE
        return ours * (_POOL_RESTART_SHARE / (restarts * (restarts + 1)) if restarts else 1.0 - _POOL_RESTART_SHARE)


class Place(NamedTuple):
    """Where a route may serve: the rung, the level at which it is proved, and whose evidence proves it."""

    rung: int
    level: float
    proof: Literal["own", "pool"]


@dataclass(slots=True)
class Standing:
    """One route. `alone`: it is worse than the pool and has left it. `unaudited`: hits served since the last label.

    `taken_back`: how many of its epochs ended that had served something; `served_before`: what all of them served.
    `account`: of what this epoch served. `near`: the rung that lacks the fewest good labels to be proved, and how many.
    `pilot`: while it chooses thresholds of its own, the comparisons so far; None: it has thresholds. `serving`: it has
    served since this process began, and nobody has been told of its end.
    """

    rules: Rules
    book: Book
    rise: Rise
    fall: Fall
    account: Account = field(default_factory=Account)
    epoch: int = 0
    restarts: int = 0
    alone: bool = False
    served: int = 0
    unaudited: int = 0
    taken_back: int = 0
    served_before: int = 0
    note: str = ""
    pilot: list[tuple[float, float]] | None = None
    own: Place | None = None
    lacking: str = ""
    near: tuple[int, int] = (0, 1)
    serving: bool = False

    @classmethod
    def begin(cls, ladder: Ladder, rules: Rules) -> Standing:
        """A route of which nothing is known."""
        rise = Rise(rules.claim, rules.patience_wrong)
        found = cls(rules, new_book(ladder, rules), rise, Fall(len(ladder.thresholds), rules.patience_scores))
        found.weigh()
        return found

    def place(self, pool: Place | None) -> Place | None:
        """The lowest threshold at which it may serve, on its own evidence or the pool's."""
        if pool is None or self.alone or (self.own is not None and self.own.rung >= pool.rung):
            return self.own
        enough = self.book.evidence[pool.rung].seen >= _OWN_PART * self.rules.unit
        return pool if enough and self.book.now[pool.rung] >= 0 else self.own

    def weigh(self) -> None:
        """After new evidence: what it proves now."""
        found = self.book.proved(self.rules.own_level(self.restarts))
        self.own = Place(*found, "own") if found else None
        self.near = self._nearest()
        why = f" since {self.note}" if self.note else ""
        if self.pilot is not None:
            self.lacking = f"choosing thresholds{why}: {len(self.pilot)} comparisons, none is good enough yet"
            return
        rung, needed = self.near
        seen = round(self.book.evidence[rung].seen)
        labels = f"{seen:,} label" if seen == 1 else f"{seen:,} labels"
        self.lacking = f"not proved{why}: {labels}, about {needed:,} more good ones needed"

    def _nearest(self) -> tuple[int, int]:
        level = self.rules.own_level(self.restarts)
        lacks = [
            (self.book.test.lacking(evidence, -math.log(share * level)), -rung)
            for rung, (share, evidence) in enumerate(zip(self.book.ladder.shares, self.book.evidence, strict=True))
            if share > 0
        ]
        needed, rung = min(lacks)
        return -rung, max(1, math.ceil(needed))

    def hopeless(self) -> bool:
        """Whether its evidence, which proves nothing, was dropped: starting anew, on a smaller level, needs less."""
        share = max(self.book.ladder.shares)
        anew = self.book.test.lacking(NOTHING, -math.log(share * self.rules.own_level(self.restarts + 1)))
        if self.own is not None or self.near[1] <= _HOPELESS_TIMES * anew:
            return False
        self.restarts += 1
        self.reset("its evidence was hopeless")
        if self.rules.chosen:
            self.pilot = []
            self.weigh()
        return True

    def explore(self, score: float, outcome: float) -> None:
        """One more comparison for its own pilot; when that promises something, evidence counts from then on."""
        assert self.pilot is not None
        self.pilot.append((score, outcome))
        ladder = self.rules.ladder(self.pilot)
        if ladder is not None:
            self.reset(self.note, ladder)
        else:
            self.weigh()

    @property
    def overdrawn(self) -> bool:
        """Whether more of what this epoch served may have been wrong than was promised, whatever has changed.

        Where the promise is per request it is of something else than what was served, and this says nothing.
        """
        return self.rules.bound.per == "hit" and self.account.overdrawn(
            self.rules.bound.max_wrong, self.rules.bound.level, self.rules.seen
        )

    def excess(self, rung: int) -> float:
        """The logarithm of the e-value for its rate at a rung being above the claim."""
        evidence = self.book.evidence[rung]
        return _above(self.rules.claim).log_e(evidence) if evidence.bad > 0 else 0.0

    def reset(self, note: str, ladder: Ladder | None = None) -> None:
        """Drop the evidence: back to observing, with another ladder if one is given. Labels of earlier verdicts no
        longer count."""
        fresh = Standing.begin(ladder or self.book.ladder, self.rules)
        self.book, self.rise, self.fall, self.account = fresh.book, fresh.rise, fresh.fall, fresh.account
        self.note, self.unaudited, self.pilot, self.serving = note, 0, None, False
        self.epoch += 1
        self.taken_back += self.served > self.served_before
        self.served_before = self.served
        self.weigh()

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        ladder = self.book.ladder
        return {
            "ladder": [list(ladder.thresholds), list(ladder.shares)],
            "pilot": [list(pair) for pair in self.pilot] if self.pilot is not None else None,
            "book": self.book.dump(),
            "rise": list(self.rise.levels),
            "fall": [list(self.fall.counts), list(self.fall.levels)],
            "account": [self.account.hits, self.account.found, self.account.least],
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def load(cls, rules: Rules, dumped: dict[str, Any]) -> Standing:
        """What `dump` gave. Raises ValueError, KeyError or TypeError where it is damaged."""
        thresholds, shares = dumped["ladder"]
        found = cls.begin(Ladder(tuple(map(float, thresholds)), tuple(map(float, shares))), rules)
        if dumped["pilot"] is not None:
            found.pilot = [(float(score), float(outcome)) for score, outcome in dumped["pilot"]]
        found.book.load(dumped["book"])
        if dumped["book"]["claim"] == rules.claim:
            found.rise.levels = _floats(dumped["rise"], len(found.rise.levels))
        counts, levels = dumped["fall"]
        found.fall.counts = [int(count) for count in _floats(counts, found.fall.bins)]
        found.fall.levels = _floats(levels, len(found.fall.levels))
        hits, wrong, least = _floats(dumped["account"], 3)
        found.account = Account(int(hits), wrong, min(1.0, least))
        for name, kind in _PLAIN.items():
            value = dumped.get(name, 0) if name in _LATER else dumped[name]
            if type(value) is not kind:
                raise ValueError(f"{name}: {value!r}")
            setattr(found, name, value)
        found.weigh()
        return found


_PLAIN: dict[str, type] = {
    "epoch": int, "restarts": int, "alone": bool, "served": int, "unaudited": int, "note": str,
    "taken_back": int, "served_before": int,
}  # fmt: skip
_LATER = ("taken_back", "served_before")  # older files don't have them


@lru_cache(maxsize=64)
def _above(claim: float) -> Test:
    """The test that speaks for a rate above the claim."""
    return Test(claim, OVER)


def new_book(ladder: Ladder, rules: Rules) -> Book:
    """An empty book for these rules."""
    return Book(ladder, Test(rules.claim), per_request=rules.bound.per == "request")


def _floats(values: list[Any], count: int) -> list[float]:
    found = [float(value) for value in values]
    if len(found) != count or not all(0 <= value < math.inf for value in found):
        raise ValueError("numbers out of range")
    return found
