"""Deadlines of tasks, looked at together: a timer for each request, moved with each chunk, costs more than the rest of
its relay. A deadline is kept to within `every_s`."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Deadline", "Deadlines"]

_EVERY_S = 0.05


class Deadline:
    """When its task is to be cancelled: `due`, in seconds of `now`; move it as you like."""

    __slots__ = ("_loop", "due", "passed", "task", "was_cancelling")

    def __init__(self, seconds: float, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.task = task
        self.due = loop.time() + seconds
        self.passed = False
        self.was_cancelling = task.cancelling()

    def now(self) -> float:
        """The loop's clock."""
        return self._loop.time()

    def passed_alone(self) -> bool:
        """In a CancelledError: whether this deadline was the only reason for it, and then the task goes on."""
        return self.passed and self.task.uncancel() <= self.was_cancelling


class Deadlines:
    """The deadlines of one event loop."""

    def __init__(self, every_s: float = _EVERY_S) -> None:
        self._every_s = every_s
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float, task: asyncio.Task[Any] | None = None) -> Deadline:
        """Limit `task`, by default the current one; `end` it when the work is done."""
        task, loop = task or asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        deadline = Deadline(seconds, task, loop)
        self._running.add(deadline)
        if self._timer is None:
            self._timer = loop.call_later(self._every_s, self._look)
        return deadline

    def end(self, deadline: Deadline) -> None:
        """The work is done, in time or not."""
        self._running.discard(deadline)

    def _look(self) -> None:
        self._timer = None
        if not self._running:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in self._running:
            if deadline.due <= now and not deadline.passed:
                deadline.passed = True
                deadline.task.cancel()
        self._timer = loop.call_later(self._every_s, self._look)
