"""A bolder step serves only where every gentler one does, and falls with it."""

from __future__ import annotations

import pytest

from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Label, RouteKey
from farthing.policies.steps import Chain, Step
from farthing.policies.verified import Settings, Verified

ROUTE = RouteKey("t", "m 1")


def chain(mode: str = "serve") -> Chain:
    settings = Settings(Bound(0.1), mode, ladder=Ladder((0.5,), (1.0,)), audit_share=1.0)  # type: ignore[arg-type]
    policy = Verified(settings)
    return Chain([Step("gentle", policy), Step("bold", policy)])


def teach(one: Chain, at: int, labels: int = 80, outcome: float = 0.0) -> None:
    for _ in range(labels):
        verdict = one.decide(ROUTE, at, 0.5, may_audit=True)
        one.learn(ROUTE, at, verdict, Label(outcome))


def test_nothing_serves_before_it_is_proved() -> None:
    one = chain()
    assert one.proved(ROUTE) == 0
    assert one.decide(ROUTE, 0, 0.5, may_audit=True).action is Action.OBSERVE


def test_steps_are_proved_one_after_the_other() -> None:
    one = chain()
    teach(one, 0)
    assert one.proved(ROUTE) == 1
    assert one.decide(ROUTE, 0, 0.5, may_audit=True).action is Action.SERVE
    teach(one, 1)
    assert one.proved(ROUTE) == 2


def test_a_bold_step_alone_serves_nothing() -> None:
    one = chain()
    teach(one, 1)
    assert one.proved(ROUTE) == 0


def test_wrong_answers_take_a_step_back_and_the_version_tells() -> None:
    one = chain()
    teach(one, 0)
    teach(one, 1)
    before = one.version(ROUTE)
    teach(one, 0, outcome=1.0)
    assert one.proved(ROUTE) == 0
    assert one.version(ROUTE) != before


def test_steps_and_routes_share_no_evidence() -> None:
    one = chain()
    teach(one, 0)
    assert one.proved(RouteKey("other", ROUTE.name)) == 0
    assert [(name, state is not None) for name, state in one.states(ROUTE)] == [("gentle", True), ("bold", False)]


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_without_leave_nothing_serves(mode: str) -> None:
    one = chain(mode)
    teach(one, 0)
    assert one.proved(ROUTE) == 0


def test_routes_are_listed_by_their_latest_use_and_once() -> None:
    settings = Settings(Bound(0.1), "serve", ladder=Ladder((0.5,), (1.0,)))
    shared = Verified(settings)
    one = Chain([Step("gentle", shared), Step("bold", shared)])
    for name, at in (("a", 0), ("b", 0), ("a", 1), ("c", 0), ("b", 1)):
        one.decide(RouteKey("t#1", name), at, 0.5, may_audit=True)
    assert one.routes(9) == [RouteKey("t#1", name) for name in ("b", "c", "a")]
    assert one.routes(2) == [RouteKey("t#1", name) for name in ("b", "c")]
    assert Chain([Step("other", shared)]).routes(9) == []
    assert Chain(()).routes(9) == []


def test_routes_of_several_policies_are_all_listed() -> None:
    settings = Settings(Bound(0.1), "serve", ladder=Ladder((0.5,), (1.0,)))
    one = Chain([Step("gentle", Verified(settings)), Step("bold", Verified(settings))])
    for name, at in (("a", 0), ("b", 0), ("c", 1)):
        one.decide(RouteKey("t", name), at, 0.5, may_audit=True)
    assert one.routes(9) == [RouteKey("t", name) for name in ("b", "c", "a")]


def test_a_step_that_fails_before_it_has_served_leaves_what_gentler_ones_decided() -> None:
    one = chain()
    teach(one, 0)
    before = one.version(ROUTE)
    teach(one, 1, outcome=1.0, labels=400)
    (_, gentle), (_, bold) = one.states(ROUTE)
    assert bold.epoch > 0, "its evidence was dropped"
    assert gentle.serving
    assert one.version(ROUTE) == before


def test_a_version_outlives_a_restart() -> None:
    one = chain()
    teach(one, 0)
    teach(one, 0, outcome=1.0)
    again = chain()
    again.steps[0].policy.load(one.steps[0].policy.dump())
    assert again.version(ROUTE) == one.version(ROUTE) != chain().version(ROUTE)
