"""The thread that keeps the ledger up, beside the one that writes it.

Rules of this file: the writer waits for nothing here but the pen, which is held while a transaction is written; no step
begins after `let_go` until the file is opened anew, for by then it may be another one; a fault is the writer's to deal
with, which has the file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from farthing.proxy.ledger_file import connect_beside
from farthing.proxy.ledger_upkeep import Upkeep

__all__ = ["Keeper"]

_LOOK_S = 0.1  # between looks at what is due
_REST_S = 0.01  # between steps, so that the pen goes to a writer that waits for it


class Keeper:
    """Runs an upkeep on a thread and a connection of its own, once the file is open.

    `waiting`: how many rows wait to be written.

    Effects: a thread; writes to the ledger at `path`, while the writer has it open.
    """

    def __init__(self, path: Path, upkeep: Upkeep, waiting: Callable[[], int], wait_s: float) -> None:
        self._path = path
        self._upkeep = upkeep
        self._waiting = waiting
        self._wait_s = wait_s
        self._step = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self._fault: Exception | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """The file is there and sound: keep it up from now on. Raises sqlite3.Error."""
        self.let_go()
        with self._step:
            self._conn = connect_beside(self._path, self._wait_s)
        if self._thread is None:
            self._thread = threading.Thread(target=self._go_on, name="ledger-upkeep", daemon=True)
            self._thread.start()

    def let_go(self) -> None:
        """Close the file; waits for the step that is under way."""
        with self._step:
            if self._conn is not None:
                with suppress(sqlite3.Error):
                    self._conn.close()
                self._conn = None

    def fault(self) -> Exception | None:
        """What a step failed of since the last call; until then there was no other."""
        fault, self._fault = self._fault, None
        return fault

    def end(self) -> None:
        """Begin no step any more."""
        self._ending.set()

    def close(self) -> None:
        """End, and let go of the file. Idempotent."""
        self.end()
        if self._thread is not None:
            self._thread.join()
        self.let_go()

    def _go_on(self) -> None:
        pause_s = _LOOK_S
        while not self._ending.wait(pause_s):
            pause_s = _LOOK_S
            with self._step:
                if self._conn is None or self._fault is not None:
                    continue
                try:
                    if self._upkeep.step(self._conn, self._waiting()):
                        pause_s = _REST_S
                except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live
                    self._fault = error
