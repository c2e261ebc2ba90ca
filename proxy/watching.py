"""Watching for drift beside the traffic: a sample of rows, requests and embeddings goes through one slow thread.

Rules of this file: the event loop and the ledger's thread only put references into bounded queues, and no more of them
a second than `watch.per_s`; reading, counting and the disk are this thread's, which yields the processor to all else.
What is kept, in memory and in watch.json, are counts, sums and means over many; a text is read and let go. Whatever a
text holds, the thread lives.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import structlog

from farthing.cache.semantic_thread import step_back
from farthing.policies.association import Pairing, Traits
from farthing.policies.calibration import Calibration
from farthing.policies.features import LANGUAGES, Answered, Asked, answered, asked
from farthing.policies.watch import ALL, Alarm, Board
from farthing.policies.watch_series import log_place, share_place
from farthing.proxy.capture_record import answer_of
from farthing.proxy.clock import Clock
from farthing.proxy.config_watch import Watch
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.learnt import save
from farthing.proxy.row import ERRANDS, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Watching", "length_class"]

log = structlog.get_logger("farthing.watch")

_T = TypeVar("_T")

_EVERY_S = 0.25
_SAVE_EVERY_S = 60.0
_FIGURES_EVERY_S = 5.0
_MOST_WAITING = 64
_MOST_QUEUED = 1_000
_LONGEST_BYTES = 2**18
_PATIENCE_S = 10.0
_CONFIDENCES = 10_000
_TENANT_DIGITS = 8
_HITS = frozenset({"hit-exact", "hit-semantic", "joined"})
_READ = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES})
_CLASSES = ((250, "short"), (2_000, "medium"), (16_000, "long"))
CALIBRATIONS = ("near-duplicate score", "token probability")


@dataclass(frozen=True, slots=True)
class _Said:
    payload: dict[str, Any]
    answer: bytes | None
    tick_s: float = 0.0


@dataclass(slots=True)
class _Bucket:
    """So many a second, and as many at once. Two threads may both take the last one: that is near enough."""

    per_s: float
    left: float = 0.0

    def fill(self, elapsed_s: float) -> None:
        self.left = min(max(1.0, self.per_s), self.left + self.per_s * elapsed_s)

    def take(self) -> bool:
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


def length_class(tokens: int) -> str:
    """A request's length in a word: short, medium, long (from 2,000 tokens on) or huge (from 16,000)."""
    return next((name for limit, name in _CLASSES if tokens < limit), "huge")


class Watching:
    """See the module. `on_alarm`: told of each alarm, on this thread. `made_with`: the embedder.

    `wants`, `take`, `compared`, `shadowed`, `rated` and `topic` belong to the event loop, `on_rows` to the ledger's
    thread; the rest to any. Opening never fails: a file that can't be used is moved aside. Effects: a thread, the file
    at `path`.
    """

    def __init__(self, path: Path, settings: Watch, clock: Clock, made_with: str) -> None:
        self.path = path
        self.settings = settings
        self.on_alarm: Callable[[Alarm], None] = lambda alarm: None
        self._clock = clock
        self._made_with = made_with
        self._lock = threading.Lock()
        self._board = Board(settings.rules, made_with)
        self._pairing = Pairing()
        self._calibrations = {name: Calibration() for name in CALIBRATIONS}
        self._confidences: OrderedDict[str, float] = OrderedDict()
        self._texts, self._rows, self._vectors = (_Bucket(settings.per_s, settings.per_s) for _ in range(3))
        self._said: dict[str, _Said] = {}
        self._queue: deque[Callable[[], None]] = deque(maxlen=_MOST_QUEUED)
        self._figures: dict[str, float] = {}
        self._saved_s = self._filled_tick = self._figured_tick = float("-inf")
        self._closing = False
        self._wake = threading.Event()
        self._round = threading.Condition()
        self._asked = self._done = 0
        self._load()
        self._thread = threading.Thread(target=self._work_on, name="watch", daemon=True)
        self._thread.start()

    # -- the event loop's

    def wants(self, ex: Exchange) -> bool:
        """Whether this exchange's texts are to be looked at; cheap, as it is asked of each."""
        return (
            self._texts.left >= 1.0
            and self.settings.enabled
            and ex.payload is not None
            and ex.endpoint in _READ
            and not ex.controls.off
            and not ex.controls.no_store
            and len(self._said) < _MOST_WAITING
        )

    def take(self, ex: Exchange) -> None:
        """Look at it later. To be called before its row is appended."""
        answer = answer_of(ex)
        if ex.payload is not None and self._texts.take():
            short = answer is not None and len(answer) <= _LONGEST_BYTES and ex.status == 200
            self._said[ex.id] = _Said(ex.payload, answer if short else None, self._clock.tick_s())

    def wants_vector(self) -> bool:
        """Whether an embedding is welcome; one that is wanted is paid for."""
        return self.settings.enabled and self._vectors.take()

    def topic(self, vector: NDArray[np.float32]) -> None:
        """Take a request's embedding, of length 1."""
        self._queue.append(lambda: self._raise(self._board.topic(vector, self._clock.now_s())))

    def compared(self, score: float, *, wrong: bool) -> None:
        """Take a comparison of a near-duplicate's answer with a fresh one."""
        self._queue.append(lambda: self._compared(score, wrong))

    def judged(self, score: float) -> None:
        """Take the second stage's word on a near-duplicate, 1 good."""
        self._queue.append(lambda: self._add("judged", share_place(score), (ALL,), self._clock.now_s()))

    def shadowed(self, tenant: str, *, wrong: bool) -> None:
        """Take what a shadow said of a routed answer."""
        slices = (ALL, f"tenant:{tenant[:_TENANT_DIGITS]}")
        self._queue.append(lambda: self._add("shadowed", int(wrong), slices, self._clock.now_s()))

    def rated(self, exchange_id: str, *, wrong: bool) -> None:
        """Take somebody's word on an answer: how sure was its model?"""
        self._queue.append(lambda: self._rated(exchange_id, wrong))

    # -- the ledger's thread

    def on_rows(self, rows: Sequence[Row]) -> None:
        """Take note of some of the rows, spread over the batch."""
        if not self.settings.enabled:
            return
        if self._said:
            for row in rows:
                said = self._said.pop(row.id, None)
                if said is not None:
                    self._queue.append(partial(self._read, row, said))
        room = int(self._rows.left)
        if room and rows:
            for row in rows[:: -(-len(rows) // room)]:
                self._rows.take()
                self._queue.append(partial(self._count, row))

    # -- any thread's

    def use(self, settings: Watch, made_with: str) -> None:
        """Go on under these settings; what was learnt stays."""
        if settings == self.settings and made_with == self._made_with:
            return
        with self._lock:
            board = Board(settings.rules, made_with)
            board.load(self._board.dump())
            self._board, self.settings, self._made_with = board, settings, made_with
            for bucket in (self._texts, self._rows, self._vectors):
                bucket.per_s = settings.per_s

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that came so far has been looked at; whether it has. Blocks."""
        with self._round:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            return self._round.wait_for(lambda: self._done >= mine, timeout_s)

    def told(self) -> dict[str, Any]:
        """Everything, as JSON values. Blocks for some milliseconds."""
        with self._lock:
            board, settings = self._board, self.settings
            return {
                "enabled": settings.enabled,
                "alarms_per_year": settings.alarms_per_year,
                "tolerance": settings.tolerance,
                "distance": settings.distance,
                "reference_requests": settings.reference_requests,
                "reference_days": settings.reference_days,
                "alarms": board.alarms,
                "standing": board.standing,
                "series": board.told(),
                "calibration": [
                    {"name": name, **_plain(one)} for name, one in self._calibrations.items() if sum(one.n)
                ],
            }

    def gauges(self) -> dict[str, float]:
        """For /metrics: of all traffic, by series; and how many alarms there were and are. As of some seconds ago."""
        return self._figures

    def rebase(self, series: str = "", slice_name: str = "") -> int:
        """What is now is normal: learn references anew; how many series do."""
        with self._lock:
            return self._board.rebase(series, slice_name)

    def close(self) -> None:
        """Look at what waits, write what is known. Idempotent. Blocks."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    # -- the thread's

    def _work_on(self) -> None:
        step_back()
        while True:
            ending = self._closing
            asked = self._asked
            if not ending and asked == self._done:
                self._wake.wait(_EVERY_S)
                asked = self._asked
            self._wake.clear()
            tick_s = self._fill()
            for _ in range(len(self._queue)):
                work = self._queue.popleft()
                try:
                    with self._lock:
                        work()
                except Exception as error:  # noqa: BLE001 - the thread must live, whatever a text holds
                    log.error("watching failed on an observation", fault=type(error).__name__)
                time.sleep(0)  # whoever answers requests gets Python's lock between any two of them
            if asked != self._done or tick_s - self._figured_tick >= _FIGURES_EVERY_S:
                self._figured_tick = tick_s
                with self._lock:
                    self._figures = _figures(self._board)
            if ending or self._clock.now_s() - self._saved_s >= _SAVE_EVERY_S:
                self._save()
            with self._round:
                self._done = asked
                self._round.notify_all()
            if ending:
                return

    def _fill(self) -> float:
        tick_s = self._clock.tick_s()
        elapsed_s = min(1.0, max(0.0, tick_s - self._filled_tick))
        self._filled_tick = tick_s
        for bucket in (self._texts, self._rows, self._vectors):
            bucket.fill(elapsed_s)
        # Of a request whose row never came: nothing must keep the places taken.
        for id in [id for id, said in list(self._said.items()) if tick_s - said.tick_s > _PATIENCE_S]:
            self._said.pop(id, None)
        return tick_s

    def _count(self, row: Row) -> None:
        if row.endpoint in ERRANDS or row.endpoint == Endpoint.OTHER:
            return
        slices = [ALL, *_slices(row)]
        for series, place in _of_row(row):
            self._add(series, place, slices, row.ts)

    def _read(self, row: Row, said: _Said) -> None:
        request = asked(said.payload)
        answer = None if said.answer is None else answered(said.answer, wants_json=request.wants_json)
        own = [f"language:{request.language}", f"tools:{'yes' if request.tools else 'no'}"]
        # Rows are watched by `_count`, hits of the short way too; these slices only texts can tell.
        for series, place in _of_row(row):
            self._add(series, place, own, row.ts)
        slices = [ALL, *_slices(row), *own]
        for series, place in _of_texts(request, answer):
            self._add(series, place, slices, row.ts)
        for series, place in self._pairing.add(_traits(row, request)):
            self._add(series, place, (ALL,), row.ts)
        if answer is not None and answer.confidence is not None:
            self._confidences[row.id] = answer.confidence
            if len(self._confidences) > _CONFIDENCES:
                self._confidences.popitem(last=False)

    def _add(self, series: str, place: int, slices: Sequence[str], at_s: float) -> None:
        self._raise(self._board.add(series, place, slices, at_s))

    def _compared(self, score: float, wrong: bool) -> None:
        now_s = self._clock.now_s()
        self._calibrations["near-duplicate score"].add(min(1.0, max(0.0, score)), float(wrong))
        self._add("wrong", int(wrong), (ALL,), now_s)
        self._add("score", share_place(score), (ALL,), now_s)

    def _rated(self, exchange_id: str, wrong: bool) -> None:
        confidence = self._confidences.pop(exchange_id, None)
        if confidence is not None:
            self._calibrations["token probability"].add(confidence, float(wrong))

    def _raise(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            log.warning("drift", series=alarm.series, slice=alarm.slice, what=alarm.what, warns=list(alarm.warns))
            self.on_alarm(alarm)

    def _save(self) -> None:
        self._saved_s = self._clock.now_s()
        with self._lock:
            kept = {name: one.dump() for name, one in self._calibrations.items()}
            content = orjson.dumps({"board": self._board.dump(), "calibrations": kept})
        try:
            save(self.path, [content])
        except OSError as error:
            log.warning("what is watched can't be written", error=error.strerror)

    def _load(self) -> None:
        try:
            dumped = orjson.loads(self.path.read_bytes())
            self._board.load(dumped["board"])
            kept = dumped["calibrations"]
            self._calibrations |= {name: Calibration.load(kept[name]) for name in CALIBRATIONS if name in kept}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._board = Board(self.settings.rules, self._made_with)
            aside = self.path.with_suffix(".other.json")
            log.warning("what was watched can't be used; references are learnt anew", reason=str(error))
            try:
                self.path.replace(aside)
            except OSError:
                return


def _figures(board: Board) -> dict[str, float]:
    found: dict[str, float] = {"drift_alarms": board.alarms, "drift_standing": board.standing}
    for one in board.told():
        name = f"drift_evidence_ratio:{one['series']}"
        found[name] = max(found.get(name, 0.0), one["evidence"])
        if one["slice"] == ALL and one.get("psi") is not None:
            found[f"drift_psi:{one['series']}"] = one["psi"]
    return found


def _slices(row: Row) -> Iterator[str]:
    yield f"tenant:{row.tenant[:_TENANT_DIGITS]}"
    if row.tokens_in_original is not None:
        yield f"length:{length_class(row.tokens_in_original)}"
    if row.tags != "{}":
        yield from (f"tag:{name}={value}" for name, value in orjson.loads(row.tags).items())


def _of_row(row: Row) -> Iterator[tuple[str, int]]:
    """What a ledger row tells."""
    if row.tokens_in_original is not None:
        yield "input_tokens", log_place(row.tokens_in_original)
    if row.cache in _HITS or row.cache == "miss":
        yield "hit", int(row.cache in _HITS)
    if row.similarity is not None:
        yield "similarity", share_place(row.similarity)
    if row.attempts and row.outcome != "abandoned":
        yield "failed", int(row.outcome == "failed" or row.status >= 500 or row.status == 429)
    if row.outcome == "completed" and row.status == 200:
        if row.tokens_out is not None:
            yield "output_tokens", log_place(row.tokens_out)
        if row.upstream_ms is not None and row.attempts:
            yield "upstream_ms", log_place(row.upstream_ms)


def _of_texts(request: Asked, answer: Answered | None) -> Iterator[tuple[str, int]]:
    yield "language", LANGUAGES.index(request.language)
    yield "tools", int(request.tools)
    if answer is None:
        return
    yield "refused", int(answer.refused)
    yield "empty", int(answer.empty)
    yield "cut", int(answer.cut)
    if request.wants_json:
        yield "broken_json", int(answer.broken_json)


def _traits(row: Row, request: Asked) -> Traits:
    could_hit = row.cache in _HITS or row.cache == "miss"
    language = LANGUAGES.index(request.language)
    return Traits(row.tokens_in_original, int(request.tools), language, int(row.cache in _HITS) if could_hit else None)


def _plain(one: Calibration) -> dict[str, Any]:
    """As JSON values."""
    told = one.told()
    names = [name for name in told.__slots__ if name != "bins"]
    bins = [{name: getattr(each, name) for name in each.__slots__} for each in told.bins]
    return {name: getattr(told, name) for name in names} | {"bins": bins}


def threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[[_T], None]) -> Callable[[_T], None]:
    """`call` on the loop, from any thread; nothing once the loop is closed."""

    def tell(alarm: _T) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call, alarm)

    return tell
