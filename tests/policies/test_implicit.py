"""What users say by what they do."""

from __future__ import annotations

import pytest

from farthing.policies.implicit import ABANDONED, REASK, REGENERATE, Implicit, Seen


def seen(id: str, ts_s: float, **more: object) -> Seen:
    given = {"tenant": "t", "user": "u", "key": f"key of {id}", "near": "", "semantic_hit": False}
    return Seen(id=id, ts_s=ts_s, abandoned_stream=bool(more.pop("abandoned", False)), **(given | more))  # type: ignore[arg-type]


HIT = seen("hit", 100.0, near="stored", semantic_hit=True)


@pytest.mark.parametrize(
    ("then", "found"),
    [
        (seen("next", 160.0, near="stored"), [("hit", REASK)]),
        (seen("next", 160.0, key="stored"), [("hit", REASK)]),  # the neighbour's own words
        (seen("next", 160.0, key="key of hit"), [("hit", REGENERATE)]),
        (seen("next", 160.0, near="another"), []),
        (seen("next", 500.0, near="stored"), []),  # too late
        (seen("next", 90.0, near="stored"), []),  # the clock went back
        (seen("next", 160.0, near="stored", user="v"), []),
        (seen("next", 160.0, near="stored", tenant="s"), []),
        (seen("next", 160.0, abandoned=True), [("next", ABANDONED)]),
    ],
)
def test_a_signal_is_about_the_answer_that_was_not_enough(then: Seen, found: list[tuple[str, str]]) -> None:
    detector = Implicit(within_s=300.0)
    assert detector.seen(HIT) == []
    assert [(one.request_id, one.metric) for one in detector.seen(then)] == found


def test_a_fresh_answer_is_not_asked_again_but_made_anew() -> None:
    detector = Implicit()
    detector.seen(seen("first", 1.0, near="stored"))
    assert detector.seen(seen("second", 2.0, near="stored")) == []


def test_without_a_user_nobody_is_compared() -> None:
    detector = Implicit()
    detector.seen(HIT._replace(user=""))
    assert detector.seen(seen("next", 101.0, near="stored", user="")) == []
    assert [one.metric for one in detector.seen(seen("cut", 102.0, user="", abandoned=True))] == [ABANDONED]


def test_users_are_forgotten_the_longest_silent_first() -> None:
    detector = Implicit(most=2)
    for user in ("a", "b", "c"):
        detector.seen(HIT._replace(user=user))
    assert detector.seen(seen("next", 101.0, near="stored", user="a")) == []
    assert detector.seen(seen("next", 101.0, near="stored", user="c")) != []
