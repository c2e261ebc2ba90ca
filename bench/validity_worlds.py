"""Simulated routes whose wrong rate is known, against which a policy's promise can be checked.

A world is asked for one request after the other; the policy decides, and learns what it would have learnt in service.
Everything random comes from a seeded generator, so that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Candidate, Label, RouteKey, Verdict
from farthing.policies.verified import Settings, Verified

__all__ = [
    "DRIFTS", "ONE_RUNG", "STRICTEST_FIRST", "Outcome", "Stretch", "drift", "ever_served_above", "first_serve",
    "mixed_pool", "pool", "quantile", "settings", "stretch", "two_bands",
]  # fmt: skip

ONE_RUNG = Ladder((0.0,), (1.0,))
TWO_RUNGS = Ladder((0.5, 0.0), (0.5, 0.5))
# Learn-then-test as it is usually drawn: the whole level on the strictest threshold, here a tenth of the hits.
STRICTEST_FIRST = Ladder((0.9, 0.75, 0.5, 0.25, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0))
ROUTE = RouteKey("tenant", "route")

Rate = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`served`: hits that were served, `wrong`: the wrong ones of them. `stopped`: whether it went back by itself."""

    served: int
    wrong: int
    stopped: bool


def settings(
    max_wrong: float, *, ladder: Ladder | None = ONE_RUNG, pooled: bool = False, audit: float = 0.05
) -> Settings:
    """A policy that serves, at 95 %."""
    return Settings(
        Bound(max_wrong), mode="serve", audit_share=audit, audit_floor=min(audit, 0.01), pooled=pooled, ladder=ladder
    )


def step(policy: Verified, route: RouteKey, rate: Rate, random: Random) -> tuple[Verdict, float, bool]:
    """One request: its verdict, its score, and whether the candidate was wrong."""
    score = random.random()
    candidate = Candidate("entry", score, score)
    verdict = policy.decide(route, candidate, random.random())
    wrong = random.random() < rate(score)
    if verdict.action is not Action.SERVE or verdict.audit:
        policy.learn(route, candidate, verdict, Label(float(wrong)))
    return verdict, score, wrong


def ever_served_above(chosen: Settings, rate: Rate, at_or_above: Rate, requests: int, seed: int) -> bool:
    """Whether a threshold was ever served whose true rate is over the bound; looked at after every request.

    `at_or_above`: the true wrong rate of all hits from a threshold up.
    """
    policy, random = Verified(chosen), Random(seed)
    limit = chosen.bound.max_wrong * (1 - 1e-9)
    for _ in range(requests):
        verdict, _, _ = step(policy, ROUTE, rate, random)
        if verdict.action is Action.SERVE and verdict.threshold is not None and at_or_above(verdict.threshold) >= limit:
            return True
    return False


def two_bands(max_wrong: float, times: float, requests: int, seed: int, *, audit: float = 0.05) -> bool:
    """Whether the lower of two rungs is ever served, where the upper one is never wrong and soon serves.

    The lower rung's rate is `times` the bound, all of it in the band below the upper rung; so its evidence is from hits
    seen with probability `audit` and from misses that are always seen, and only weights make that fair.
    """
    chosen = settings(max_wrong, ladder=TWO_RUNGS, audit=audit)
    below = 2 * times * max_wrong

    def rate(score: float) -> float:
        return below if score < 0.5 else 0.0

    return ever_served_above(chosen, rate, lambda t: times * max_wrong if t < 0.5 else 0.0, requests, seed)


def pool(max_wrong: float, times: float, routes: int, requests: int, seed: int) -> tuple[int, bool]:
    """How many of `routes` equal routes were ever served, and whether any was on the pool's word."""
    policy, random = Verified(settings(max_wrong, pooled=True)), Random(seed)
    served: set[int] = set()
    pooled = False
    for i in range(requests * routes):
        number = i % routes
        verdict, _, _ = step(policy, RouteKey("tenant", str(number)), lambda _: times * max_wrong, random)
        if verdict.action is Action.SERVE:
            served.add(number)
            pooled = pooled or "pool" in verdict.reason
    return len(served), pooled


def mixed_pool(max_wrong: float, bad_times: float, routes: int, requests: int, seed: int) -> tuple[Outcome, int, int]:
    """One route that is worse than its bound, in a pool of good ones (a tenth of the bound).

    Gives what became of it, after how many requests each the first good route served, and how many served at the end.
    """
    policy, random = Verified(settings(max_wrong, pooled=True)), Random(seed)
    served = wrongs = 0
    serving = [False] * routes
    first = requests
    for i in range(requests * routes):
        number = i % routes
        rate = (bad_times if number == 0 else 0.1) * max_wrong
        verdict, _, wrong = step(policy, RouteKey("tenant", str(number)), lambda _, rate=rate: rate, random)
        serving[number] = verdict.action is Action.SERVE
        if number == 0:
            served += serving[0]
            wrongs += serving[0] and wrong
        elif serving[number]:
            first = min(first, i // routes)
    return Outcome(served, wrongs, not serving[0]), first, sum(serving[1:])


def drift(max_wrong: float, times: float, audit: float, limit: int, seed: int) -> Outcome:
    """Hits served, and wrong ones, from the moment when a good route (a tenth of the bound) turns bad until it stops.

    It turns after 2,000 served hits. `limit`: hits after which we stop looking.
    """
    policy, random = Verified(settings(max_wrong, audit=audit)), Random(seed)
    quiet = 0
    while quiet < 2_000:
        verdict, _, _ = step(policy, ROUTE, lambda _: 0.1 * max_wrong, random)
        quiet += verdict.action is Action.SERVE
    served = wrongs = 0
    while served < limit:
        verdict, _, wrong = step(policy, ROUTE, lambda _: times * max_wrong, random)
        if verdict.action is not Action.SERVE:
            return Outcome(served, wrongs, True)
        served += 1
        wrongs += wrong
    return Outcome(served, wrongs, False)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A route that drifts, seen over a number of requests. `audits`: of served hits. `pauses`: times it went back.

    `broken`: whether at any time more were wrong than the account said. `excess`: by how many wrong ones an epoch was
    above `max_wrong` of its hits, at most.
    """

    served: int
    wrong: int
    audits: int
    pauses: int
    broken: bool
    excess: float


DRIFTS: dict[str, Callable[[float], float]] = {
    # Wrong rate, in bounds, by the bound's own unit of time (1 / max_wrong requests).
    "none, a tenth of the bound": lambda t: 0.1,
    "none, half the bound": lambda t: 0.5,
    "abrupt: 10 % of answers, for good": lambda t: 10.0 if t >= 30 else 0.1,
    "abrupt: 10 % of answers, until it goes back": lambda t: 10.0 if t >= 30 else 0.1,
    "slow: to five times in 10,000": lambda t: min(5.0, 0.1 + 0.049 * max(0.0, t - 20)),
    "bursts: tenfold, 300 of each 5,000": lambda t: 10.0 if t % 50 >= 47 else 0.1,
}


def stretch(max_wrong: float, kind: str, requests: int, seed: int) -> Stretch:
    """What is served, and how wrong, over so many requests to a route whose answers drift in this way."""
    policy, random = Verified(settings(max_wrong)), Random(seed)
    served = wrongs = audits = pauses = epoch = epoch_wrong = 0
    serving = broken = mended = False
    excess = 0.0
    for number in range(requests):
        times = 0.1 if mended else DRIFTS[kind](number * max_wrong)
        verdict, _, wrong = step(policy, ROUTE, lambda _, rate=times * max_wrong: rate, random)
        state = policy.state_of(ROUTE)
        assert state is not None
        went_back, serving = serving and not state.serving, state.serving
        pauses += went_back
        mended = mended or (went_back and "until" in kind and times > 1)
        if verdict.epoch != epoch:
            epoch, epoch_wrong = verdict.epoch, 0
        if verdict.action is Action.SERVE:
            served += 1
            audits += verdict.audit
            wrongs += wrong
            epoch_wrong += wrong
            if state.epoch == epoch:  # else it went back at this very request, and the account with it
                broken = broken or (state.wrong_served is not None and epoch_wrong > state.wrong_served)
                excess = max(excess, epoch_wrong - max_wrong * state.epoch_served)
    return Stretch(served, wrongs, audits, pauses, broken, excess)


def first_serve(chosen: Settings, rate: Rate, limit: int, seed: int) -> int:
    """Compared requests until the first is served; `limit` where none is by then."""
    policy, random = Verified(chosen), Random(seed)
    for count in range(limit):
        verdict, _, _ = step(policy, ROUTE, rate, random)
        if verdict.action is Action.SERVE:
            return count
    return limit


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them don't exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
