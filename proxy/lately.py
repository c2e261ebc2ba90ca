"""What the semantic cache has met of late: candidates, what became of them, and how often routes were served.

Rules of this file:
1. In memory only, and bounded: a request's text leaves with the candidate's entry, with its own, or when newer ones
   come. It is never written or logged; who may see it is the caller's decision.
2. Nothing is worked out here: that is done when somebody asks. What a request pays is a few assignments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from farthing.policies.reuse import Action, Candidate, RouteKey, Verdict
from farthing.proxy.pulse import Pulse

__all__ = ["KINDS", "Kind", "Lately", "Sighting"]

Kind = Literal["near", "served", "wrong"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_KEPT = 50
# Less alike than both of these is no near miss, only the nearest of many strangers.
_NEAR_COSINE, _NEAR_SCORE = 0.7, 0.3


@dataclass(slots=True, eq=False)
class Sighting:
    """A candidate of one request. `exchange_id`: of its ledger row. `own_key`: of the request's own answer.

    `judged`: whether the fresh answer said the same as the candidate's; None: not compared (yet). `against`: the
    entry's text and what spoke against it, kept where it has left the index as wrong; its answer is still in the store.
    """

    exchange_id: str
    at_s: float
    route: RouteKey
    text: str
    own_key: str
    candidate: Candidate
    verdict: Verdict
    judged: bool | None = None
    against: tuple[str, list[str]] | None = None


@dataclass(slots=True)
class Lately:
    """See the module. Used on the event loop only."""

    pulse: Pulse = field(default_factory=Pulse)
    _held: dict[Kind, deque[Sighting]] = field(
        default_factory=lambda: {kind: deque(maxlen=_KEPT) for kind in KINDS}, init=False
    )

    def found(self, sighting: Sighting) -> None:
        """The policy has decided on a candidate. What it serves is noted once it is served."""
        alike = sighting.candidate.cosine >= _NEAR_COSINE or sighting.candidate.score >= _NEAR_SCORE
        if alike and sighting.verdict.action is not Action.SERVE:
            self._held["near"].append(sighting)

    def served(self, sighting: Sighting) -> None:
        """Its answer was given."""
        self._held["served"].append(sighting)
        self.pulse.served(sighting.route, sighting.at_s)

    def judged(self, sighting: Sighting, *, wrong: bool) -> None:
        """Its answer was compared with a fresh one."""
        sighting.judged = not wrong
        if wrong:
            self._held["wrong"].append(sighting)

    def latest(self, kind: Kind, route: RouteKey | None = None) -> list[Sighting]:
        """The latest first; of one route, or of all."""
        return [one for one in reversed(self._held[kind]) if route is None or one.route == route]

    def counts(self) -> dict[Kind, int]:
        """How many are kept of each kind."""
        return {kind: len(held) for kind, held in self._held.items()}

    def forget(self, entry_keys: Iterable[str]) -> None:
        """These answers are gone: so is every sighting of theirs, or of a request that one of them answered."""
        gone = frozenset(entry_keys)
        for kind, held in self._held.items():
            left = [one for one in held if one.candidate.entry_key not in gone and one.own_key not in gone]
            if len(left) < len(held):
                self._held[kind] = deque(left, maxlen=_KEPT)

    def clear(self) -> None:
        """Forget every sighting; how often routes were served holds no text, and stays."""
        for held in self._held.values():
            held.clear()
