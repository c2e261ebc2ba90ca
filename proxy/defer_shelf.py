"""All deferred requests and their batches, in memory and on disk: the state of the process that sees to them.

Rules of this file:
1. Nothing is awaited between what was read of `all` and `write`, so that no step undoes another; the disk follows in
   the same order.
2. Credentials are held in memory alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from farthing.proxy.batch_api import Refused, Unclear
from farthing.proxy.batch_ways import Target
from farthing.proxy.clock import Clock
from farthing.proxy.config_defer import Defer
from farthing.proxy.defer_books import Books, paid_before, restored
from farthing.proxy.defer_store import Batch, DeferStore, Kept
from farthing.proxy.errors import StoreFault, UpstreamFault
from farthing.proxy.exchange import Exchange, Outcome
from farthing.proxy.filling import FillingStage

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing

__all__ = ["Shelf", "Works", "survive"]

log = structlog.get_logger("farthing.defer")


@dataclass(frozen=True, slots=True)
class Works:
    """What the configuration in force works with. `targets`: the upstreams, by the names that variants know them by.

    `carrier`: who asks upstreams directly, and puts partly known answers together.
    """

    config: Defer
    targets: Mapping[str, Target]
    carrier: FillingStage
    books: Books
    routing: Routing | None
    buffer_bytes: int
    by_key: Mapping[str, Target] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_key", {one.key: one for one in self.targets.values()})


@dataclass(slots=True)
class Shelf:
    """`callers`: what shows whose an account is. `asking`: who is being seen to.
    `lanes`: what each policy works with that answers now, by its version."""

    store: DeferStore
    clock: Clock
    all: dict[str, Kept] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    callers: dict[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)
    lanes: Mapping[str, Works] = field(default_factory=dict)

    def lane(self, own: Exchange, works: Works) -> Works:
        """What the policy that it began under works with; `works`, where that one answers no more."""
        return self.lanes.get(own.policy, works)

    async def open(self) -> None:
        """Read what is there. Raises StoreFault."""
        requests, batches = await self.store.load()
        self.all = {one.id: one for one in requests}
        self.batches = {one.name: one for one in batches}

    def take_in(self, arrived: Iterable[Kept]) -> None:
        """More that are on disk; what is known already stays as it is known."""
        for one in arrived:
            self.all.setdefault(one.id, one)

    def shown(self, works: Works, account: str, upstream: str) -> Sequence[tuple[str, str]] | None:
        """What is shown to that upstream on that account; None: it isn't there, or nobody has shown a credential."""
        target, known = works.by_key.get(upstream), self.callers.get(account)
        if target is not None and known is None and target.operators and account.startswith("operator"):
            return target.operators_pairs(account)
        return None if target is None else known

    def can_send(self, works: Works, kept: Kept) -> bool:
        """Whether its upstream is there, and somebody's credential for it."""
        return self.shown(works, kept.account, kept.upstream) is not None

    def members(self, name: str) -> list[Kept]:
        """Of a batch, as far as it may still answer them."""
        return [one for one in self.all.values() if one.batch == name and one.state in ("sending", "sent", "cancelled")]

    async def write(self, changed: Sequence[Kept], batch: Batch | None = None) -> None:
        """What became of some, and of a batch. Raises StoreFault."""
        before, batches = [self.all.get(one.id) for one in changed], self.batches
        known = None if batch is None else batches.get(batch.name)
        if batch is not None:
            batches[batch.name] = batch
        self.all |= {one.id: one for one in changed}
        try:
            await self.store.write(changed, batch)
        except StoreFault:
            self._back(changed, before)
            if batch is not None and batches.get(batch.name) is batch:
                if known is None:
                    del batches[batch.name]
                else:
                    batches[batch.name] = known
            raise

    async def step(self, now: Kept, writing: Awaitable[None]) -> None:
        """One goes on, as it is being written. Raises StoreFault."""
        before, self.all[now.id] = self.all.get(now.id), now
        try:
            await writing
        except StoreFault:
            self._back([now], [before])
            raise

    def _back(self, changed: Sequence[Kept], before: Sequence[Kept | None]) -> None:
        """Where the disk fails they are what they were: a step that is in memory alone would be half done for ever."""
        for now, one in zip(changed, before, strict=True):
            if one is not None and self.all.get(now.id) is now:
                self.all[now.id] = one

    async def forget(self, ids: Sequence[str]) -> None:
        """Remove requests. Raises StoreFault."""
        await self.store.forget(ids)
        for id in ids:
            self.all.pop(id, None)

    async def forget_batch(self, batch: Batch) -> None:
        """Remove a batch. Raises StoreFault."""
        await self.store.forget(batch=batch.name)
        self.batches.pop(batch.name, None)

    async def book_never(self, works: Works | None, kept: Kept, outcome: Outcome, why: str) -> None:
        """Its row, where it has no answer; with what was paid for in vain. Raises StoreFault."""
        texts = await self.store.texts([kept.id])
        if works is not None and kept.id in texts:
            own = restored(kept, texts[kept.id], self.clock)
            paid_before(own, texts[kept.id].paid)
            works.books.never(own, outcome, why, billed=kept.state == "failed" and bool(kept.batch))
            await self.flushed(works)
        await self.write([self.all[kept.id]._replace(booked=1)])

    async def flushed(self, works: Works) -> None:
        """The ledger has all rows on disk."""
        ledger = works.books.account.ledger
        if ledger is not None:
            await asyncio.to_thread(ledger.flush)


async def survive(what: str, work: Awaitable[None]) -> None:
    """A fault is told, and it is tried again at the next turn."""
    try:
        await work
    except (StoreFault, UpstreamFault, Refused, Unclear) as fault:
        log.warning(what, error=str(fault))
    except Exception as error:
        log.error(what, error=type(error).__name__, exc_info=error)
