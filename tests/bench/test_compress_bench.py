"""The compression bench's own arithmetic: halves, needed strings, intervals, and methods on one item."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.compress import Cell, goals, main, reported, wilson
from bench.compress_data import SLICES, Item, kept, load, texts, with_texts
from bench.compress_methods import methods, restored

ROWS = [{"order": f"ord-{n}", "status": "shipped", "note": "as agreed by telephone"} for n in range(20)]


def item(content: str = json.dumps(ROWS, indent=1), needed: tuple[str, ...] = ("ord-7",), number: int = 0) -> Item:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You answer."},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "c", "content": content},
        {"role": "user", "content": "What of ord-7?"},
    ]
    return Item(f"json-{number}", "json_tool_output", messages, needed, False, "")


def test_the_halves_are_fixed_and_about_equal() -> None:
    found = Counter(item(number=number).part for number in range(1000))

    assert item(number=3).part == item(number=3).part
    assert 450 < found["train"] < 550


@pytest.mark.parametrize(
    ("content", "needed", "expected"),
    [
        ("a  b\nc", ("a b c",), True),
        ("x &lt; y", ("x < y",), True),
        ('say \\"no\\"', ('say "no"',), True),
        ("a b", ("a b", "missing"), False),
        ("a", ("What of ord-7?",), False),
    ],
)
def test_needed_strings_must_stand_outside_of_the_question(
    content: str, needed: tuple[str, ...], expected: bool
) -> None:
    one = item(content, needed)

    assert kept(one, one.messages) is expected


def test_only_texts_that_nobody_asked_with_are_touched() -> None:
    one = item()
    changed = with_texts(one, dict.fromkeys(texts(one), "short"))

    assert [message["content"] for message in changed] == ["short", None, "short", "What of ord-7?"]
    assert one.messages[2]["content"] != "short"


def test_every_method_makes_it_shorter_and_what_claims_to_decodes() -> None:
    one = item()
    for method in methods():
        found = method(one, len)

        assert set(found) == {2}
        short, rules = found[2]
        assert len(short) < len(one.messages[2]["content"])
        if method.lossless:
            assert restored(one.messages[2]["content"], short, rules)
            assert not restored(one.messages[2]["content"], short + " ", rules)


def test_wilson_interval() -> None:
    assert wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(5, 10)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


def test_goals_are_judged_by_what_was_measured() -> None:
    cell = Cell(1, 1, {"cl100k": 1000, "o200k": 900}, {"cl100k": 350, "o200k": 300}, 2, 1, 0.002, 0.001)
    cells = {("json_tool_output", "tidy + recode"): cell}

    assert [target.passed for target in goals(cells)] == [True, False, False]
    assert reported("train", cells, []).rows[0][3:5] == ["0.350", "0.333"]


def test_it_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in SLICES:
        (tmp_path / f"{name}.jsonl").write_text("", "utf-8")
    lines = [
        json.dumps({"id": one.id, "slice": one.slice, "messages": one.messages, "must_keep": ["ord-7"]})
        for one in (item(number=number) for number in range(8))
    ]
    (tmp_path / "json_tool_output.jsonl").write_text("\n".join(lines), "utf-8")
    arguments = ["--part", "train", "--data", str(tmp_path), "--results", str(tmp_path), "--no-headroom", "--no-docs"]

    assert len(list(load(tmp_path))) == 8
    assert main(arguments) in (0, 1)  # the goal for time is the machine's affair
    saved = json.loads((tmp_path / "compress-train.json").read_text("utf-8"))
    assert [target["passed"] for target in saved["targets"]][:-1] == [True, True]
    assert "tidy + recode" in capsys.readouterr().out
    assert main(["--part", "train", "--data", str(tmp_path / "missing")]) == 2
