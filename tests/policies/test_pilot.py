"""Thresholds are chosen when the comparisons promise something, and chosen anew where they were hopeless."""

from __future__ import annotations

import json
from random import Random

from farthing.policies.reuse import Action, Bound, Candidate, Label, RouteKey, RouteState
from farthing.policies.verified import Settings, Verified

SETTINGS = Settings(Bound(0.1), mode="serve", pooled=False, patience_scores=1e9)
POOLED = Settings(Bound(0.1), mode="serve", patience_scores=1e9)
ROUTE = RouteKey("acme", "faq")
coin = Random(20_26)


def compare(policy: Verified, score: float, outcome: float = 0.0, route: RouteKey = ROUTE) -> None:
    """Ask and learn; every hit is audited."""
    candidate = Candidate("entry", score, score)
    policy.learn(route, candidate, policy.decide(route, candidate, coin.uniform(0.0, 0.0099)), Label(outcome))


def action(policy: Verified, score: float, route: RouteKey) -> Action:
    return policy.decide(route, Candidate("entry", score, score), coin.uniform(0.5, 1.0)).action


def only(policy: Verified) -> RouteState:
    (state,) = policy.state()
    return state


def test_a_pilot_waits_until_a_threshold_promises_something() -> None:
    """In a cache that is still empty all candidates are poor; thresholds that fit those would fit nothing later."""
    policy = Verified(SETTINGS)
    random = Random(3)
    pilot = policy._rules.pilot
    for _ in range(5 * pilot):
        compare(policy, random.uniform(0.0, 0.3), outcome=1.0)

    assert only(policy).threshold is None and "none is good enough yet" in only(policy).reason
    for _ in range(1_000):
        score = random.uniform(0.0, 0.9)
        compare(policy, score, float(score < 0.6))

    assert only(policy).serving and (only(policy).threshold or 0.0) >= 0.55


def test_a_route_with_hopeless_thresholds_chooses_others_and_leaves_the_pool() -> None:
    policy = Verified(POOLED)
    random = Random(4)
    good, odd = RouteKey("acme", "good"), RouteKey("acme", "odd")
    for _ in range(policy._rules.pilot):
        compare(policy, random.uniform(0.3, 0.6), route=good)
    given = policy.dump()["families"]["acme"]["ladder"][0]
    for _ in range(800):
        score = random.uniform(0.3, 1.0)
        compare(policy, score, float(score < 0.8), route=odd)
    before = json.loads(json.dumps(policy.dump()))
    again = Verified(policy.settings)
    again.load(before)
    state = next(one for one in policy.state() if one.route == odd)

    assert max(given) < 0.6
    assert state.serving and state.proof == "own" and (state.threshold or 0.0) >= 0.75
    assert again.dump() == before
    assert action(again, 0.95, odd) is Action.SERVE
    assert action(again, 0.7, odd) is Action.OBSERVE
    policy.forget(odd)
    assert next(one for *name, one in policy.dump()["routes"] if name == list(odd))["ladder"][0] == given
