"""The capture store's writer: whole requests and answers to a file, through one thread, off the event loop.

Rules of this file: the event loop only puts references into a bounded queue; parsing, sampling, redaction and disk are
the thread's. Nothing is written before it was redacted; what can't be redacted is dropped. A disk that fails, is full
or locked costs records, which are counted, and never a request. Trouble and its end are each logged once, without a
word of what anybody said.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog

from farthing.proxy import capture_file as file
from farthing.proxy.capture_file import Selection
from farthing.proxy.capture_record import Captured, Line, Said, line_of, said_in
from farthing.proxy.clock import Clock
from farthing.proxy.config_capture import Capture as Settings
from farthing.proxy.exchange import Exchange
from farthing.proxy.ledger_file import is_busy, is_corrupt
from farthing.proxy.redact import Redactor, Unredacted
from farthing.proxy.row import Row
from farthing.proxy.seal import Seal

__all__ = ["Capture"]

_EVERY_S = 0.25
_SWEEP_EVERY_S = 60.0
_AT_ONCE = 32  # records that are made ready before they are written
_LAST_TRIES = 8
_DAY_S = 86_400.0


class Capture:
    """Keeps exchanges. `said_in`, `take` and `append` belong to the event loop, everything else to any thread.

    `waiting_bytes`: the most that waits to be looked at, and the most that waits for the disk. `written`, `dropped`:
    records since the start. `others_wait_s`: how long other processes that write the file are waited for. `seal`: under
    which records are closed. Opening never fails. Effects: a thread, files beside `path`.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        secret: bytes,
        clock: Clock,
        *,
        waiting_bytes: int = 64 * 2**20,
        others_wait_s: float = 0.0,
        seal: Seal | None = None,
    ) -> None:
        self.path = path
        self.settings = settings
        self.seal = seal
        self.written = 0
        self._secret = secret
        self._clock = clock
        self._most = waiting_bytes
        self._others_wait_s = others_wait_s
        self._redactor = redactor_of(settings, self._secret, self._clock)
        self._log = structlog.get_logger("farthing.capture")
        self._conn: sqlite3.Connection | None = None
        self._works = True
        self._suspect = False
        self._fresh: deque[Captured] = deque()
        self._kept: deque[Line] = deque()
        self._in_bytes = self._seen_bytes = self._kept_bytes = 0
        self._refused = self._lost = self._unfit = 0
        self._orders: deque[tuple[Selection, Future[tuple[int, int]]]] = deque()
        self._swept_s = float("-inf")
        self._wake = threading.Event()
        self._round = threading.Condition()
        self._asked = self._done = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work_on, name="capture", daemon=True)
        self._thread.start()

    # -- the event loop's

    def said_in(self, ex: Exchange) -> Said | None:
        """What may be kept of it; None where nothing may."""
        return said_in(ex, self.settings)

    def take(self, ex: Exchange, row: Row) -> None:
        """Keep what may be kept of an exchange that is over. Never waits, never raises."""
        said = said_in(ex, self.settings)
        if said is not None:
            self.append(said, row)

    def append(self, said: Said, row: Row) -> None:
        """The same, of what `said_in` gave. After `close` it is dropped."""
        captured = Captured(said, row)
        size = captured.size
        if self._closing or self._in_bytes - self._seen_bytes + size > self._most:
            self._refused += 1
            return
        self._in_bytes += size
        self._fresh.append(captured)

    # -- any thread's

    @property
    def healthy(self) -> bool:
        """Whether the last thing that was to be written was."""
        return self._works

    @property
    def dropped(self) -> int:
        """Records that are lost: too many at once, a disk that fails, texts that couldn't be redacted."""
        return self._refused + self._lost + self._unfit

    @property
    def waiting(self) -> int:
        """Records that wait to be written."""
        return len(self._fresh) + len(self._kept)

    @property
    def redactions(self) -> dict[str, int]:
        """How many of each kind were found, under these settings."""
        return dict(self._redactor.found)

    def use(self, settings: Settings) -> None:
        """Keep what these settings say from now on."""
        if settings != self.settings:
            self.settings, self._redactor = settings, redactor_of(settings, self._secret, self._clock)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that came so far has been tried; whether none of it is left waiting. Blocks."""
        with self._round:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            self._round.wait_for(lambda: self._done >= mine or not self._thread.is_alive(), timeout_s)
            return self._done >= mine and not self._kept

    def erase(self, what: Selection, timeout_s: float = 60.0) -> tuple[int, int]:
        """Remove records for good, those that wait included: how many, and how many damaged files of former times.

        Such files can't be searched, so they go with any erasure. Blocks. Raises sqlite3.Error, OSError: not all could
        be removed; TimeoutError.
        """
        if self._closing:
            raise OSError("the store is closed")
        answer: Future[tuple[int, int]] = Future()
        self._orders.append((what, answer))
        self._wake.set()
        return answer.result(timeout_s)

    def close(self) -> None:
        """Write what waits and let go; blocks for two seconds at most where the disk fails. Idempotent."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    # -- the thread's

    def _work_on(self) -> None:
        tries = 0
        while True:
            ending = self._closing
            self._wake.wait(0 if self._fresh or (ending and self._works) else _EVERY_S)
            self._wake.clear()
            asked = self._asked
            self._take_in()
            self._sweep()
            while self._orders:
                order = self._orders.popleft()
                self._take_in()  # all that came before it did is meant
                self._obey(*order)
            with self._round:
                self._done = asked
                self._round.notify_all()
            tries += ending
            if ending and not self._fresh and not self._orders and (not self._kept or tries > _LAST_TRIES):
                break
        self._lost += len(self._kept)
        self._kept.clear()
        self._let_go()

    def _take_in(self) -> None:
        """What has come so far to the disk; what comes meanwhile must not keep all else waiting."""
        works = self._write()
        for _ in range(-(-len(self._fresh) // _AT_ONCE)):
            self._make_ready()
            works = works and self._write()  # a disk that fails is tried again in the next round

    def _make_ready(self) -> None:
        """Some of what has come, to lines; beyond the bound the oldest lines are dropped."""
        settings, redactor = self.settings, self._redactor
        for _ in range(min(_AT_ONCE, len(self._fresh))):
            captured = self._fresh.popleft()
            self._seen_bytes += captured.size
            try:
                line = line_of(captured, settings.share, redactor)
            except (Unredacted, ValueError, TypeError, RecursionError) as error:
                self._unfit += 1
                self._log.debug("capture_left_out", id=captured.row.id, fault=type(error).__name__)
                continue
            except Exception as error:  # noqa: BLE001 - the thread must live, whatever a body holds
                self._unfit += 1
                self._log.error("capture_failed_on", id=captured.row.id, fault=type(error).__name__)
                continue
            if line is not None:
                self._kept.append(line)
                self._kept_bytes += len(line.text)
        while self._kept_bytes > self._most:
            self._kept_bytes -= len(self._kept.popleft().text)
            self._lost += 1

    def _write(self) -> bool:
        """What is ready to the disk; whether that went well."""
        if not self._kept:
            return True
        batch = list(self._kept)
        try:
            file.insert(self._conn or self._open(), batch, self.seal)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live
            self._fail(error)
            return False
        self._kept.clear()
        self._kept_bytes = 0
        self.written += len(batch)
        self._recovered()
        return True

    def _sweep(self) -> None:
        """What has been kept long enough leaves, whether or not anything is captured now."""
        now_s = self._clock.now_s()
        if now_s - self._swept_s < _SWEEP_EVERY_S:
            return
        before_s = now_s - self.settings.keep_days * _DAY_S
        try:
            if self.path.exists():
                file.sweep(self._conn or self._open(), before_s, self.settings.max_bytes)
            file.remove_asides(self.path, before_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live
            self._fail(error)
            return
        self._swept_s = now_s
        self._recovered()

    def _obey(self, what: Selection, answer: Future[tuple[int, int]]) -> None:
        waiting = [line for line in self._kept if _is_meant(what, line)]
        try:
            count = file.erase(self._conn or self._open(), what) if self.path.exists() else 0
            files = file.remove_asides(self.path)
        except Exception as error:  # noqa: BLE001 - it is the caller's to hear
            self._fail(error)
            answer.set_exception(error)
            return
        finally:
            self._kept = deque(line for line in self._kept if not _is_meant(what, line))
            self._kept_bytes = sum(len(line.text) for line in self._kept)
        answer.set_result((count + len(waiting), files))

    def _recovered(self) -> None:
        if not self._works:
            self._works = True
            self._log.info("capture_recovered", path=str(self.path), dropped=self.dropped)

    def _fail(self, error: Exception) -> None:
        if self._works:
            self._works = False
            self._log.error("capture_failing", path=str(self.path), error=str(error), waiting=len(self._kept))
        if not is_busy(error):
            self._suspect = self._suspect or is_corrupt(error)
            self._let_go()

    def _let_go(self) -> None:
        if self._conn is not None:
            try:
                self._conn.close()
            except sqlite3.Error as error:
                self._log.debug("capture_not_closed", error=str(error))
            self._conn = None

    def _open(self) -> sqlite3.Connection:
        """Open the file, after moving aside one that isn't sound. Raises sqlite3.Error, OSError."""
        self._conn, aside = file.connect_anew(self.path, self._clock.now_s(), whole=self._suspect)
        if self._others_wait_s:
            self._conn.execute(f"pragma busy_timeout = {int(self._others_wait_s * 1000)}")
        if aside is not None:
            self._log.error(
                "capture_corrupt",
                path=str(self.path),
                moved_to=str(aside),
                meaning="a new file is begun; the old one still holds texts: `farthing capture purge` removes it",
            )
        self._suspect = False
        return self._conn

    def told(self) -> dict[str, Any]:
        """Its state, for screens and machines. Reads the file. Blocks."""
        settings, kept = self.settings, file.Stats()
        try:
            kept = file.stats(self.path)
            readable = True
        except sqlite3.Error:
            readable = False
        return {
            "enabled": settings.enabled,
            "share": settings.share,
            "keep_days": settings.keep_days,
            "max_bytes": settings.max_bytes,
            "redact": [*settings.redact, *(one.name for one in settings.patterns)],
            "healthy": self._works and readable,
            **kept._asdict(),
            "waiting": self.waiting,
            "written": self.written,
            "dropped": self.dropped,
            "redactions": self.redactions,
            "damaged_files": len(file.asides(self.path)),
        }


def _is_meant(what: Selection, line: Line) -> bool:
    return (
        what.user in (None, line.user)
        and what.tenant in (None, line.tenant)
        and (what.before_s is None or line.ts < what.before_s)
    )


def redactor_of(settings: Settings, secret: bytes, clock: Clock) -> Redactor:
    """What takes out of texts what the settings name."""
    own = [(one.name, one.pattern) for one in settings.patterns]
    return Redactor(settings.redact, own, secret, clock)
