"""Does the hot path cost more than it did? `python -m bench.guard [--write] [hit] [miss] [import]`: what CI fails on.

Measured is processor time, not the clock, and always as a multiple of something that runs beside it: a hit in bare
aiohttp apps, a miss in bare pass-throughs (bench/hot.py), the import of the proxy in imports of the libraries that it
needs. bench/guard.json holds the multiples of the last time that somebody wrote them, each or all (`--write` is the
only way that it should change); more than 1.2 times one of them fails. What is over is measured once more, longer,
before that is said. Needs wrk and nginx; a minute on two cores.
Exit status 0: nothing is over; 1: something is; 2: it couldn't run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.hot import HIT, OURS, PASS, Effort, Tell, hit, miss, ratio
from bench.load import Window
from bench.machine import Place, place
from bench.report import Report
from bench.servers import DidNotStart

RECORDED = Path(__file__).with_suffix(".json")
MOST_MORE = 0.20
AT_ONCE, SECONDS = 64, 2
LIBRARIES = "aiohttp, httptools, orjson, prometheus_client, pydantic, regex, structlog, uvloop"
PARTS: Mapping[str, str] = {
    "hit": "CPU of a hit, in bare apps",
    "miss": "CPU of a miss, in pass-throughs",
    "import": "CPU of importing the proxy, in imports of its libraries",
}


def over(recorded: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """The parts that cost more than they may. A part that was never recorded is over: nobody has looked at it."""
    return [name for name, now in measured.items() if now > recorded.get(name, 0.0) * (1 + MOST_MORE)]


def rewritten(recorded: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """What is recorded once these were measured: they as they are, to a hundredth, the others as they were."""
    now = {**recorded, **{name: round(cost, 2) for name, cost in measured.items()}}
    return {name: now[name] for name in PARTS if name in now}


def costs(here: Path, rounds: int, names: tuple[str, ...]) -> dict[str, float]:
    """The multiples, as medians of so many rounds."""
    found: dict[str, float] = {}
    for name in names:
        own = here / f"{name}-{rounds}"
        own.mkdir()
        found[name] = MEASURES[name](place(own), rounds)
    return found


def _loop(run: Callable[[Place, Effort, Tell], Report], other: str) -> Callable[[Place, int], float]:
    def measured(here: Place, rounds: int) -> float:
        effort = Effort(rounds, SECONDS, 0, 0, installs=False, concurrencies=(AT_ONCE,))
        windows = [Window(**one) for one in run(here, effort, lambda _: None).raw]
        return ratio(windows, OURS, other, AT_ONCE)

    return measured


def _imports(here: Place, rounds: int) -> float:
    """Both from bytecode, as a server that was started before has it."""
    told = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    told["PYTHONPYCACHEPREFIX"] = str(here.folder)
    code = (
        f"import time; a = time.process_time(); import {LIBRARIES}; b = time.process_time(); "
        "import farthing.proxy.app; print(time.process_time() - b, b - a)"
    )
    ratios = []
    for _ in range(max(5, rounds) + 1):
        shown = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True)
        ours, theirs = map(float, shown.stdout.split())
        ratios.append(ours / theirs)
    return median(ratios[1:])  # the first one compiled


MEASURES: Mapping[str, Callable[[Place, int], float]] = {
    "hit": _loop(hit, HIT),
    "miss": _loop(miss, PASS),
    "import": _imports,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, compare, tell; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="what is measured now is what is allowed from now on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all of them")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    parts = tuple(given.parts) or tuple(PARTS)
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    recorded: dict[str, float] = json.loads(RECORDED.read_text())
    with tempfile.TemporaryDirectory(prefix="farthing-guard-") as folder:
        try:
            measured = costs(Path(folder), given.rounds, parts)
            if not given.write and (again := over(recorded, measured)):
                measured |= costs(Path(folder), 3 * given.rounds, tuple(again))
        except (DidNotStart, RuntimeError, OSError) as error:
            console.print(f"it couldn't be measured: {error}", markup=False)
            return 2
    if given.write:
        RECORDED.write_text(json.dumps(rewritten(recorded, measured), indent=2) + "\n")
    failed = [] if given.write else over(recorded, measured)
    table = Table("what", "recorded", "allowed", "measured", "", box=None)
    for name, cost in measured.items():
        was = recorded.get(name)
        known = ("", "") if was is None else (f"{was:.2f}", f"{was * (1 + MOST_MORE):.2f}")
        verdict = "written" if given.write else "OVER" if name in failed else "fine"
        table.add_row(PARTS[name], *known, f"{cost:.2f}", verdict)
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
