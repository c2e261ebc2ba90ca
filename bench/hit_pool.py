"""One traffic's texts with what doesn't depend on the order in which they are asked: neighbours, cosines, scores.

The rarity of a word on a route does depend on the order: here it is that of all of the traffic's texts (their words,
never their classes), so that a pair has one score in all orders. `Pool.shift` measures what that changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.hit_traffic import Asked, Traffic
from bench.verifier_data import Vectors
from farthing.cache.rarity import RouteWords
from farthing.cache.semantic import NEIGHBOURS
from farthing.cache.unmatchable import unmatchable
from farthing.cache.verifier import Trees, Verifier
from farthing.policies.reuse import RouteKey

__all__ = ["Place", "Pool", "verifier"]

_FIRST_LOOK = 64


@dataclass(slots=True)
class Place:
    """One scope: `ids` [n] its texts' numbers in the pool; by places within it `near` [n, n-1], nearest first, and
    `cosine`, `score` [n, n] (NaN: not worked out yet)."""

    ids: list[int]
    near: NDArray[np.int16]
    cosine: NDArray[np.float32]
    score: NDArray[np.float32]


class Pool:
    """See the module. `where` [texts]: (scope, place within it), None for a text that nothing may be matched with."""

    def __init__(self, traffic: Traffic, vectors: Vectors, scorer: Verifier) -> None:
        self.traffic = traffic
        self.asked: tuple[Asked, ...] = traffic.asked
        self._scorer = scorer
        self._words: dict[RouteKey, RouteWords] = defaultdict(RouteWords)
        self.where: list[tuple[int, int] | None] = [None] * len(self.asked)
        members: dict[str, list[int]] = defaultdict(list)
        for number, one in enumerate(self.asked):
            if not unmatchable(one.text, records=traffic.records) and vectors.of(one.text) is not None:
                members[one.scope].append(number)
                self._words[one.route].learn(scorer.read(one.text).terms)
        self.places = [self._placed(scope, ids, vectors) for scope, ids in enumerate(members.values())]
        self.routes = [self.asked[place.ids[0]].route for place in self.places]

    def _placed(self, scope: int, ids: list[int], vectors: Vectors) -> Place:
        matrix = np.array([vectors.of(self.asked[number].text) for number in ids], np.float32)
        cosine = np.minimum(matrix @ matrix.T, 1.0)
        near = np.argsort(-(cosine - 4.0 * np.eye(len(ids), dtype=np.float32)), axis=1, kind="stable")[:, :-1]
        for place, number in enumerate(ids):
            self.where[number] = scope, place
        return Place(ids, near.astype(np.int16), cosine, np.full(cosine.shape, np.nan, np.float32))

    def nearest(self, place: Place, asked: int, stored: NDArray[np.bool_], count: int) -> NDArray[np.int16]:
        """Up to `count` stored places, nearest first."""
        row = place.near[asked, :_FIRST_LOOK]
        found = row[stored[row]]
        if len(found) < count and place.near.shape[1] > _FIRST_LOOK:
            row = place.near[asked]
            found = row[stored[row]]
        return found[:count]

    def best(self, place: Place, asked: int, stored: NDArray[np.bool_]) -> tuple[int, float] | None:
        """Of the nearest eight the place with the highest score, the nearest among equals; and the score."""
        found = self.nearest(place, asked, stored, NEIGHBOURS)
        if not len(found):
            return None
        scores = place.score[asked, found]
        first = int(scores.argmax())  # a NaN, where there is one
        if scores[first] != scores[first]:
            self._work_out(place, asked, found[np.isnan(scores)])
            scores = place.score[asked, found]
            first = int(scores.argmax())
        return int(found[first]), float(scores[first])

    def _work_out(self, place: Place, asked: int, others: NDArray[np.int16]) -> None:
        one = self.asked[place.ids[asked]]
        said = [self._scorer.read(self.asked[place.ids[other]].text) for other in others]
        cosines = place.cosine[asked, others].tolist()
        scores = self._scorer.scores(self._scorer.read(one.text), said, cosines, self._words[one.route])
        place.score[asked, others] = place.score[others, asked] = scores

    def shift(self, order: Sequence[int]) -> tuple[float, float]:
        """In one order, best candidates' scores with words as they were learnt by then: the mean absolute difference
        from those used here, and the share of them that differ by more than 0.05."""
        words: dict[RouteKey, RouteWords] = defaultdict(RouteWords)
        stored = [np.zeros(len(place.ids), bool) for place in self.places]
        differences = []
        for number in order:
            where = self.where[number]
            if where is None:
                continue
            place, own = self.places[where[0]], words[self.asked[number].route]
            near = self.nearest(place, where[1], stored[where[0]], NEIGHBOURS)
            best = self.best(place, where[1], stored[where[0]])
            if best is not None:
                said = [self._scorer.read(self.asked[place.ids[other]].text) for other in near]
                reading = self._scorer.read(self.asked[number].text)
                cosines = place.cosine[where[1], near].tolist()
                differences.append(max(self._scorer.scores(reading, said, cosines, own)) - best[1])
            own.learn(self._scorer.read(self.asked[number].text).terms)
            stored[where[0]][where[1]] = True
        found = np.abs(np.array(differences or [0.0]))
        return float(found.mean()), float((found > 0.05).mean())


def verifier() -> Verifier:
    """The model that ships, remembering more texts than it would in the proxy."""
    opened = Verifier.open()
    return Verifier(_trees(opened), opened._thesaurus, name=opened.name, kept=60_000)


def _trees(opened: Verifier) -> Trees:
    return opened._trees
