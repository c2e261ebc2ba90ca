"""Writes down what becomes of policies, behind whoever changes them: a disk that hangs keeps no change waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from farthing.proxy.config import Config
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.versions import Book, Standing

__all__ = ["Scribe"]


class Scribe:
    """Writes in the order of the calls, off the event loop; of several states that wait, the latest. Never raises."""

    def __init__(self, book: Book, tasks: TaskGroup) -> None:
        self._book = book
        self._tasks = tasks
        self._steps: deque[Callable[[], object]] = deque()
        self._standing: Standing | None = None
        self._done = asyncio.Event()
        self._done.set()

    def keep(self, config: Config, now_s: float, note: str) -> None:
        """This configuration's policy is a version."""
        self._steps.append(partial(self._book.keep, config, now_s, note))
        self._go_on()

    def noted(self, version: str, note: str) -> None:
        """An operator's note on a version that is kept by now."""
        self._steps.append(partial(self._book.noted, version, note))
        self._go_on()

    def note(self, now_s: float, what: str, version: str, before: str, why: str) -> None:
        """A change for the log."""
        self._steps.append(partial(self._book.note, now_s, what, version, before, why))
        self._go_on()

    def save(self, standing: Standing) -> None:
        """What is in force, as it is now."""
        self._standing = replace(standing, before=list(standing.before))
        self._go_on()

    async def written(self, within_s: float) -> bool:
        """Whether all of it was written in that time."""
        try:
            async with asyncio.timeout(within_s):
                await self._done.wait()
        except TimeoutError:
            return False
        return True

    def _go_on(self) -> None:
        if self._done.is_set():
            self._done.clear()
            self._tasks.spawn(self._write(), "write policies down")

    async def _write(self) -> None:
        try:
            while self._steps or self._standing is not None:
                if self._steps:
                    step = self._steps.popleft()
                else:
                    assert self._standing is not None
                    step, self._standing = partial(self._book.save, self._standing), None
                await asyncio.to_thread(step)
        finally:
            self._done.set()
