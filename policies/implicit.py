"""What users say by what they do: they ask again, have an answer made anew, or hang up. Pure.

A signal is a hint and no verdict: some people ask again out of curiosity. It is recorded as an outcome, compared
between arms like any other metric, and never counts as evidence in a bound.

Rules of this file:
1. Only requests that name their user (`x-farthing-user`) are compared with each other: one credential may be
   thousands of people.
2. `reask`: after a near-duplicate's answer the same user asks within `within_s` what has the same neighbour, in other
   words.
3. `regenerate`: the same user sends the identical request within `within_s`.
4. `abandoned`: the client left while its answer streamed. No user is needed for this.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["ABANDONED", "REASK", "REGENERATE", "Implicit", "Seen", "Signal"]

REASK, REGENERATE, ABANDONED = "reask", "regenerate", "abandoned"
_LATEST = 4


class Seen(NamedTuple):
    """One request as its row tells it. `key`: of its exact form, '' where it has none. `near`: the key of the stored
    answer that is nearest to it, '' where none is known."""

    id: str
    ts_s: float
    tenant: str
    user: str
    key: str
    near: str
    semantic_hit: bool
    abandoned_stream: bool


class Signal(NamedTuple):
    """`request_id`: whose answer it is about. `at_s`: seconds since the epoch."""

    request_id: str
    metric: str
    at_s: float


@dataclass(slots=True)
class Implicit:
    """The latest four requests of each of the latest `most` users; not for several threads."""

    within_s: float = 300.0
    most: int = 50_000
    _latest: OrderedDict[tuple[str, str], deque[Seen]] = field(default_factory=OrderedDict)

    def seen(self, now: Seen) -> list[Signal]:
        """What this request says of itself and of those before it."""
        found = [Signal(now.id, ABANDONED, now.ts_s)] if now.abandoned_stream else []
        if not now.user:
            return found
        who = (now.tenant, now.user)
        before = self._latest.setdefault(who, deque(maxlen=_LATEST))
        self._latest.move_to_end(who)
        if len(self._latest) > self.most:
            self._latest.popitem(last=False)
        found += [
            Signal(one.id, metric, now.ts_s)
            for one in before
            if 0 <= now.ts_s - one.ts_s <= self.within_s and (metric := _between(one, now))
        ]
        before.append(now)
        return found


def _between(one: Seen, now: Seen) -> str:
    if now.key and one.key == now.key:
        return REGENERATE
    return REASK if one.semantic_hit and one.near and one.near in (now.near, now.key) else ""
