"""Background work with an owner: bounded, named, drained at shutdown. The only place that makes tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

__all__ = ["TaskGroup", "through"]

log = structlog.get_logger("farthing.tasks")


async def through(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work` to its end, also where whoever waits is cancelled: that is raised then, once the work is done.

    For what must be in the books, and ends by itself. Raises what the work raises.
    """
    task, cancelled = asyncio.get_running_loop().create_task(work), None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled() and task.exception() is None:
        raise cancelled
    task.result()


class TaskGroup:
    """Tasks that live no longer than their owner; an exception in one is logged, never lost."""

    def __init__(self, limit: int = 100_000) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """Whether optional work should be dropped instead of spawned."""
        return len(self._tasks) >= self._limit

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Start `coro`; the group holds the task until it has ended."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task failed", task=task.get_name(), error=type(error).__name__, exc_info=error)

    async def drain(self, timeout_s: float) -> int:
        """Wait for all tasks, then cancel what is left. Returns how many had to be cancelled."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)
        return len(left)
