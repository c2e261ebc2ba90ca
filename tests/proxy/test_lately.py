"""What was met of late is bounded, leaves with its entry, and counts every look-up once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.reuse import Action, Candidate, RouteKey, Verdict
from farthing.proxy.lately import KINDS, Lately, Sighting
from farthing.proxy.pulse import Pulse

ROUTE, OTHER = RouteKey("t", "one"), RouteKey("t", "two")
DAY_S = 86_400


def sighting(
    number: int = 0, *, action: Action = Action.OBSERVE, cosine: float = 0.9, score: float = 0.5, key: str = "k"
) -> Sighting:
    candidate = Candidate(key, score, cosine)
    return Sighting(f"far-{number}", float(number), ROUTE, "a text", "own", candidate, Verdict(action, "why"))


def test_only_what_came_near_and_was_not_served_is_a_near_miss() -> None:
    lately = Lately()
    for one in (
        sighting(1),
        sighting(2, action=Action.SERVE),
        sighting(3, cosine=0.2, score=0.1),
        sighting(4, cosine=0.99, score=0.01),
        sighting(5, cosine=0.2, score=0.6),
    ):
        lately.found(one)
    assert [one.exchange_id for one in lately.latest("near")] == ["far-5", "far-4", "far-1"]
    assert lately.counts() == {"near": 3, "served": 0, "wrong": 0}


def test_each_kind_keeps_the_latest_fifty() -> None:
    lately = Lately()
    for number in range(200):
        one = sighting(number)
        lately.found(one)
        lately.served(one)
        lately.judged(one, wrong=True)
    for kind in KINDS:
        assert [one.exchange_id for one in lately.latest(kind)] == [f"far-{number}" for number in range(199, 149, -1)]


def test_a_comparison_marks_the_sighting_wherever_it_stands() -> None:
    lately = Lately()
    right, wrong = sighting(1), sighting(2)
    for one in (right, wrong):
        lately.found(one)
        assert one.judged is None
    lately.judged(right, wrong=False)
    lately.judged(wrong, wrong=True)
    assert [one.judged for one in lately.latest("near")] == [False, True]
    assert lately.latest("wrong") == [wrong]


def test_a_sighting_leaves_with_its_entry_or_with_its_own() -> None:
    lately = Lately()
    kept, gone, own = sighting(1), sighting(2, key="gone"), sighting(3)
    own.own_key = "mine"
    for one in (kept, gone, own):
        lately.found(one)
        lately.served(one)
        lately.judged(one, wrong=True)
    lately.forget(["gone", "mine"])
    assert [lately.latest(kind) for kind in KINDS] == [[kept]] * 3
    lately.clear()
    assert not any(lately.counts().values())


def test_one_route_can_be_asked_for() -> None:
    lately = Lately()
    lately.found(sighting(1))
    assert lately.latest("near", OTHER) == []
    assert len(lately.latest("near", ROUTE)) == 1


def test_slots_grow_so_that_thirty_days_fit() -> None:
    pulse = Pulse()
    for day in range(30):
        pulse.looked(ROUTE, day * DAY_S)
        pulse.served(ROUTE, day * DAY_S)
    assert len(pulse.series()) == 30
    assert pulse.width_s == 21_600
    assert pulse.series(ROUTE) == pulse.series() == [(day * float(DAY_S), 1, 1) for day in range(30)]
    pulse.looked(ROUTE, 100 * DAY_S)
    assert pulse.series() == [(100.0 * DAY_S, 1, 0)]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20 * DAY_S)), max_size=200))
def test_nothing_is_lost_and_nothing_counted_twice(met: list[tuple[bool, float]]) -> None:
    pulse = Pulse()
    for first, at_s in met:
        pulse.looked(ROUTE if first else OTHER, at_s)
        if first:
            pulse.served(ROUTE, at_s)
    hits = sum(first for first, _ in met)
    assert sum(looked for _, looked, _ in pulse.series()) == len(met)
    assert sum(served for _, _, served in pulse.series()) == hits
    assert sum(looked for _, looked, _ in pulse.series(OTHER)) == len(met) - hits
    assert all(served <= looked for _, looked, served in pulse.series(ROUTE))
    starts = [start for start, _, _ in pulse.series()]
    assert starts == sorted(set(starts))
    assert not starts or starts[-1] - starts[0] < 120 * pulse.width_s


def test_many_routes_cost_no_more_than_fifty_and_the_sum_stays() -> None:
    pulse = Pulse()
    for number in range(200):
        pulse.looked(RouteKey("t", str(number)), 5.0)
    assert len(pulse.routes) == 50
    assert pulse.series() == [(0.0, 200, 0)]
    pulse.looked(RouteKey("t", "180"), 5.0)
    assert pulse.busiest(1) == [RouteKey("t", "180")]


def test_a_clock_that_is_set_right_does_not_spoil_the_slots() -> None:
    pulse = Pulse()
    pulse.looked(ROUTE, 5.0)
    now_s = 1.8e9
    pulse.looked(ROUTE, now_s)
    assert pulse.width_s == 10
    assert pulse.series() == [(now_s, 1, 0)]
