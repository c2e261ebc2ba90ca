"""One worker against several: `python -m bench.workers [--workers 2] [--rounds 5] [--seconds 2]`.

Throughput, latency and processor time of hits and of misses, by windows in turns, so that whatever else the machine
does falls on all of them. The load generator and the upstream are not bound to cores of their own: on a machine of two
cores they share them with the workers, and what a second worker gains is bounded by what they leave. Needs wrk, nginx.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.hot import series
from bench.load import Window, window
from bench.machine import Place
from bench.servers import DidNotStart, Running, farthing
from bench.upstream import fast

_HITS = 64
_SETTINGS = {"SEMANTIC__MODE": "off"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit status: 0, or 2 where it couldn't run."""
    given = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    try:
        with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
            windows = measured(Place(Path(folder), cores, cores), given.workers, given.rounds, given.seconds)
    except (DidNotStart, RuntimeError, OSError) as error:
        console.print(str(error), markup=False)
        return 2
    console.print(table(windows, cores))
    return 0


def measured(here: Place, workers: int, rounds: int, seconds: int) -> dict[tuple[str, str, int], list[Window]]:
    """Windows by what is asked for, the server and how many ask at a time."""
    names, found = series(), dict[tuple[str, str, int], list[Window]]()
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fast(here))
        servers: list[Running] = [
            stack.enter_context(
                farthing(
                    f"{count} worker" + "s" * (count > 1),
                    upstream.port,
                    here,
                    _SETTINGS | {"SERVER__WORKERS": f"{count}"},
                )
            )
            for count in (1, workers)
        ]
        for server in servers:
            window(server, 16, 1, here, "warm", distinct=_HITS)
        for _, at_once, server in itertools.product(range(rounds), (1, 16, 64), servers):
            for what, distinct, name in (("hit", _HITS, "warm"), ("miss", 0, next(names))):
                told = window(server, at_once, seconds, here, name, distinct=distinct)
                found.setdefault((what, server.name, at_once), []).append(told)
    return found


def table(windows: dict[tuple[str, str, int], list[Window]], cores: str) -> Table:
    """Medians over the rounds."""
    made = Table(title=f"load, upstream and workers share the cores {cores}")
    for column in ("", "server", "at once", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "errors"):
        made.add_column(column)
    for (what, server, at_once), some in sorted(windows.items()):
        made.add_row(
            what, server, f"{at_once}", *(
                f"{median(getattr(one, name) for one in some):,.{digits}f}"
                for name, digits in (("per_s", 0), ("p50_ms", 2), ("p99_ms", 2), ("cpu_us", 0))
            ), f"{sum(one.errors for one in some)}",
        )  # fmt: skip
    return made


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=int, default=2)
    return made


if __name__ == "__main__":
    sys.exit(main())
