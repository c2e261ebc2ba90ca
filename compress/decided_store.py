"""Where decisions are kept, and the order in which a request asks for them.

Rules of this file:
1. The first decision under a key wins, whoever made it; the others take it over.
2. No decision is used that isn't kept: where the store is away, a turn is tidied at most. Nothing that a request does
   waits longer than for the store's own deadline.
3. What is read is as good as new: a decision lives as long as its conversation goes on, and `ttl_s` beyond.

Implementations: `MemoryDecisions` here, decided_disk (SQLite), decided_redis. One contract suite
(tests/contract/test_decisions.py) runs over all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Container, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from farthing.compress.decided import FROZEN, LEFT, LOST, Decision, chain
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault

__all__ = ["Decisions", "Found", "Front", "MemoryDecisions", "Settled", "Why", "in_force_s", "settle"]

_ENTRY_BYTES = 400  # of a decision without its texts: tuple, key, place in the order; measured, about 380


class Found(NamedTuple):
    """`decisions`: as asked, None where there is none. `away`: the store couldn't be asked, so None says nothing."""

    decisions: list[Decision | None]
    away: bool = False


class Decisions(Protocol):
    """Decisions by key, each kept for `ttl_s` after its last use."""

    async def get_many(self, keys: Sequence[bytes]) -> Found:
        """What is kept under these keys. Never raises."""
        ...

    async def put_many(self, decided: Sequence[tuple[bytes, Decision]]) -> list[Decision]:
        """Keep each unless there is one already; those that hold now, in the same order. Asked after `get_many`.

        Raises StoreFault: they can't be kept, and must not be used.
        """
        ...

    async def forget(self, tag: bytes) -> None:
        """Remove all of the tenant with this tag (`decided.tenant_tag`), for b"" everybody's. Raises StoreFault."""
        ...

    async def close(self) -> None:
        """Write what is pending and let go; idempotent."""
        ...


class Why(StrEnum):
    """Why no form was chosen for a turn in this request: it is tidied at most."""

    NONE = ""
    AWAY = "the store of decisions is away"
    UNKEPT = "the decision can't be kept"
    GONE = "the decision is lost"
    MARKED = "it stands before the client's cache mark"


class Settled(NamedTuple):
    """What is to be done to a turn. `new`: decided now, in this request."""

    decision: Decision
    new: bool = False
    why: Why = Why.NONE


async def settle(
    store: Decisions,
    keys: Sequence[bytes],
    asked: Sequence[int],
    first_new: int,
    decide: Callable[[list[int], dict[int, Decision]], Awaitable[list[Decision]]],
    frozen: Container[int] = (),
    *,
    ends: Sequence[int] = (),
) -> dict[int, Settled]:
    """The decisions for the turns `asked` about, by turn: for all that hold something to compress, frozen or not.

    `keys`: of all turns (`decided.chain`); turns beyond them are left alone. `first_new`: of `decided.first_new`.
    `decide`: makes the decisions for new turns, given their numbers and what is decided for others; it isn't called
    where there are none. `frozen`: turns that may not be touched (before a client's cache mark), which is kept too: the
    mark may be gone next time.
    What was decided before a mark came is replayed all the same. Never raises for the store's sake.

    `ends`: of `decided.request_ends`, given where the store knows all that was sent (`in_force_s` is longer than
    providers keep anything). What a request ended with is noted then, and turns behind the last one that is known are
    new, answers among them or not: they were never sent after this beginning. So it is behind an edit, and with a clock
    in the system prompt; no provider has anything of it.
    """
    asked = [number for number in asked if number < len(keys)]
    if not asked:
        return {}
    ends = [number for number in ends if number < len(keys)]
    looked = list(dict.fromkeys((*asked, *ends)))
    found = await store.get_many([keys[number] for number in looked])
    known = {number: decision for number, decision in zip(looked, found.decisions, strict=True) if decision is not None}
    if ends:
        first_new = min(first_new, max(known, default=-1) + 1)
    settled = {number: Settled(known[number]) for number in asked if number in known}
    missing = [number for number in asked if number not in settled]
    if found.away:
        return settled | _unkept(missing, frozen, Why.AWAY)
    noted = [(keys[number], LEFT) for number in ends[-1:] if number not in known and number not in missing]
    if not missing and not noted:
        return settled
    made = [(number, FROZEN if number in frozen else LOST) for number in missing]
    new = [number for number in missing if number >= first_new and number not in frozen]
    if new:
        known = {number: one.decision for number, one in settled.items()}
        made = list((dict(made) | dict(zip(new, await decide(new, known), strict=True))).items())
    try:
        kept = await store.put_many([*((keys[number], decision) for number, decision in made), *noted])
    except StoreFault:
        return settled | _unkept(missing, frozen, Why.UNKEPT)
    for (number, _), decision in zip(made, kept, strict=False):
        marked = number in frozen and decision == FROZEN
        settled[number] = Settled(
            decision, number in new, Why.GONE if decision == LOST else Why.MARKED if marked else Why.NONE
        )
    return settled


async def in_force_s(store: Decisions, policy: str, now_s: float) -> float:
    """Since when this policy is in force, in seconds: since the store was first asked so. 0 where it can't say."""
    key = chain("", policy, ["in force"])[0]
    try:
        (since,), away = await store.get_many([key])
        if away:
            return 0.0
        if since is None:
            since = (await store.put_many([(key, Decision(rules=(repr(now_s),)))]))[0]
        return max(0.0, now_s - float(since.rules[0]))
    except (StoreFault, ValueError, IndexError):
        return 0.0


def _unkept(missing: Sequence[int], frozen: Container[int], why: Why) -> dict[int, Settled]:
    return {number: Settled(FROZEN if number in frozen else LEFT, why=why) for number in missing}


class Front:
    """Decisions in this process's memory, least recently used first to go. `most_bytes`: of all that is held."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[bytes, tuple[Decision, float]] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes, now_s: float) -> tuple[Decision, float] | None:
        """The decision and when it ends here, in seconds since the epoch."""
        found = self._held.get(key)
        if found is None:
            return None
        if found[1] <= now_s:
            self.drop(key)
            return None
        self._held.move_to_end(key)
        return found

    def put(self, key: bytes, decision: Decision, ends_s: float) -> None:
        """Hold it, in place of what is held under the key."""
        self.drop(key)
        self._held[key] = (decision, ends_s)
        self._bytes += _size(decision)
        while self._bytes > self._most:
            self.drop(next(iter(self._held)))

    def drop(self, key: bytes) -> None:
        """Hold it no more."""
        found = self._held.pop(key, None)
        if found is not None:
            self._bytes -= _size(found[0])

    def forget(self, tag: bytes) -> None:
        """Drop all whose keys begin so."""
        for key in [key for key in self._held if key.startswith(tag)]:
            self.drop(key)


class MemoryDecisions:
    """Decisions over nothing but this process's memory: a restart loses them."""

    def __init__(self, *, clock: Clock, ttl_s: float, most_bytes: int) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._front = Front(most_bytes)

    async def get_many(self, keys: Sequence[bytes]) -> Found:
        """Decisions.get_many."""
        return Found([self._get(key) for key in keys])

    async def put_many(self, decided: Sequence[tuple[bytes, Decision]]) -> list[Decision]:
        """Decisions.put_many."""
        return [self._get(key) or self._put(key, decision) for key, decision in decided]

    async def forget(self, tag: bytes) -> None:
        """Decisions.forget."""
        self._front.forget(tag)

    async def close(self) -> None:
        """Decisions.close."""

    def _get(self, key: bytes) -> Decision | None:
        found = self._front.get(key, self._clock.now_s())
        return self._put(key, found[0]) if found else None

    def _put(self, key: bytes, decision: Decision) -> Decision:
        self._front.put(key, decision, self._clock.now_s() + self._ttl_s)
        return decision


def _size(decision: Decision) -> int:
    return _ENTRY_BYTES + sum(len(text) for text in decision.texts if text)
