"""The comparators' ruler: bounds, the split, and edits that do to the meaning what they claim to do."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bench.answers import all_pairs, sibling
from bench.comparators import by_comparator, upper, written
from bench.index import moved
from bench.prose_edits import FACTS, SURFACE
from farthing.policies.agree import agree
from farthing.policies.answer import Answer
from farthing.policies.opinion import Agreement, Opinion

FUNCTION = "def f(a):\n    if a < 3 :\n        return a\n\nx = 1\n"
TEXT = (
    "The Nile is 6,650 km long, and it is not often dry. However, many people such as farmers near Cairo purchase "
    "water from Khartoum before summer. It was measured by Herodotus in the north of Egypt, at a depth of three metres."
)


@pytest.mark.parametrize(
    ("errors", "trials", "bound"),
    [(0, 300, 0.00994), (0, 59, 0.0495), (1, 100, 0.0466), (5, 50, 0.1988), (0, 0, 1.0), (3, 3, 1.0)],
)
def test_upper_bounds_are_those_of_the_tables(errors: int, trials: int, bound: float) -> None:
    assert upper(errors, trials) == pytest.approx(bound, abs=2e-4)


@pytest.mark.parametrize("name", SURFACE)
def test_a_surface_edit_changes_the_text(name: str) -> None:
    other = SURFACE[name](TEXT, Random(1))

    assert other is not None
    assert other != TEXT


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_edit_changes_one_place(name: str) -> None:
    text = TEXT.replace("the north of", "the north of").replace(
        "Cairo purchase water from Khartoum", "Cairo led to Khartoum"
    )
    other = FACTS[name](text, Random(1), ["Istanbul", "Cairo"])

    assert other is not None
    assert other != text
    changed = sum(a != b for a, b in zip(text.split(), other.split(), strict=False))
    if name not in ("negation",):
        assert changed <= 2
    assert agree(Answer(text), Answer(other)).agreement is not Agreement.SAME


def test_a_text_without_a_place_for_it_gives_none() -> None:
    assert all(change("tea", Random(1), ["Oslo"]) is None for change in FACTS.values())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def write(name: str, rows: Sequence[dict[str, object]]) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    said = "Let's think step by step.\n{0} + 1 = {1} apples.\n#### {1}\n\nQuestion: next"
    write("compress/few_shot_cot.jsonl",
          [{"messages": [{"content": said.format(n, n + 1)}]} for n in range(10, 20)])  # fmt: skip
    labels = [f"{a}_{b}" for a in ("card", "cash", "top") for b in ("lost", "fee", "limit", "late", "new", "old")]
    write("semcache/intent.jsonl", [{"answer": label} for label in labels])
    write("compress/rag_multidoc_qa.jsonl", [{"answer": f"{chr(65 + n)}stadt"} for n in range(10)])
    passage = TEXT + " Reeds grow along its banks, and boats carry grain to the harbours of the delta."
    write("semcache/long.jsonl", [{"slice": "long.qa", "messages": [{"content": f"Context:\n{passage * 2}"}]}])
    asked = (("How do I get a refund?", "a"), ("How can I get a refund now?", "a"), ("What is a loan?", "b"))
    write("semcache/qa.jsonl", [{"messages": [{"content": text}], "class": known} for text, known in asked])
    call = {"function": {"name": "book", "arguments": '{"seats": 2, "to": "Rome"}'}}
    write("compress/long_chat_history.jsonl", [{"messages": [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": TEXT}]}])  # fmt: skip
    write("compress/json_tool_output.jsonl",
          [{"messages": [{"role": "tool", "content": '[{"id": 1, "name": "Ria", "paid": true}]'}]}])  # fmt: skip
    write("compress/code_context.jsonl",
          [{"messages": [{"role": "tool", "content": FUNCTION}]}])  # fmt: skip
    return tmp_path


def test_pairs_of_every_kind_are_made_and_repeat_by_seed(data: Path) -> None:
    pairs = list(all_pairs(sibling(data), Random(1)))

    assert pairs == list(all_pairs(data, Random(1)))
    kinds = {(pair.kind, pair.same) for pair in pairs}
    for kind in ("number", "label", "span", "polarity", "json", "calls", "code", "passage", "turn"):
        assert {(kind, True), (kind, False)} <= kinds
    assert all(pair.a != pair.b or pair.same for pair in pairs)
    assert {pair.held_out for pair in pairs} == {True, False}


def test_halves_share_no_source(data: Path) -> None:
    pairs = list(all_pairs(data, Random(1)))

    held, rest = ({pair.source for pair in pairs if pair.held_out is half} for half in (True, False))
    assert not held & rest


def test_rates_count_what_was_said_against_the_truth(data: Path) -> None:
    pair = next(pair for pair in all_pairs(data, Random(1)) if not pair.same)
    alike = next(pair for pair in all_pairs(data, Random(1)) if pair.same)

    def say(agreement: Agreement) -> Opinion:
        return Opinion(agreement, "json", "")

    found = [(pair, say(Agreement.SAME)), (pair, say(Agreement.UNSURE)), (alike, say(Agreement.DIFFERENT))]
    rates = by_comparator(found)["json"]

    assert (rates["differing"], rates["false_same"], rates["alike"], rates["false_different"]) == (2, 1, 1, 1)
    assert rates["unsure"] == 1


def test_the_table_that_is_written_is_read_again(tmp_path: Path) -> None:
    row = {"differing": 9, "differing_trials": 5, "false_same": 1, "false_same_upper": 0.4,
           "alike": 8, "alike_trials": 6, "false_different": 0, "false_different_upper": 0.3, "unsure": 2}  # fmt: skip
    (tmp_path / "measured.py").write_text(written({"label": row}, "a command"), "utf-8")

    space = runpy.run_path(str(tmp_path / "measured.py"), run_name="measured_again")

    assert space["MADE_BY"] == "a command"
    assert space["MEASURED"]["label"].alike_trials == 6
    assert space["false_same"]("label") == 0.4
    assert space["false_same"]("number") == 1


def test_missing_data_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"sibling \.\./shared/data"):
        sibling(tmp_path / "nowhere")


def test_moved_vectors_are_as_far_as_asked() -> None:
    rows = np.eye(50, 384, dtype=np.float32)

    cosines = (moved(rows, 0.8, np.random.default_rng(1)) * rows).sum(axis=1)

    assert abs(cosines.mean() - 0.8) < 0.02
