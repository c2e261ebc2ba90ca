"""Where an attempt's answer goes before it is known whether it serves: `Held` keeps it, `Gate` lets it through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from farthing.proxy.errors import UpstreamFault
from farthing.proxy.exchange import Head, Sink

__all__ = ["Gate", "Held", "Race"]


class Held:
    """A sink that keeps up to `limit_bytes`; beyond it `overflown`, and only the end is awaited."""

    def __init__(self, limit_bytes: int) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.head: Head | None = None
        self.overflown = False
        self._limit = limit_bytes
        self._frames: list[tuple[bytes, bool]] = []
        self._bytes = 0

    @property
    def status(self) -> int:
        """The answer's; 0 before its head has come."""
        return self.head.status if self.head is not None else 0

    def open(self, head: Head) -> None:
        """Sink.open."""
        self.head = head

    async def write(self, body: bytes, *, usage_only: bool = False) -> None:
        """Sink.write."""
        self._bytes += len(body)
        if self._bytes > self._limit:
            self.overflown = True
            self._frames.clear()
        else:
            self._frames.append((body, usage_only))

    def body(self) -> bytes | None:
        """Sink.body."""
        return None if self.overflown else b"".join([body for body, _ in self._frames])

    async def release(self, sink: Sink | None) -> None:
        """Let it go on, as it came. Raises UpstreamFault: there was too much of it."""
        assert sink is not None
        assert self.head is not None
        if self.overflown:
            raise UpstreamFault("the upstream's answer is too long to be held", phase="body", status=502)
        sink.open(self.head)
        for body, usage_only in self._frames:
            await sink.write(body, usage_only=usage_only)


class Race:
    """Several attempts, of which the first good answer goes on. `winner`: its gate. `tasks`: each gate's work."""

    def __init__(self) -> None:
        self.winner: Gate | None = None
        self.tasks: dict[Held, asyncio.Task[Any]] = {}
        self._won = asyncio.Event()
        self._ended = False

    @property
    def open(self) -> bool:
        """Whether a second attempt would still help: none has answered, and the first has not failed either."""
        return self.winner is None and not self._ended

    def alone(self, gate: Gate) -> bool:
        """Whether no other attempt is under way."""
        return all(task.done() for other, task in self.tasks.items() if other is not gate)

    def claim(self, gate: Gate) -> bool:
        """Whether it is the first; then all others are hung up."""
        if self.winner is None:
            self.winner = gate
            self._won.set()
            for other, task in self.tasks.items():
                if other is not gate:
                    task.cancel()
        return self.winner is gate

    async def wait(self, first: asyncio.Task[Any] | None, seconds: float) -> None:
        """Until the first attempt has answered or failed, or the time is up."""
        assert first is not None
        first.add_done_callback(self._over)
        try:
            async with asyncio.timeout(seconds):
                await self._won.wait()
        except TimeoutError:
            pass

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._ended = True
        self._won.set()


class Gate(Held):
    """Before the client's sink. `holds`: a failure is kept back, for another leg is left; so a head goes on with its
    first byte, before which the answer may yet break off. In a race the first good head wins, or else the last one.
    `passes`: called when an answer goes on, before its head does. `passed`: it has."""

    def __init__(self, limit_bytes: int, sink: Sink, *, holds: bool, race: Race | None = None) -> None:
        super().__init__(limit_bytes)
        self.passed = False
        self.passes: Callable[[], None] = _nothing
        self._sink = sink
        self._holds = holds
        self._race = race
        self._waits = False

    def open(self, head: Head) -> None:
        """Sink.open."""
        super().open(head)
        race = self._race
        if head.status >= 400 and (self._holds or (race is not None and not race.alone(self))):
            return
        if race is not None and not race.claim(self):
            return
        if self._holds and race is None:
            self._waits = True
        else:
            self._pass(head)

    def end(self) -> None:
        """The attempt has ended well: a head without a body goes on too."""
        if self._waits and self.head is not None:
            self._pass(self.head)

    def _pass(self, head: Head) -> None:
        self.passed, self._waits = True, False
        self.passes()
        self._sink.open(head)

    async def write(self, body: bytes, *, usage_only: bool = False) -> None:
        """Sink.write."""
        if body:
            self.end()
        if self.passed:
            await self._sink.write(body, usage_only=usage_only)
        else:
            await super().write(body, usage_only=usage_only)

    def body(self) -> bytes | None:
        """Sink.body."""
        return self._sink.body() if self.passed else super().body()


def _nothing() -> None:
    return
