"""The answers bench's own parts: what is expected, smaller items, the paired test; all of it, where the model is."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bench.compress_answers import AGAIN, ASKED_SLICES, WHOLE, Reply, judged, main, mcnemar, read_kept, reported
from bench.compress_data import Item, Messages, texts
from bench.compress_smaller import Asked, asked, expected, holds, smaller, units_of
from farthing.policies.opinion import Agreement
from farthing.proxy.small_model import missing

RECORDS = [{"id": f"r-{n}", "note": "as agreed", "n": n * 1.5} for n in range(40)]
TABLE = "Table a.csv:\n\n| name | size |\n|---|---|\n" + "\n".join(f"| n{n} | {n * 7} |" for n in range(30))
LOG = "".join(f"2026-03-01T09:00:{n:02}.182Z mailer[{n}]: INFO ok\n" for n in range(20)).replace(
    "mailer[7]: INFO ok\n", "mailer[7]: ERROR failed\nTraceback (most recent call last):\nKeyError: 'tenant'\n"
)
DOCUMENTS = "Documents:\n\n" + "\n\n".join(f"Document [{n}] (Title: T{n})\nText {n}.\n\nMore." for n in range(1, 9))
PASSAGES = "\n\n".join(f"### Passage {n}\nText {n}." for n in range(1, 9))


def item(text: str, name: str, needed: tuple[str, ...], question: str = "Which?") -> Item:
    messages: Messages = [{"role": "system", "content": "You answer."}, {"role": "user", "content": text}]
    return Item("one", name, [*messages, {"role": "user", "content": question}], needed, False, "")


def chars_below(most: int) -> Any:
    return lambda messages: sum(len(one["content"]) for one in messages) <= most


@pytest.mark.parametrize(
    ("question", "answer", "needed", "wanted"),
    [
        ("Which order failed?", "ord-7", ("ord-7", "x1"), ("ord-7",)),
        ("What is the IP of pod-1?", "pod-1", ("pod-1", "10.0.0.1"), ("10.0.0.1",)),
        ("Is pod-1 there?", "pod-1", ("pod-1",), ()),
        ("What?", "", ("a b", "c"), ("a b", "c")),
        ("At hour 240?", "24", (), ("24",)),
    ],
)
def test_repeating_the_question_is_never_right(
    question: str, answer: str, needed: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    assert expected(item("", "tables_csv", needed, question), answer) == wanted


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("It is Ord-7.", ("ord-7",), True),
        ("It is ord-71.", ("ord-7",), False),
        ("a\n  b", ("A b",), True),
        ("a b", ("a", "c"), False),
        ("KeyError: 'x'", ("KeyError: 'x'",), True),
        ("-127 C", ("-127",), True),
    ],
)
def test_strings_are_held_as_whole_words(text: str, wanted: tuple[str, ...], found: bool) -> None:
    assert holds(text, wanted) is found


@pytest.mark.parametrize(
    ("name", "text", "count", "first"),
    [
        ("json_tool_output", json.dumps(RECORDS), 40, RECORDS[0]),
        ("json_tool_output", json.dumps({"data": RECORDS, "total": 40}, indent=2), 40, RECORDS[0]),
        ("tables_csv", TABLE, 30, "| n0 | 0 |"),
        ("tables_csv", "Table b:\n\na,b\n1,2\n3,4", 2, "1,2"),
        ("logs_and_stacktraces", LOG, 20, "2026-03-01T09:00:00.182Z mailer[0]: INFO ok\n"),
        ("rag_multidoc_qa", DOCUMENTS, 8, "Document [1] (Title: T1)\nText 1.\n\nMore."),
        ("rag_multidoc_qa", PASSAGES, 8, "### Passage 1\nText 1."),
    ],
)
def test_units_join_to_the_text(name: str, text: str, count: int, first: object) -> None:
    found = units_of(text, name)

    assert found is not None
    assert (len(found.units), found.units[0]) == (count, first)
    assert found.joined(found.units) == text


def test_json_written_in_another_way_is_left_out() -> None:
    assert units_of('[{"a":1} , {"a": 2}]', "json_tool_output") is None
    assert units_of('{"a": 1}', "json_tool_output") is None


@pytest.mark.parametrize("place", [0, 13, 39])
def test_a_smaller_item_keeps_what_it_needs_where_it_was(place: int) -> None:
    text = json.dumps({"data": RECORDS, "total": 40}, indent=2)
    wanted = (f"r-{place}", str(place * 1.5))
    one = Asked(item(text, "json_tool_output", wanted), wanted, wanted)

    made = smaller(one, chars_below(900))

    assert made is not None
    assert made.made is not None
    left, total = made.made
    short = json.loads(made.item.messages[1]["content"])
    at = [record["id"] for record in short["data"]].index(f"r-{place}")
    assert total == 40
    assert 3 <= left == short["total"] == len(short["data"]) < 40
    assert abs(at / (left - 1) - place / 39) < 0.15
    assert chars_below(900)(made.item.messages)
    assert not chars_below(900 + 20)([*made.item.messages, {"content": json.dumps(RECORDS[0], indent=2)}])


def test_what_needs_units_far_apart_gets_both() -> None:
    needs = ("Text 1", "Text 8")
    one = Asked(item(DOCUMENTS, "rag_multidoc_qa", needs), ("Text 8",), needs)

    made = smaller(one, chars_below(200))

    assert made is not None
    (text,) = [text for place, text in texts(made.item).items() if place == 1]
    assert all(need in text for need in needs)
    assert "Text 5" not in text


def test_what_fits_stays_and_what_cannot_be_made_to_fit_goes() -> None:
    one = Asked(item(TABLE, "tables_csv", ("n3",)), ("21",), ("n3",))

    assert smaller(one, chars_below(5000)) is one
    assert smaller(one, chars_below(60)) is None
    assert smaller(Asked(one.item, ("21",), ("not there",)), chars_below(300)) is None


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (8, 2, 0.1094)]
)
def test_mcnemar_by_hand(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == mcnemar(won, lost) == pytest.approx(p, abs=1e-4)


def test_a_form_is_counted_against_the_same_items() -> None:
    rows = []
    for number, (first, second) in enumerate([("21", "21"), ("21", "twelve"), ("no", "21"), ("no", "no")]):
        name = ASKED_SLICES[number % 2]
        one = Asked(item(TABLE, name, ("n3",)), ("21",), ("n3",))
        one = Asked(Item(str(number), *list(vars(one.item).values())[1:6]), one.expected, one.needs, (4, 30))
        whole, short = one.item.messages, one.item.messages[1:]
        replies = {WHOLE: (whole, Reply(first, "stop", 100, 2.0)), "tidy": (short, Reply(second, "stop", 50, 1.0))}
        rows += judged(one, replies, None)

    report = reported(rows, [], 500)
    last = [row for row in report.rows if row[1] == "tidy"][-1]

    assert last[2:11] == ["4", "4", "0.500", "50", "1.0", "0.50", "0.15-0.85", "1", "1"]
    assert sum(row.as_whole is Agreement.SAME for row in rows if row.form == "tidy") == 2
    assert [row[0] for row in report.rows if row[0]] == [*ASKED_SLICES[:2], "all four"]
    assert not [row for row in report.rows if row[1] == AGAIN]


def test_replies_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    assert read_kept(file) == read_kept(None) == {}
    told = {"text": "a", "finish": "stop", "prompt_tokens": 3, "seconds": 0.5}
    file.write_text(json.dumps({"key": "k", **told}) + "\n", "utf-8")

    assert read_kept(file) == {"k": Reply("a", "stop", 3, 0.5)}


def written(folder: Path) -> None:
    """One item of each slice, of the test half."""
    told = {"json_tool_output": json.dumps(RECORDS), "tables_csv": TABLE, "logs_and_stacktraces": LOG}
    number = next(n for n in range(99) if int(sha256(f"i{n}".encode()).hexdigest(), 16) % 2)
    for name in ASKED_SLICES:
        one = item(told.get(name, DOCUMENTS), name, ())
        row = {"id": f"i{number}", "slice": name, "messages": one.messages, "must_keep": ["7"], "answer": "7"}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")


def test_only_the_test_half_and_what_can_be_scored(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "tables_csv.jsonl"
    row = json.loads(file.read_text("utf-8"))
    other = next(n for n in range(99) if int(sha256(f"i{n}".encode()).hexdigest(), 16) % 2 == 0)
    rows = [row, row | {"id": f"i{other}"}, row | {"kind": "aggregate"}, row | {"answer": "Which", "must_keep": []}]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")

    assert [one.item.id for one in asked(tmp_path, "tables_csv")] == [row["id"]]


def test_without_data_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.model
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_it_runs_against_the_model_and_asks_nothing_twice(tmp_path: Path) -> None:
    written(tmp_path)
    kept = tmp_path / "kept.jsonl"
    arguments = ["--data", str(tmp_path), "--results", str(tmp_path), "--items", "1", "--tokens", "120", "--no-docs"]
    arguments += ["--kept", str(kept)]

    assert main(arguments) == 0
    first = kept.read_text("utf-8")
    saved = json.loads((tmp_path / "compress-answers.json").read_text("utf-8"))
    assert {row["slice"] for row in saved["windows"]} <= {*ASKED_SLICES}
    assert saved["windows"]
    assert all(row["reply"]["prompt_tokens"] <= 120 for row in saved["windows"] if row["form"] == WHOLE)
    assert main(arguments) == 0
    assert kept.read_text("utf-8") == first
