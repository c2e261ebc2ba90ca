"""One traffic, in one order, through one method. Nothing here knows a text; the policies are the proxy's own.

Rules of this file:
1. A request's class says whether an answer may be shared, and nothing else: it makes labels, never candidates.
2. What went upstream becomes an entry, as the policy says: every miss, or only one whose candidate was wrong.
3. An entry's answer is the one that was right when it was stored: where what is right has changed since, it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from bench.hit_pool import Pool
from farthing.policies.reuse import Action, Candidate, Label, Policy

__all__ = ["MISS", "RIGHT", "WRONG", "Outcome", "policy_on", "static_on"]

MISS, RIGHT, WRONG = 0, 1, 2
_LABELS = (Label(0.0), Label(1.0))


@dataclass(slots=True)
class Outcome:
    """What became of each request in turn, and how long the method observed.

    `what` [requests]: MISS, RIGHT or WRONG. `first`: how many requests came before the first hit (None: there was
    none), `labels`: comparisons made until then. `served_by` [(request's number, entry's number)]: of wrong hits.
    """

    what: NDArray[np.uint8]
    first: int | None = None
    labels: int = 0
    served_by: list[tuple[int, int]] = field(default_factory=list)

    def hit(self, turn: int, number: int, entry: int, *, right: bool) -> None:
        """One request was answered from an entry."""
        self.what[turn] = RIGHT if right else WRONG
        if self.first is None:
            self.first = turn
        if not right:
            self.served_by.append((number, entry))


def static_on(pool: Pool, order: Sequence[int], threshold: float) -> Outcome:
    """The nearest entry, where its cosine reaches the threshold; every miss becomes an entry."""
    out, answers, stored, since = _begin(pool, order)
    for turn, number in enumerate(order):
        where = pool.where[number]
        if where is None:
            continue
        place, here = pool.places[where[0]], stored[where[0]]
        near = pool.nearest(place, where[1], here, 1)
        if len(near) and place.cosine[where[1], near[0]] >= threshold:
            entry = place.ids[int(near[0])]
            out.hit(turn, number, entry, right=_right(answers, since, turn, number, entry))
            continue
        here[where[1]] = True
        since[number] = turn
    return out


def policy_on(pool: Pool, order: Sequence[int], policy: Policy, seed: int, *, removed: bool = False) -> Outcome:
    """The best candidate by score, or, for a policy of single entries, the nearest; then what the policy says.

    `removed`: an entry whose answer an audit finds wrong is no entry any more.
    """
    out, answers, stored, since = _begin(pool, order)
    chance = Random(seed).random
    nearest_only = policy.entries == "wrong"
    labels = 0
    for turn, number in enumerate(order):
        where = pool.where[number]
        if where is None:
            continue
        place, here = pool.places[where[0]], stored[where[0]]
        found = _nearest(pool, where, here) if nearest_only else pool.best(place, where[1], here)
        keep = True
        if found is not None:
            entry = place.ids[found[0]]
            route = pool.routes[where[0]]
            candidate = Candidate(str(entry), found[1], float(place.cosine[where[1], found[0]]))
            verdict = policy.decide(route, candidate, chance())
            right = _right(answers, since, turn, number, entry)
            served = verdict.action is Action.SERVE
            if served:
                if out.first is None:
                    out.labels = labels
                out.hit(turn, number, entry, right=right)
            if not served or verdict.audit:
                policy.learn(route, candidate, verdict, _LABELS[not right])
                labels += 1
            if removed and verdict.audit and not right:
                here[found[0]] = False
            keep = not served and not (nearest_only and right)
        if keep:
            here[where[1]] = True
            since[number] = turn
    if out.first is None:
        out.labels = labels
    return out


def _nearest(pool: Pool, where: tuple[int, int], here: NDArray[np.bool_]) -> tuple[int, float] | None:
    near = pool.nearest(pool.places[where[0]], where[1], here, 1)
    return (int(near[0]), 0.0) if len(near) else None


Answers = tuple[list[str], frozenset[str], int]


def _begin(pool: Pool, order: Sequence[int]) -> tuple[Outcome, Answers, list[NDArray[np.bool_]], list[int]]:
    answers = [one.answer for one in pool.asked], pool.traffic.drifting, len(order) // 2
    stored = [np.zeros(len(place.ids), bool) for place in pool.places]
    return Outcome(np.zeros(len(order), np.uint8)), answers, stored, [0] * len(pool.asked)


def _right(answers: Answers, since: list[int], turn: int, number: int, entry: int) -> bool:
    """Whether the entry's answer, as it was right when stored, is what the request should get now."""
    classes, drifting, half = answers
    if classes[number] != classes[entry]:
        return False
    return not drifting or classes[number] not in drifting or (since[entry] >= half) == (turn >= half)


Replay = Callable[[Pool, Sequence[int], int], Outcome]
