"""How soon the watch sees a change, and how rarely it is wrong: `python -m bench.watch_delays`. Simulated, seeded.

Two hundred series share one false alarm a year, and each is observed once a second; references are of 2,000
observations. Per change: observations until the alarm, the median over the seeds and the slowest, after 2,000 without a
change. 'never' is more than 20,000. The null rows: how many false alarms there were in so many observations on the very
edge of what is borne, beside the most that may be expected.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from farthing.policies.shares import Kind, Reference, Shares, limit_of
from farthing.policies.watch_series import log_place

SEEDS = 20
STEP = 1 / (365.25 * 86_400) / 200
MOST = 20_000
Draw = Callable[[np.random.Generator, int], NDArray[np.int64]]


def main() -> None:
    """Simulate and print."""
    argparse.ArgumentParser(prog="python -m bench.watch_delays", description=__doc__).parse_args()
    table = Table("change", "median", "slowest of 20")
    changes: list[tuple[str, Draw, Draw, int, str]] = [
        (f"a share: {was:.0%} to {now:.0%}", share(was), share(now), 2, Kind.NAMED)
        for was, now in ((0.0, 0.05), (0.0, 0.2), (0.01, 0.05), (0.01, 0.1), (0.05, 0.15), (0.4, 0.2), (0.4, 0.3))
    ]
    changes += [
        (f"a length or time: all {factor:g} times", lengths(700), lengths(700 * factor), 40, Kind.ORDERED)
        for factor in (0.5, 1.3, 1.5, 2.0)
    ]
    for name, before, after, bins, kind in changes:
        found = sorted(delay(seed, before, after, bins, kind) for seed in range(SEEDS))
        table.add_row(name, told(statistics.median(found)), told(found[-1]))
    Console().print(table)
    for patience in (500, 2_000, 10_000):
        Console().print(
            f"null: {false_alarms(patience, 200_000)} false alarms, {200_000 / patience:.0f} may be expected"
        )


def share(p: float) -> Draw:
    """Noes and yeses."""
    return lambda rng, n: (rng.random(n) < p).astype(np.int64)


def lengths(median: float) -> Draw:
    """Lognormal, as lengths and times are."""
    return lambda rng, n: np.array([log_place(value) for value in rng.lognormal(np.log(median), 0.9, n)])


def delay(seed: int, before: Draw, after: Draw, bins: int, kind: str) -> float:
    """Observations until the alarm; MOST where there is none. A false one before the change raises AssertionError."""
    rng, one = np.random.default_rng(seed), Shares(bins, kind, Reference(2_000, 0.0), 1.25)
    budget = 0.0
    for place in before(rng, 4_000):
        budget += STEP
        assert one.add(int(place), 0.0, budget, 1.0) is None
    for at, place in enumerate(after(rng, MOST), 1):
        budget += STEP
        if one.add(int(place), 0.0, budget, 1.0) is not None:
            return float(at)
    return float(MOST)


def false_alarms(patience: float, n: int) -> int:
    """Alarms while the true share is exactly the limit, each acknowledged at once."""
    one, count = Shares(2, Kind.NAMED, Reference(1_000, 0.0), 1.25), 0
    for place in [1] * 100 + [0] * 900:
        one.add(place, 0.0, 0.0, patience)
    limit = limit_of(100, 1_000, 1e-3 / 2, 1.25)
    for at, yes in enumerate(np.random.default_rng(1).random(n) < limit, 1):
        count += one.add(int(yes), 0.0, float(at), patience) is not None
        one.moved = None
    return count


def told(observations: float) -> str:
    """Or that it took too long."""
    return "never" if observations >= MOST else f"{observations:,.0f}"


if __name__ == "__main__":
    main()
