"""Traps made from real prompts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.accept import spoken
from farthing.policies.adversary import KINDS, edited, with_last_text
from farthing.proxy.text import normalise, signals


@pytest.mark.parametrize(
    ("kind", "text", "changed"),
    [
        ("number", "Book 4 seats.", "numbers"),
        ("name", "Write to Anna today.", "names"),
        ("negation", "Is it true?", "negations"),
        ("negation", "It isn't true.", "negations"),
        ("unit", "How heavy is a parcel of 5 kg?", "quantities"),
        ("date", "Are you open on Monday?", "dates"),
    ],
)
def test_one_thing_is_changed(kind: str, text: str, changed: str) -> None:
    edit = edited(text, kind, random.Random(1))
    assert edit is not None and edit.expect == "other"
    assert getattr(signals(edit.text), changed) != getattr(signals(text), changed)


def test_a_text_without_the_thing_gives_no_trap() -> None:
    for kind in ("number", "name", "unit", "date"):
        assert edited("how do i top up my card?", kind, random.Random(1)) is None


def test_an_inversion_stays_a_question() -> None:
    edit = edited("How do I top up?", "negation", random.Random(1))
    assert edit is not None and edit.text == "How do I not top up?"


def test_the_same_to_a_reader() -> None:
    for seed in range(20):
        edit = edited("Order 66 for Ann", "unicode", random.Random(seed))
        if edit is not None:
            assert edit.expect == "same"
            seen = normalise(edit.text).translate(str.maketrans("аеоср", "aeocp"))
            assert seen == "Order 66 for Ann"


@given(st.text(max_size=80), st.sampled_from(KINDS), st.integers(0, 99))
def test_it_never_fails_and_always_changes(text: str, kind: str, seed: int) -> None:
    edit = edited(text, kind, random.Random(seed))
    assert edit is None or (edit.text != text and edit.kind == kind)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "old"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "old"}]}]},
        {"input": "old"},
        {"prompt": "old"},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "old"}]}]},
    ],
)
def test_the_last_text_is_put_in_its_place(body: dict[str, Any]) -> None:
    found = with_last_text(body, "new")
    assert found is not None and spoken(found) == "new" and spoken(body) == "old"


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": [{"role": "tool", "content": "x"}]}])
def test_where_there_is_none_nothing_is_made(body: dict[str, Any]) -> None:
    assert with_last_text(body, "new") is None
