"""What is shown and written costs a few routes at a time, however many there are: work is counted, not timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from farthing.policies import verified
from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Candidate, Label, Policy, RouteKey, slices, whole
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified

MANY = 300
MOST = 32
POLICIES: dict[str, Callable[[], Policy]] = {
    "verified": lambda: Verified(Settings(Bound(0.1), mode="serve", ladder=Ladder((0.5,), (1.0,)))),
    "static": lambda: Static(0.5, bound=Bound(), mode="serve"),
    "vcache": lambda: VCache(Bound(per="request"), mode="serve"),
}


def ask(policy: Policy, route: RouteKey, outcome: float = 0.0) -> None:
    candidate = Candidate("entry", 0.9, 0.9)
    verdict = policy.decide(route, candidate, 0.001)
    if verdict.action is not Action.SERVE or verdict.audit:
        policy.learn(route, candidate, verdict, Label(outcome))


def filled(name: str, routes: int = MANY) -> Policy:
    policy = POLICIES[name]()
    for number in range(routes):
        ask(policy, RouteKey(f"tenant {number % 7}", str(number)))
    return policy


@pytest.mark.parametrize("name", POLICIES)
def test_a_few_routes_are_shown_and_one_is_found(name: str) -> None:
    policy = filled(name)

    assert policy.count == MANY
    assert [one.route.name for one in policy.state(3)] == ["299", "298", "297"]
    assert policy.state(3) == policy.state()[:3]
    assert policy.state_of(RouteKey("tenant 0", "0")) == policy.state()[-1]
    assert policy.state_of(RouteKey("nobody", "0")) is None


def test_showing_some_routes_looks_at_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = filled("verified")
    looked: list[Any] = []
    honest = verified.Verified._state
    monkeypatch.setattr(verified.Verified, "_state", lambda self, *route: looked.append(route) or honest(self, *route))

    policy.state(20)
    assert len(looked) == 20
    policy.state_of(RouteKey("tenant 0", "0"))
    assert len(looked) == 21


@pytest.mark.parametrize("name", POLICIES)
def test_no_slice_holds_more_than_a_few_and_together_they_are_all(name: str) -> None:
    policy = filled(name)
    parts = list(policy.dump_slices())

    assert max(len(value) for _, value in parts if isinstance(value, list | dict)) <= MOST
    assert len(parts) >= MANY / MOST
    assert whole(parts) == policy.dump()


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_goes_on_between_slices_gives_what_can_be_loaded(name: str) -> None:
    policy, again = filled(name), POLICIES[name]()
    parts = []
    for step, part in enumerate(policy.dump_slices()):
        parts.append(json.loads(json.dumps(part)))
        ask(policy, RouteKey(f"new tenant {step}", "new"), 1.0)
        ask(policy, RouteKey("tenant 0", "0"), 1.0)
        policy.forget(RouteKey("tenant 6", str(MANY - 5)))
    again.load(whole(parts))

    assert again.count >= MANY - 1


def test_a_tenant_that_left_between_slices_begins_anew() -> None:
    settings = Settings(Bound(0.1), mode="serve", ladder=Ladder((0.5,), (1.0,)), max_routes=40)
    policy, again = Verified(settings), Verified(settings)
    for number in range(40):
        ask(policy, RouteKey(f"tenant {number}", "faq"))
    parts = []
    for step, part in enumerate(policy.dump_slices()):
        parts.append(part)
        if step == 5:
            for number in range(40):
                ask(policy, RouteKey(f"other tenant {number}", "faq"))
    again.load(whole(parts))
    ask(again, RouteKey("tenant 1", "faq"))

    assert again.count == 40


def test_slices() -> None:
    assert list(slices(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert whole([("a", 1), ("b", [1]), ("b", [2]), ("c", {"x": 1}), ("c", {"y": 2})]) == {
        "a": 1,
        "b": [1, 2],
        "c": {"x": 1, "y": 2},
    }
