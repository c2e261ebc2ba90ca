"""Gates: rules, and what each verdict rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from farthing.policies.compare import ArmResult, CaseResult
from farthing.policies.gate import RuleVerdict, decide, gate_of
from farthing.proxy.errors import ConfigFault


def results(count: int = 400, good: int | None = None, **more: Any) -> list[CaseResult]:
    good = count if good is None else good
    return [
        CaseResult(
            str(number),
            {"team": "a" if number % 2 else "b"},
            1.0,
            ArmResult(200, 1.0, 100, 200.0, 0.0),
            ArmResult(200, 1.0 if number < good else 0.0, 60, 150.0, 2.0, "miss"),
        )._replace(**more)
        for number in range(count)
    ]


def one(rule: dict[str, Any], of: list[CaseResult], **more: Any) -> RuleVerdict:
    _, found, _ = decide(gate_of({"dataset": "d", "rules": [rule], **more}), of, np.random.default_rng(1))
    return found[0]


@pytest.mark.parametrize(
    ("rule", "of", "word"),
    [
        ({"accuracy": 0.95}, results(), "ship"),
        ({"accuracy": 0.95}, results(good=300), "block"),
        ({"accuracy": 0.95}, results(30), "inconclusive"),
        ({"accuracy": {"at_least": 0.9, "where": {"team": "a"}}}, results(), "ship"),
        ({"accuracy": {"at_least": 0.9, "where": {"team": "c"}}}, results(), "inconclusive"),
        ({"not_worse": 0.02}, results(), "ship"),
        ({"not_worse": {"margin": 0.01}}, results(good=350), "block"),
        ({"cost": 0.2}, results(), "ship"),
        ({"cost": 0.5}, results(), "block"),
        ({"overhead_ms": {"at_most": 5, "percentile": 0.99}}, results(), "ship"),
        ({"overhead_ms": {"at_most": 5, "percentile": 0.99}}, results(100), "inconclusive"),
        ({"overhead_ms": 1}, results(), "block"),
        ({"latency_ms": {"at_most": 200, "percentile": 0.5}}, results(50), "ship"),
        ({"must_not": "PWNED"}, results(checks={"0": 1.0}), "ship"),
        ({"must_not": "PWNED"}, results(checks={"0": 0.0}), "block"),
        ({"must": "x"}, results(checks={"0": None}), "block"),
        ({"accuracy": {"at_least": 0.9, "judge": "exact"}}, results(good=0, checks={"0": 1.0}), "ship"),
        ({"traps": 0}, results(), "inconclusive"),  # there are none
        ({"slices": 0}, results(), "ship"),
        ({"slices": 0}, results(8), "inconclusive"),  # four of each team
        ({"slices": 0}, results(slices={"team": "a"}), "inconclusive"),  # it is all of them
    ],
)
def test_each_kind_of_rule(rule: dict[str, Any], of: list[CaseResult], word: str) -> None:
    assert one(rule, of).word == word


def test_a_trap_that_was_reused_blocks() -> None:
    trap = results(1, source="generated:number", expect="other")[0]
    hit = trap._replace(candidate=trap.candidate._replace(cache="hit-semantic"))
    assert one({"traps": 0}, [*results(), hit]).word == "block"
    assert one({"traps": 1}, [*results(), hit]).word == "ship"


def test_a_slice_that_got_worse_blocks_behind_a_good_mean() -> None:
    bad = [case._replace(slices={"team": "rare"}) for case in results(40, good=0)]
    found = one({"slices": 0}, [*results(2000), *bad])
    assert (found.word, found.why) == ("block", "1: team=rare")


def test_what_is_not_decided_says_how_many_cases_would() -> None:
    found = one({"accuracy": 0.95}, results(30))
    assert found.needed is not None and found.needed > 30
    assert (
        one({"accuracy": 0.95}, results(200, good=190)).needed is None
    )  # the estimate is at the floor: more won't help
    assert one({"overhead_ms": 5}, results(100)).needed == 299


def test_the_whole_ships_only_where_every_rule_is_met() -> None:
    rng = np.random.default_rng(1)
    assert decide(gate_of({"dataset": "d", "rules": [{"accuracy": 0.9}, {"cost": 0.2}]}), results(), rng)[0] == "ship"
    assert decide(gate_of({"dataset": "d", "rules": [{"accuracy": 0.9}, {"cost": 0.9}]}), results(), rng)[0] == "block"
    rules = [{"accuracy": 0.9}, {"accuracy": {"at_least": 0.5, "where": {"team": "c"}}}]
    assert decide(gate_of({"dataset": "d", "rules": rules}), results(), rng)[0] == "inconclusive"


def test_a_candidate_that_fails_is_neither_cheap_nor_quick() -> None:
    down = ArmResult(500, None, 0, 1.0, 0.0)
    failing = [case._replace(candidate=down) for case in results()]
    rules = ({"cost": 0.2}, {"latency_ms": 500}, {"overhead_ms": 5})
    assert [one(rule, failing).word for rule in rules] == ["block"] * 3


def test_what_neither_arm_answered_shows_nothing() -> None:
    down = ArmResult(503, None, 0, 1.0)
    lost = [case._replace(baseline=down, candidate=down, slices={}) for case in results(400)]
    rules: list[dict[str, Any]] = [{"not_worse": 0.05}, {"slices": 0}, {"must_not": "x"}, {"cost": 0.2}]
    word, found, whole = decide(gate_of({"dataset": "d", "rules": rules}), lost, np.random.default_rng(1))
    assert word == "inconclusive" and {one.word for one in found} == {"inconclusive"}
    assert (whole.verdict.word, whole.lost) == ("inconclusive", 400)
    assert [one.why for one in found][3] == "the baseline cost nothing"
    half = [*results(60, good=50), *lost]  # what differs isn't diluted by it
    assert one({"not_worse": 0.05}, half).word == one({"not_worse": 0.05}, half[:60]).word == "block"


def test_an_answer_that_never_came_breaks_no_pattern_and_keeps_none() -> None:
    lost = results(1, checks={"0": None}, candidate=ArmResult(503, None, 0, 1.0))
    found = one({"must_not": "PWNED"}, [*results(checks={"0": 1.0}), *lost])
    assert (found.word, found.needed) == ("inconclusive", None)
    assert found.why == "0 of 400 answers break it; 1 never came"
    assert one({"must_not": "PWNED"}, [*results(checks={"0": 0.0}), *lost]).word == "block"


@pytest.mark.parametrize("arm", ["baseline", "candidate"])
def test_what_was_refused_for_want_of_the_runs_money_decides_nothing(arm: str) -> None:
    unpaid = ArmResult(402, None, 0, 1.0)
    short = [*results(), *(case._replace(**{arm: unpaid}) for case in results(200))]
    for rule in ({"not_worse": 0.02}, {"accuracy": 0.3}, {"cost": 0.2}, {"latency_ms": 500}):
        found = one(rule, short)
        assert (found.word, found.needed) == ("inconclusive", None) and "--max-usd" in found.why


def test_two_cases_prove_no_saving() -> None:
    assert [one({"cost": 0.2}, results(count)).word for count in (2, 9, 60)] == ["inconclusive", "inconclusive", "ship"]
    hits = [case._replace(candidate=case.candidate._replace(cost_pico=0)) for case in results(12)]
    assert one({"cost": 0.9}, hits).word == "inconclusive"  # one in five might still be a miss


def test_an_unknown_price_decides_nothing() -> None:
    unknown = [case._replace(candidate=case.candidate._replace(cost_pico=None)) for case in results()]
    assert one({"cost": 0.2}, unknown).word == "inconclusive"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "a table"),
        ({"rules": [{"accuracy": 1}]}, "dataset"),
        ({"dataset": "d"}, "rules"),
        ({"dataset": "d", "rules": []}, "rules"),
        ({"dataset": "d", "rules": ["accuracy"]}, r"rules\[0\]"),
        ({"dataset": "d", "rules": [{"acuracy": 0.9}]}, r"rules\[0\]\.acuracy: unknown key; did you mean 'accuracy'"),
        ({"dataset": "d", "rules": [{"accuracy": {}}]}, r"rules\[0\]\.accuracy\.at_least: is missing"),
        ({"dataset": "d", "rules": [{"accuracy": 95}]}, "from 0 to 1"),
        ({"dataset": "d", "rules": [{"accuracy": True}]}, "from 0 to 1"),
        ({"dataset": "d", "rules": [{"overhead_ms": -1}]}, "at least 0"),
        ({"dataset": "d", "rules": [{"overhead_ms": {"at_most": 1, "percentile": 1}}]}, "from 0.01 to 0.9999"),
        ({"dataset": "d", "rules": [{"must": {"pattern": 1}}]}, "regular expression"),
        ({"dataset": "d", "rules": [{"cost": {"at_least": 0.2, "where": [1]}}]}, "where"),
        ({"dataset": "d", "rules": [{"cost": 0.1}], "levl": 0.1}, "did you mean 'level'"),
        ({"dataset": "d", "rules": [{"cost": 0.1}], "name": 3}, "name"),
    ],
)
def test_a_bad_suite_is_refused_with_the_path_of_the_key(value: Any, said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        gate_of(value)
