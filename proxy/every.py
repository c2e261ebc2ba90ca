"""Something that is done again and again on the event loop, without a task that lives all the while: so that whoever
waits for tasks to end doesn't wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from farthing.proxy.tasks import TaskGroup

__all__ = ["Every"]


class Every:
    """Does `do` now and then, one at a time: the pause begins when it has ended. A fault is logged, and it goes on."""

    def __init__(self, every_s: float, tasks: TaskGroup, do: Callable[[], Awaitable[object]], name: str) -> None:
        self._every_s = every_s
        self._tasks = tasks
        self._do = do
        self._name = name
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._later()

    def stop(self) -> None:
        """No more; what is under way ends. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _later(self) -> None:
        if not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._begin)

    def _begin(self) -> None:
        self._tasks.spawn(self._once(), self._name)

    async def _once(self) -> None:
        try:
            await self._do()
        finally:
            self._later()
