"""Accounts and buckets of several processes on one machine, in one SQLite file: every change is one transaction of it.

Rules of this file:
1. Nothing is known but what the file says: so no two processes can both take what is left.
2. What waits at the same moment is one transaction, in a thread: five hundred requests cost a few, not five hundred.
3. A reservation whose deadline has passed was most likely made by a process that died: it counts as spent, until it is
   settled after all. Before that it is held, so that no budget is overdrawn by it.
4. A file that can't be asked is told as StoreFault, and what that means is decided elsewhere (budgets.py).
5. What was spent is kept beyond its window (policies.budget.KEPT_S): the clock may be ahead.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import structlog

from farthing.policies.bucket import AHEAD_S, Level, Take, give, take_all
from farthing.policies.budget import KEPT_S, Moved, Over, Want, fits
from farthing.proxy.budgets import Reserved, Standing
from farthing.proxy.clock import Clock
from farthing.proxy.errors import ConfigFault, StoreFault

__all__ = ["SharedAccounts"]

log = structlog.get_logger("farthing.budgets")

T = TypeVar("T")
_BUSY_S = 5.0
_PAUSES_S = (0.1, 0.5, 2.0, 5.0)
_MOST_AT_ONCE = 500
_MOST_SEEN = 10_000
_SWEEP_S = 60.0
_FULL_AGAIN_S = 120.0  # a bucket that nobody used for so long is full, which is what a new one is, unless it had a debt
_PAID_AGAIN_S = 86_400.0
_LATE = -1.0  # instead of a deadline: it has passed, and the reservation counts as spent
_SCHEMA = """
create table if not exists accounts
  (account text primary key, spent integer not null, held integer not null, ends_s integer not null);
create table if not exists holds
  (hold text not null, account text not null, pico integer not null, until_s real not null,
   primary key (hold, account));
create index if not exists holds_account on holds (account, until_s);
create table if not exists buckets (bucket text primary key, held real not null, at_s real not null);
"""
_OPEN = "insert into accounts values (?, 0, 0, ?) on conflict (account) do nothing"


class _Asked(NamedTuple):
    """`do`: in a transaction of the thread's."""

    do: Callable[[sqlite3.Connection], Any]
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class SharedAccounts:
    """Accounts over `path`. `first`: no other process has it open, and what was reserved counts as spent.

    `hold_s`: how long a request may take before its reservation counts as spent. `pauses_s`: between tries to settle
    while the file can't be written. Effects: a thread. Raises ConfigFault: the file can't be used.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        *,
        first: bool,
        hold_s: float = 3660.0,
        pauses_s: Sequence[float] = _PAUSES_S,
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self._hold_s = hold_s
        self._pauses_s = pauses_s
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._swept_tick = clock.tick_s()
        self._over = Over()
        self._closed = False
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._conn = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._conn.execute("pragma journal_mode = wal")
            self._conn.execute("pragma synchronous = normal")
            self._conn.executescript(_SCHEMA)
            if first:
                self._conn.execute("begin immediate")
                self._conn.execute("delete from accounts where ends_s <= ?", (clock.now_s() - KEPT_S,))
                self._conn.execute("update accounts set spent = spent + held, held = 0 where held > 0")
                self._conn.execute("update holds set until_s = ?", (_LATE,))
                self._conn.execute("commit")
        except (sqlite3.Error, OSError) as error:
            raise ConfigFault(f"can't keep budgets in {path}: {error}") from None
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="budgets", daemon=True)
        self._thread.start()

    async def reserve(self, hold: str, wants: Sequence[Want], pico: int, now_s: float) -> Reserved:
        """Accounts.reserve."""
        found, told = await self._do(lambda conn: _reserve(conn, hold, wants, pico, now_s, now_s + self._hold_s))
        self._note(told)
        return found

    def settle(
        self, hold: str, wants: Sequence[Want], pico: int, told: Callable[[Sequence[Moved]], None], *, reserved: bool
    ) -> None:
        """Accounts.settle."""
        self._spawn(self._settle(hold, wants, pico, told, reserved=reserved))

    def take(self, takes: Sequence[Take], now_s: float) -> Awaitable[tuple[int, float]]:
        """Accounts.take."""
        return self._do(lambda conn: _take(conn, takes, now_s))

    def give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        """Accounts.give."""
        self._spawn(self._give(takes, amount, now_s))

    async def standing(self, now_s: float) -> list[Standing]:
        """Accounts.standing."""
        query = "select account, spent, held from accounts where ends_s > ?"
        rows = await self._do(lambda conn: conn.execute(query, (now_s,)).fetchall())
        return [Standing(*row) for row in rows]

    def seen(self) -> dict[str, tuple[int, int]]:
        """Accounts.seen: what the last answers said."""
        now_s = self._clock.now_s()
        return {account: (spent, held) for account, (spent, held, ends_s) in self._seen.items() if ends_s > now_s}

    async def close(self) -> None:
        """Accounts.close."""
        if not self._closed:
            self._closed = True
            self._asked.put(None)
            await asyncio.to_thread(self._thread.join)
            self._conn.close()

    # -- on the event loop

    def _do(self, what: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if self._closed:
            answer.set_exception(StoreFault("the accounts are closed"))
        else:
            self._asked.put(_Asked(what, answer, loop))
        return answer

    async def _settle(
        self, hold: str, wants: Sequence[Want], pico: int, told: Callable[[Sequence[Moved]], None], *, reserved: bool
    ) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                moved, known = await self._do(lambda conn: _settle(conn, hold, wants, pico, reserved=reserved))
                break
            except StoreFault as fault:
                if pause_s is None:
                    became = "what it reserved counts as spent" if reserved else "no budget knows of it"
                    log.error(f"a request could not be settled: {became}", fault=str(fault))
                    return
                await asyncio.sleep(pause_s)
        self._note(known)
        if moved:
            told(moved)

    async def _give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        with suppress(StoreFault):
            await self._do(lambda conn: _give(conn, takes, amount, now_s))

    def _note(self, told: Sequence[tuple[str, int, int, int]]) -> None:
        for account, spent, held, ends_s in told:
            self._seen.pop(account, None)
            self._seen[account] = (spent, held, ends_s)
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    # -- the thread

    def _work(self) -> None:
        ending = False
        while not ending:
            batch = [self._asked.get()]
            with suppress(queue.Empty):
                while len(batch) < _MOST_AT_ONCE:
                    batch.append(self._asked.get_nowait())
            ending = None in batch
            self._batch([one for one in batch if one is not None])

    def _batch(self, batch: list[_Asked]) -> None:
        answers: list[Any] = []
        fault: StoreFault | None = None
        try:
            self._conn.execute("begin immediate")
            try:
                answers = [one.do(self._conn) for one in batch]
                self._sweep()
                self._conn.execute("commit")
            finally:
                if self._conn.in_transaction:
                    self._conn.execute("rollback")
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live
            fault = StoreFault(f"the file of budgets fails: {error}")
        for at, one in enumerate(batch):
            with suppress(RuntimeError):  # the loop has ended
                one.loop.call_soon_threadsafe(_give_back, one.answer, None if fault else answers[at], fault)

    def _sweep(self) -> None:
        tick = self._clock.tick_s()
        if tick - self._swept_tick >= _SWEEP_S:
            self._swept_tick, now_s = tick, self._clock.now_s()
            query = "select distinct account from holds where until_s between 0 and ?"
            for (account,) in self._conn.execute(query, (now_s,)).fetchall():
                _end_late(self._conn, account, now_s)
            self._conn.execute("delete from accounts where held = 0 and spent = 0")
            ends = [end for (end,) in self._conn.execute("select distinct ends_s from accounts").fetchall()]
            gone = [(end,) for end in self._over.gone(ends, now_s, tick)]
            self._conn.executemany("delete from accounts where held = 0 and ends_s = ?", gone)
            orphans = "delete from holds where until_s < 0 and account not in (select account from accounts)"
            self._conn.execute(orphans)
            # What a clock stamped that was ahead is dated anew, so that it goes in time though nobody asks for it.
            self._conn.execute("update buckets set at_s = ?1 where at_s > ?1 + ?2", (now_s, AHEAD_S))
            full = "delete from buckets where at_s < ? and (held >= 0 or at_s < ?)"
            self._conn.execute(full, (now_s - _FULL_AGAIN_S, now_s - _PAID_AGAIN_S))


def _give_back(answer: asyncio.Future[Any], value: Any, fault: StoreFault | None) -> None:
    if not answer.done():  # else whoever asked has left
        if fault is None:
            answer.set_result(value)
        else:
            answer.set_exception(fault)


def _reserve(
    conn: sqlite3.Connection, hold: str, wants: Sequence[Want], pico: int, now_s: float, until_s: float
) -> tuple[Reserved, list[tuple[str, int, int, int]]]:
    for want in wants:
        _end_late(conn, want.account, now_s)
    known = [(want, *_sums(conn, want.account)) for want in wants]
    told = [(want.account, spent, held, want.ends_s) for want, spent, held in known]
    if conn.execute("select 1 from holds where hold = ?", (hold,)).fetchone() is not None:
        return Reserved(), told
    for place, (want, spent, held) in enumerate(known):
        if want.budget.hard and not fits(want.budget.limit, spent, held, pico):
            return Reserved(place, spent, held), told
    for want in wants:
        conn.execute(_OPEN, (want.account, want.ends_s))
        conn.execute("update accounts set held = held + ? where account = ?", (pico, want.account))
        conn.execute("insert into holds values (?, ?, ?, ?)", (hold, want.account, pico, until_s))
    return Reserved(), [(account, spent, held + pico, ends_s) for account, spent, held, ends_s in told]


def _settle(
    conn: sqlite3.Connection, hold: str, wants: Sequence[Want], pico: int, *, reserved: bool
) -> tuple[list[Moved], list[tuple[str, int, int, int]]]:
    moved, known = [], []
    for want in wants:
        query = "select pico, until_s from holds where hold = ? and account = ?"
        found = conn.execute(query, (hold, want.account)).fetchone()
        if found is None and reserved:
            continue  # it was settled before
        conn.execute(_OPEN, (want.account, want.ends_s))
        before = _sums(conn, want.account)[0]
        held, until_s = found or (0, 0.0)
        spent = pico - held if until_s < 0 else pico  # late: it counts as spent already
        change = "update accounts set held = held - ?, spent = spent + ? where account = ?"
        conn.execute(change, (0 if until_s < 0 else held, spent, want.account))
        conn.execute("delete from holds where hold = ? and account = ?", (hold, want.account))
        moved.append(Moved(want.account, before, before + spent))
        known.append((want.account, *_sums(conn, want.account), want.ends_s))
    return moved, known


def _end_late(conn: sqlite3.Connection, account: str, now_s: float) -> None:
    """Reservations whose deadline has passed count as spent, until they are settled after all."""
    query = "select coalesce(sum(pico), 0), count(*) from holds where account = ? and until_s between 0 and ?"
    pico, count = conn.execute(query, (account, now_s)).fetchone()
    if count:
        change = "update accounts set held = held - ?1, spent = spent + ?1 where account = ?2"
        conn.execute(change, (pico, account))
        late = "update holds set until_s = ? where account = ? and until_s between 0 and ?"
        conn.execute(late, (_LATE, account, now_s))


def _sums(conn: sqlite3.Connection, account: str) -> tuple[int, int]:
    found = conn.execute("select spent, held from accounts where account = ?", (account,)).fetchone()
    return cast("tuple[int, int]", found) if found is not None else (0, 0)


def _level(conn: sqlite3.Connection, bucket: str) -> Level | None:
    found = conn.execute("select held, at_s from buckets where bucket = ?", (bucket,)).fetchone()
    return None if found is None else Level(*found)


def _take(conn: sqlite3.Connection, takes: Sequence[Take], now_s: float) -> tuple[int, float]:
    """From all of them or from none, as policies.bucket.Buckets does."""
    place, longest_s, kept = take_all(takes, lambda bucket: _level(conn, bucket), now_s)
    conn.executemany("insert or replace into buckets values (?, ?, ?)", [(bucket, *level) for bucket, level in kept])
    return place, longest_s


def _give(conn: sqlite3.Connection, takes: Sequence[Take], amount: int, now_s: float) -> None:
    for one in takes:
        level = give(_level(conn, one.bucket), one.rate.per_min, amount, now_s)
        conn.execute("insert or replace into buckets values (?, ?, ?)", (one.bucket, *level))
