"""Verified reuse: a route serves where, and only where, its labels prove that few enough answers are wrong. Pure.

It begins in observe, where every would-be hit is compared with the fresh answer for free. Once a threshold's bound is
proved it serves from there up, audits a share of its hits, and goes back by itself when an alarm sounds, when the
evidence no longer speaks for it, or when nobody has been allowed to look for too long.

The promise, its proof, its assumptions: docs/reuse-bound.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, Protocol, runtime_checkable

from farthing.policies.family import Family
from farthing.policies.ladder import Book, Ladder
from farthing.policies.reuse import (
    Action,
    Bound,
    Candidate,
    Label,
    Mode,
    RouteKey,
    RouteState,
    Slice,
    Source,
    Verdict,
    slices,
    whole,
)  # fmt: skip
from farthing.policies.sequence import Comparator, upper
from farthing.policies.standing import Place, Rules, Standing

__all__ = ["Settings", "TakenBack", "TakesBack", "Verified"]

_VERSION = 2  # 1: bets on falling scores were made while nothing was served
_PILOT_EPOCH = -1
# E-values for being worse than the claim, at which a route leaves the pool: wrongly so, for a route within the claim,
# with probability 1 % at most; 10 % where its evidence is hopeless as well, and about to be dropped.
_LEAVE, _LEAVE_HOPELESS = math.log(100.0), math.log(10.0)
_PROVED_BY = {"own": "proved by its own labels", "pool": "proved by the pool"}


TakenBack = Callable[[RouteKey, str, dict[str, Any]], None]
"""Told of a route that has served and observes again, why, on what evidence."""


@runtime_checkable
class TakesBack(Protocol):
    """A policy that sends routes back to observing by itself. `on_taken_back`: to be set."""

    on_taken_back: TakenBack | None


@dataclass(frozen=True, slots=True)
class Settings:
    """`audit_share`: of served hits, at first; it falls with the root of the evidence, to `audit_floor`.

    `unaudited_limit`: hits served in a row without a label before the route observes again. Thresholds:
    `ladder`, where they are given for good; else `prior` to begin with, until a route's evidence for them is hopeless;
    where there is neither, and then, comparisons choose them, as soon as some threshold promises something.
    """

    bound: Bound = field(default_factory=Bound)
    mode: Mode = "observe"
    comparator: Comparator = field(default_factory=Comparator)
    audit_share: float = 0.05
    audit_floor: float = 0.01
    unaudited_limit: int = 1_000
    pooled: bool = True
    patience_wrong: float = 2_000.0
    patience_scores: float = 100_000.0
    max_routes: int = 10_000
    ladder: Ladder | None = None
    prior: Ladder | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.audit_floor <= self.audit_share <= 1.0:
            raise ValueError("0 < audit_floor <= audit_share <= 1")
        if self.max_routes < 1 or self.unaudited_limit < 1:
            raise ValueError("max_routes and unaudited_limit are at least 1")

    @property
    def rules(self) -> Rules:
        """The part that evidence is judged by."""
        patience = self.patience_wrong, self.patience_scores
        return Rules(self.bound, self.comparator, self.pooled, *patience, chosen=self.ladder is None)


class Verified:
    """See the module, and reuse.Policy. Memory: a few kB a route; beyond `max_routes` the least recently used go."""

    entries: Literal["misses", "wrong"] = "misses"

    def __init__(self, settings: Settings) -> None:
        """`on_taken_back`: to be set."""
        self.settings = settings
        self._rules = settings.rules
        self.on_taken_back: TakenBack | None = None
        self._families: dict[str, Family] = {}
        self._routes: OrderedDict[RouteKey, Standing | None] = OrderedDict()  # None: its tenant has no ladder yet

    def decide(self, route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool = True) -> Verdict:
        """See reuse.Policy. `chance` both draws the audit and breaks ties between scores, by other digits."""
        if self.settings.mode == "off":
            return Verdict(Action.OBSERVE, "off", weight=0.0, pool_weight=0.0)
        if not 0.0 <= candidate.score <= 1.0:
            return Verdict(Action.OBSERVE, "score is out of range", weight=0.0, pool_weight=0.0)
        family, standing = self._at(route)
        if standing is None or family.ladder is None:
            return Verdict(Action.OBSERVE, self._choosing(family), epoch=_PILOT_EPOCH)
        if standing.serving and (standing.pilot is not None or standing.place(family.place) is None):
            self._lapsed(route, standing)
        if standing.pilot is not None:
            return Verdict(Action.OBSERVE, standing.lacking, epoch=standing.epoch)
        ladder = standing.book.ladder
        rung = ladder.passed(candidate.score)
        place = standing.place(family.place)
        if rung < len(ladder.thresholds) and self._fell(standing, place, rung, chance):
            self._take_back(route, standing, "scores have fallen")
            place = standing.place(family.place)
        weight = self._weight(standing, place, may_audit)
        floor = self._pool_floor(family, place, may_audit)
        if place is None:
            return Verdict(Action.OBSERVE, standing.lacking, epoch=standing.epoch, weight=weight, pool_weight=floor)
        action, audit, chance_of_label, pool_weight = Action.OBSERVE, False, 1.0, floor
        if rung > place.rung:
            reason = "below the proved threshold"
        elif self.settings.mode == "observe":
            reason = "would serve"
        elif standing.unaudited >= self.settings.unaudited_limit:
            reason, weight = "not audited for too long", 1.0
        else:
            action, reason = Action.SERVE, _PROVED_BY[place.proof]
            chance_of_label = weight
            audit = chance < chance_of_label
            weight, pool_weight = (1.0, floor / chance_of_label) if audit else (0.0, 0.0)
            standing.served += 1
            standing.serving = True
            standing.unaudited += 1
            if chance_of_label:
                standing.account.serve(chance_of_label)
        bound, wrong = self._bound(family, standing, place)
        threshold = ladder.thresholds[place.rung]
        return Verdict(
            action, reason, audit, bound, wrong, threshold, chance_of_label, standing.epoch, weight, pool_weight
        )

    def serves(self, route: RouteKey) -> bool:
        """See reuse.Policy."""
        standing, family = self._routes.get(route), self._families.get(route.tenant)
        proved = standing is not None and family is not None and standing.place(family.place) is not None
        return proved and self.settings.mode == "serve"

    def learn(self, route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> None:
        """See reuse.Policy. A good rating is not learnt: whoever is content doesn't say so."""
        family, standing = self._families.get(route.tenant), self._routes.get(route)
        if family is None or self.settings.mode == "off" or not 0.0 <= candidate.score <= 1.0:
            return
        if family.ladder is None:
            if verdict.epoch == _PILOT_EPOCH and label.source is Source.COMPARISON:
                self._pilot(family, candidate.score, label.outcome)
            return
        if standing is None or family.book is None or verdict.epoch != standing.epoch:
            return
        if standing.pilot is not None:
            if label.source is Source.COMPARISON:
                standing.explore(candidate.score, label.outcome)
            return
        place = standing.place(family.place)
        if label.source is Source.RATING:
            if label.outcome < 0.5:
                return
            standing.book.complained(candidate.score)
            if not standing.alone:
                family.book.complained(candidate.score)
        else:
            standing.book.add(candidate.score, label.outcome, verdict.weight)
            if not standing.alone:
                family.book.add(candidate.score, label.outcome, verdict.pool_weight)
            if place is None or candidate.score >= standing.book.ladder.thresholds[place.rung]:
                standing.unaudited = 0
            if verdict.audit:
                standing.account.wrong(label.outcome)
        family.weigh()
        if verdict.audit and label.source is Source.COMPARISON and standing.overdrawn:
            self._take_back(route, standing, "more may have been wrong than was promised")
            self._leave(family, standing)
            return
        if place is not None and self._risen(standing, place, candidate.score, verdict, label):
            self._take_back(route, standing, "too many answers were wrong")
            self._leave(family, standing)
            return
        standing.weigh()
        # In this order, since evidence that is dropped shows nothing any more.
        excess = 0.0 if standing.alone else standing.excess(family.common)
        enough = _LEAVE_HOPELESS if standing.hopeless() else _LEAVE
        # Who chooses thresholds of its own has nothing in common with the pool any more.
        if excess >= enough or standing.pilot is not None:
            self._leave(family, standing)

    def forget(self, route: RouteKey) -> None:
        """See reuse.Policy."""
        standing = self._routes.get(route)
        if standing is not None:
            standing.reset("the operator reset it", self._families[route.tenant].ladder)
            standing.alone, standing.restarts = False, 0

    @property
    def count(self) -> int:
        """See reuse.Policy."""
        return len(self._routes)

    def state(self, most: int | None = None) -> list[RouteState]:
        """See reuse.Policy."""
        return [self._state(route, standing) for route, standing in islice(reversed(self._routes.items()), most)]

    def state_of(self, route: RouteKey) -> RouteState | None:
        """See reuse.Policy."""
        return self._state(route, self._routes[route]) if route in self._routes else None

    def dump_slices(self) -> Iterator[Slice]:
        """See reuse.Policy. Routes in the order of their last use.

        Tenants come last, so that the pool holds at least the labels of its routes; of one that has gone meanwhile
        nothing is known.
        """
        yield from (("version", _VERSION), ("policy", "verified"), ("routes", []), ("families", {}))
        tenants: dict[str, None] = {}
        for part in slices(list(self._routes)):
            tenants |= dict.fromkeys(route.tenant for route in part)
            known = [(route, self._routes[route]) for route in part if route in self._routes]
            yield "routes", [[*route, one.dump() if one is not None else None] for route, one in known]
        for few in slices(tenants):
            yield "families", {name: self._families.get(name, Family(self._rules)).dump() for name in few}

    def dump(self) -> dict[str, Any]:
        """See reuse.Policy."""
        return whole(self.dump_slices())

    def load(self, dumped: dict[str, Any]) -> None:
        """See reuse.Policy. Evidence stays good under another bound: what it proves is worked out anew."""
        try:
            if dumped["version"] != _VERSION or dumped["policy"] != "verified":
                raise ValueError("another version")
            families = {str(tenant): Family.load(self._rules, one) for tenant, one in dumped["families"].items()}
            routes: OrderedDict[RouteKey, Standing | None] = OrderedDict()
            for tenant, name, one in dumped["routes"]:
                known = Standing.load(self._rules, one) if families[tenant].ladder and one is not None else None
                routes[RouteKey(str(tenant), str(name))] = known
                families[tenant].routes += 1
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not this policy's state: {error}") from error
        self._families, self._routes = families, routes
        self._shrink()

    def _at(self, route: RouteKey) -> tuple[Family, Standing | None]:
        """The route's place, made where it is new; it is the latest used from now on."""
        family = self._families.get(route.tenant)
        if family is None:
            family = self._families[route.tenant] = Family(self._rules)
            known = self.settings.ladder or self.settings.prior
            if known is not None:
                family.start(known)
        if route not in self._routes:
            self._routes[route] = None
            family.routes += 1
            self._shrink()
        standing = self._routes[route]
        if standing is None and family.ladder is not None:
            standing = self._routes[route] = Standing.begin(family.ladder, self._rules)
        self._routes.move_to_end(route)
        return family, standing

    def _take_back(self, route: RouteKey, standing: Standing, why: str) -> None:
        """Back to observing; told to whoever wants to know, where something was served."""
        served, evidence = standing.served - standing.served_before, standing.book.evidence[-1]
        standing.reset(why)
        if served and self.on_taken_back is not None:
            self.on_taken_back(route, why, {"served": served, "labels": evidence.seen, "wrong": evidence.bad})

    def _lapsed(self, route: RouteKey, standing: Standing) -> None:
        """What is known proves its bound no more, though nothing was dropped: by complaints, or without the pool."""
        standing.serving = False
        if self.on_taken_back is not None:
            served, evidence = standing.served - standing.served_before, standing.book.evidence[-1]
            why = f"its bound isn't proved any more: {standing.lacking}"
            self.on_taken_back(route, why, {"served": served, "labels": evidence.seen, "wrong": evidence.bad})

    def _shrink(self) -> None:
        while len(self._routes) > self.settings.max_routes:
            route, _ = self._routes.popitem(last=False)
            family = self._families[route.tenant]
            family.routes -= 1
            if not family.routes:
                del self._families[route.tenant]

    def _pilot(self, family: Family, score: float, outcome: float) -> None:
        family.pilot.append((score, outcome))
        ladder = self._rules.ladder(family.pilot)
        if ladder is not None:
            family.start(ladder)

    def _choosing(self, family: Family) -> str:
        seen, least = len(family.pilot), self._rules.pilot
        if seen < least:
            return f"choosing thresholds: {seen} of {least} comparisons"
        return f"choosing thresholds: {seen} comparisons, none is good enough yet"

    def _weight(self, standing: Standing, place: Place | None, may_audit: bool) -> float:
        """What an observed label counts for the route: where its hits are served, no more than one of theirs may."""
        if place is None or self.settings.mode != "serve":
            return 1.0
        return self._audit_share(standing, place) if may_audit else 0.0

    def _pool_floor(self, family: Family, place: Place | None, may_audit: bool) -> float:
        """A lower bound, known beforehand, on the chance that a request of the pool's population gets a label.

        A route that serves on its own word isn't of it; where some serve on the pool's, all count as little as they.
        """
        if self.settings.mode != "serve" or (place is None and family.place is None):
            return 1.0
        if place is not None and place.proof == "own":
            return 0.0
        return self.settings.audit_floor if may_audit else 0.0

    def _audit_share(self, standing: Standing, place: Place) -> float:
        seen = standing.book.evidence[place.rung].seen
        fade = math.sqrt(self._rules.unit / seen) if seen > self._rules.unit else 1.0
        return max(self.settings.audit_floor, self.settings.audit_share * fade)

    def _risen(self, standing: Standing, place: Place, score: float, verdict: Verdict, label: Label) -> bool:
        if score >= standing.book.ladder.thresholds[place.rung]:
            return standing.rise.add(label.outcome)
        return self.settings.bound.per == "request" and standing.rise.add(0.0, verdict.weight)

    def _fell(self, standing: Standing, place: Place | None, rung: int, chance: float) -> bool:
        """Whether what is served has scores far below those that the proof was made of."""
        top = standing.fall.bins - 1
        if place is not None and rung <= place.rung:
            return standing.fall.add(top - rung, chance * 65_536 % 1.0, top - place.rung)
        if place is None:
            standing.fall.restart()
        standing.fall.see(top - rung)
        return False

    def _leave(self, family: Family, standing: Standing) -> None:
        if not standing.alone:
            standing.alone = True
            family.left()

    def _book(self, family: Family, standing: Standing, place: Place) -> Book:
        return family.book if place.proof == "pool" and family.book is not None else standing.book

    def _bound(self, family: Family, standing: Standing, place: Place) -> tuple[float, float]:
        """The upper bound and the estimate, by the evidence that proves the place."""
        evidence = self._book(family, standing, place).evidence[place.rung]
        # It was proved at some moment of this epoch, and stays so, though chance may have raised the figure since.
        known = min(_upper(evidence, place.level, self.settings.comparator), self.settings.bound.max_wrong)
        return known, (evidence.bad + 0.5) / (evidence.seen + 1.0)

    def _state(self, route: RouteKey, standing: Standing | None) -> RouteState:
        family = self._families[route.tenant]
        if standing is None:
            return RouteState(route, False, "", None, None, 0.0, 0.0, None, 0, 0, 0.0, self._choosing(family))
        place = standing.place(family.place)
        rung, needed = standing.near if place is None else (place.rung, None)
        own = standing.book.evidence[rung]
        shown = own if place is None else self._book(family, standing, place).evidence[rung]
        account, level = standing.account, self.settings.bound.level
        return RouteState(
            route=route,
            serving=place is not None and self.settings.mode == "serve",
            proof=place.proof if place is not None else "",
            threshold=standing.book.ladder.thresholds[rung],
            bound=self._bound(family, standing, place)[0] if place is not None else None,
            labels=shown.seen,
            wrong=shown.bad,
            needed=needed,
            epoch=standing.epoch,
            served=standing.served,
            drift=max(standing.rise.height, standing.fall.height),
            reason=standing.note if place is None and standing.note else standing.lacking if place is None else "",
            own_labels=own.seen,
            own_wrong=own.bad,
            epoch_served=account.hits,
            wrong_served=account.at_most(level, self._rules.seen),
            taken_back=standing.taken_back,
        )


# Most verdicts of a serving route rest on the same evidence as the one before.
_upper = lru_cache(maxsize=4_096)(upper)
