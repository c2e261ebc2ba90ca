"""The alarm on falling scores: what was proved is compared with what is served since, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from farthing.policies.drift import Fall
from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Candidate, Label, RouteKey
from farthing.policies.verified import Settings, Verified

LADDER = Ladder((0.9, 0.8, 0.7, 0.6, 0.5), (0.2, 0.2, 0.2, 0.2, 0.2))
ROUTE = RouteKey("acme", "faq")
QUICK = Settings(Bound(0.1), mode="serve", ladder=LADDER, pooled=False, patience_scores=1_000.0, patience_wrong=1e9)


def serve(policy: Verified, low: float, high: float, random: Random) -> Action:
    """One request whose score lies in that range; all answers are right."""
    score = random.uniform(low, high)
    candidate = Candidate("entry", score, score)
    verdict = policy.decide(ROUTE, candidate, random.random())
    if verdict.action is not Action.SERVE or verdict.audit:
        policy.learn(ROUTE, candidate, verdict, Label(0.0))
    return verdict.action


def epoch(policy: Verified) -> int:
    state = policy.state_of(ROUTE)
    return state.epoch if state is not None else 0


def test_false_alarms_are_as_rare_as_promised_while_nothing_changes() -> None:
    """P(an alarm within N hits) <= N / patience, here 40 %, by Ville's inequality; it comes to far less."""
    alarms = 0
    for seed in range(60):
        policy, random = Verified(QUICK), Random(seed)
        for _ in range(450):
            serve(policy, 0.5, 1.0, random)
        alarms += epoch(policy) > 0

    assert alarms <= 0.4 * 60


def test_a_fall_is_found_soon() -> None:
    delays = []
    for seed in range(40):
        policy, random = Verified(QUICK), Random(seed)
        for _ in range(300):
            serve(policy, 0.5, 1.0, random)
        before, count = epoch(policy), 0
        while epoch(policy) == before and count < 500:
            serve(policy, 0.5, 0.6, random)
            count += 1
        delays.append(count)

    assert sorted(delays)[20] < 60
    assert max(delays) < 200


@pytest.mark.parametrize("seed", range(10))
def test_what_fell_while_it_observed_is_no_alarm_when_it_serves(seed: int) -> None:
    """The proof was made of those scores; nothing has changed since."""
    policy, random = Verified(replace(QUICK, bound=Bound(0.01))), Random(seed)
    for _ in range(80):
        serve(policy, 0.9, 1.0, random)
    actions = [serve(policy, 0.5, 1.0, random) for _ in range(1_000)]

    assert Action.SERVE in actions
    assert epoch(policy) == 0


def test_the_fall_of_what_is_not_served_is_no_alarm() -> None:
    """A rung above the poor ones is proved; then nearly all scores are poor, but not those that are served."""
    policy, random = Verified(QUICK), Random(3)
    for _ in range(400):
        score = random.uniform(0.5, 1.0)
        candidate = Candidate("entry", score, score)
        verdict = policy.decide(ROUTE, candidate, random.random())
        if verdict.action is not Action.SERVE or verdict.audit:
            policy.learn(ROUTE, candidate, verdict, Label(float(score < 0.7)))
    state = policy.state_of(ROUTE)
    assert state is not None and state.serving and state.threshold == 0.7
    before = state.epoch
    for number in range(1_000):
        low = 0.7 if number % 10 == 0 else 0.5
        serve(policy, low, 1.0 if low == 0.7 else 0.55, random)

    assert epoch(policy) == before


def test_bets_begin_where_serving_begins() -> None:
    fall, random = Fall(5, 100.0), Random(1)
    for _ in range(200):
        fall.see(4)
    for _ in range(200):
        fall.see(0)
    assert fall.height == 0.0
    for _ in range(200):
        fall.add(0, random.random())
    assert fall.height > 0.0
    fall.restart()
    assert fall.height == 0.0


def test_with_one_bin_there_is_nothing_to_compare() -> None:
    fall = Fall(5, 2.0)

    assert not any(fall.add(4, 0.0, lowest=4) for _ in range(100))


@pytest.mark.parametrize(("share", "alarms"), [(0.55, False), (0.95, True)])
def test_small_falls_are_borne(share: float, alarms: bool) -> None:
    """`share`: how many of the served scores are in the lower of two bins, which held half before."""
    fall, random = Fall(2, 1_000.0), Random(2)
    for number in range(2_000):
        fall.see(number % 2)

    found = [fall.add(int(random.random() >= share), random.random()) for _ in range(600)]

    assert any(found) is alarms
