"""What looking every time does to error rates: worlds in which nothing is different, and how often each method says so
at any of its looks.

    python -m bench.peeking                 fixed seed; 1,000 worlds of 3,000 outcomes an arm, 200 looks each

The last column is a world with a difference: how much is found, and that the honest methods aren't deaf. The second
table is how wide intervals for the difference of two shares are, beside an interval for one look: by bets on both arms
together, and as two arms' own intervals would have it.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from farthing.policies import confidence, sequence, srm
from farthing.policies.confidence import Sums
from farthing.policies.estimate import proportion
from farthing.policies.sequence import Evidence
from farthing.policies.sequence_pair import apart

LEVEL = 0.05
LENGTH, LOOKS = 3_000, 200

Arms = tuple[Sums, Sums]
METHODS: dict[str, Callable[[Sums, Sums], bool]] = {
    "a test made for one look (normal, 5 %)": lambda one, other: abs(one.mean - other.mean) > 1.96 * _error(one, other),
    "confidence sequence": lambda one, other: _apart(confidence.difference(one, other, LEVEL)),
    "mixture SPRT": lambda one, other: confidence.sprt(one, other, 0.2) < LEVEL,
}
BOUNDED = {
    "a test made for one look (normal, 5 %)": METHODS["a test made for one look (normal, 5 %)"],
    "confidence sequence, bounded": lambda one, other: _apart(
        confidence.bounded_difference(confidence.evidence(one), confidence.evidence(other), LEVEL)
    ),
    "two arms' own sequences at half the level": lambda one, other: _apart(
        union(confidence.evidence(one), confidence.evidence(other))
    ),
}
SHARES: dict[str, Callable[[int, int], bool]] = {
    "chi-square at every look, 5 %": lambda ours, n: (2 * ours - n) ** 2 / n > 3.841,
    "sample-ratio mismatch, sequential": lambda ours, n: srm.mismatch_p([ours, n - ours], [0.5, 0.5]) < LEVEL,
}


def union(one: Evidence, other: Evidence) -> confidence.Interval:
    """The difference of two means by each arm's own interval."""
    (low, high), (other_low, other_high) = (sequence.interval(arm, LEVEL / 2) for arm in (one, other))
    return confidence.Interval(one.bad / one.seen - other.bad / other.seen, low - other_high, high - other_low)


def widths() -> Table:
    """Of intervals for the difference of two equal shares, over that of a normal one for one look."""
    heads = ("both together", "two intervals", "asymptotic")
    table = Table("outcomes of the arms", "share, %", "one look, points", *(f"{head}, times" for head in heads))
    for n, m in ((300, 300), (1_000, 1_000), (3_000, 3_000), (10_000, 10_000), (10_000, 1_000), (100_000, 1_000)):
        for share in (0.5, 0.1, 0.03, 0.01):
            one, other = (Evidence(count, round(count * share)) for count in (n, m))
            plain = 2 * 1.96 * math.sqrt(share * (1 - share) * (1 / n + 1 / m))
            normal = confidence.difference(*(Sums(count, share, share * (1 - share) * (count - 1)) for count in (n, m)),
                                           LEVEL)  # fmt: skip
            found = apart(one, other, LEVEL), union(one, other)[1:], normal[1:]
            times = [(high - low) / plain for low, high in found]
            table.add_row(f"{n:,} and {m:,}", f"{100 * share:g}", f"{100 * plain:.2f}", *(f"{t:.2f}" for t in times))
    return table


def _error(one: Sums, other: Sums) -> float:
    return math.sqrt(one.variance / one.count + other.variance / other.count) or math.inf


def _apart(found: confidence.Interval) -> bool:
    return not found.low <= 0 <= found.high


def looks(values: NDArray[np.float64], at: NDArray[np.int64]) -> Iterator[Sums]:
    """One arm's running sums at each look."""
    total, squares = np.cumsum(values), np.cumsum(values * values)
    for n in at.tolist():
        mean = float(total[n - 1]) / n
        yield Sums(n, mean, max(0.0, float(squares[n - 1]) - n * mean * mean))


def crossed(draw: Callable[[np.random.Generator], tuple[NDArray[np.float64], NDArray[np.float64]]],
            methods: dict[str, Callable[[Sums, Sums], bool]], worlds: int, seed: int) -> Counter[str]:  # fmt: skip
    """In how many worlds each method ever called the arms different."""
    dice, at, found = np.random.default_rng(seed), np.linspace(30, LENGTH, LOOKS).astype(int), Counter[str]()
    for _ in range(worlds):
        arms = list(zip(*(looks(values, at) for values in draw(dice)), strict=True))
        for name, differs in methods.items():
            found[name] += any(differs(one, other) for one, other in arms)
    return found


def mismatched(share: float, worlds: int, seed: int) -> Counter[str]:
    """In how many worlds each method ever called the shares wrong that were declared even."""
    dice, at, found = np.random.default_rng(seed), np.linspace(30, LENGTH, LOOKS).astype(int), Counter[str]()
    for _ in range(worlds):
        ours = np.cumsum(dice.random(LENGTH) < share)
        for name, differs in SHARES.items():
            found[name] += any(differs(int(ours[n - 1]), int(n)) for n in at)
    return found


def costs(effect: float) -> Callable[[np.random.Generator], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Skewed and without bounds, as costs and latencies are."""
    return lambda dice: (dice.exponential(1.0, LENGTH), dice.exponential(1.0 + effect, LENGTH))


def wrongs(effect: float) -> Callable[[np.random.Generator], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Right or wrong."""
    return lambda dice: ((dice.random(LENGTH) < 0.05) * 1.0, (dice.random(LENGTH) < 0.05 + effect) * 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    table = Table("outcome", "method", "cries wolf, % (95 % interval)", "finds a difference, %")
    few, seed = given.worlds // 4, given.seed  # the bounded sequence is dear to compute
    rows = [
        ("cost: 1, exponential; other 15 % more", crossed(costs(0), METHODS, given.worlds, seed),
         crossed(costs(0.15), METHODS, few, seed + 1)),
        ("wrong answers: 5 %; other 8 %", crossed(wrongs(0), BOUNDED, few, seed),
         crossed(wrongs(0.03), BOUNDED, few, seed + 1)),
        ("shares: 50 %; other 55 %", mismatched(0.5, given.worlds, seed), mismatched(0.55, few, seed + 1)),
    ]  # fmt: skip
    for what, null, other in rows:
        worlds = few if what.startswith("wrong") else given.worlds
        for name, count in null.items():
            rate = proportion(count, worlds)
            table.add_row(
                what,
                name,
                f"{100 * rate.value:.1f} ({100 * rate.low:.1f} to {100 * rate.high:.1f})",
                f"{100 * other[name] / few:.0f}",
            )
    Console(width=140).print(table)
    Console(width=140).print(widths())


if __name__ == "__main__":
    main()
