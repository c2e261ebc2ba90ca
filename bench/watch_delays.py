"""How soon the watch sees a change, and how rarely it is wrong: `python -m bench.watch_delays`. Simulated, seeded.

Two hundred series share one false alarm a year, and each is observed once a second; references are of 2,000
observations. Per change: observations until the alarm, the median over the seeds and the slowest, after 2,000 without a
change. 'never' is more than 20,000.

The second table is of a series that says how two features hang together. It counts twos of requests that differ in both
(policies/association.py), so its figures are requests, one a second, after 4,000 such twos; 'never' is more than
200,000. In its null rows it changes how frequent a feature is, and not how they hang together.

The null rows below: how many false alarms there were in so many observations on the very
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

from farthing.policies.association import Pairing, Traits, series_of
from farthing.policies.shares import Kind, Reference, Shares, limit_of
from farthing.policies.watch_series import log_place

SEEDS = 20
STEP = 1 / (365.25 * 86_400) / 200
MOST = 20_000
MOST_REQUESTS = 200_000
TOGETHER = (
    ("hits 40 % with and without tools, then 20 % with and 49 % without", (0.3, 0.4, 0.4), (0.3, 0.2, 0.486)),
    ("hits 40 % with and without tools, then with tools only (40 % in all)", (0.3, 0.4, 0.4), (0.4, 1.0, 0.0)),
    ("hits 50 % with tools and 30 % without, then the other way round", (0.5, 0.5, 0.3), (0.5, 0.3, 0.5)),
    ("null: tools 30 %, then 60 %, hits 40 % with and without", (0.3, 0.4, 0.4), (0.6, 0.4, 0.4)),
    ("null: hits 40 %, then 70 %, with and without tools", (0.3, 0.4, 0.4), (0.3, 0.7, 0.7)),
)
"""What changes; before and after: the share of requests with tools, the share of hits among these, and among others."""
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
    table = Table("how tools and hits hang together", "median requests", f"slowest of {SEEDS}")
    for name, mix, mix_after in TOGETHER:
        found = sorted(together(seed, mix, mix_after) for seed in range(SEEDS))
        table.add_row(name, *(told(value, MOST_REQUESTS) for value in (statistics.median(found), found[-1])))
    Console(width=120).print(table)
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


def together(seed: int, before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Requests until the alarm, after 2,000 observations without a change; MOST_REQUESTS where there is none."""
    rng, one, pairing = np.random.default_rng(seed), Shares(2, Kind.NAMED, Reference(2_000, 0.0), 1.25), Pairing()
    budget, seen, since = 0.0, 0, 0
    while since < MOST_REQUESTS:
        tools_share, with_tools, without = before if seen < 4_000 else after
        tools = rng.random(1_000) < tools_share
        hits = rng.random(1_000) < np.where(tools, with_tools, without)
        since += 1_000 if seen >= 4_000 else 0
        for number, (tool, hit) in enumerate(zip(tools.tolist(), hits.tolist(), strict=True), 1):
            budget += STEP
            for series, place in pairing.add(Traits(None, int(tool), None, int(hit))):
                assert series == series_of("tools", "hit")
                seen += 1
                if one.add(place, 0.0, budget, 1.0) is not None:
                    assert since, "an alarm before the change"
                    return float(since - 1_000 + number)
    return float(MOST_REQUESTS)


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


def told(observations: float, most: float = MOST) -> str:
    """Or that it took too long."""
    return "never" if observations >= most else f"{observations:,.0f}"


if __name__ == "__main__":
    main()
