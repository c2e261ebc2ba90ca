"""The thread on which a SemanticCache lives: waiting look-ups are embedded together, indexes tended in between.

Rules of this file:
1. `SemanticCache` is touched from nowhere else.
2. Work beyond a small queue is refused by whoever asks `ready`, not piled up.
3. Tending is the last in line: one slice, then whatever has come meanwhile, then the next. So a look-up waits for one
   slice at most.
4. What it takes to look up is imported on this thread, by `build`: where the stage is off, it never is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

if TYPE_CHECKING:
    from farthing.cache.semantic import Found, SemanticCache
    from farthing.cache.shared_index import SharedIndex

__all__ = ["SemanticThread"]

log = structlog.get_logger("farthing.semantic")

T = TypeVar("T")
_QUEUE = 64


@dataclass(slots=True)
class _Asked:
    """A look-up that waits for the thread."""

    scope: str
    route: str
    text: str
    now_s: float
    answer: Future[Found]


class SemanticThread:
    """See the module. `pending`: work that waits or is under way. `entries`: of the cache, after the last work.
    `shared`: by what it is one with other replicas, if it is."""

    def __init__(
        self, build: Callable[[], SemanticCache], *, patient: bool = False, shared: SharedIndex | None = None
    ) -> None:
        """`patient`: nobody waits for its work, so it yields the processor to whatever else wants it."""
        self.shared = shared
        self._executor = ThreadPoolExecutor(1, "semantic", step_back if patient else None)
        self._build = build
        self._cache: SemanticCache | None = None  # once it may be asked
        self._built: SemanticCache | None = None
        self._asked: deque[_Asked] = deque()
        self._tending = self._closed = False
        self.loading = True  # model and index may still come
        self.pending = 0
        self.entries = 0

    async def open(self) -> None:
        """Load model and index. Raises what `build` raises."""
        try:
            cache = await asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        finally:
            self.loading = False
        if not self._closed:
            self._cache, self.entries = cache, len(cache)
            self._tend_later()

    @property
    def loaded(self) -> bool:
        """Whether model and index are there."""
        return self._cache is not None

    @property
    def ready(self) -> bool:
        """Whether it may be asked now."""
        return self._cache is not None and self.pending < _QUEUE

    async def run(self, work: Callable[[SemanticCache], T]) -> T:
        """Do `work` on the thread."""
        cache = self._open()
        return await self._wait(cache, self._executor.submit(work, cache))

    async def lookup(self, scope: str, route: str, text: str, now_s: float) -> Found:
        """SemanticCache.lookup on the thread. Those that wait are embedded in one call, as far as that is a gain."""
        cache = self._open()
        asked = _Asked(scope, route, text, now_s, Future())
        self._asked.append(asked)
        self._executor.submit(self._answer, cache)
        return await self._wait(cache, asked.answer)

    async def close(self) -> None:
        """Finish what is queued and close the index; idempotent. One that is still loading closes when it is there."""
        if self._closed:
            return
        self._closed, loaded, self._cache = True, self._cache is not None, None
        letting_go = self._executor.submit(self._let_go)
        self._executor.shutdown(wait=False)
        if loaded:
            await asyncio.wrap_future(letting_go)

    def _load(self) -> SemanticCache:
        """Build the cache, on the thread that it lives on and ends on."""
        self._built = self._build()
        return self._built

    def _let_go(self) -> None:
        built, self._built = self._built, None
        if built is not None:
            built.close()

    def _open(self) -> SemanticCache:
        if self._cache is None:
            raise RuntimeError("the semantic cache is not open")
        return self._cache

    async def _wait(self, cache: SemanticCache, work: Future[T]) -> T:
        self.pending += 1
        try:
            return await asyncio.wrap_future(work)
        finally:
            self.pending -= 1
            self.entries = len(cache)
            self._tend_later()

    def _answer(self, cache: SemanticCache) -> None:
        """Answer some of those who wait, on the thread; an earlier call may have answered them all."""
        taken: list[_Asked] = []
        while self._asked and len(taken) < max(cache.batch, 1):
            asked = self._asked.popleft()
            # Who gave up (late means miss) costs nothing.
            if asked.answer.set_running_or_notify_cancel():
                taken.append(asked)
        if len(taken) > 1:
            with contextlib.suppress(Exception):  # whoever's text it is gets the error from its own look-up
                cache.warm([(asked.scope, asked.text) for asked in taken])
        for asked in taken:
            try:
                asked.answer.set_result(cache.lookup(asked.scope, asked.route, asked.text, asked.now_s))
            except Exception as error:  # noqa: BLE001 - it is the asker's
                asked.answer.set_exception(error)

    def _tend_later(self) -> None:
        """Put tending at the end of the line, unless it is there."""
        cache = self._cache
        if cache is not None and cache.restless and not self._tending:
            self._tending = True
            self._executor.submit(self._tend, cache)

    def _tend(self, cache: SemanticCache) -> None:
        """One slice, on the thread; then to the end of the line again."""
        try:
            more = self._cache is cache and cache.tend()
        except Exception as error:  # noqa: BLE001 - the old index goes on serving, and this is not tried again
            log.error("semantic cache: rebuilding an index failed; the old one goes on", error=type(error).__name__)
            return
        if more:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self._executor.submit(self._tend, cache)
        else:
            self._tending = False


def step_back() -> None:
    """Lower this thread's priority, where the system can (Linux: nice values are a thread's own)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
