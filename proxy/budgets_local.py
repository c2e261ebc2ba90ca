"""Accounts of one process, in memory; their sums are written to SQLite behind it, and read when it starts.

Rules of this file:
1. A request waits for no disk. What changed is written at most `_EVERY_S` later, all of it in one transaction.
2. What was reserved when the process died was spent, as far as anybody knows: it counts as spent after the restart.
3. A disk that fails costs nobody an answer: the sums in memory stay right. It is told, and tried again, at growing
   pauses, whether or not anybody asks meanwhile: a timer waits for that, and no task that a stop would wait for.
4. What was spent is kept beyond its window, here and in the file (policies.budget.KEPT_S): the clock may be ahead.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from farthing.policies.bucket import Buckets, Take
from farthing.policies.budget import KEPT_S, Books, Moved, Tally, Want
from farthing.proxy.budgets import Reserved, Standing
from farthing.proxy.clock import Clock
from farthing.proxy.errors import ConfigFault

__all__ = ["LocalAccounts"]

log = structlog.get_logger("farthing.budgets")

_EVERY_S = 0.1
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
_SWEEP_S = 60.0
_SCHEMA = (
    "create table if not exists accounts "
    "(account text primary key, spent integer not null, held integer not null, ends_s integer not null)"
)
_PUT = (
    "insert into accounts values (?, ?, ?, ?) on conflict (account) do update set spent = excluded.spent, "
    "held = excluded.held"
)


class Timer(Protocol):
    """Something that is going to be done."""

    def cancel(self) -> None:
        """It isn't."""
        ...


def _later(seconds: float, do: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, do)


class LocalAccounts:
    """Accounts over `path`. `spawn`: starts what writes; `later`: does something on the event loop after so many
    seconds. Raises ConfigFault: the file can't be used."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        later: Callable[[float, Callable[[], None]], Timer] = _later,
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self._later = later
        self._again: Timer | None = None
        self._pause_s = _PAUSE_S
        self._unwritten: dict[str, tuple[str, int, int, int]] = {}
        self._buckets = Buckets()
        self._dirty: set[str] = set()
        self._writing = False
        self._one = threading.Lock()
        self._failing = False
        self._swept_tick = clock.tick_s()
        self._closed = False
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._conn = sqlite3.connect(path, check_same_thread=False)
            self._conn.execute("pragma journal_mode = wal")
            self._conn.execute("pragma synchronous = normal")
            self._conn.execute(_SCHEMA)
            self._conn.execute("delete from accounts where ends_s <= ?", (clock.now_s() - KEPT_S,))
            self._conn.execute("update accounts set spent = spent + held, held = 0 where held > 0")
            self._conn.commit()
            rows = self._conn.execute("select account, spent, ends_s from accounts").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise ConfigFault(f"can't keep budgets in {path}: {error}") from None
        self._books = Books({account: Tally(spent, 0, ends_s) for account, spent, ends_s in rows})

    def reserve(self, hold: str, wants: Sequence[Want], pico: int, now_s: float) -> Reserved:
        """Accounts.reserve."""
        refused = self._books.reserve(hold, wants, pico)
        if refused >= 0:
            tally = self._books.tally(wants[refused].account, wants[refused].ends_s)
            return Reserved(refused, tally.spent, tally.held)
        self._note(wants)
        return Reserved()

    def settle(
        self, hold: str, wants: Sequence[Want], pico: int, told: Callable[[Sequence[Moved]], None], *, reserved: bool
    ) -> None:
        """Accounts.settle. In one process there is always a reservation."""
        moved = self._books.settle(hold, pico)
        if moved:
            self._note(wants)
            told(moved)

    def take(self, takes: Sequence[Take], now_s: float) -> tuple[int, float]:
        """Accounts.take."""
        return self._buckets.take(takes, now_s)

    def give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        """Accounts.give."""
        self._buckets.give(takes, amount, now_s)

    async def standing(self, now_s: float) -> list[Standing]:
        """Accounts.standing."""
        held = self._books.tallies.items()
        return [Standing(name, one.spent, one.held) for name, one in held if one.ends_s > now_s]

    def seen(self) -> dict[str, tuple[int, int]]:
        """Accounts.seen."""
        now_s = self._clock.now_s()
        return {name: (one.spent, one.held) for name, one in self._books.tallies.items() if one.ends_s > now_s}

    async def close(self) -> None:
        """Accounts.close."""
        if not self._closed:
            self._closed = True
            if self._again is not None:
                self._again.cancel()
            self._write(self._rows())
            self._conn.close()

    def _note(self, wants: Sequence[Want]) -> None:
        self._dirty.update(want.account for want in wants)
        if self._again is None:  # else it waits for the disk
            self._begin()

    def _begin(self) -> None:
        self._again = None
        if not self._writing and not self._closed:
            self._writing = True
            self._spawn(self._write_soon())

    async def _write_soon(self) -> None:
        written = True
        try:
            while written and (self._dirty or self._unwritten):  # more may have changed while it was written
                await asyncio.sleep(_EVERY_S)
                rows = self._rows()
                tick = self._clock.tick_s()
                if tick - self._swept_tick >= _SWEEP_S:
                    self._books.close_idle(self._clock.now_s(), tick)
                    self._swept_tick = tick
                written = await asyncio.to_thread(self._write, rows)
                if written:
                    self._pause_s = _PAUSE_S
                else:
                    self._unwritten = {row[0]: row for row in rows}
        finally:
            self._writing = False
        if not written and not self._closed:
            self._again = self._later(self._pause_s, self._begin)
            self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)

    def _rows(self) -> list[tuple[str, int, int, int]]:
        """What changed since the last time, and what couldn't be written then."""
        rows, self._unwritten = self._unwritten, {}
        for name in self._dirty:
            if (one := self._books.tallies.get(name)) is not None:
                rows[name] = (name, one.spent, one.held, one.ends_s)
        self._dirty = set()
        return list(rows.values())

    def _write(self, rows: list[tuple[str, int, int, int]]) -> bool:
        with self._one:
            try:
                with self._conn:
                    self._conn.executemany(_PUT, rows)
            except sqlite3.Error as error:
                if not self._failing:
                    log.error("budgets can't be written: a restart would forget them", fault=str(error))
                self._failing = True
            else:
                self._failing = False
            return not self._failing
