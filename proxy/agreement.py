"""The way by which a replica agrees with others: its connections to the shared store, and its name."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from farthing.cache.store_redis import RedisStore
from farthing.proxy.agreed import Agreed, Machine
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.tasks import TaskGroup

__all__ = ["Agreement"]

_DEADLINE_MS = 5_000.0  # no request waits for any of this
_NAME_BYTES = 8


class Agreement:
    """`url`: of the shared store. It has connections of its own, so that what is long keeps no request waiting, and its
    failures don't shut answers out. Made on the event loop."""

    def __init__(self, url: str, *, clock: Clock, randomness: Randomness, tasks: TaskGroup) -> None:
        self.store = RedisStore(
            url,
            deadline_ms=_DEADLINE_MS,
            clock=clock,
            threshold=2,
            max_connections=4,
            told_as="what replicas agree upon",
            passed_by="this replica goes on with what it knows",
        )
        self.states: list[Agreed] = []
        self._clock = clock
        self._randomness = randomness
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()

    def join(self, name: str, machine: Machine) -> Agreed:
        """The state of this name, followed from now on."""
        agreed = Agreed(
            self.store,
            name,
            machine,
            teller=self._randomness.token(_NAME_BYTES),
            noise=self._randomness.token(_NAME_BYTES),
            clock=self._clock,
        )
        agreed.begin(self._tasks)
        self.states = [one for one in self.states if not one.closed] + [agreed]
        return agreed

    def leave(self, agreed: Agreed) -> None:
        """Send what waits, and follow it no more. From whatever thread."""
        with suppress(RuntimeError):  # the loop is closed: `close` has done it
            self._loop.call_soon_threadsafe(lambda: self._tasks.spawn(agreed.close(), f"leave {agreed.name}"))

    async def close(self) -> None:
        """Send what waits, where the server takes it at once, and let go."""
        for one in self.states:
            await one.close()
        await self.store.close()

    def gauges(self) -> dict[str, float]:
        """For /metrics; nothing where nothing is agreed upon."""
        states = [one for one in self.states if not one.closed]
        if not states:
            return {}
        return {
            "agreed_reached": all(one.state.reached for one in states),
            "agreed_waiting_events": sum(one.waiting for one in states),
            "agreed_dropped_events": sum(one.state.dropped for one in states),
            "agreed_differed": sum(one.state.differed for one in states),
        }
