"""`python -m tests.chaos.run [--short] [--only TEXT] [--out FILE]`: every fault, a line each, and the lines as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.provenance import about
from tests.chaos.all_on import ALL_ON
from tests.chaos.alone import ALONE
from tests.chaos.among import AMONG
from tests.chaos.faults import FAULTS
from tests.chaos.measured import Line, shown_s
from tests.chaos.namespace import NAMESPACED
from tests.chaos.places import three
from tests.chaos.scene import FULL, SHORT, Pace, Setting, measure
from tests.chaos.standing_in import STANDING_IN

SETTINGS: tuple[Setting[Any], ...] = (NAMESPACED, *STANDING_IN, *AMONG, *ALL_ON, *ALONE)


async def lines(pace: Pace, only: str) -> AsyncIterator[Line]:
    """Every fault whose name holds `only`, in turn."""
    with tempfile.TemporaryDirectory(prefix="farthing-chaos-") as home:
        shared = [fault for fault in FAULTS if only in fault.name]
        if shared:
            with three(Path(home)) as cluster:
                for fault in shared:
                    yield await measure(cluster, fault, pace)
        for at, setting in enumerate(setting for setting in SETTINGS if only in setting.fault.name):
            if setting.needs():
                sys.stdout.write(f"{setting.fault.name}: left out: {setting.needs()}\n")
                continue
            own = Path(home) / f"alone{at}"
            own.mkdir()
            with setting.place(own) as place:
                yield await measure(place, setting.fault, pace)


def tell(line: Line) -> None:
    """A word about it."""
    said = [f"{line.fault}: {line.requests} requests, recovered in {shown_s(line.recovery_s)} s", *line.broken]
    sys.stdout.write("\n  ".join([*said, *line.notes.get("examples", ())]) + "\n")
    sys.stdout.flush()


def keep(path: Path, line: Line, command: str) -> None:
    """Write the line to a file, in the faults' order; lines that it has of other faults stay."""
    kept = {line["fault"]: line for line in json.loads(path.read_text("utf-8"))} if path.exists() else {}
    kept[line.fault] = line.told() | about(command)
    order = [fault.name for fault in FAULTS] + [setting.fault.name for setting in SETTINGS]
    lines = [kept[name] for name in order if name in kept]
    path.write_text(json.dumps(lines, indent=1) + "\n", "utf-8")


async def measured(pace: Pace, only: str, out: Path | None, command: str) -> bool:
    """Measure, tell and keep each line as it comes, so that one that can't be measured loses none; whether all held."""
    held = True
    async for line in lines(pace, only):
        tell(line)
        held = held and not line.broken
        if out:
            keep(out, line, command)
    return held


def main() -> int:
    """0 where every claim held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a quarter of the time or less, and 20 kills for 200")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name holds this")
    parser.add_argument("--out", type=Path, help="where the lines go, as JSON")
    given = parser.parse_args()
    pace, command = (SHORT, "make chaos ARGS=--short") if given.short else (FULL, "make chaos")
    return 0 if asyncio.run(measured(pace, given.only, given.out, command)) else 1


if __name__ == "__main__":
    sys.exit(main())
