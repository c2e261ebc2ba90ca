"""What counting service levels costs: processor time for each row and target, and for deciding once.

`python -m bench.levels`: made rows (tests/fakes/rows.py), eight targets of two levels, the way that the thread goes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from farthing.policies.levels import LENGTHS_S, Target, assess
from farthing.proxy.levels_tally import Promise, Tallies
from tests.fakes.rows import NOW_S, ledger, plausible

__all__ = ["main"]

TARGETS = (
    Target("availability", 0.999),
    Target("latency", 0.99, 2_000.0),
    Target("latency", 0.5, 500.0),
    Target("cost", 0.0, 0.01),
)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    wheres: tuple[dict[str, str], ...] = ({}, {"tag": "team=search", "model": "gpt-4o*"})
    promises = [Promise(f"level {i}", where, 30, target) for i, where in enumerate(wheres) for target in TARGETS]
    with tempfile.TemporaryDirectory() as folder:
        ledger(Path(folder) / "ledger.db", plausible(asked.rows, days=29.0)).close()
        tallies = Tallies(Path(folder))
        begun_s = time.process_time()
        while tallies.count(promises, NOW_S):
            pass
        counted_s = time.process_time() - begun_s
        begun_s = time.process_time()
        for promise in promises:
            window = tallies.of(promise, 30 * 86_400.0, NOW_S)
            latest = {length_s: tallies.of(promise, length_s, NOW_S) for length_s in LENGTHS_S}
            assess(promise.target, window, latest.__getitem__)
        decided_s = time.process_time() - begun_s
        tallies.close()
    print(f"rows {asked.rows:,}, targets {len(promises)}")
    print(f"counting: {counted_s / asked.rows / len(promises) * 1e6:.2f} us of processor time a row and target")
    print(f"deciding: {decided_s / len(promises) * 1e3:.2f} ms of processor time a target, every 15 s")


if __name__ == "__main__":
    main()
