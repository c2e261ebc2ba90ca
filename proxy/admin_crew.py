"""Admin calls where farthing is several processes: who answers which.

Rules of this file:
1. What only the keeper knows or may decide, it is asked by whoever was called: policies, experiments, watch, levels.
2. What every process holds a part of is done in all of them before the caller has an answer: purges, erasures,
   feedback, draining. Where one of them doesn't say that it is done, the caller is told to ask again.
3. What lies in files that all read (the switch, keys) is nobody's in particular.
4. In such a call every worker first writes what it holds back, then sees what the others wrote: so what is counted in
   one is not counted in another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from farthing.cache.store_near import NearStore
from farthing.cache.store_shared import SharedStore
from farthing.proxy import pool_admin
from farthing.proxy.build import Services
from farthing.proxy.crew import Crew
from farthing.proxy.errors import ClientFault, FarthingError

__all__ = ["EVERYWHERE", "KEEPERS", "CrewAdmin"]

Call = tuple[str, str, dict[str, Any]]
"""A method, a path with its query, and a body."""
Answer = tuple[int, Any]
"""A status, and what is told."""

KEEPERS = frozenset(
    {
        "/farthing/api/experiments",
        "/farthing/api/experiments/stop",
        "/farthing/api/levels",
        "/farthing/api/policy",
        "/farthing/api/policy/promote",
        "/farthing/api/policy/rollback",
        "/farthing/api/students",
        "/farthing/api/watch",
        "/farthing/api/watch/rebase",
    }
)
EVERYWHERE = frozenset(
    {
        "/farthing/api/cache/purge",
        "/farthing/api/capture/erase",
        "/farthing/api/erase",
        "/farthing/api/feedback",
        "/farthing/api/replicas/drain",
    }
)
_WITHIN_S = 60.0
_SETTLES_WITHIN_S = 10.0


class CrewAdmin:
    """`answer`: does a call here, and raises nothing but FarthingError."""

    def __init__(
        self,
        crew: Crew,
        services: Callable[[], Services],
        answer: Callable[[str, str, dict[str, Any]], Awaitable[Answer]],
    ) -> None:
        self._crew = crew
        self._services = services
        self._answer = answer
        crew.peers.when_asked("call", self._called)
        crew.peers.when_asked("call everywhere", self._called_everywhere)
        crew.peers.when_asked("flush", self._flush)
        crew.peers.when_asked("catch up", self._catch_up)
        crew.peers.when_asked("draining", self._draining)

    def elsewhere(self, path: str) -> bool:
        """Whether this call is the keeper's, and this isn't the keeper."""
        return path in KEEPERS and not self._crew.keeper

    def is_everywhere(self, path: str) -> bool:
        """Whether this call is to be done in every process."""
        return path in EVERYWHERE

    async def of_keeper(self, call: Call) -> Answer:
        """What the keeper answers. Raises ClientFault: it isn't there."""
        found = await self._crew.peers.ask("call", call, to="keeper", within_s=_WITHIN_S)
        if not found.values:
            raise ClientFault(
                "the worker that decides on this is being started anew; ask again", status=503, code="unavailable"
            )
        status, told = found.values[0][1]
        return status, told

    async def everywhere(self, path: str, asked: dict[str, Any]) -> Any:
        """Do it here and in all others, and what came of it. Raises ClientFault, FarthingError."""
        peers = self._crew.peers
        await asyncio.gather(self._flush(None), peers.ask("flush", None, to="others", within_s=_SETTLES_WITHIN_S))
        await self._catch_up(None)
        status, own = await self._answer("POST", path, asked)
        if status != 200:
            return own
        found = await peers.ask("call everywhere", ("POST", path, asked), to="others", within_s=_WITHIN_S)
        others = [told for _, (code, told) in found.values if code == 200]
        await asyncio.gather(self._catch_up(None), peers.ask("catch up", None, to="others", within_s=_SETTLES_WITHIN_S))
        if found.missing or len(others) < len(found.values):
            raise ClientFault("not every worker has done it; ask again", status=503, code="unavailable")
        return together(path, own, others)

    async def join(self) -> None:
        """Take over what the others were told that no file says."""
        found = await self._crew.peers.ask("draining", None, to="others", within_s=2.0)
        pool_admin.drain_these(self._services(), {name for _, names in found.values for name in names})

    async def _called(self, call: Call) -> Answer:
        try:
            return await self._answer(*call)
        except ClientFault as fault:
            return fault.status, {"fault": fault.message, "code": fault.code}
        except FarthingError as fault:
            return 503, {"fault": str(fault), "code": "unavailable"}

    async def _called_everywhere(self, call: Call) -> Answer:
        await self._catch_up(None)
        return await self._called(call)

    async def _flush(self, _: object) -> None:
        store = self._services().state.store
        if isinstance(store, SharedStore):
            await store.flush()

    async def _catch_up(self, _: object) -> None:
        services = self._services()
        if isinstance(services.state.store, SharedStore):
            await services.state.store.catch_up()
        elif isinstance(services.state.store, NearStore):
            services.state.store.clear()
        if services.thread is not None and services.thread.loaded:
            await services.thread.run(lambda cache: cache.follow())

    async def _draining(self, _: object) -> list[str]:
        return pool_admin.draining(self._services())


def together(path: str, own: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a call did in all of them, from what it did in each."""
    match path.rpartition("/")[2]:
        case "purge":
            return _sums(own, others)
        case "feedback":
            known = max([own["known"], *(one["known"] for one in others)])
            return own | {"known": known, "purged": own["purged"] + sum(one["purged"] for one in others)}
        case "erase" if "verified" in own:
            found = {name: _sums(own[name], [one[name] for one in others]) for name in ("erased", "left")}
            for name in found:  # one process sees to these, whichever is called
                found[name]["deferred"] = max(one[name]["deferred"] for one in (own, *others))
            verified = own["verified"] and all(one["verified"] for one in others)
            return found | {"verified": verified, "elsewhere": own["elsewhere"]}
        case "erase":
            return _sums(own, others)
        case _:
            return own


def _sums(own: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: value + sum(one.get(name, 0) for one in others) for name, value in own.items()}
