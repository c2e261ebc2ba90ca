"""How old is a row of the ledger when it is on the disk? `python -m bench.ledger_window [--seconds 70] [--rows 1000]`.

A kill -9 costs the rows that aren't. One thread appends rows at even times and computes in between, as an event loop
does that is busy for `--busy` of its time; meanwhile the ledger rolls up (every 20,000 rows, and once a minute). Then
the same while another process writes to the same disk and flushes it without a pause. Each row's age is taken when the
transaction that holds it has ended. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from farthing.proxy.ledger import Ledger
from farthing.proxy.row import Row
from tests.fakes.rows import plausible

_WINDOW_MS = 100
_TURN_S = 0.002
"""How long the appending thread computes at once; a thread that waits for the interpreter's lock gets it after 5 ms."""
_DISK = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as out:
    while True:
        out.seek(0)
        for _ in range(32):
            out.write(bytes(2**20))
        os.fsync(out.fileno())
"""


class Watched(Ledger):
    """A ledger that notes how old each row was when it was written."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.ages_s: list[float] = []
        super().__init__(*given, **named)

    def _insert(self, conn: Any, rows: list[Row]) -> None:
        super()._insert(conn, rows)
        now_s = time.monotonic()
        self.ages_s += [now_s - row.ttft_ms for row in rows if row.ttft_ms is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    asked = argparse.ArgumentParser(prog="python -m bench.ledger_window", description=(__doc__ or "").split("\n\n")[0])
    asked.add_argument("--seconds", type=float, default=70.0, help="of each of the two parts")
    asked.add_argument("--rows", type=float, default=1000.0, help="a second")
    asked.add_argument("--busy", type=float, default=0.8, help="share of its time that the appending thread computes")
    asked.add_argument("--in", dest="folder", type=Path, default=None, help="a folder on the disk in question")
    given = asked.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    title = f"{given.rows:,.0f} rows a second for {given.seconds:g} s, {given.busy:.0%} busy, {os.cpu_count()} cores"
    made = Table(title=title)
    for column in ("disk", "rows", "p50 ms", "p99 ms", "p99.9 ms", "oldest ms", f"older than {_WINDOW_MS} ms"):
        made.add_column(column, justify="left" if column == "disk" else "right")
    with tempfile.TemporaryDirectory(prefix="farthing-bench-", dir=given.folder) as folder:
        for disk in ("idle", "busy"):
            with kept_busy(Path(folder) / "other") if disk == "busy" else nullcontext():
                ages_ms = sorted(age_s * 1000 for age_s in run(Path(folder) / disk / "ledger.db", given))
            shown = [ages_ms[math.ceil(len(ages_ms) * share) - 1] for share in (0.5, 0.99, 0.999, 1)]
            late = sum(age_ms > _WINDOW_MS for age_ms in ages_ms)
            made.add_row(disk, f"{len(ages_ms):,}", *(f"{age_ms:.1f}" for age_ms in shown), f"{late:,}")
    console.print(made)
    return 0


@contextmanager
def kept_busy(path: Path) -> Iterator[None]:
    """Another process writes to the disk and flushes it."""
    other = subprocess.Popen([sys.executable, "-c", _DISK, str(path)])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def run(path: Path, given: argparse.Namespace) -> list[float]:
    """Ages in seconds, of all rows. Raises RuntimeError where one was lost."""
    rows = itertools.cycle(plausible(5_000, days=0.02))
    ledger = Watched(path)
    count, begun_s = round(given.seconds * given.rows), time.monotonic()
    try:
        for number in range(count):
            while (left_s := begun_s + number / given.rows - time.monotonic()) > 0:
                _compute(min(left_s, _TURN_S) * given.busy)
                time.sleep(max(0.0, min(left_s, _TURN_S) * (1 - given.busy)))
            # The moment rides in a column of which nobody asks a figure here.
            ledger.append(next(rows)._replace(id=f"row-{number}", ttft_ms=time.monotonic()))
        if not ledger.flush(30) or ledger.dropped or len(ledger.ages_s) != count:
            raise RuntimeError(f"{count} rows were appended and {len(ledger.ages_s)} written")
    finally:
        ledger.close()
    return ledger.ages_s


def _compute(seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


if __name__ == "__main__":
    sys.exit(main())
