"""Who is beaten by whom: by values, by intervals, and not at all where something isn't known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.pareto import Measure, Point, judge, measures_of


def exactly(value: float) -> Measure:
    return Measure(value, value, value)


def point(name: str, cost: Measure | None, latency: Measure | None, quality: Measure | None = None) -> Point:
    return Point(name, {"cost": cost, "latency": latency, "quality": quality})


def test_a_trade_is_on_the_front_and_a_bad_bargain_is_not() -> None:
    cheap = point("cheap", exactly(1), exactly(100), exactly(0.8))
    good = point("good", exactly(5), exactly(100), exactly(0.95))
    bad = point("bad", exactly(6), exactly(120), exactly(0.7))

    assert judge([cheap, good, bad]) == [("front", ""), ("front", ""), ("surely dominated", "cheap")]


def test_only_intervals_that_are_apart_are_sure() -> None:
    one = point("one", Measure(1, 0.8, 1.2), Measure(100, 90, 110), Measure(0.9, 0.85, 0.95))
    near = point("near", Measure(2, 1.5, 2.5), Measure(200, 150, 250), Measure(0.88, 0.8, 0.93))
    far = point("far", Measure(2, 1.5, 2.5), Measure(200, 150, 250), Measure(0.6, 0.5, 0.7))

    assert judge([one, near, far]) == [("front", ""), ("dominated", "one"), ("surely dominated", "one")]


def test_what_is_unknown_is_compared_with_nothing() -> None:
    rated = point("rated", exactly(1), exactly(1), exactly(0.9))
    unrated = point("unrated", exactly(2), exactly(2))

    assert judge([rated, unrated]) == [("front", ""), ("unknown", "")]


def test_where_nobody_knows_a_measure_the_others_decide() -> None:
    points = [point("a", exactly(1), exactly(1)), point("b", exactly(2), exactly(2))]

    assert measures_of(points) == ("cost", "latency")
    assert judge(points) == [("front", ""), ("surely dominated", "a")]
    assert judge([]) == [] and judge([point("a", None, None)]) == [("unknown", "")]


def test_twins_don_t_dominate_each_other() -> None:
    assert judge([point("a", exactly(1), exactly(1)), point("b", exactly(1), exactly(1))]) == [("front", "")] * 2


values = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2))


@given(st.lists(values, min_size=1, max_size=8))
def test_somebody_is_always_on_the_front_and_sure_means_by_values_too(drawn: list[tuple[int, int, int, int]]) -> None:
    def about(value: int, reach: int) -> Measure:
        return Measure(value, value - reach, value + reach)

    wide = [point(str(i), about(a, r), about(b, r), about(c, r)) for i, (a, b, c, r) in enumerate(drawn)]
    narrow = [point(str(i), exactly(a), exactly(b), exactly(c)) for i, (a, b, c, _) in enumerate(drawn)]
    loose, strict = judge(wide), judge(narrow)
    assert any(verdict == "front" for verdict, _ in loose)
    for (verdict, _), (by_value, _) in zip(loose, strict, strict=True):
        assert (verdict == "front") == (by_value == "front")
