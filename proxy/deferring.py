"""Deferred requests: taken from clients, answered when fetched; one process sees to them (proxy/defer_work.py).

Rules of this file:
1. What is on disk is what is known: a request is there before its client hears of it, and each process reads there what
   became of it. So whichever process is asked can take one, tell of one and give its result.
2. Whoever holds the lock on a file of its own sees to them. The lock ends with its process, however that ends, and then
   the next one to look takes over, as after a restart. Nobody sends anything without it.
3. Credentials are held in memory alone, by every process: what a client shows one of them is told to the others. When
   all have ended a client that asks for its requests brings its own back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import structlog
from multidict import CIMultiDict, MultiMapping

from farthing.policies.variant import Variant
from farthing.proxy import state
from farthing.proxy.batch_ways import Kind, Target
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.defer_books import known_of, meta_of
from farthing.proxy.defer_lines import Sent, inputs_of
from farthing.proxy.defer_shelf import Shelf, Works, survive
from farthing.proxy.defer_store import DeferStore, Kept, Result, Texts
from farthing.proxy.defer_work import Work
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import Exchange
from farthing.proxy.tasks import TaskGroup

if TYPE_CHECKING:
    from farthing.proxy.peers import Peers

__all__ = ["Caller", "Desk", "Placed"]

log = structlog.get_logger("farthing.defer")

_MOST_LISTED = 1000
_WITHIN_S, _CALLERS_WITHIN_S = 10.0, 2.0
_CALLER, _CALLERS, _DO = "deferred caller", "deferred callers", "deferred"  # what workers say to each other


class Caller(NamedTuple):
    """On whose account a request is sent, and what shows that."""

    account: str
    pairs: Sequence[tuple[str, str]]


class Placed(NamedTuple):
    """Where a request is to wait. `variant`: who is asked, where not the model asked for at the default upstream;
    `route`: the route that chose it."""

    target: Target
    kind: Kind
    variant: Variant | None = None
    route: str = ""


class Desk:
    """All deferred requests, as one process has to do with them. `lock`: the file whose lock says who sees to them;
    `peers`: the other workers, if there are any. `open`, `use`, then `start`; `close` leaves all as it stands."""

    def __init__(
        self,
        store: DeferStore,
        clock: Clock,
        randomness: Randomness,
        secret: bytes,
        lock: Path,
        peers: Peers | None = None,
    ) -> None:
        self._store = store
        self._shelf = Shelf(store, clock)
        self._clock = clock
        self._secret = secret
        self._works: Works | None = None
        self._work = Work(self._shelf, clock, randomness)
        self._tasks = TaskGroup()
        self._path = lock
        self._lock: IO[str] | None = None
        self._taking = asyncio.Lock()
        self._peers = peers

    # -- opening and closing

    async def open(self) -> None:
        """Read what is there, and see to it where nobody does. Raises StoreFault."""
        await self._store.open()
        await self._owns()
        if self._peers is not None:
            self._peers.when_told(_CALLER, self._met_elsewhere)
            self._peers.when_asked(_CALLERS, self._all_callers)
            self._peers.when_asked(_DO, self._asked)

    def use(self, works: Works) -> None:
        """There is a configuration to work with; the first one is, until `follow` says which."""
        self._works = self._works or works

    def follow(self, active: Works, lanes: Mapping[str, Works]) -> None:
        """Work with this configuration from now on. `lanes`: of every policy that answers now, by its version: what
        began under one of them is worked on with its own."""
        self._works, self._shelf.lanes = active, lanes

    def start(self) -> None:
        """Begin to work; once."""
        if not len(self._tasks):
            self._tasks.spawn(self._run(), "deferred requests")

    async def close(self) -> None:
        """Stop; what is under way is found again, here or by whoever follows."""
        await self._tasks.drain(0)
        await self._work.close()
        await self._store.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def works(self) -> Works | None:
        """The configuration in force."""
        return self._works

    # -- what clients ask

    def caller_of(self, headers: MultiMapping[str], target: Target) -> Caller | None:
        """On whose account such a request is sent; None where there is none."""
        found = target.account(headers, self._secret)
        return None if found is None else Caller(*found)

    async def meet(self, headers: CIMultiDict[str]) -> None:
        """A client is there: what it shows may be what its requests wait for. Raises StoreFault."""
        for target in () if self._works is None else self._works.targets.values():
            caller = None if target.operators else self.caller_of(headers, target)
            if caller is None or caller.account in self._shelf.callers:
                continue
            if await self._store.waits_for(caller.account):
                self._know(caller)

    async def waiting(self) -> int:
        """Requests that aren't over. Raises StoreFault."""
        return await self._store.waiting()

    async def accept(self, ex: Exchange, caller: Caller, placed: Placed, sent: Sent, wait_s: float) -> dict[str, Any]:
        """Keep it, and what its client is told; it is on disk when this returns. Where its client leaves meanwhile it
        is kept all the same, and what it reserved goes with it. Raises StoreFault."""
        assert ex.body is not None
        now_s = self._clock.now_s()
        kept = Kept(ex.id, caller.account, ex.credential, placed.target.key, ex.original.path, ex.model, "queued",
                    now_s, now_s + wait_s, len(sent.body),
                    api=placed.kind, sent_path=sent.path, sent_model=sent.model, inputs=inputs_of(ex))  # fmt: skip
        same = sent.body == ex.body
        texts = Texts(meta_of(ex, placed.variant, placed.route), ex.body, b"" if same else sent.body, known_of(ex))
        self._know(caller)
        hold, ex.hold, ex.deferred = ex.hold, None, True
        try:
            await asyncio.shield(self._tasks.spawn(self._add(kept, texts), "keep a request"))
        except Exception:
            ex.hold, ex.deferred = hold, False
            raise
        return self._told(kept, "")

    async def _add(self, kept: Kept, texts: Texts) -> None:
        await self._store.add(kept, texts)
        if self._lock is not None:
            self._shelf.take_in([kept])

    async def of(self, credential: str) -> list[dict[str, Any]]:
        """A credential's own, latest first. Raises StoreFault."""
        return [self._told(*one) for one in await self._store.seen(credential, most=_MOST_LISTED)]

    async def find(self, id: str, credential: str) -> dict[str, Any] | None:
        """It as its client sees it, if it is that credential's. Raises StoreFault."""
        found = await self._store.seen(credential, id)
        return self._told(*found[0]) if found else None

    async def result(self, id: str) -> Result | None:
        """Its answer. Raises StoreFault."""
        return await self._store.result(id)

    async def cancel(self, id: str) -> None:
        """Forget about it. What the provider has begun is paid for, and booked when it is known. Raises StoreFault."""
        await self._done("cancel", id)

    async def erase(self, user: str) -> int:
        """Cancel and forget all of a user's; how many there were. One whose bill is to come stays until it has come.
        Raises StoreFault."""
        return int(await self._done("erase", user))

    async def standing(self) -> dict[str, Any] | None:
        """How many wait, are with a provider, done, failed and cancelled, of those that are kept; and by upstream. None
        where nobody can say it now."""
        try:
            found: dict[str, Any] = await self._done("standing", "")
        except StoreFault:
            return None
        return found

    def _told(self, kept: Kept, batch_id: str) -> dict[str, Any]:
        works, shelf = self._works, self._shelf
        state = {"queued": "queued", "completed": "completed", "failed": "failed", "cancelled": "cancelled"}
        return {
            "id": kept.id,
            "object": "farthing.deferred",
            "status": state.get(kept.state, "in_progress"),
            "endpoint": kept.path,
            "model": kept.model,
            "created_at": int(kept.created_s),
            "deadline_at": int(kept.deadline_s),
            "ended_at": int(kept.ended_s) or None,
            "expires_at": int(kept.ended_s + works.config.keep_s) if kept.over and works is not None else None,
            "batch_id": batch_id or None,
            "waits_for_credential": not kept.over and (works is None or not shelf.can_send(works, kept)),
            "status_code": kept.status or None,
            "result_url": f"/farthing/api/deferred/{kept.id}/result",
            "error": {"code": kept.error, "message": _WORDS.get(kept.error, "")} if kept.state == "failed" else None,
        }

    # -- who sees to them

    async def _run(self) -> None:
        await survive("what the other workers were shown isn't known", self._ask_for_callers())
        while True:
            works = self._works
            if works is not None:
                await survive("deferred requests can't be worked on", self._turn(works))
            pause_s = 1.0 if works is None else min(1.0, works.config.poll_s, works.config.flush_s)
            await asyncio.sleep(pause_s)

    async def _turn(self, works: Works) -> None:
        if await self._owns():
            self._shelf.take_in(await self._store.arrived())
            await self._work.turn(works)

    async def _owns(self) -> bool:
        """Whether this process sees to them: it does from now on where nobody does. Raises StoreFault."""
        async with self._taking:
            if self._lock is not None:
                return True
            try:
                lock = state.hold(self._path)
            except OSError as error:
                raise StoreFault(f"{self._path}: {error}") from error
            if lock is None:
                return False
            try:
                await self._shelf.open()
            except BaseException:
                lock.close()
                raise
            self._lock = lock
            if self._peers is not None:
                log.info("this worker sees to deferred requests", kept=len(self._shelf.all))
            return True

    async def _done(self, what: str, about: str) -> Any:
        """Have it done by whoever sees to them. Raises StoreFault: nobody can be asked."""
        if await self._owns():
            return await self._do(what, about)
        peers = self._peers
        answers = [] if peers is None else (await peers.ask(_DO, [what, about], to="others", within_s=_WITHIN_S)).values
        for _, answer in answers:
            if answer is not None:
                return answer[0]
        raise StoreFault("nobody sees to deferred requests at this moment")

    async def _do(self, what: str, about: str) -> Any:
        works = self._works
        if works is None:
            raise StoreFault("there is no configuration yet")
        if what == "standing":
            return self._work.standing(works)
        self._shelf.take_in(await self._store.arrived())
        return await (self._work.cancel if what == "cancel" else self._work.erase)(works, about)

    async def _asked(self, said: Sequence[str]) -> list[Any] | None:
        """What another worker wants to have done; None where it isn't done here."""
        if self._lock is None:
            return None
        try:
            return [await self._do(*said)]
        except StoreFault as fault:
            log.warning("what another worker asked of deferred requests can't be done", error=str(fault))
            return None

    # -- what shows whose accounts are

    def _know(self, caller: Caller) -> None:
        if caller.account not in self._shelf.callers:
            self._shelf.callers[caller.account] = caller.pairs
            if self._peers is not None:
                self._peers.tell(_CALLER, caller)

    def _met_elsewhere(self, said: Sequence[Any]) -> None:
        account, pairs = said
        self._shelf.callers[account] = [(name, value) for name, value in pairs]

    async def _all_callers(self, _: object) -> list[Any]:
        return list(self._shelf.callers.items())

    async def _ask_for_callers(self) -> None:
        if self._peers is not None:
            found = await self._peers.ask(_CALLERS, None, to="others", within_s=_CALLERS_WITHIN_S)
            for _, told in found.values:
                for said in told:
                    self._met_elsewhere(said)


_WORDS = {
    "credential_lost": "farthing was started anew, and nobody has shown the credential since: it can't be sent",
    "unreadable": "it is sealed under a key that farthing doesn't have any more",
}
