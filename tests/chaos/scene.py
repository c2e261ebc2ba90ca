"""A fault under load: calm, the fault, calm again, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tests.chaos.load import Asked, Load, loading
from tests.chaos.measured import NEVER_S, RECOVERY_S, Line, Moments, cold, line_of, recovery_s, row_ids
from tests.chaos.places import Farthing

__all__ = ["FEW", "FULL", "SHORT", "Fault", "On", "Pace", "Place", "Setting", "measure"]

FEW = 10
"""A fault begins once more requests than these have ended: in a slow place `calm_s` alone may show no load."""
_FLUSH_S = 0.05  # ledger.flush_ms
_FLUSHED_S = 10 * _FLUSH_S
_ROWS_WITHIN_S, _SHOWN_WITHIN_S = 10.0, 40.0  # bounds, for a machine that is busy


class Place(Protocol):
    """Where a fault happens: some farthings before one upstream. `credential`: what clients show; `alike`: whether they
    ask near-duplicates too."""

    replicas: list[Farthing]
    credential: str
    alike: bool

    @property
    def direct(self) -> str:
        """Where the upstream answers, past every farthing."""
        ...

    def shown(self, asked: Sequence[Asked], moments: Moments) -> bool:
        """Whether enough was asked since the fault for what is claimed of this place; waited for, within bounds."""
        ...

    def more_broken(self, asked: Sequence[Asked], moments: Moments, notes: dict[str, Any]) -> list[str]:
        """What is claimed of this place alone and did not hold, once the load has ended; `notes` may get more."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the parts of a measurement last, in seconds. `calm_s`: before the fault, or longer until each replica
    has served a hit; `after_s`: after it, or longer until each has again; `longer`: times a fault's own length."""

    calm_s: float
    after_s: float
    longer: float = 1.0


SHORT, FULL = Pace(1.0, 2.5), Pace(6.0, 10.0, longer=4.0)

P = TypeVar("P", bound=Place)


@dataclass(slots=True)
class On(Generic[P]):
    """A fault while it is on. It tells here which replicas it killed when (`kills`), when the upstream turned from
    good to bad or back (`cuts`), what else was seen (`notes`), and which rows stood in a ledger before it was damaged
    (`rows`). `later`: what is looked at once it is over, under load still; each tells the claims that did not hold."""

    on: P
    hold_s: float
    longer: float
    kills: list[tuple[int, float]] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)
    later: list[Callable[[], Awaitable[list[str]]]] = field(default_factory=list)

    async def hold(self) -> None:
        """Let the fault last."""
        await asyncio.sleep(self.hold_s)

    @contextlib.contextmanager
    def turning(self) -> Iterator[None]:
        """While the upstream turns from good to bad or back: of two calls at that moment either may be lucky."""
        began = time.monotonic()
        yield
        self.cuts.append((began, time.monotonic()))


@dataclass(frozen=True, slots=True)
class Fault(Generic[P]):
    """What is done, and what is promised. `paired`: each request is sent past the proxy too, to compare; `hold_s`: how
    long it lasts; `refusing`: the error codes of refusals that are promised meanwhile."""

    name: str
    promise: str
    inject: Callable[[On[P]], Awaitable[None]]
    hold_s: float = 1.5
    paired: bool = False
    refusing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Setting(Generic[P]):
    """A fault, and a place of its own for it. `needs`: what isn't here and would have to be, or ''; `short`: whether it
    is among those of `make chaos-short`."""

    fault: Fault[P]
    place: Callable[[Path], AbstractContextManager[P]]
    needs: Callable[[], str] = str
    short: bool = True


class Stall:
    """When a thread that sleeps as the ledger's writer does wakes, and how much too late: the machine's doing."""

    def __init__(self) -> None:
        self._woke: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[float, float]]:
        """End it; what it noted, as `Moments.stalls`."""
        self._over.set()
        self._thread.join()
        return self._woke

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._over.wait(_FLUSH_S)
            woke = time.monotonic()
            self._woke.append((woke, max(0.0, woke - began - _FLUSH_S)))


class Took:
    """How long each part of a measurement took, in seconds and in order."""

    def __init__(self) -> None:
        self.parts_s: dict[str, float] = {}
        self._from = time.monotonic()

    def over(self, part: str) -> None:
        """This part ends now; it began where the one before ended."""
        now = time.monotonic()
        self.parts_s[part] = round(now - self._from, 2)
        self._from = now


def _log_lines(place: Place) -> int:
    return sum(replica.said().count("\n") for replica in place.replicas)


_SEEDS = itertools.count(time.time_ns() // 10**6 % 10**9)


async def measure(place: P, fault: Fault[P], pace: Pace = SHORT) -> Line:
    """Calm, the fault, and calm again, under load all the while."""
    those = range(len(place.replicas))
    load = Load(
        [one.url for one in place.replicas],
        next(_SEEDS),
        direct=place.direct if fault.paired else "",
        credential=place.credential,
        alike=place.alike,
    )
    stall, said, took = Stall(), _log_lines(place), Took()
    async with loading(load):
        took.over("warm")
        await asyncio.sleep(pace.calm_s)
        well_by = time.monotonic() + 2 * RECOVERY_S
        await _until(lambda: len(load.asked) > FEW and not cold(load.asked, those), well_by)
        took.over("calm")
        scene = On(place, fault.hold_s * pace.longer, pace.longer)
        began = time.monotonic()
        await fault.inject(scene)
        moments = Moments(began, time.monotonic(), scene.kills, scene.cuts, refusing=fault.refusing)
        took.over("fault")
        looked, _ = await asyncio.gather(_looked(scene), asyncio.sleep(pace.after_s))
        scene.notes["broke"] = looked
        await _until(lambda: recovery_s(load.asked, moments, those) != NEVER_S, moments.ended + 2 * RECOVERY_S)
        await _until(lambda: place.shown(load.asked, moments), moments.ended + _SHOWN_WITHIN_S)
        took.over("after")
    took.over("drain")
    moments.stalls = stall.stop()
    until = time.monotonic() + _ROWS_WITHIN_S
    while True:
        await asyncio.sleep(_FLUSHED_S)
        ids = await asyncio.to_thread(row_ids, [replica.state for replica in place.replicas])
        lines = _log_lines(place) - said
        line = line_of(fault.name, fault.promise, load.asked, ids | scene.rows, moments, those, scene.notes, lines)
        if not line.lost_rows or time.monotonic() > until:
            break
    took.over("rows")
    if more := await asyncio.to_thread(place.more_broken, load.asked, moments, line.notes):
        line.notes["more_broken"] = more
    took.over("more")
    line.notes["took_s"] = took.parts_s
    told = [_told(one) for one in load.asked if moments.fails(one) or one.wrong]
    if told:
        line.notes["examples"] = told[:5]
    return line


def _told(one: Asked) -> str:
    """What was asked, what became of it, and when."""
    return f"{one.prompt!r} {one.status} after {one.ended - one.began:.2f} s: {one.errors}"


async def _looked(scene: On[Any]) -> list[str]:
    return [claim for look in scene.later for claim in await look()]


async def _until(true: Callable[[], bool], at_most: float) -> None:
    """Wait for it; for no longer than that moment of time.monotonic."""
    while not true() and time.monotonic() < at_most:
        await asyncio.sleep(0.1)
