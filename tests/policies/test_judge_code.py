"""The code judge, as far as nothing is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.answer import Answer
from farthing.policies.judge_code import Code, Program
from farthing.policies.judges import JudgeCase, Score


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Here you are:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.", 1.0),
        ("def add(a, b):\n    return a + b", 1.0),
        ("```\nx = 1\n```\nand\n```\ny = x + 1\n```", 1.0),
        ("```python\ndef add(a, b)\n    return a + b\n```", 0.0),
        ("I can't help with that.", 0.0),
        ("Yes", 0.0),
        ("42", 0.0),
        ("", 0.0),
        ("x = '\0'", 0.0),
        ("(" * 5_000, 0.0),
        ("print('a\\d')", 1.0),  # a warning of the answer's is not ours
        ("x = 1\n" * 50_000, 0.0),
    ],
)
def test_what_parses(text: str, value: float) -> None:
    assert Code().judge(JudgeCase({}, Answer(text))).value == value


def test_tests_must_be_run_and_syntax_is_known_before() -> None:
    judge = Code(tests="assert add(1, 2) == 3")

    assert judge.judge(JudgeCase({}, Answer("def add(a, b): return a + b"))).value is None
    assert judge.judge(JudgeCase({}, Answer("def add(a, b: return"))).value == 0.0


def test_the_program_holds_the_suites_tests_and_the_references() -> None:
    case = JudgeCase({}, Answer("```python\nx = 1\n```"), Answer("```python\nassert x == 1\n```"))

    assert Code(tests="assert x", reference_tests=True).program(case) == Program(
        "x = 1\n", "assert x\nassert x == 1\n"
    )  # fmt: skip
    assert Code(reference_tests=True).program(case._replace(reference=None)) == Score(None, "no reference, so no tests")


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert Code().judge(JudgeCase({}, Answer(text))).value in (0.0, 1.0)
