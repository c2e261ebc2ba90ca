"""A replay's course: blocks of lines are read by other processes, put in order of time, and given to every lane.

Rules of this file:
1. What other processes do is pure and comes back in the file's order, so how many there are changes no figure.
2. Everything that a figure depends on stands in `Run`, between two blocks, so that a run which is stopped there and
   goes on later ends with the figures of one that never was.
3. Memory is bounded: by the blocks under way, the window in which requests are put in order, and the lanes' stores.
"""

from __future__ import annotations

import heapq
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from farthing.proxy.exchange import CacheStatus
from farthing.proxy.replay_facts import Before, Fact, Reading, fact_of
from farthing.proxy.replay_formats import recorded
from farthing.proxy.replay_lane import Lane, groups_of
from farthing.proxy.replay_read import Block, Broken, Trace, decoded
from farthing.proxy.replay_sums import Sums
from farthing.proxy.replay_values import NotARequest
from farthing.proxy.tokens import Tokenizer

__all__ = ["Run", "Told", "play"]

# Logs are written as answers end, so times go back by as much as an answer takes.
WINDOW = 20_000
_INLINE_BYTES = 8 * 2**20
Stop = Callable[[], bool]


class Told(NamedTuple):
    """How far it is."""

    share: float
    requests: int


class Read(NamedTuple):
    """A block, read. `formats`, `skipped`: how many of each."""

    facts: list[Fact]
    broken: list[tuple[int, str]]
    skipped: dict[str, int]
    formats: dict[str, int]


@dataclass(slots=True)
class Run:
    """See rule 2. `position`: of Block.until. `back`: steps back in time from one line to the next; `late`: requests
    that came too late to be put in order. `recorded`: what farthing's own rows say of the same requests."""

    lanes: list[Lane]
    by: tuple[str, ...] = ()
    position: tuple[int, int] = (0, 1)
    share: float = 0.0
    finished: bool = False
    requests: int = 0
    broken: Broken = field(default_factory=Broken)
    skipped: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    back: int = 0
    late: int = 0
    timeless: int = 0
    promptless: int = 0
    answered: int = 0
    measured: int = 0
    retries: int = 0
    first_s: float | None = None
    last_s: float | None = None
    recorded: Sums = field(default_factory=Sums)
    recorded_groups: dict[tuple[str, ...], Sums] = field(default_factory=dict)
    window: list[tuple[float, int, Fact]] = field(default_factory=list)
    before_s: float = 0.0
    now_s: float = 0.0

    def take(self, read: Read, block: Block) -> None:
        """A block's facts, in the order in which they are to be taken."""
        for line, reason in read.broken:
            self.broken.add(line, reason)
        for counts, more in ((self.skipped, read.skipped), (self.formats, read.formats)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
        for fact in read.facts:
            self._put(fact)
        self.position, self.share = block.until, block.share

    def finish(self) -> None:
        """The trace is at its end."""
        self.sum_up()
        self.finished, self.share = True, 1.0

    def sum_up(self) -> None:
        """Decide about what was read and still waits to be put in order, so that no request is missing in the figures.
        After it nothing can be taken."""
        while self.window:
            self._play()
        for lane in self.lanes:
            lane.end()

    def _put(self, fact: Fact) -> None:
        self.requests += 1
        ts = fact.ts
        if ts is None:
            self.timeless += 1
            ts = self.before_s
        else:
            self.back += ts < self.before_s
            self.first_s = ts if self.first_s is None else min(self.first_s, ts)
            self.last_s = ts if self.last_s is None else max(self.last_s, ts)
        self.before_s = ts
        self.promptless += not fact.known
        self.answered += fact.size > 0
        self.measured += fact.latency_s is not None
        if fact.before is not None:
            self._note(fact, fact.before)
        heapq.heappush(self.window, (ts, self.requests, fact))
        if len(self.window) > WINDOW:
            self._play()

    def _play(self) -> None:
        ts, _, fact = heapq.heappop(self.window)
        if ts < self.now_s:
            self.late += 1
            ts = self.now_s
        self.now_s = ts
        for lane in self.lanes:
            lane.take(fact, ts)

    def _note(self, fact: Fact, before: Before) -> None:
        money = before.money
        self.retries += before.retries
        some = [self.recorded]
        if self.by:
            some.append(self.recorded_groups.setdefault(groups_of(fact, self.by), Sums()))
        for sums in some:
            status = before.cache if before.cache in sums.statuses else CacheStatus.BYPASS._value_
            sums.add(status, status != CacheStatus.BYPASS._value_, money)
            sums.count(*before.tokens)
            sums.overhead += money.overhead or 0


def play(
    run: Run,
    trace: Trace,
    readings: Sequence[Reading],
    format: str,
    *,
    processes: int,
    stop: Stop = lambda: False,
    tell: Callable[[Told], None] = lambda told: None,
) -> None:
    """Go on from where the run stands, to the end or until `stop`, which is asked between two blocks.

    `format`: of replay_formats.FORMATS, '' to tell it line by line. `processes`: that read; small traces are read in
    this one. Raises ConfigFault: the trace can't be read.
    """
    if run.finished:
        return
    if processes < 2 or trace.size < _INLINE_BYTES:
        tokenizer = Tokenizer()
        pairs: Iterator[tuple[Block, Read]] = (
            (block, read_block(block, trace.newest_first, readings, format, tokenizer))
            for block in trace.blocks(run.position)
        )
        _go_on(run, pairs, stop, tell)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(tuple(readings), format, trace.newest_first)
    ) as pool:
        _go_on(run, _side_by_side(pool, trace.blocks(run.position), 2 * processes), stop, tell)
        pool.shutdown(cancel_futures=True)


def _go_on(run: Run, pairs: Iterator[tuple[Block, Read]], stop: Stop, tell: Callable[[Told], None]) -> None:
    for block, read in pairs:
        run.take(read, block)
        tell(Told(block.share, run.requests))
        if stop():
            return
    run.finish()
    tell(Told(1.0, run.requests))


def _side_by_side(pool: ProcessPoolExecutor, blocks: Iterator[Block], most: int) -> Iterator[tuple[Block, Read]]:
    """Blocks with what became of them, in their order; at most so many are under way."""
    waiting: deque[tuple[Block, Future[Read]]] = deque()
    for block in blocks:
        waiting.append((block._replace(lines=[]), pool.submit(_read_there, block)))
        if len(waiting) >= most:
            yield _done(*waiting.popleft())
    while waiting:
        yield _done(*waiting.popleft())


def _done(block: Block, future: Future[Read]) -> tuple[Block, Read]:
    return block, future.result()


# -- in the other processes

_THERE: dict[str, Any] = {}


def _begin(readings: tuple[Reading, ...], format: str, newest_first: bool) -> None:
    """Ctrl-C reaches every process of a terminal; the one that counts ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _THERE.update(readings=readings, format=format, newest_first=newest_first, tokenizer=Tokenizer())


def _read_there(block: Block) -> Read:
    return read_block(block, _THERE["newest_first"], _THERE["readings"], _THERE["format"], _THERE["tokenizer"])


def read_block(
    block: Block, newest_first: bool, readings: Sequence[Reading], format: str, tokenizer: Tokenizer
) -> Read:
    """A block's requests; lines that hold none are told, with their numbers, and never stop the rest."""
    read = Read([], [], {}, {})
    numbered = list(enumerate(block.lines, block.line))
    for number, line in reversed(numbered) if newest_first else numbered:
        if not line or line.isspace():
            continue
        try:
            one = recorded(decoded(line), format)
            read.facts.append(fact_of(number, one, readings, tokenizer))
            read.formats[one.format] = read.formats.get(one.format, 0) + 1
        except NotARequest as error:
            if error.kind:
                read.skipped[error.kind] = read.skipped.get(error.kind, 0) + 1
            else:
                read.broken.append((number, str(error)))
        except ValueError as error:
            read.broken.append((number, f"not JSON: {error}"[:120]))
        except Exception as error:  # noqa: BLE001 - whatever a line holds, the others are read
            read.broken.append((number, f"can't be read: {type(error).__name__}"))
    return read
