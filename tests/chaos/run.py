"""`python -m tests.chaos.run [--short] [--only TEXT] [--out FILE]`: every fault, a line each, and the lines as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.provenance import about
from tests.chaos.alone import ALONE
from tests.chaos.faults import FAULTS
from tests.chaos.measured import Line, shown_s
from tests.chaos.namespace import NAMESPACED
from tests.chaos.places import three
from tests.chaos.scene import FULL, SHORT, Pace, Setting, measure
from tests.chaos.standing_in import STANDING_IN

SETTINGS: tuple[Setting[Any], ...] = (NAMESPACED, *STANDING_IN, *ALONE)


async def lines(pace: Pace, only: str) -> list[Line]:
    """Every fault whose name holds `only`, in turn."""
    found: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="farthing-chaos-") as home:
        shared = [fault for fault in FAULTS if only in fault.name]
        if shared:
            with three(Path(home)) as cluster:
                found += [told(await measure(cluster, fault, pace)) for fault in shared]
        for at, setting in enumerate(setting for setting in SETTINGS if only in setting.fault.name):
            if setting.needs():
                sys.stdout.write(f"{setting.fault.name}: left out: {setting.needs()}\n")
                continue
            own = Path(home) / f"alone{at}"
            own.mkdir()
            with setting.place(own) as place:
                found.append(told(await measure(place, setting.fault, pace)))
    return found


def told(line: Line) -> Line:
    """The line, after a word about it."""
    said = [f"{line.fault}: {line.requests} requests, recovered in {shown_s(line.recovery_s)} s", *line.broken]
    sys.stdout.write("\n  ".join([*said, *line.notes.get("examples", ())]) + "\n")
    sys.stdout.flush()
    return line


def keep(path: Path, found: list[Line], command: str) -> None:
    """Write the lines to a file, in the faults' order; lines that it has of other faults stay."""
    kept = {line["fault"]: line for line in json.loads(path.read_text("utf-8"))} if path.exists() else {}
    kept |= {line.fault: line.told() | about(command) for line in found}
    order = [fault.name for fault in FAULTS] + [setting.fault.name for setting in SETTINGS]
    lines = [kept[name] for name in order if name in kept]
    path.write_text(json.dumps(lines, indent=1) + "\n", "utf-8")


def main() -> int:
    """0 where every claim held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a quarter of the time or less, and 20 kills for 200")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name holds this")
    parser.add_argument("--out", type=Path, help="where the lines go, as JSON")
    given = parser.parse_args()
    found = asyncio.run(lines(SHORT if given.short else FULL, given.only))
    if given.out:
        keep(given.out, found, "make chaos" if not given.short else "make chaos ARGS=--short")
    return 1 if any(line.broken for line in found) else 0


if __name__ == "__main__":
    sys.exit(main())
