"""Units: joined they are the text, whatever it is; each kind of text is known by its own marks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given

import farthing.compress.squeeze
from farthing.compress.split import split
from farthing.compress.units import Units
from tests.fakes.broken_texts import hostile_texts, long_texts

ROWS = [{"id": i, "name": f"n{i}", "tags": ["a", "b"]} for i in range(12)]
LOG = "\n".join(f"2026-03-01T09:00:{i:02d}.182Z auth[{i}]: INFO heartbeat ok seq={i}" for i in range(30))
TRACE = """Traceback (most recent call last):
  File "/srv/a.py", line 3, in run
    step()
  File "/srv/b.py", line 9, in step
    raise KeyError("tenant")
KeyError: 'tenant'
"""
PROSE = (
    "# The river\n\nThe Tyne is a river in England. It flows east! Does it (as some say) end there? Mr. J. R. Smith"
    ' thinks so.\n\nHe said "it ends. There." and left. The reasons are:\n- the sea\n- the tide\n\n'
    "```\nx = 1. Y = 2\n```\n" + "More is known of it today than ever before, and less is said. " * 4
)


def items(found: Units) -> list[str]:
    return [unit.text for unit in found.units if unit.role == "item"]


@given(hostile_texts() | long_texts())
def test_joined_units_are_the_text(text: str) -> None:
    found = split(text)

    assert "".join(unit.text for unit in found.units) == text
    for i, unit in enumerate(found.units):
        assert unit.text
        assert all(0 <= j < len(found.units) and j != i for j in (*unit.needs, *unit.wants))


@pytest.mark.parametrize(
    "text, kind",
    [
        (json.dumps(ROWS), "rows"),
        (json.dumps({"meta": {"page": 1}, "data": ROWS}, indent=2), "rows"),
        ("\n".join(map(json.dumps, ROWS)), "rows"),
        (json.dumps(ROWS)[:-20], "prose"),
        (
            json.dumps({"results": [{"title": f"T{i}", "text": f"{i} is a place. " * 20} for i in range(4)]}),
            "documents",
        ),
        (json.dumps([f"{i} is a place by the sea. " * 20 for i in range(4)]), "documents"),
        (json.dumps([{"id": i, "text": f"{i} is a place. " * 20} for i in range(2)]), "object"),
        (json.dumps({"a": {"b": "c" * 500, "d": 1, "e": 2}}), "object"),
        ("short", "short"),
        (LOG, "lines"),
        (PROSE, "prose"),
        ("a;b;c\n" + "\n".join(f"{i};row number {i};{i * i}" for i in range(30)), "table"),
        ("| a | b |\n|---|---|\n" + "\n".join(f"| {i} | some words in row {i} |" for i in range(20)), "table"),
        ("name        size\n" + "\n".join(f"file{i:03d}     {i * 1000}" for i in range(30)), "table"),
        ("<!DOCTYPE html><html><body>" + "<p>text <b>bold</b></p>" * 30 + "</body></html>", "markup"),
        ("diff --git a/x b/x\n@@ -1,40 +1,40 @@\n" + "-old line\n+new line\n" * 40, "diff"),
        ("\n".join(f"src/mod{i % 7}/file_{i}.py" for i in range(60)), "lines"),
        ("a" * 4_000_001, "long"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert split(text).kind == kind


@pytest.mark.parametrize("module", [farthing.compress.squeeze, random, json])
def test_program_text_is_left_whole(module: object) -> None:
    text = Path(getattr(module, "__file__", "")).read_text("utf-8")
    found = split(text)

    assert found.kind == "code" and [unit.text for unit in found.units] == [text]


def test_what_is_left_of_an_array_is_json() -> None:
    found = split(json.dumps({"a": [1, {"b": ROWS}], "c": ROWS}, indent=1))
    kept = "".join(unit.text for unit in found.units if unit.role == "fixed")

    assert json.loads(kept) == {"a": [1, {"b": [ROWS[0], ROWS[-1]]}], "c": [ROWS[0], ROWS[-1]]}
    assert len(items(found)) == 20


@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 3000, "[" + "9" * 5000 + "]"])
def test_json_too_deep_or_too_large_is_not_taken(text: str) -> None:
    assert split(text).kind != "rows"


def test_a_traces_frames_need_its_error_and_the_error_its_head() -> None:
    found = split(f"{LOG}\n{TRACE}{LOG}").units
    at = next(i for i, unit in enumerate(found) if unit.text.startswith("KeyError"))
    head = next(i for i, unit in enumerate(found) if unit.text.startswith("Traceback"))
    frame = next(i for i, unit in enumerate(found) if "line 3" in unit.text)

    assert found[at].needs == (head,) and at - 1 in found[at].wants
    assert found[frame].needs == (head, at)


def test_sentences_titles_and_lists() -> None:
    found = split(PROSE)
    texts = [unit.text.strip() for unit in found.units]
    by_text = dict(zip(texts, found.units, strict=True))

    assert by_text["# The river"].role == "fixed"
    assert "Mr. J. R. Smith thinks so." in " ".join(text for text in texts if "Smith" in text)
    assert by_text["It flows east!"].wants == (texts.index("The Tyne is a river in England."),)
    assert any(text.startswith('He said "it ends. There." and left.') for text in texts)
    assert by_text["- the tide"].needs[-1] == texts.index("The reasons are:")
    assert "```\nx = 1. Y = 2\n```" in texts


def test_a_title_belongs_to_its_passage_only() -> None:
    text = "\n\n".join(f"[doc {i}]\nFirst sentence of {i}. Second sentence of it." for i in range(12))
    found = split(text).units
    heads = [i for i, unit in enumerate(found) if unit.role == "head"]

    assert len(heads) == 12
    assert all(unit.needs == (heads[unit.passage],) for unit in found if unit.role == "item")


def test_rows_of_a_table_carry_their_cells() -> None:
    text = "name,size,when\n" + "\n".join(f'"n, {i}",{i}.5,2026-01-{i:02d}' for i in range(1, 30))
    found = split(text).units

    assert found[3].fields == {"name": "n, 3", "size": 3.5, "when": "2026-01-03"}
    assert found[3].needs == (0,) and found[0].role == found[1].role == found[-1].role == "fixed"
