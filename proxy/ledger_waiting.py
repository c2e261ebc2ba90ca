"""Rows that wait until their tokens are counted, kept in a small file for as long: a kill doesn't lose them.

Counting waits for the tokenizer's ranks but once in a process's life, half a second. A row that was held then comes
into the ledger of the next start as it was known: its tokens and its price aren't. The ledger never gets one twice: a
row leaves this file before it is handed on, so what is lost between is what the ledger's own writer may lose.

Rule of this file: it is a help. A disk that fails costs nobody an answer, and the row waits in memory as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from farthing.proxy.row import Row
from farthing.proxy.state import hold

__all__ = ["WaitingRows"]

_NAME = "ledger.waiting-"


class WaitingRows:
    """`state_dir`: where each process has a file of its own, locked while it lives. `writer`: its name, such as the
    process's number."""

    def __init__(self, state_dir: Path, writer: str) -> None:
        self._dir = state_dir
        self._path = state_dir / f"{_NAME}{writer}"
        self._file: IO[str] | None = None
        self._held: set[str] = set()

    def left(self) -> Iterator[Row]:
        """What processes that are gone have left; each is given once, to whoever comes first. Blocks."""
        for path in sorted(self._dir.glob(f"{_NAME}*")):
            with suppress(OSError):
                lock = hold(path)
                if lock is None:
                    continue  # its process lives
                with lock:
                    lines = path.read_text("utf-8", "replace").splitlines()
                    path.unlink()
                yield from _rows(lines)

    def hold(self, row: Row) -> None:
        """Keep it until it is released."""
        try:
            if self._file is None:
                self._path.touch(0o600)
                self._file = hold(self._path)
            if self._file is not None:
                self._held.add(row.id)
                self._write(row)
        except (OSError, ValueError):
            self._held.discard(row.id)

    def release(self, id: str) -> None:
        """The ledger is about to get it."""
        if self._file is None or id not in self._held:
            return
        self._held.discard(id)
        with suppress(OSError):
            self._write(id)
            if not self._held:
                self._file.truncate(0)

    def close(self) -> None:
        """Let go; the file stays where something waits still."""
        if self._file is not None:
            with suppress(OSError):
                if not self._held:
                    self._path.unlink()
                self._file.close()
            self._file = None

    def _write(self, what: Row | str) -> None:
        assert self._file is not None
        self._file.write(json.dumps(what) + "\n")
        self._file.flush()


def _rows(lines: list[str]) -> list[Row]:
    """Those that weren't released; a line that was cut off is none."""
    found: dict[str, Row] = {}
    for line in lines:
        with suppress(ValueError, TypeError):
            said = json.loads(line)
            if isinstance(said, str):
                found.pop(said, None)
            elif len(said) == len(Row._fields):
                row = Row(*said)
                found[row.id] = row
    return list(found.values())
