"""Squeeze: whole units in their order, within the target, the needed ones first, and what must not be touched isn't."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.compress.split import split
from farthing.compress.squeeze import Squeezed, Target, squeeze
from tests.compress.test_split import LOG, PROSE, TRACE
from tests.fakes.broken_texts import hostile_texts, long_texts
from tests.fakes.examples import examples

ROOT = Path(__file__).parent.parent.parent
HALF = Target(ratio=0.5)
RATIOS = st.floats(0.0, 1.0)


def count(text: str) -> int:
    """A token is four characters, begun ones too."""
    return -(-len(text) // 4)


def squeezed(text: str, question: str, target: Target = HALF) -> Squeezed:
    return squeeze(text, question, target, count)


def is_made_of(short: str, text: str) -> bool:
    """Whether the short text is the text with pieces left out, character for character."""
    rest = iter(text)
    return all(char in rest for char in short)


@settings(max_examples=examples(200))
@given(long_texts() | hostile_texts(), hostile_texts(), RATIOS)
def test_any_text_any_question(text: str, question: str, ratio: float) -> None:
    found = squeezed(text, question, Target(ratio=ratio))

    assert found.tokens_before == count(text) and found.tokens_after == count(found.text)
    assert found.tokens_after <= found.tokens_before
    if found.reason:
        assert found.text == text and not found.removed and not found.notice
    else:
        body = found.text.removeprefix(found.notice)
        assert found.text.startswith(found.notice) and found.removed
        assert len(body) + sum(map(len, found.removed)) == len(text)
        assert is_made_of(body, text)
        assert squeezed(found.text, question, Target(ratio=ratio)).reason == "squeezed before"


@given(long_texts(), RATIOS)
def test_the_target_holds_but_for_what_is_fixed(text: str, ratio: float) -> None:
    found = squeezed(text, "what about node-29?", Target(ratio=ratio))
    fixed = sum(count(unit.text) for unit in split(text).units if unit.role == "fixed")

    if not found.reason:
        assert found.tokens_after <= max(ratio * found.tokens_before, fixed + 20)


@given(long_texts())
def test_it_is_the_same_each_time(text: str) -> None:
    assert squeezed(text, "error in alpha") == squeezed(text, "error in alpha")


def test_it_is_the_same_under_any_hash_seed() -> None:
    """What was decided once is decided so again by another process: the provider's prompt cache depends on it."""
    code = (
        "import json; from tests.compress.test_squeeze import *; import hashlib;"
        "texts = [squeezed(text, question).text for text in (DOCS, json.dumps(ROWS), LOG) for question in"
        " ('Where was the director of The Long Road born?', 'Which order went wrong?', 'made in the market of Corby')];"
        "print(hashlib.sha256(repr(texts).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }

    assert len(digests) == 1


@pytest.mark.parametrize(
    "target, budget",
    [
        (Target(), 1000),
        (Target(ratio=0.4), 400),
        (Target(tokens=300), 300),
        (Target(ratio=0.4, tokens=300), 300),
        (Target(ratio=0.2, tokens=300), 200),
        (Target(far=0.5), 600),
        (Target(far=1.0), 200),
        (Target(ratio=0.1, far=0.5), 100),
        (Target(ratio=-1.0, tokens=-5), 0),
    ],
)
def test_targets(target: Target, budget: int) -> None:
    assert target.budget(1000) == budget


def test_going_farther_leaves_less() -> None:
    left = [squeezed(LOG * 5, "what happened", Target(far=step / 10)).tokens_after for step in range(1, 11)]

    assert left == sorted(left, reverse=True) and left[-1] < 0.25 * count(LOG * 5)


ROWS = [
    {"id": f"ord_{i:05x}", "state": "shipped", "total": 20 + i % 9, "who": f"user{i}@example.org"} for i in range(80)
]
ROWS[50] |= {"state": "failed"}
ROWS[60] |= {"price": 977}
LENGTHY = (
    "Not one sentence of this is as short as such a target would need it to be. " * 8 + "The pump is as long as that."
)
DOCS = "\n\n".join(
    f"[doc {i}] {title}\n{title} is a place. {body} Nothing more is known about it. Many people go there."
    for i, (title, body) in enumerate(
        [
            ("Oakham", "It lies on a hill."),
            ("Ashby", "The film The Long Road was shot in Ashby."),
            ("Corby", "Steel was made there."),
            ("The Long Road", "The Long Road is a film by Ann Marsh."),
            ("Ann Marsh", "She was born in Bruges."),
            ("Melton", "Its pies are famous."),
            ("Stamford", "The Great North Road passes by."),
            ("Rugby", "A game was invented there."),
        ]
    )
)


@pytest.mark.parametrize(
    "text, question, needed",
    [
        (json.dumps(ROWS), "Who ordered ord_00021?", "user33@example.org"),
        (json.dumps(ROWS), "Which order went wrong?", '"failed"'),
        (json.dumps(ROWS), "Which order has the highest price?", "977"),
        ("\n".join(map(json.dumps, ROWS)), "Who ordered ord_00021?", "user33@example.org"),
        (f"{LOG}\n{TRACE}{LOG}", "Why did it crash?", "KeyError: 'tenant'"),
        (f"{LOG}\n{TRACE}{LOG}", "Why did it crash?", "Traceback (most recent call last):"),
        (f"{LOG}\n{TRACE}{LOG}", "Why did it crash?", 'raise KeyError("tenant")'),
        (f"{LOG}\n2026-03-01T09:01:00Z db[1]: INFO leader is node 4\n{LOG}", "Anything unusual?", "leader is node 4"),
        (DOCS, "Where was the director of The Long Road born?", "She was born in Bruges."),
        (DOCS, "What was made in Corby?", "[doc 2] Corby"),
    ],
)
def test_what_the_question_needs_stays(text: str, question: str, needed: str) -> None:
    found = squeezed(text, question, Target(ratio=0.4))

    assert found.reason == "" and found.tokens_after <= 0.4 * found.tokens_before
    assert needed in found.text


def test_what_is_left_of_json_is_json() -> None:
    found = squeezed(json.dumps({"data": ROWS}, indent=2), "Which order went wrong?", Target(ratio=0.3))
    left = json.loads(found.text.removeprefix(found.notice))["data"]

    assert ROWS[50] in left and all(row in ROWS for row in left)
    assert found.notice == f"[{len(left)} of 80 rows shown]\n" and (found.kept, found.units) == (len(left), 80)


@pytest.mark.parametrize("indent", [None, 2])
def test_documents_in_json_are_chosen_whole(indent: int | None) -> None:
    found = [passage.partition("\n") for passage in DOCS.split("\n\n")]
    documents = [{"title": title, "text": f"{text} It is said to be so. " * 2} for title, _, text in found]
    short = squeezed(json.dumps({"hits": documents}, indent=indent), "How many people saw steel made in Corby?")
    left = json.loads(short.text.removeprefix(short.notice))["hits"]

    assert documents[2] in left and all(one in documents for one in left)
    assert short.notice == f"[{len(left)} of 8 documents shown]\n" and len(left) < 5


@pytest.mark.parametrize(
    "text, question, reason",
    [
        (json.dumps(ROWS), "How many orders are there?", "the question needs all of it"),
        (PROSE, "Summarise the text.", "the question needs all of it"),
        (LOG, "", "no question"),
        (DOCS, "Wo wurde der Regisseur geboren?", "the question's words don't tell what to keep"),
        (json.dumps(ROWS), "Who is the customer?", "the question's words don't tell what to keep"),
        (PROSE, " \n", "nothing to be gained"),
        ("too short", "what?", "short: left alone"),
        ("def f(x):\n    return x\n\n\n" * 30, "what does f do?", "code: left alone"),
        ("diff --git a/x b/x\n@@ -1,40 +1,40 @@\n" + "-old\n+new\n" * 60, "what changed?", "diff: left alone"),
        ("<ul>" + "<li>item</li>" * 50 + "</ul>", "which item?", "markup: left alone"),
        (LENGTHY, "What about the pump?", "the target is too small for any of it"),
        ("[3 of 9 rows shown]\n" + "\n".join(map(json.dumps, ROWS)), "which failed?", "squeezed before"),
    ],
)
def test_what_is_left_alone(text: str, question: str, reason: str) -> None:
    found = squeezed(text, question, Target(ratio=0.1))

    assert (found.text, found.reason, found.removed) == (text, reason, ())


SENTENCES = [f"Fact number {n} says that item {n} weighs {n * 7} grams and costs {n * 3} pounds." for n in range(1, 13)]


def versions(order: list[int]) -> str:
    body = " ".join(SENTENCES)
    return "\n\n".join(f"[doc v{v}, updated 2026-0{v}-01]\n{body} The limit in force is {v}00 units." for v in order)


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [3, 4, 1, 2], [4, 3, 2, 1]])
def test_of_versions_the_newest_stays_whole_and_the_others_where_they_differ(order: list[int]) -> None:
    text = versions(order)
    found = squeezed(text, "According to the latest version, what is the limit in force?", Target(ratio=0.9))
    newest = found.text.partition("[doc v4")[2].partition("[doc")[0]

    assert all(sentence in newest for sentence in SENTENCES)
    assert all(found.text.count(sentence) == 1 for sentence in SENTENCES)
    assert all(f"{v}00 units" in found.text for v in order)
    assert found.tokens_after < 0.5 * found.tokens_before


def test_an_older_versions_difference_goes_first() -> None:
    found = squeezed(versions([1, 2, 3, 4]), "what is the limit in force?", Target(ratio=0.24))

    assert "400 units" in found.text and "[doc v4" in found.text and "100 units" not in found.text


def test_without_a_question_only_repeats_go() -> None:
    chunks = "\n\n".join(f"[chunk {i}]\n{' '.join(SENTENCES[i : i + 6])}" for i in range(7))
    found = squeezed(chunks, "", Target(ratio=0.1))

    assert all(found.text.count(sentence) == 1 for sentence in SENTENCES)
    assert 0.2 < found.tokens_after / found.tokens_before < 0.5


def test_lines_alike_do_not_fill_the_budget() -> None:
    rng = random.Random(3)
    lines = [f"the pump at station {rng.randrange(9)} reports pressure low again" for _ in range(60)]
    lines[30] = "the valve behind the pump was closed by a visitor"
    found = squeezed("\n".join(f"10:00:{i % 60:02d} {line}" for i, line in enumerate(lines)), "pump pressure", HALF)

    assert lines[30] in found.text
