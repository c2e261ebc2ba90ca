"""How features hang together: the share is the odds ratio's, whatever the margins; changes are told, and only these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from farthing.policies.association import PAIRS, Pairing, Traits, gamma, series_of
from farthing.policies.shares import Reference
from farthing.policies.watch import ALL, Alarm, Board, Rules

DAY_S = 86_400.0


def rows(n: int, tools: float, hits: tuple[float, float], seed: int) -> Iterator[Traits]:
    """Requests with tools in that share; `hits`: the hit rate without and with tools. Language hangs on nothing."""
    rng = np.random.default_rng(seed)
    for a, b, c, length in zip(rng.random(n), rng.random(n), rng.random(n), rng.lognormal(6, 1, n), strict=True):
        has = int(a < tools)
        yield Traits(int(length) * (1 + has), has, int(c < 0.3), int(b < hits[has]))


def with_odds(rate: float, odds: float) -> tuple[float, float]:
    """Hit rates without and with tools, of that odds ratio."""
    other = odds * rate / (1 - rate)
    return rate, other / (1 + other)


def fed(board: Board, given: Iterator[Traits], at_s: float = 0.0, step_s: float = 1.0) -> list[Alarm]:
    pairing, found = Pairing(), []
    for number, traits in enumerate(given):
        for series, place in pairing.add(traits):
            found += board.add(series, place, (ALL,), at_s + number * step_s)
    return found


@pytest.mark.parametrize("tools", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_is_that_of_the_odds_ratio_whatever_the_margins(tools: float, rate: float) -> None:
    seen: Counter[int] = Counter()
    pairing = Pairing()
    for traits in rows(60_000, tools, with_odds(rate, 3.0), 1):
        seen.update(place for series, place in pairing.add(traits) if series == "tools_with_hit")
    n = sum(seen.values())
    assert n > 1_000
    assert abs(seen[1] / n - 0.75) < 4 * (0.75 * 0.25 / n) ** 0.5  # 3 / (1 + 3)


def test_ties_and_what_is_not_known_are_no_observations() -> None:
    pairing = Pairing()
    assert list(pairing.add(Traits(10, 0, 2, None))) == []
    assert dict(pairing.add(Traits(20, 1, 2, 1))) == {"length_with_tools": 1}
    assert list(pairing.add(Traits(30, 1, 0, 0))) == []  # the second of a pair isn't the first of the next
    assert dict(pairing.add(Traits(20, 0, 1, 1))) == {
        "length_with_tools": 1, "length_with_language": 0, "length_with_hit": 0, "tools_with_language": 0,
        "tools_with_hit": 0, "language_with_hit": 1,
    }  # fmt: skip
    assert (gamma(0.5), gamma(1.0), gamma(0.0)) == (0.0, 1.0, -1.0)


def test_a_change_of_the_association_is_told_and_of_the_margins_alone_is_not() -> None:
    board = Board(Rules(reference=Reference(500, 0.0)))
    assert fed(board, rows(20_000, 0.3, with_odds(0.2, 1.0), 2)) == []
    assert fed(board, rows(20_000, 0.6, with_odds(0.5, 1.0), 3), 1e5) == []  # twice the tools, more hits: as before
    found = fed(board, rows(20_000, 0.3, with_odds(0.2, 6.0), 4), 2e5)
    assert [alarm.series for alarm in found] == ["tools_with_hit"]
    assert "tools and hit" in found[0].what and found[0].warns == ("cache", "semantic")
    told = next(one for one in board.told() if one["series"] == "tools_with_hit")
    assert abs(told["gamma"]["was"]) < 0.2 < told["gamma"]["now"]


def test_no_more_false_alarms_than_stated_of_all_pairs_together() -> None:
    """Rows whose six associations hang on each other, each exactly at the limit of its series, for 2,000 days."""
    rate, days, seeds = 30.0, 2_000, 3
    count = 0
    for seed in range(seeds):
        board, rng = Board(Rules(reference=Reference(2_000, 0.0), alarms_per_year=rate)), np.random.default_rng(seed)
        names = [series_of(*pair) for pair in PAIRS]
        for name in names:
            for place in [1] * 1_000 + [0] * 1_000:
                board.add(name, place, (ALL,), 0.0)
        limit = board._series[names[0], ALL]._limits[1]
        for day in range(days):
            same = int(rng.random() < limit)  # one coin for all six: they couldn't hang together more
            for name in names:
                count += len(board.add(name, same, (ALL,), day * DAY_S))
                board._series[name, ALL].moved = None
    assert count <= seeds * days / 365.25 * rate


def test_on_unchanged_traffic_the_rate_is_kept_by_far() -> None:
    board = Board(Rules(reference=Reference(500, 0.0), alarms_per_year=100.0))
    assert fed(board, rows(60_000, 0.3, with_odds(0.3, 2.0), 9), step_s=600.0) == []  # more than a year
