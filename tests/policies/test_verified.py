"""A route serves where its labels prove that it may, and goes back by itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Candidate, Label, RouteKey, RouteState, Source, Verdict
from farthing.policies.sequence import Comparator
from farthing.policies.verified import Settings, Verified
from tests.fakes.examples import examples

ONE = Ladder((0.5,), (1.0,))
TWO = Ladder((0.8, 0.5), (0.5, 0.5))
# One false alarm in a thousand million scores: not while these tests run.
QUICK = Settings(Bound(0.1), mode="serve", ladder=ONE, pooled=False, patience_scores=1e9)
ROUTE = RouteKey("acme", "faq")
AUDIT, NO_AUDIT = (0.0, 0.0099), (0.5, 1.0)  # ranges of the coin: below every audited share, and above
coin = Random(20_26)


def candidate(score: float = 0.9) -> Candidate:
    return Candidate("entry", score, score)


def ask(
    policy: Verified,
    score: float = 0.9,
    chance: float | tuple[float, float] = NO_AUDIT,
    route: RouteKey = ROUTE,
    **more: bool,
) -> Verdict:
    thrown = coin.uniform(*chance) if isinstance(chance, tuple) else chance
    return policy.decide(route, candidate(score), thrown, **more)


def compare(
    policy: Verified, count: int = 1, *, outcome: float = 0.0, score: float = 0.9, route: RouteKey = ROUTE
) -> Verdict:
    """Ask and learn; hits are audited."""
    for _ in range(count):
        verdict = ask(policy, score, AUDIT, route)
        policy.learn(route, candidate(score), verdict, Label(outcome))
    return ask(policy, score, NO_AUDIT, route)


def until_served(policy: Verified, *, score: float = 0.9, route: RouteKey = ROUTE, limit: int = 2_000) -> int:
    for count in range(limit):
        if compare(policy, score=score, route=route).action is Action.SERVE:
            return count + 1
    raise AssertionError("never served")


def only(policy: Verified) -> RouteState:
    (state,) = policy.state()
    return state


def test_it_observes_until_the_bound_is_proved_then_serves() -> None:
    policy = Verified(QUICK)

    first = ask(policy)
    count = until_served(policy)
    served = ask(policy)

    assert (first.action, first.bound, first.label_chance) == (Action.OBSERVE, None, 1.0)
    assert "0 labels, about" in first.reason
    one = Verified(replace(QUICK, bound=Bound(0.001)))
    assert ": 1 label, about 3,738 more" in compare(one, 1).reason
    assert math.log(20) / 0.1 <= count <= 1.3 * math.log(20) / 0.1
    assert (served.action, served.threshold) == (Action.SERVE, 0.5)
    assert served.bound is not None and 0.05 < served.bound <= 0.1
    assert served.wrong is not None and served.wrong < 0.05
    assert only(policy).serving and only(policy).proof == "own"


def test_what_it_says_is_needed_is_about_what_is_needed() -> None:
    policy = Verified(QUICK)
    ask(policy)
    said = only(policy).needed

    assert said is not None
    assert until_served(policy) <= said <= 1.2 * until_served(Verified(QUICK))


@given(st.lists(st.sampled_from([0.0, 1.0]), max_size=60))
@settings(max_examples=examples(40), deadline=None)
def test_a_stricter_bound_never_serves_what_a_looser_one_does_not(outcomes: list[float]) -> None:
    strict, loose = (Verified(replace(QUICK, bound=Bound(bound))) for bound in (0.05, 0.2))
    for outcome in [0.0, *outcomes]:
        for policy in (strict, loose):
            # Labels as in observe, whatever is served: the two see the same.
            policy.learn(ROUTE, candidate(), replace(ask(policy, chance=AUDIT), weight=1.0), Label(outcome))

    assert not (only(strict).serving and not only(loose).serving and only(loose).epoch == 0)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_other_modes_never_serve(mode: Any) -> None:
    policy = Verified(replace(QUICK, mode=mode))

    verdict = compare(policy, 200)

    assert verdict.action is Action.OBSERVE
    assert verdict.reason == ("off" if mode == "off" else "would serve")


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1])
def test_a_score_out_of_range_is_neither_served_nor_learnt(score: float) -> None:
    policy = Verified(QUICK)
    compare(policy, 100)
    before = policy.dump()

    verdict = compare(policy, score=score)

    assert verdict.action is Action.OBSERVE
    assert policy.dump() == before


def test_below_the_proved_threshold_it_goes_on_learning() -> None:
    policy = Verified(replace(QUICK, ladder=TWO))
    until_served(policy, score=0.9)
    low = ask(policy, 0.6)
    assert low.action is Action.SERVE  # all labels lay above both rungs, so the evidence is the same

    mixed = Verified(replace(QUICK, ladder=TWO))
    for _ in range(60):
        compare(mixed, score=0.9)
        compare(mixed, score=0.6, outcome=1.0)

    assert ask(mixed, 0.9).action is Action.SERVE
    verdict = ask(mixed, 0.6)
    assert (verdict.action, verdict.reason) == (Action.OBSERVE, "below the proved threshold")
    assert verdict.weight == ask(mixed, 0.9).label_chance < 0.06
    assert ask(mixed, 0.4).action is Action.OBSERVE


def test_the_audited_share_is_what_it_says_and_falls_with_evidence() -> None:
    policy = Verified(QUICK)
    until_served(policy)
    early = ask(policy).label_chance
    compare(policy, 2_000)
    late = ask(policy)

    assert 0.045 < early <= 0.05
    assert 0.01 <= late.label_chance < early / 2
    assert not ask(policy, chance=late.label_chance).audit
    assert ask(policy, chance=late.label_chance - 1e-9).audit


def test_without_money_for_audits_it_serves_for_a_while_then_observes() -> None:
    policy = Verified(replace(QUICK, unaudited_limit=5))
    until_served(policy)
    compare(policy)  # an audit: the count begins anew

    actions = [ask(policy, chance=AUDIT, may_audit=False) for _ in range(8)]

    assert [one.action for one in actions].count(Action.SERVE) == 4  # compare's own last question was the first of five
    assert not any(one.audit for one in actions)
    assert actions[-1].reason == "not audited for too long"
    policy.learn(ROUTE, candidate(), actions[-1], Label(0.0))
    assert ask(policy).action is Action.SERVE


def test_labels_count_nothing_for_others_while_nobody_may_audit() -> None:
    policy = Verified(replace(QUICK, ladder=TWO))
    for _ in range(60):
        compare(policy, score=0.9)
        compare(policy, score=0.6, outcome=1.0)
    before = policy.dump()["routes"][0][2]["book"]
    verdict = ask(policy, 0.6, may_audit=False)
    policy.learn(ROUTE, candidate(0.6), verdict, Label(0.0))

    assert verdict.weight == 0.0
    assert policy.dump()["routes"][0][2]["book"] == before


def test_it_goes_back_when_answers_turn_wrong_and_needs_new_proof() -> None:
    policy, told = Verified(QUICK), []
    policy.on_taken_back = lambda *about: told.append(about)
    until_served(policy)
    compare(policy, 300)
    stale = ask(policy, chance=AUDIT)
    bad = 0
    while ask(policy).action is Action.SERVE:
        bad += 1
        compare(policy, outcome=1.0)

    assert bad < 12
    assert only(policy).epoch == 1 and "too many answers were wrong" in only(policy).reason
    ((route, why, evidence),) = told
    assert (route, why) == (ROUTE, "too many answers were wrong") and evidence["served"] and evidence["wrong"] == bad
    labels = only(policy).labels
    policy.learn(ROUTE, candidate(), stale, Label(0.0))
    assert only(policy).labels == labels  # a label from before the alarm says nothing about today
    assert until_served(policy) >= math.log(20) / 0.1


def test_it_goes_back_when_scores_fall() -> None:
    ladder = Ladder((0.9, 0.7, 0.5), (0.2, 0.2, 0.6))
    policy = Verified(replace(QUICK, ladder=ladder, patience_scores=1_000.0))
    random = Random(5)
    for _ in range(300):
        score = random.uniform(0.5, 1.0)
        verdict = ask(policy, score, random.random())
        policy.learn(ROUTE, candidate(score), verdict, Label(0.0))
    assert only(policy).serving
    count = 0
    while only(policy).epoch == 0:
        count += 1
        ask(policy, 0.55, random.random())

    assert count < 60
    assert not only(policy).serving and "scores have fallen" in only(policy).reason


def test_evidence_that_speaks_against_it_stops_it_before_any_alarm() -> None:
    policy, told = Verified(replace(QUICK, patience_wrong=1e9)), []
    policy.on_taken_back = lambda *about: told.append(about)
    until_served(policy)
    assert ask(policy).action is Action.SERVE
    compare(policy, 3, outcome=1.0)

    assert ask(policy).action is Action.OBSERVE
    assert only(policy).epoch == 0
    ask(policy)
    ((route, why, evidence),) = told  # a bound that lapses is told like any other way back, and once
    assert route == ROUTE and why.startswith("its bound isn't proved any more: not proved") and evidence["wrong"] == 2
    until_served(policy)
    ask(policy)
    compare(policy, 9, outcome=1.0)
    ask(policy)
    assert len(told) == 2


def test_a_bad_rating_counts_against_and_a_good_one_for_nothing() -> None:
    policy = Verified(QUICK)
    until_served(policy)
    served = ask(policy)
    before = policy.dump()
    policy.learn(ROUTE, candidate(), served, Label(0.0, Source.RATING))
    assert policy.dump() == before
    for _ in range(4):
        policy.learn(ROUTE, candidate(), served, Label(1.0, Source.RATING))

    assert ask(policy).action is Action.OBSERVE


def test_hopeless_evidence_is_dropped_at_a_price() -> None:
    policy = Verified(QUICK)
    first = until_served(Verified(QUICK))
    compare(policy, 40, outcome=1.0)

    assert only(policy).epoch >= 1 and "hopeless" in only(policy).reason
    assert first < until_served(policy) < 5 * first


def test_thresholds_come_from_a_pilot_whose_labels_prove_nothing() -> None:
    policy = Verified(replace(QUICK, ladder=None))
    random = Random(2)
    pilot = policy._rules.pilot
    for i in range(pilot):
        assert only_or_none(policy) is None or f"{i} of {pilot}" in only(policy).reason
        compare(policy, score=random.random())

    assert only(policy).labels == 0.0
    assert only(policy).threshold is not None


def only_or_none(policy: Verified) -> RouteState | None:
    return policy.state()[0] if policy.state() else None


def routes(count: int) -> list[RouteKey]:
    return [RouteKey("acme", f"route {i}") for i in range(count)]


POOLED = replace(QUICK, pooled=True)


def test_small_routes_lean_on_the_pool_after_some_labels_of_their_own() -> None:
    policy = Verified(POOLED)
    many = routes(12)
    for _ in range(8):
        for route in many:
            compare(policy, route=route)
    verdict = ask(policy, route=many[3])
    newcomer = RouteKey("acme", "new")

    assert (verdict.action, verdict.reason) == (Action.SERVE, "proved by the pool")
    assert ask(policy, route=newcomer).action is Action.OBSERVE
    assert until_served(policy, route=newcomer) < 10
    assert ask(policy, route=RouteKey("another tenant", "faq")).action is Action.OBSERVE


def test_a_route_that_is_worse_leaves_the_pool_and_the_rest_can_prove_themselves() -> None:
    policy = Verified(POOLED)
    good, bad = routes(10), RouteKey("acme", "bad")
    served = 0
    for i in range(60):
        for route in good:
            compare(policy, route=route)
        served += compare(policy, outcome=float(i % 2), route=bad).action is Action.SERVE

    assert served == 0
    assert all(ask(policy, route=route).action is Action.SERVE for route in good)
    families = policy.dump()["families"]["acme"]
    assert families["restarts"] == 1
    assert next(one for *name, one in policy.dump()["routes"] if name == list(bad))["alone"] is True


def test_a_route_that_serves_on_its_own_word_tells_the_pool_nothing() -> None:
    """So those that only observe count in full, though some hits of others are seen by chance."""
    policy = Verified(POOLED)
    until_served(policy, route=ROUTE)

    assert ask(policy, route=ROUTE, chance=AUDIT).pool_weight == 0.0
    assert ask(policy, route=RouteKey("acme", "new")).pool_weight == 1.0


def test_once_the_pool_serves_a_label_counts_as_little_as_the_least_audit() -> None:
    policy = Verified(POOLED)
    many = routes(12)
    for _ in range(8):
        for route in many:
            compare(policy, route=route)
    audit = ask(policy, route=many[0], chance=AUDIT)

    assert audit.audit
    assert audit.pool_weight == pytest.approx(0.01 / audit.label_chance)
    assert ask(policy, route=RouteKey("acme", "new")).pool_weight == 0.01
    assert ask(policy, route=RouteKey("acme", "new"), may_audit=False).pool_weight == 0.0


def test_without_pooling_routes_know_nothing_of_each_other() -> None:
    policy = Verified(QUICK)
    for _ in range(8):
        for route in routes(12):
            compare(policy, route=route)

    assert not any(state.serving for state in policy.state())


def test_per_request_a_route_with_few_candidates_serves_sooner() -> None:
    """Misses below the threshold are requests without a wrong answer."""
    per_request = Verified(replace(QUICK, bound=Bound(0.1, per="request")))
    per_hit = Verified(QUICK)
    for policy in (per_request, per_hit):
        for _ in range(10):
            compare(policy, 3, score=0.1)
            compare(policy, score=0.9)

    assert ask(per_request).action is Action.SERVE
    assert ask(per_hit).action is Action.OBSERVE


def test_a_comparator_that_overlooks_errors_needs_more_labels() -> None:
    sloppy = replace(QUICK, comparator=Comparator(false_same=0.5))

    assert until_served(Verified(sloppy)) > 1.9 * until_served(Verified(QUICK))


def test_memory_is_bounded_and_the_least_recently_used_go() -> None:
    policy = Verified(replace(POOLED, max_routes=3))
    for route in [*routes(3), routes(1)[0], RouteKey("acme", "new")]:
        ask(policy, route=route)

    assert [state.route.name for state in policy.state()] == ["new", "route 0", "route 2"]
    for i in range(5):
        ask(policy, route=RouteKey(f"tenant {i}", "faq"))
    assert set(policy.dump()["families"]) == {"tenant 2", "tenant 3", "tenant 4"}


def test_the_operator_can_start_a_route_anew() -> None:
    policy = Verified(QUICK)
    until_served(policy)
    policy.forget(ROUTE)
    policy.forget(RouteKey("nobody", "nothing"))

    assert ask(policy).action is Action.OBSERVE
    assert "the operator reset it" in only(policy).reason


events = st.tuples(st.floats(0, 1), st.floats(0, 0.999), st.sampled_from([0.0, 0.0, 0.0, 1.0]), st.integers(0, 2))


@given(st.lists(events, max_size=120), st.booleans(), st.sampled_from(["hit", "request"]))
@settings(max_examples=examples(30), deadline=None)
def test_what_is_dumped_and_loaded_goes_on_as_if_nothing_had_been(history: Any, pooled: bool, per: Any) -> None:
    chosen = Settings(Bound(0.2, per=per), mode="serve", pooled=pooled)
    first, second = Verified(chosen), Verified(chosen)

    def live(policy: Verified, part: Any) -> list[Verdict]:
        verdicts = []
        for score, chance, outcome, number in part:
            route = RouteKey("acme", str(number))
            verdict = policy.decide(route, candidate(score), chance)
            verdicts.append(verdict)
            if verdict.action is not Action.SERVE or verdict.audit:
                policy.learn(route, candidate(score), verdict, Label(outcome))
        return verdicts

    live(first, history)
    second.load(json.loads(json.dumps(first.dump())))

    assert second.dump() == first.dump()
    assert second.state() == first.state()
    assert live(second, history) == live(first, history)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(version=1),
        lambda d: d.update(policy="static"),
        lambda d: d.pop("families"),
        lambda d: d["families"].clear(),
        lambda d: d["routes"][0].append(1),
        lambda d: d["routes"][0][2].pop("book"),
        lambda d: d["routes"][0][2].update(epoch="1"),
        lambda d: d["routes"][0][2]["book"]["evidence"].pop(),
        lambda d: d["routes"][0][2]["book"].update(evidence=[[math.nan, 0.0]]),
        lambda d: d["routes"][0][2]["book"].update(evidence=[[-5.0, 0.0]]),
        lambda d: d["routes"][0][2]["book"].update(per_request=True),
        lambda d: d["routes"][0][2].update(rise=[1.0]),
        lambda d: d["families"]["acme"].update(ladder=[[0.1, 0.5], [0.5, 0.5]]),
        lambda d: d["families"]["acme"].update(restarts=-1),
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(damage: Any) -> None:
    source, policy = Verified(QUICK), Verified(QUICK)
    until_served(source)
    dumped = json.loads(json.dumps(source.dump()))
    damage(dumped)
    compare(policy, 3)
    before = policy.dump()

    with pytest.raises(ValueError, match="not this policy's state"):
        policy.load(dumped)
    assert policy.dump() == before


def test_evidence_outlives_a_change_of_the_bound() -> None:
    first, looser, stricter = (Verified(replace(QUICK, bound=Bound(bound))) for bound in (0.1, 0.2, 0.01))
    until_served(first)
    compare(first, 5)
    for policy in (looser, stricter):
        policy.load(json.loads(json.dumps(first.dump())))

    assert ask(first).action is ask(looser).action is Action.SERVE
    assert ask(stricter).action is Action.OBSERVE
    assert only(stricter).labels == only(first).labels


@pytest.mark.parametrize("times", [1.0, 1.5])
def test_a_threshold_over_its_bound_is_rarely_ever_served(times: float) -> None:
    """Looked at after every request, audits and all; the large run is bench/validity.py."""
    served = 0
    for seed in range(200):
        policy, random = Verified(replace(QUICK, bound=Bound(0.2))), Random(seed)
        for _ in range(150):
            verdict = ask(policy, chance=random.random())
            served += verdict.action is Action.SERVE
            if verdict.action is Action.SERVE:
                break
            policy.learn(ROUTE, candidate(), verdict, Label(float(random.random() < times * 0.2)))

    assert served <= (19 if times == 1.0 else 5)  # 5 % of 200 and three standard errors


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Bound(0.0),
        lambda: Bound(1.0),
        lambda: Bound(0.01, confidence=1.0),
        lambda: Settings(audit_share=0.0),
        lambda: Settings(audit_share=0.01, audit_floor=0.02),
        lambda: Settings(max_routes=0),
        lambda: Label(1.5),
        lambda: Label(math.nan),
    ],
)
def test_nonsense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        wrong()
