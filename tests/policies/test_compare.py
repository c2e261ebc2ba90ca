"""Comparing two arms on the same cases."""

from __future__ import annotations

import numpy as np
import pytest

from farthing.policies.compare import ArmResult, CaseResult, Comparison, compare


def case(number: int, baseline: float, candidate: float | None, slice: str = "a", **more: object) -> CaseResult:
    arms = ArmResult(200, baseline, 1000, 100.0), ArmResult(200, candidate, 400, 50.0, cache="miss")
    return CaseResult(str(number), {"kind": slice}, 1.0, *arms)._replace(**more)  # type: ignore[arg-type]


def compared(*results: CaseResult, **more: float) -> Comparison:
    return compare(results, np.random.default_rng(1), **more)


def test_as_good_and_cheaper() -> None:
    found = compared(*(case(number, 1.0, 1.0, "ab"[number % 2]) for number in range(800)))
    assert (found.verdict.word, found.candidate, found.failed, found.undecided) == ("not worse", 1.0, 0, 0)
    assert found.cost is not None and found.cost.value == pytest.approx(0.4)
    assert found.baseline_usd == pytest.approx(800e-9)
    assert found.latency_ms["p50"][1].value == 50.0
    assert [one.word for one in found.slices] == ["", ""]


def test_a_slice_that_got_worse_is_found_behind_a_good_mean() -> None:
    results = [case(n, 1.0, 1.0, "common") for n in range(900)] + [
        case(n, 1.0, float(n % 2), "rare") for n in range(40)
    ]
    found = compared(*results, margin=0.05)
    assert found.verdict.word == "not worse"
    assert {one.value: one.word for one in found.slices} == {"common": "", "rare": "worse"}


def test_among_many_slices_chance_alone_makes_none_worse() -> None:
    dice = np.random.default_rng(2)
    results = [
        case(n, float(dice.random() < 0.8), float(dice.random() < 0.8), str(int(dice.integers(30))))
        for n in range(1500)
    ]
    assert sum(one.word != "" for one in compared(*results).slices) <= 1


def test_what_a_judge_can_not_say_counts_against_the_candidate() -> None:
    found = compared(*(case(number, 1.0, None if number < 100 else 1.0) for number in range(200)))
    assert (found.verdict.word, found.undecided, found.candidate) == ("worse", 100, 0.5)


def test_no_answer_is_a_bad_answer() -> None:
    failed = ArmResult(500, None, 0, 5.0)
    found = compared(*(case(number, 1.0, 1.0)._replace(candidate=failed) for number in range(50)))
    assert (found.failed, found.candidate) == (50, 0.0)


def test_traps_stand_apart() -> None:
    trap = case(99, 1.0, 0.0, source="generated:number", expect="other")
    hit = trap._replace(candidate=trap.candidate._replace(cache="hit-semantic"))
    found = compared(*(case(number, 1.0, 1.0) for number in range(300)), trap, hit)
    assert (found.cases, found.candidate) == (300, 1.0)
    assert [(one.kind, one.cases, one.candidate, one.reused) for one in found.traps] == [("number", 2, 0.0, 1)]


def test_few_cases_say_how_many_are_lacking() -> None:
    found = compared(*(case(number, 1.0, 1.0) for number in range(20)))
    assert found.verdict.word == "inconclusive" and found.verdict.needed is not None and found.verdict.needed > 100


def test_an_unknown_price_is_not_zero() -> None:
    unknown = ArmResult(200, 1.0, None, 5.0)
    found = compared(*(case(number, 1.0, 1.0)._replace(candidate=unknown) for number in range(20)))
    assert found.cost is None and found.candidate_usd is None and found.baseline_usd is not None


def test_without_traffic_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="traffic"):
        compared(case(1, 1.0, 1.0, source="generated:name"))
