"""The board: one budget for all series, slices within bounds, references rebased, nothing lost by a restart."""

from __future__ import annotations

import numpy as np
import pytest

from farthing.policies.shares import Kind, Reference
from farthing.policies.watch import ALL, Alarm, Board, Rules
from farthing.policies.watch_series import SERIES, log_place, share_place

DAY_S = 86_400.0


def board(observations: int = 500, **rules: float) -> Board:
    return Board(Rules(reference=Reference(observations, 0.0), **rules))  # type: ignore[arg-type]


def play(one: Board, series: str, share: float, n: int, seed: int, at_s: float, slices: tuple[str, ...]) -> list[Alarm]:
    rng = np.random.default_rng(seed)
    return [
        alarm for at, yes in enumerate(rng.random(n) < share) for alarm in one.add(series, int(yes), slices, at_s + at)
    ]


def test_no_more_false_alarms_than_stated_of_all_series_together() -> None:
    """The worst case: thirty series, each exactly on its limit, for 3,000 days at 30 alarms a year."""
    one, rng = board(2_000, alarms_per_year=30.0), np.random.default_rng(1)
    slices = tuple(f"tag:n={number}" for number in range(29))
    for place in [1] * 200 + [0] * 1_800:
        one.add("refused", place, (ALL, *slices), 0.0)
    limit = one._series["refused", ALL]._limits[1]
    names, count = (ALL, *slices), 0
    for at in range(3_000):
        for name, yes in zip(names, rng.random(30) < limit, strict=True):
            count += len(one.add("refused", int(yes), (name,), at * DAY_S))
            one._series["refused", name].moved = None
    assert count <= 3_000 / 365.25 * 30


def test_a_slice_that_changes_is_named_and_the_others_are_silent() -> None:
    one = board()
    for seed, name in enumerate(("tag:team=a", "tag:team=b")):
        assert play(one, "refused", 0.02, 2_000, seed, 0.0, (ALL, name)) == []
    found = play(one, "refused", 0.4, 300, 7, 3_000.0, (ALL, "tag:team=a"))
    assert {alarm.slice for alarm in found} == {ALL, "tag:team=a"}
    alarm = next(alarm for alarm in found if alarm.slice == "tag:team=a")
    assert alarm.warns == ("routes", "compress", "semantic") and alarm.now > alarm.limit > alarm.was
    assert "'refused' was" in alarm.what
    assert one.alarms == one.standing == 2
    told = one.told()
    assert [each["state"] for each in told] == ["drifting", "drifting", "quiet"]
    assert told[0]["bins"] and told[0]["evidence"] == 1.0
    assert one.rebase("refused", "tag:team=a") == 1
    assert one.standing == 1
    assert one.rebase() == 3 and one.standing == 0


def test_slices_are_bounded_and_the_idle_make_room() -> None:
    one = board(slices=2)
    for number in range(5):
        one.add("hit", 1, (ALL, f"tag:n={number}"), 0.0)
    assert {each["slice"] for each in one.told()} == {ALL, "tag:n=0", "tag:n=1"}
    assert one.refused_slices == 3
    one.add("hit", 1, ("tag:n=0",), 8 * DAY_S)
    one.add("hit", 1, ("tag:n=7", "tag:" + "x" * 200), 8 * DAY_S)
    assert {each["slice"] for each in one.told()} == {ALL, "tag:n=0", "tag:n=7"}


def test_a_series_is_not_watched_in_slices_of_itself() -> None:
    one = board()
    one.add("language", 0, (ALL, "language:de", "tools:no"), 0.0)
    assert {each["slice"] for each in one.told()} == {ALL, "tools:no"}


def test_what_is_dumped_is_loaded() -> None:
    one = board()
    play(one, "hit", 0.4, 2_000, 1, 0.0, (ALL, "tag:team=a"))
    assert play(one, "hit", 0.0, 2_000, 2, 3_000.0, (ALL,))
    other = board()
    other.load(one.dump())
    assert other.dump() == one.dump() and other.standing == one.standing == 1
    with pytest.raises(ValueError, match="version"):
        board().load(one.dump() | {"version": 0})


def test_a_clock_that_goes_back_costs_nothing() -> None:
    one = board()
    play(one, "hit", 0.4, 1_000, 1, 10_000.0, (ALL,))
    assert play(one, "hit", 0.4, 1_000, 2, 0.0, (ALL,)) == []


@pytest.mark.parametrize("name", SERIES)
def test_every_series_can_say_what_moved(name: str) -> None:
    one = SERIES[name]
    assert one.bins == len(one.labels) or one.kind == Kind.ORDERED
    assert one.called(0, 0) and one.called(one.bins - 1, one.bins - 1) and one.warns


@pytest.mark.parametrize(
    ("value", "place"), [(0, 0), (1, 1), (1.5, 2), (2, 3), (1024, 21), (1e5, 34), (1e12, 39), (-3, 0)]
)
def test_log_places(value: float, place: int) -> None:
    assert log_place(value) == place
    edge = SERIES["input_tokens"].edge(place)
    assert edge.endswith("tokens")


def test_share_places() -> None:
    assert [share_place(value) for value in (-1.0, 0.0, 0.049, 0.05, 0.5, 1.0, 2.0)] == [0, 0, 0, 1, 10, 19, 19]
    assert SERIES["score"].called(10, 19) == "0.50 or more"
