"""Roll-outs: the steps, and the guard that may be asked at any time without crying wolf."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.guard import METRICS, Bounds, Guard, Outcome, Reading, Verdict, Word
from farthing.policies.race import Race
from farthing.policies.rollout import At, Move, Plan, checked, next_move

GO = Verdict(Word.GO, "", ())
STEPS = (0.01, 0.1, 0.5)


# -- the steps


@pytest.mark.parametrize(
    ("step", "age_s", "requests", "word", "move"),
    [
        (0, 700, 200, Word.GO, Move.STEP),
        (2, 700, 200, Word.GO, Move.FINISH),
        (0, 599, 200, Word.GO, Move.STAY),
        (0, 700, 99, Word.GO, Move.STAY),
        (0, 700, 200, Word.HOLD, Move.STAY),
        (0, 0, 0, Word.BACK, Move.BACK),
        (2, 700, 200, Word.BACK, Move.BACK),
    ],
)
def test_a_step_is_held_until_it_is_earned(step: int, age_s: float, requests: int, word: Word, move: Move) -> None:
    found = next_move(Plan(), At(step, 1000.0), 1000.0 + age_s, Verdict(word, "so it is", ()), requests)

    assert found.move is move
    assert found.reason


@given(st.lists(st.floats(0.001, 0.999), max_size=5, unique=True), st.floats(0, 100), st.integers(0, 50))
def test_a_roll_out_without_trouble_comes_to_an_end_and_never_skips_a_step(
    shares: list[float], hold_s: float, least: int
) -> None:
    plan = Plan((*sorted(shares), 1.0), hold_s, max(1, least))
    if plan.steps[0] == 1.0:
        return
    at, now_s, met = At(0, 0.0), 0.0, [0]
    while (move := next_move(plan, at, now_s, GO, 50)).move is not Move.FINISH:
        if move.move is Move.STEP:
            at = At(at.step + 1, now_s)
            met.append(at.step)
        now_s += max(hold_s / 2, 0.1)
    assert met == list(range(plan.guarded))


@pytest.mark.parametrize("steps", [(), (0.5,), (0.5, 0.1, 1.0), (0.0, 1.0), (0.1, 0.1, 1.0), (0.5, 1.5)])
def test_steps_that_lead_nowhere_are_refused(steps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares that rise"):
        checked(steps)


# -- one race


@given(st.floats(0.01, 0.99), st.floats(1, 3), st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60))
def test_a_race_expects_no_gain_where_nothing_is_worse(
    share: float, ratio: float, seen: list[tuple[bool, float]]
) -> None:
    """One more bad outcome falls to the candidate with a chance of its share at most: then e grows by nothing."""
    race = Race(share, ratio)
    for candidate, badness in seen:
        race.add(candidate=candidate, badness=badness)
    chance = ratio * share / (ratio * share + 1 - share)  # it is bad `ratio` times as often, which is accepted
    expected = 0.0
    for candidate, p in ((True, chance), (False, 1 - chance)):
        after = Race(share, ratio, list(race.logs))
        after.add(candidate=candidate, badness=1.0)
        expected += p * math.exp(after.log_e - race.log_e)

    assert expected <= 1 + 1e-9


@given(st.floats(0.01, 0.99), st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=40))
def test_the_candidates_faults_count_against_it_and_the_others_for_it(
    share: float, seen: list[tuple[bool, float]]
) -> None:
    race = Race(share)
    for candidate, badness in seen:
        before = race.log_e
        race.add(candidate=candidate, badness=badness)
        assert race.log_e >= before - 1e-9 if candidate else race.log_e <= before + 1e-9


# -- the guard


def outcomes(
    rng: Random, share: float, count: int, how: Callable[[bool, float], Outcome], unit: str = ""
) -> Iterator[Outcome]:
    for number in range(count):
        yield how(rng.random() < share, number / count)


def alike(rng: Random) -> Callable[[bool, float], Outcome]:
    """Both arms fail, take and cost the same, while everything changes: an outage, a slow and dear second half."""

    def how(candidate: bool, when: float) -> Outcome:
        outage = 0.4 < when < 0.45
        failed = rng.random() < (0.5 if outage else 0.01)
        slow = 3.0 if when > 0.5 else 1.0
        return Outcome(candidate, failed, None if failed else slow * rng.lognormvariate(6, 1),
                       None if failed else slow * rng.lognormvariate(-6, 1.5))  # fmt: skip

    return how


def rolled_back(guard: Guard, found: Iterator[Outcome]) -> bool:
    """Whether it says so at any of the looks, one after each outcome that can have changed its mind."""
    for outcome in found:
        guard.seen(outcome)
        if outcome.candidate and guard.verdict().word is Word.BACK:
            return True
    return False


def whole_roll_out(seed: int, bounds: Bounds, how: Callable[[Random], Callable[[bool, float], Outcome]]) -> bool:
    """All steps of a roll-out, the guard asked at every turn."""
    rng = Random(seed)
    guard = Guard(bounds, len(STEPS))
    for share, count in zip(STEPS, (4000, 800, 600), strict=True):
        guard.begin(share)
        if rolled_back(guard, outcomes(rng, share, count, how(rng))):
            return True
    return False


STRICT = Bounds(error_ratio=1.0, error_points=0.0, latency_ratio=1.0, cost_ratio=1.0, rating_points=0.0)


def test_a_candidate_that_is_no_worse_is_rarely_rolled_back_though_asked_all_the_time() -> None:
    """With nothing tolerated, so at the very edge of the hypothesis, and in bad weather: at most 5 % of roll-outs."""
    back = sum(whole_roll_out(seed, STRICT, alike) for seed in range(60))

    assert back / 60 <= 0.05


def test_looking_at_every_turn_at_a_usual_test_would_roll_back_far_more_often() -> None:
    """The same traffic under a two-proportion z test at 5 %, asked as often: what the guard is there to avoid."""
    back = 0
    for seed in range(40):
        rng = Random(seed)
        bad, seen = [0, 0], [0, 0]
        for outcome in outcomes(rng, 0.5, 3000, alike(rng)):
            arm = int(outcome.candidate)
            seen[arm] += 1
            bad[arm] += outcome.failed
            pooled = sum(bad) / sum(seen)
            if min(seen) < 30 or not 0 < pooled < 1:
                continue
            error = math.sqrt(pooled * (1 - pooled) * (1 / seen[0] + 1 / seen[1]))
            if (bad[1] / seen[1] - bad[0] / seen[0]) / error > 1.645:
                back += 1
                break
    assert back / 40 > 0.15


WORSE: dict[str, Callable[[Random], Callable[[bool, float], Outcome]]] = {
    "errors": lambda rng: (
        lambda candidate, _: Outcome(candidate, rng.random() < (0.1 if candidate else 0.01), 100.0, 1.0)
    ),
    "latency": lambda rng: (
        lambda candidate, _: Outcome(candidate, False, rng.lognormvariate(6, 0.5) * (3 if candidate else 1), 1.0)
    ),
    "cost": lambda rng: (
        lambda candidate, _: Outcome(candidate, False, 100.0, rng.lognormvariate(-6, 1) * (2 if candidate else 1))
    ),
}


@pytest.mark.parametrize("metric", WORSE)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_regression_is_caught_and_named(metric: str, share: float) -> None:
    rng = Random(7)
    guard = Guard(Bounds(), len(STEPS))
    guard.begin(share)

    assert rolled_back(guard, outcomes(rng, share, 12_000, WORSE[metric](rng)))
    readings = {one.metric: one.evidence for one in guard.verdict().readings}
    assert readings[metric] >= 1
    assert all(evidence < 1 for name, evidence in readings.items() if name != metric)


def test_a_candidate_that_fails_altogether_is_caught_by_its_first_requests_at_one_per_cent() -> None:
    rng = Random(3)
    guard = Guard(Bounds(), len(STEPS))
    guard.begin(0.01)

    found = outcomes(rng, 0.01, 20_000, lambda candidate, _: Outcome(candidate, candidate, 100.0, 1.0))
    assert rolled_back(guard, found)
    assert guard.candidate.requests <= 5


def test_bad_ratings_of_the_candidate_roll_it_back() -> None:
    guard = Guard(Bounds(), len(STEPS))
    guard.begin(0.1)
    for number in range(1000):
        guard.seen(Outcome(number % 10 == 0, False, 100.0, 1.0))
    for _ in range(4):
        assert guard.verdict().word is not Word.BACK
        guard.rated_bad(candidate=True)

    assert guard.verdict().word is Word.BACK
    assert "bad ratings" in guard.verdict().reason


def test_one_users_troubles_are_not_the_candidates() -> None:
    """A client that always fails stays in the candidate's arm; it counts once."""
    guard = Guard(Bounds(), len(STEPS))
    guard.begin(0.5)
    for number in range(2000):
        guard.seen(
            Outcome(number % 2 == 0, number % 4 == 0, 100.0, 1.0, "noisy" if number % 4 == 0 else f"user {number}")
        )

    assert guard.verdict().word is Word.GO


def test_a_small_difference_is_never_a_reason() -> None:
    for points, word in ((0.05, Word.GO), (0.0, Word.BACK)):
        guard = Guard(Bounds(error_points=points), len(STEPS))
        guard.begin(0.1)
        for number in range(5000):
            candidate = number % 10 == 0
            guard.seen(Outcome(candidate, candidate and number % 300 == 0, 100.0, 1.0))
        assert guard.verdict().word is word


def test_suspicion_holds_a_step() -> None:
    guard = Guard(Bounds(), len(STEPS))
    guard.begin(0.1)
    for number in range(500):
        guard.seen(Outcome(number % 10 == 0, number in (100, 200, 300), 100.0, 1.0))

    assert guard.verdict().word is Word.HOLD
    assert "perhaps" in guard.verdict().reason


def test_evidence_outlives_a_restart() -> None:
    rng = Random(1)
    guard = Guard(Bounds(), len(STEPS))
    guard.begin(0.1)
    for outcome in outcomes(rng, 0.1, 3000, WORSE["errors"](rng)):
        guard.seen(outcome._replace(unit=f"user {rng.randrange(500)}"))
        if guard.verdict().word is Word.HOLD:
            break
    again = Guard(Bounds(), len(STEPS))
    again.load(guard.dump())

    assert evidence(again) == evidence(guard)
    assert again.verdict().word is Word.HOLD
    assert again.dump() == guard.dump()


def evidence(guard: Guard) -> dict[str, float]:
    return {one.metric: one.evidence for one in guard.verdict().readings}


def test_every_metric_is_read_though_nothing_was_seen() -> None:
    assert Guard(Bounds(), 3).verdict() == Verdict(
        Word.GO, "", tuple(Reading(name, None, None, 0.0) for name in METRICS)
    )


@pytest.mark.parametrize("held", [{}, {"share": 2}, {"share": 0.1, "active": {}, "candidate": {"x": 1}, "races": {}}])
def test_what_is_no_dump_is_refused(held: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Guard(Bounds(), 3).load(held)
