"""Does the promise of docs/reuse-bound.md hold where the truth is known, and what does it cost to get there?

    python -m bench.validity            twenty minutes on one core; --quick: two
    python -m bench.validity --markdown the same tables, as docs/reuse-bound.md has them

Seeds are fixed. Every figure comes from the policy itself, as the pipeline calls it, but for the first two rows, which
are of its e-process alone. Exit status 1: a goal was missed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import binomtest

from bench.validity_worlds import (
    DRIFTS,
    STRICTEST_FIRST,
    drift,
    ever_served_above,
    first_serve,
    mixed_pool,
    pool,
    quantile,
    settings,
    stretch,
    two_bands,
)
from farthing.policies.sequence import UNDER

T = TypeVar("T")
LEVEL = 0.05
# The wrong rate does not matter to the arithmetic of the level; a large one needs fewer labels for the same run.
BOUND = 0.05


@dataclass(slots=True)
class Figures:
    """One table, and whether its goal was met."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    missed: bool = False


Over = Callable[[str, range], Iterable[int]]


def level(over: Over, runs: int) -> Figures:
    """Goal (a): a threshold at or over its bound is served in at most 5 % of runs."""
    out = Figures(
        "A threshold over its bound: how often it is served, looked at after every request (goal: at most 5 %)",
        ("what", "wrong rate / bound", "runs", "requests each", "served, %", "95 % interval, %"),
    )

    def row(what: str, times: str, count: int, trials: int, requests: int) -> None:
        low, high = binomtest(count, trials).proportion_ci(0.95)
        share = count / trials
        # Missed only where chance can't explain it: the level itself is a possible truth.
        out.missed = out.missed or low > LEVEL
        out.rows.append((what, times, f"{trials:,}", f"{requests:,}", f"{share:.2%}"[:-1], f"{low:.1%}–{high:.1%}"))

    for times in (1.0, 1.5):
        count = e_process(0.01, times, runs, 20_000)
        row("the e-process alone, bound 1 %", f"{times:g}", count, runs, 20_000)
    for times in (1.0, 1.5):
        one = settings(BOUND)
        flat = times * BOUND
        served = [
            ever_served_above(one, lambda _, p=flat: p, lambda _, p=flat: p, 800, seed)
            for seed in over(f"one threshold, {times:g}", range(runs))
        ]
        row("one threshold", f"{times:g}", sum(served), runs, 800)
    for times in (1.0, 1.5):
        served = [two_bands(BOUND, times, 1_500, seed) for seed in over(f"audits, {times:g}", range(runs))]
        row("lower threshold, hits above it audited at 5 %", f"{times:g}", sum(served), runs, 1_500)
    chosen = settings(BOUND, ladder=None)
    served = [
        ever_served_above(chosen, lambda s: 4 * BOUND * (1 - s), lambda t: 2 * BOUND * (1 - t), 1_500, seed)
        for seed in over("thresholds chosen", range(runs))
    ]
    row("five thresholds, chosen by a pilot", "0.2 to 2", sum(served), runs, 1_500)
    for times in (1.0, 1.5):
        each, any_pool = 0, 0
        few = max(1, runs // 20)
        for seed in over(f"20 routes, {times:g}", range(few)):
            routes, pooled = pool(BOUND, times, 20, 300, seed)
            each, any_pool = each + routes, any_pool + pooled
        row("each of 20 pooled routes", f"{times:g}", each, 20 * few, 300)
        row("the pool of 20 as one", f"{times:g}", any_pool, few, 6_000)
    return out


def warm_up(over: Over, runs: int) -> Figures:
    """Labels until the first serve."""
    out = Figures(
        "Warm-up: compared requests until the first is served, median (nine in ten)",
        (
            "bound",
            "wrong / bound",
            "least possible",
            "one threshold",
            "five, chosen",
            "the same, pooling on",
            "strictest first",
        ),
    )
    for bound in (0.005, 0.01, 0.02, 0.05):
        for times in (0.0, 0.25, 0.5):
            cells = []
            for name, chosen in (
                ("one", settings(bound)),
                ("chosen", settings(bound, ladder=None)),
                ("pooled", settings(bound, ladder=None, pooled=True)),
                ("strictest first", settings(bound, ladder=STRICTEST_FIRST)),
            ):
                limit = int(300 / bound)
                what = f"warm-up {bound:.1%}, {times:g}, {name}"
                rate = times * bound
                # Where nothing is wrong little is left to chance, and the strictest first takes long to simulate.
                few = min(runs, 10) if name == "strictest first" or not times else runs
                found = [first_serve(chosen, lambda _, p=rate: p, limit, seed) for seed in over(what, range(few))]
                cells.append(f"{_upto(quantile(found, 0.5), limit)} ({_upto(quantile(found, 0.9), limit)})")
            out.rows.append((f"{bound:.1%}", f"{times:g}", f"{least(bound, times):,.0f}", *cells))
    return out


def mixture(over: Over, runs: int) -> Figures:
    """A bad route among good ones."""
    out = Figures(
        "A bad route in a pool of ten, the others at a tenth of the bound (1 %), 2,000 requests each",
        (
            "its wrong rate / bound",
            "runs",
            "runs where it served",
            "hits a run",
            "wrong ones",
            "good routes serve after",
        ),
    )
    for times in (1.5, 3.0, 10.0):
        results = [mixed_pool(0.01, times, 10, 2_000, seed) for seed in over(f"bad route, {times:g}", range(runs))]
        fates = [fate for fate, _, _ in results]
        out.rows.append(
            (
                f"{times:g}",
                f"{runs:,}",
                f"{sum(fate.served > 0 for fate in fates) / runs:.0%}",
                f"{sum(fate.served for fate in fates) / runs:.0f}",
                f"{sum(fate.wrong for fate in fates) / runs:.1f}",
                f"{quantile([first for _, first, _ in results], 0.5):.0f} requests each",
            )
        )
    return out


def drifting(over: Over, runs: int) -> Figures:
    """How long a route that turned bad goes on serving."""
    out = Figures(
        "After a drift from a tenth of the bound (1 %): what is served until the route stops, median (nine in ten)",
        ("wrong rate after / bound", "audited", "served hits", "wrong ones", "stopped within 20,000"),
    )
    for audit in (0.05, 0.2):
        for times in (1.5, 3.0, 10.0, 30.0):
            what = f"drift to {times:g}, audits {audit:.0%}"
            fates = [drift(0.01, times, audit, 20_000, seed) for seed in over(what, range(runs))]
            served, wrong = [fate.served for fate in fates], [fate.wrong for fate in fates]
            out.rows.append(
                (
                    f"{times:g}",
                    f"{audit:.0%}, falling",
                    f"{quantile(served, 0.5):,.0f} ({quantile(served, 0.9):,.0f})",
                    f"{quantile(wrong, 0.5):,.0f} ({quantile(wrong, 0.9):,.0f})",
                    f"{sum(fate.stopped for fate in fates) / runs:.0%}",
                )
            )
    return out


def stretches(over: Over, runs: int) -> Figures:
    """Routes whose answers drift: the count that holds whatever changes, and the rate, which may not."""
    out = Figures(
        "Drift over 20,000 requests (bound 1 %): what was served, how often the account was false (goal: 5 %)",
        (
            "wrong rate / bound",
            "hits a run",
            "wrong per hit",
            "audited",
            "went back",
            "over 1 % by, median (nine in ten)",
            "false, %",
        ),
    )
    for kind in DRIFTS:
        found = [stretch(0.01, kind, 20_000, seed) for seed in over(f"drift, {kind}", range(runs))]
        served = sum(one.served for one in found)
        broken = sum(one.broken for one in found)
        low, high = binomtest(broken, runs).proportion_ci(0.95)
        out.missed = out.missed or low > LEVEL
        excess = [one.excess for one in found]
        out.rows.append(
            (
                kind,
                f"{served / runs:,.0f}",
                f"{sum(one.wrong for one in found) / max(1, served):.2%}",
                f"{sum(one.audits for one in found) / max(1, served):.1%}",
                f"{sum(one.pauses for one in found) / runs:.1f} times",
                f"{quantile(excess, 0.5):.0f} ({quantile(excess, 0.9):.0f}) answers",
                f"{broken / runs:.1%}"[:-1] + f" ({low:.1%}–{high:.1%})",
            )
        )
    return out


def e_process(bound: float, times: float, runs: int, labels: int) -> int:
    """In how many runs the e-value for a claim ever reaches 1 / LEVEL, looked at after every label."""
    rng = np.random.default_rng(20_26)
    crossed = 0
    n = np.arange(1, labels + 1)
    for _ in range(runs):
        bad = np.cumsum(rng.random(labels) < times * bound)
        ruined = np.where(bad > 0, -np.inf, 0.0)
        terms = [
            math.log(share) + (bad * math.log(g) if g else ruined) - n * math.log1p((g - 1) * bound)
            for g, share in zip(UNDER.odds, UNDER.shares, strict=True)
        ]
        crossed += bool(np.max(np.logaddexp.reduce(terms, axis=0)) >= math.log(1 / LEVEL))
    return crossed


def least(bound: float, times: float) -> float:
    """Labels on average that a bettor needs who knows the true rate: ln(1/level) / KL(rate, bound) (Wald)."""
    p = times * bound
    divergence = (1 - p) * math.log((1 - p) / (1 - bound)) + (p * math.log(p / bound) if p else 0.0)
    return math.log(1 / LEVEL) / divergence


def main(arguments: list[str]) -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--markdown", action="store_true", help="tables for the docs")
    parser.add_argument("--part", choices=["level", "warm-up", "pool", "drift", "account"], help="one table only")
    asked = parser.parse_args(arguments)
    part = 10 if asked.quick else 1
    console = Console()
    missed = False
    with Progress(console=Console(stderr=True), transient=True) as progress:

        def over(what: str, runs: range) -> Iterator[int]:
            if not progress.console.is_terminal:
                print(what, file=sys.stderr, flush=True)
            yield from progress.track(runs, description=what)

        tables = {
            "level": lambda: level(over, 2_000 // part),
            "warm-up": lambda: warm_up(over, 40 // part),
            "pool": lambda: mixture(over, 40 // part),
            "drift": lambda: drifting(over, 100 // part),
            "account": lambda: stretches(over, 100 // part),
        }
        for figures in (table() for name, table in tables.items() if asked.part in (None, name)):
            _show(console, figures, markdown=asked.markdown)
            missed = missed or figures.missed
    return int(missed)


def _show(console: Console, figures: Figures, *, markdown: bool) -> None:
    if markdown:
        print(f"\n**{figures.title}**\n")
        print("| " + " | ".join(figures.columns) + " |")
        print("|---" + "|---:" * (len(figures.columns) - 1) + "|")
        for row in figures.rows:
            print("| " + " | ".join(row) + " |")
        return
    table = Table(*figures.columns, title=figures.title, title_justify="left", title_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in figures.rows:
        table.add_row(*row)
    console.print(table)


def _upto(value: float, limit: int) -> str:
    return f"> {limit:,}" if value >= limit else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
