"""What all reuse policies keep to, and what vCache's and the static one do of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Candidate, Label, Mode, Policy, RouteKey, Source, Verdict
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified
from tests.fakes.examples import examples

ROUTE, OTHER = RouteKey("acme", "faq"), RouteKey("acme", "search")
PER_REQUEST = Bound(0.1, per="request")


def verified(mode: Mode) -> Policy:
    return Verified(Settings(Bound(0.1), mode=mode, ladder=Ladder((0.5,), (1.0,)), max_routes=50))


def vcache(mode: Mode) -> Policy:
    return VCache(PER_REQUEST, mode=mode, max_entries=50)


def static(mode: Mode) -> Policy:
    return Static(0.8, bound=Bound(0.1), mode=mode, max_routes=50)


every = pytest.mark.parametrize("make", [verified, vcache, static])


def live(policy: Policy, count: int, seed: int, *, wrong: float = 0.0, route: RouteKey = ROUTE) -> list[Verdict]:
    """Requests about three entries, at cosines from 0.7 up; labels where the verdict foresees them."""
    random = Random(seed)
    verdicts = []
    for _ in range(count):
        cosine = random.uniform(0.7, 1.0)
        candidate = Candidate(f"entry {random.randrange(3)}", cosine, cosine)
        verdict = policy.decide(route, candidate, random.random())
        outcome = float(random.random() < wrong)
        if verdict.action is not Action.SERVE or verdict.audit:
            policy.learn(route, candidate, verdict, Label(outcome))
        verdicts.append(verdict)
    return verdicts


def served(verdicts: list[Verdict]) -> int:
    return sum(verdict.action is Action.SERVE for verdict in verdicts)


@every
def test_only_in_serve_is_anything_served(make: Callable[[Mode], Policy]) -> None:
    assert served(live(make("serve"), 400, 1)) > 50
    assert served(live(make("observe"), 400, 1)) == 0
    assert served(live(make("off"), 400, 1)) == 0


@every
def test_verdicts_are_probabilities_and_reasons(make: Callable[[Mode], Policy]) -> None:
    for verdict in live(make("serve"), 400, 2, wrong=0.1):
        assert verdict.reason
        assert 0.0 <= verdict.label_chance <= 1.0
        assert verdict.wrong is None or 0.0 <= verdict.wrong <= 1.0
        assert not verdict.audit or verdict.action is Action.SERVE
        assert 0.0 <= verdict.weight <= 1.0


@every
@pytest.mark.parametrize("figure", [math.nan, -7.0, math.inf])
def test_figures_that_are_no_similarity_are_never_served(make: Callable[[Mode], Policy], figure: float) -> None:
    policy = make("serve")
    live(policy, 400, 3)
    if figure == math.inf and isinstance(policy, Static):
        return  # above any threshold: the caller's cosine is clipped
    for chance in (0.0, 0.5, 0.99):
        candidate = Candidate("entry 1", figure, figure)
        verdict = policy.decide(ROUTE, candidate, chance)
        assert verdict.action is Action.OBSERVE
        policy.learn(ROUTE, candidate, verdict, Label(0.0))
    json.dumps(policy.dump(), allow_nan=False)


@every
def test_a_policy_goes_on_where_its_dump_left_off(make: Callable[[Mode], Policy]) -> None:
    first, second = make("serve"), make("serve")
    live(first, 300, 4, wrong=0.05)
    live(first, 20, 5, route=OTHER)
    second.load(json.loads(json.dumps(first.dump(), allow_nan=False)))

    assert second.dump() == first.dump()
    again, goes_on = live(second, 200, 6, wrong=0.05), live(first, 200, 6, wrong=0.05)
    assert [one.action for one in again] == [one.action for one in goes_on]
    assert [one.served for one in second.state()] == [one.served for one in first.state()]


@every
@pytest.mark.parametrize("dumped", [{}, {"version": 1}, {"version": 1, "policy": "other"}, {"version": 9}])
def test_a_strangers_dump_is_refused(make: Callable[[Mode], Policy], dumped: dict[str, Any]) -> None:
    policy = make("serve")
    live(policy, 50, 7)
    before = policy.dump()

    with pytest.raises(ValueError, match="not this policy's state"):
        policy.load(dumped)
    assert policy.dump() == before


@every
def test_memory_is_bounded(make: Callable[[Mode], Policy]) -> None:
    policy = make("serve")
    for i in range(300):
        candidate = Candidate(f"entry {i}", 0.9, 0.9)
        policy.learn(ROUTE, candidate, policy.decide(RouteKey("acme", str(i)), candidate, 0.5), Label(0.0))

    assert len(policy.state()) == 50
    assert policy.state()[0].route.name == "299"


@every
def test_a_forgotten_route_starts_anew_and_others_do_not(make: Callable[[Mode], Policy]) -> None:
    policy = make("serve")
    live(policy, 300, 8)
    live(policy, 300, 9, route=OTHER)
    policy.forget(ROUTE)
    policy.forget(RouteKey("no", "body"))

    labels = {state.route: state.labels for state in policy.state()}
    assert labels.get(ROUTE, 0.0) == 0.0
    assert labels[OTHER] > 0


# vCache


def entry(policy: VCache, labels: list[tuple[float, float]], key: str = "entry") -> None:
    for cosine, outcome in labels:
        candidate = Candidate(key, cosine, cosine)
        policy.learn(ROUTE, candidate, policy.decide(ROUTE, candidate, 0.0), Label(outcome))


def explores(policy: VCache, cosine: float, key: str = "entry") -> float:
    return policy.decide(ROUTE, Candidate(key, 0.0, cosine), 0.9999999).label_chance


SHARP = [(0.95, 0.0), (0.97, 0.0), (0.6, 1.0), (0.92, 0.0), (0.65, 1.0), (0.96, 0.0), (0.7, 1.0), (0.94, 0.0)]


def test_vcache_explores_until_an_entry_has_enough_labels() -> None:
    policy = VCache(PER_REQUEST, mode="serve")
    entry(policy, SHARP[:3])
    assert explores(policy, 0.99) == 1.0
    entry(policy, SHARP[3:] * 2)
    assert explores(policy, 0.99) < 1.0
    assert explores(policy, 0.99, "another entry") == 1.0


def test_vcache_explores_less_where_it_is_surer_and_where_more_may_be_wrong() -> None:
    strict, loose = VCache(Bound(0.02, per="request")), VCache(Bound(0.2, per="request"))
    for policy in (strict, loose):
        entry(policy, SHARP * 4)
    cosines = [0.6, 0.75, 0.85, 0.95, 1.0]

    for policy in (strict, loose):
        chances = [explores(policy, cosine) for cosine in cosines]
        assert chances == sorted(chances, reverse=True)
    assert all(explores(loose, cosine) <= explores(strict, cosine) for cosine in cosines)
    assert explores(loose, 1.0) < explores(strict, 1.0)


def test_vcache_keeps_the_rule_of_the_paper() -> None:
    """With a curve known exactly, tau = 1 - delta / (1 - P(right)): at most delta of requests are served wrongly."""
    policy = VCache(PER_REQUEST, mode="serve")
    curve = policy._curve(ROUTE, "entry")
    entry(policy, SHARP)
    curve.intercept, curve.slope, curve.threshold, curve.deviation = -8.0, 10.0, 0.8, 0.0
    right = 0.99 / (1 + math.exp(-10.0 * (0.85 - 0.8)))  # eps of the finest step is 1 %

    assert explores(policy, 0.85) == pytest.approx(1 - 0.1 / (1 - right))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), max_size=60), st.floats(0, 1))
@settings(max_examples=examples(50), deadline=None)
def test_vcache_fits_whatever_comes(labels: list[tuple[float, float]], cosine: float) -> None:
    policy = VCache(PER_REQUEST, mode="serve")
    entry(policy, labels)

    verdict = policy.decide(ROUTE, Candidate("entry", cosine, cosine), 0.5)

    assert 0.0 <= verdict.label_chance <= 1.0
    assert verdict.wrong is not None and 0.0 <= verdict.wrong <= 1.0


def test_vcaches_fit_is_the_likeliest_curve_and_its_deviation_the_delta_methods() -> None:
    """Against scipy, with the same weak prior, on labels that overlap."""
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    policy = VCache(PER_REQUEST, mode="serve")
    random = Random(12)
    labels = [(cosine, float(random.random() > cosine)) for cosine in (random.random() for _ in range(40))]
    entry(policy, labels)
    curve = policy._curve(ROUTE, "entry")
    x, right = np.array(curve.labels).T

    def loss(beta: np.ndarray) -> float:
        p = expit(beta[0] + beta[1] * x)
        return float(-np.sum(np.log(np.where(right > 0, p, 1 - p))) + np.sum(beta**2) / 1800)

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    p = expit(best[0] + best[1] * x)
    design = np.stack([np.ones_like(x), x])
    hessian = (design * p * (1 - p)) @ design.T + np.eye(2) / 900
    gradient = np.array([-1 / best[1], best[0] / best[1] ** 2])

    assert [curve.intercept, curve.slope] == pytest.approx(best, abs=1e-4)
    assert curve.threshold == pytest.approx(-best[0] / best[1], abs=1e-4)
    assert curve.deviation == pytest.approx(np.sqrt(gradient @ np.linalg.inv(hessian) @ gradient), rel=1e-3)


def test_vcache_bounds_requests_not_hits() -> None:
    with pytest.raises(ValueError, match="per request"):
        VCache(Bound(0.01))


# static


def test_static_serves_at_its_threshold_and_says_that_nothing_is_proved() -> None:
    policy = Static(0.8, bound=Bound(0.01), mode="serve")
    verdicts = {cosine: policy.decide(ROUTE, Candidate("e", 0.0, cosine), 0.9) for cosine in (0.79, 0.8)}

    assert [verdict.action for verdict in verdicts.values()] == [Action.OBSERVE, Action.SERVE]
    assert verdicts[0.8].reason == "unproven" and verdicts[0.8].bound is None


def test_static_can_hold_the_score_against_its_threshold() -> None:
    policy = Static(0.8, on="score", bound=Bound(0.01), mode="serve")

    assert policy.decide(ROUTE, Candidate("e", 0.9, 0.1), 0.9).action is Action.SERVE
    assert policy.decide(ROUTE, Candidate("e", 0.1, 0.9), 0.9).action is Action.OBSERVE


def test_static_measures_what_it_serves_and_goes_on_all_the_same() -> None:
    policy = Static(0.8, bound=Bound(0.01), mode="serve", audit_share=0.5)
    verdicts = live(policy, 2_000, 10, wrong=0.3)
    (state,) = policy.state()

    audits = sum(verdict.audit for verdict in verdicts)
    assert 0.45 < audits / served(verdicts) < 0.55
    assert state.labels == audits
    assert state.wrong / state.labels == pytest.approx(0.3, abs=0.05)
    assert state.bound is not None and state.wrong / state.labels < state.bound < 0.4
    assert verdicts[-1].wrong == pytest.approx(0.3, abs=0.05)
    assert policy.decide(ROUTE, Candidate("e", 0.9, 0.9), 0.0).action is Action.SERVE


def test_static_hears_bad_ratings_only() -> None:
    policy = Static(0.8, bound=Bound(0.01), mode="serve")
    candidate = Candidate("e", 0.9, 0.9)
    verdict = policy.decide(ROUTE, candidate, 0.9)
    policy.learn(ROUTE, candidate, verdict, Label(0.0, Source.RATING))
    policy.learn(ROUTE, candidate, verdict, Label(1.0, Source.RATING))

    assert (policy.state()[0].labels, policy.state()[0].wrong) == (0.0, 1.0)
