"""Does the ledger keep up at saturation? `python -m bench.saturated [--seconds 30] [--at-once 16]`.

Hits, one after another, as fast as one farthing answers them: the requests that leave most rows a second. Its threads
may use every core. After each few seconds: how many rows a second were answered, how many wait to be written, and how
many were dropped. Exit status: 0 where every request has its row in the end, 1 where not. Needs wrk and nginx.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sqlite3
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.hot import DISTINCT_HITS, learn, series
from bench.load import window
from bench.machine import Place
from bench.servers import DidNotStart, farthing, get
from bench.upstream import fast

_WINDOW_S = 5
_SETTINGS = {"SEMANTIC__MODE": "off"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit status."""
    given = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    made = Table(title=f"hits, {given.at_once} at a time; load, upstream and farthing share the cores {cores}")
    for column in ("seconds", "requests/s", "CPU µs/request", "rows waiting", "rows dropped"):
        made.add_column(column, justify="right")
    try:
        with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
            asked = run(Place(Path(folder), cores, cores), given.seconds, given.at_once, made)
            rows = kept(Path(folder))
    except (DidNotStart, RuntimeError, OSError) as error:
        console.print(str(error), markup=False)
        return 2
    console.print(made)
    console.print(f"{asked:,} requests at least, {rows:,} rows in the ledger")
    return 0 if rows >= asked else 1


def run(here: Place, seconds: int, at_once: int, made: Table) -> int:
    """Windows of load, a line of the table each; how many requests were answered in all."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fast(here))
        server = stack.enter_context(farthing("farthing", upstream.port, here, _SETTINGS))
        name = next(series())
        asked = learn(server, here, name).requests
        for at in range(0, seconds, _WINDOW_S):
            told = window(server, at_once, _WINDOW_S, here, name, distinct=DISTINCT_HITS)
            asked += told.requests
            waiting = metric(server.port, "farthing_ledger_pending_rows")
            dropped = metric(server.port, "farthing_ledger_dropped_rows_total")
            figures = (at + _WINDOW_S, told.per_s, told.cpu_us, waiting, dropped)
            made.add_row(*(f"{figure:,.0f}" for figure in figures))
    return asked


def metric(port: int, name: str) -> float:
    """One that has no labels."""
    found = re.search(rf"^{name} (\S+)$", get(f"http://127.0.0.1:{port}/metrics", 30), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{name} isn't told")
    return float(found[1])


def kept(folder: Path) -> int:
    """Rows of the ledger in that folder."""
    (path,) = folder.glob("*.state/ledger.db")
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return int(conn.execute("select count(*) from requests").fetchone()[0])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.saturated", description=__doc__)
    made.add_argument("--seconds", type=int, default=30)
    made.add_argument("--at-once", type=int, default=16)
    return made


if __name__ == "__main__":
    sys.exit(main())
