"""`python -m tests.chaos.run [--short] [--only TEXT] [--out FILE]`: every fault, a line each, and the lines as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import FAULTS, measure
from tests.chaos.measured import Line
from tests.chaos.places import Cluster


async def over_the_cluster(longer: float, only: str) -> list[Line]:
    lines = []
    faults = [fault for fault in FAULTS if only in fault.name]
    with tempfile.TemporaryDirectory(prefix="farthing-chaos-") as home, Cluster(Path(home)) as cluster:
        for fault in faults:
            line = await measure(cluster, fault, longer=longer)
            lines.append(line)
            print(line.fault, json.dumps(line.told()), flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    longer = 1.0 if given.short else 4.0
    lines = asyncio.run(over_the_cluster(longer, given.only))
    return 1 if any(line.broken for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
