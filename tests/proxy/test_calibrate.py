"""The largest safe setting on recorded traffic: counted by hand on small traces, and never safer than the evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from farthing.cache.embedder import open_embedder
from farthing.cache.scorer import VerifierScorer
from farthing.cache.semantic import SemanticCache
from farthing.cache.verifier import Verifier
from farthing.policies.sequence import Comparator
from farthing.proxy.calibrate import THRESHOLDS, Row, Turn, calibrate, read_trace
from farthing.proxy.errors import ConfigFault
from tests.cache.test_template import RULES

THINGS = ("password", "invoice", "passport", "router", "charger", "garden", "kettle", "bicycle", "camera", "engine")
VERBS = ("clean", "repair", "replace", "return")


def cache() -> SemanticCache:
    return SemanticCache.open(
        None, open_embedder("minilm-int8"), max_entries=1000, scorer=VerifierScorer(Verifier.open())
    )


def turn(text: str, truth: str = "", answer: str = "", tenant: str = "", system: str = "") -> Turn:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return Turn(tenant, {"model": "m", "messages": messages}, truth, answer)


def pairs() -> list[tuple[str, str]]:
    return [(f"How do I {verb} my {thing}?", f"How can I {verb} my {thing}?") for verb in VERBS for thing in THINGS]


def run(turns: Iterable[Turn], **settings: Any) -> list[Row]:
    asked = {"max_wrong": 0.3, "confidence": 0.95, "comparator": Comparator()} | settings
    return calibrate(turns, cache(), **asked)


def test_right_and_wrong_rewordings_are_told_apart_and_bounded() -> None:
    wrong_pair = 3  # of forty
    turns = []
    for number, (text, again) in enumerate(pairs()):
        turns += [turn(text, f"c{number}"), turn(again, "another" if number < wrong_pair else f"c{number}")]
    row = next(one for one in run(turns) if one.threshold == 0.8)
    assert row.hits >= 38
    assert wrong_pair <= row.wrong <= wrong_pair + 2
    assert row.hit_rate == pytest.approx(row.hits / 80)
    # Looking ten times and at any moment costs something: never below Clopper and Pearson's for one look.
    once = stats.beta.ppf(0.95, row.wrong + 1, row.hits - row.wrong)
    assert once < row.bound < 3 * once
    assert row.safe is (row.bound <= 0.3)


def test_under_common_instructions_what_varies_is_judged() -> None:
    """As many hits as without them, and questions that differ are no hits for sharing the instructions."""
    turns = []
    for number, (text, again) in enumerate(pairs()):
        turns += [turn(RULES + text, f"c{number}"), turn(RULES + again, f"c{number}")]
    row = next(one for one in run(turns) if one.threshold == 0.8)
    assert row.hits >= 36 and row.wrong <= 1


def test_no_promise_is_kept_by_too_few_hits() -> None:
    turns = [turn(text, f"c{number}") for number, pair in enumerate(pairs()[:5]) for text in pair]
    rows = run(turns, max_wrong=0.05)
    assert [one.threshold for one in rows] == list(THRESHOLDS)
    assert max(one.hits for one in rows) >= 3
    assert not any(one.safe for one in rows)


def test_repeats_are_the_exact_caches_and_prove_nothing() -> None:
    repeats = [turn("How do I clean my kettle?", "c") for _ in range(200)]
    assert {(one.hits, one.bound, one.safe) for one in run(repeats)} == {(0, 1.0, False)}


@pytest.mark.parametrize("other", [{"tenant": "b"}, {"system": "Answer in French."}])
def test_scopes_are_walls_in_a_replay_too(other: dict[str, str]) -> None:
    turns = [turn("How do I clean my kettle?", "c"), turn("How can I clean my kettle?", "c", **other)]
    assert {one.hits for one in run(turns)} == {0}


@pytest.mark.parametrize(("again", "wrong"), [("Use vinegar.", 0), ("It takes 3 days.", 1)])
def test_without_classes_the_answers_are_compared(again: str, wrong: int) -> None:
    asked = ("How do I clean my kettle?", "Use vinegar."), ("How can I clean my kettle?", again)
    row = run(turn(text, answer=answer) for text, answer in asked)[-1]
    assert (row.hits, row.wrong) == (1, wrong)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not an object with messages"),
        ("[1]", "line 2: not an object with messages"),
        ('{"class": "a"}', "line 2: not an object with messages"),
        ('{"messages": []}', "line 2: neither class nor answer"),
    ],
)
def test_a_line_that_can_not_be_used_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"messages": [], "class": "a"}\n' + line + "\n", "utf-8")
    with pytest.raises(ConfigFault, match=said):
        list(read_trace(path))


def test_a_trace_may_hold_whole_bodies(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    path.write_text("\n" + json.dumps({"body": body, "answer": "Hello", "tenant": "t"}) + "\n\n", "utf-8")
    assert list(read_trace(path)) == [Turn("t", body, "", "Hello")]
    with pytest.raises(ConfigFault, match="can't read"):
        list(read_trace(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(("known", "widened"), [("class", False), ("answer", True), ("both", False), ("one", True)])
def test_a_comparators_error_widens_only_what_was_compared(known: str, widened: bool) -> None:
    """Where classes tell the truth nobody erred; a single hit that was compared may be where the wrong ones are."""
    turns = []
    for number, pair in enumerate(pairs()):
        truth = f"c{number}" if known in ("class", "both") or (known == "one" and number) else ""
        answer = f"Answer {number}." if known != "class" else ""
        turns += [turn(text, truth, answer) for text in pair]
    plain, sloppy = (run(turns, comparator=Comparator(false_same=error)) for error in (0.0, 0.5))

    assert plain[-1].hits > 40
    assert sloppy[-1].bound == (min(1.0, 2 * plain[-1].bound) if widened else plain[-1].bound)
