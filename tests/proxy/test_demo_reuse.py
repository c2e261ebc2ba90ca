"""The demo's second act: what it asks, and that it never tells more than it was told."""

from __future__ import annotations

import random
from typing import Any

import pytest

from farthing.proxy.demo_reuse import HANDOVER, MAX_WRONG, TEAM, Heard, budget, grammar, messages, rewordings, told
from farthing.proxy.traffic import load_questions

PROVED: dict[str, Any] = {"serving": True, "wrong": 1.0, "labels": 90.0, "bound": 0.0987, "needed": None, "reason": ""}
LACKING: dict[str, Any] = PROVED | {"serving": False, "bound": None, "needed": 40, "reason": "not proved"}


@pytest.mark.parametrize(("requests", "most"), [(1, (2, 2)), (30, (36, 15)), (200, (240, 100)), (5000, (240, 100))])
def test_a_short_run_asks_little(requests: int, most: tuple[int, int]) -> None:
    assert budget(requests) == most


def test_the_rewordings_are_enough_and_all_different() -> None:
    texts = rewordings(load_questions(), random.Random(1))
    assert len(texts) >= budget(200)[0]
    # A text that repeats would be the exact cache's to answer, and prove nothing.
    assert len(set(texts)) == len(texts)
    assert texts == rewordings(load_questions(), random.Random(1))


def test_no_example_of_the_prompts_is_asked() -> None:
    asked = {text.casefold() for text in rewordings(load_questions(), random.Random(1))}
    assert not asked & {text.casefold() for app in (HANDOVER, TEAM) for text, _ in app.shots}
    for app in (HANDOVER, TEAM):
        assert {said for _, said in app.shots} <= set(app.words)
        assert all(f'"{word}"' in grammar(app.words) for word in app.words)
        assert messages(app, "x")[-1] == {"role": "user", "content": "x"}


def heard(hits: int) -> Heard:
    found = Heard()
    for _ in range(3):
        found.add("no", {"x-farthing-cache": "miss"}, 200.0)
    for _ in range(hits):
        found.add("no", {"x-farthing-cache": "hit-semantic", "x-farthing-bound": "0.0987"}, 10.0)
    return found


def test_what_was_proved_is_told_with_its_bound() -> None:
    said = "\n".join(told(HANDOVER, heard(2), PROVED))
    for words in (
        "SERVING",
        "1 of 90 compared answers wrong",
        "at most 9.9%",
        "from request 4 on",
        "10 ms against 200",
    ):
        assert words in said
    assert "not proved" not in said
    assert "one answer fits all" in said


@pytest.mark.parametrize("state", [None, LACKING, LACKING | {"needed": None, "reason": "choosing thresholds: 3 of 20"}])
def test_what_was_not_proved_is_told_so(state: dict[str, Any] | None) -> None:
    said = "\n".join(told(TEAM, heard(0), state))
    assert "observing" in said
    assert f"at most {MAX_WRONG:.0%} wrong is not proved for this route in this run" in said
    assert "SERVING" not in said


def test_failures_are_told() -> None:
    broken = Heard(asked=2, failed=2, error="APIConnectionError: refused")
    assert "2 requests failed; the first: APIConnectionError" in told(HANDOVER, broken, None)[-1]


@pytest.mark.parametrize(("wrong", "labels", "concluded"), [(1.0, 1.0, False), (1.0, 20.0, False), (6.0, 20.0, True)])
def test_little_evidence_is_no_reason(wrong: float, labels: float, concluded: bool) -> None:
    said = "\n".join(told(TEAM, heard(0), LACKING | {"wrong": wrong, "labels": labels}))
    assert ("changed the upstream's answer" in said) is concluded
