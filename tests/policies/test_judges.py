"""Judges: what each calls good."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.answer import Answer, Call
from farthing.policies.judges import FREE, JudgeCase, judge_of
from farthing.proxy.errors import ConfigFault

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ASKS_JSON = {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}


def score(table: dict[str, Any], answer: str, reference: str | None = None, request: Any = None, **more: Any) -> Any:
    case = JudgeCase(request or {}, Answer(answer, **more), None if reference is None else Answer(reference))
    return judge_of(table).judge(case).value


@pytest.mark.parametrize(
    ("table", "answer", "reference", "value"),
    [
        ({"judge": "exact"}, " yes ", "yes", 1.0),
        ({"judge": "exact"}, "Yes", "yes", 0.0),
        ({"judge": "text"}, "**Yes.**", "yes", 1.0),
        ({"judge": "text"}, "The answer is: Paris", "paris", 1.0),
        ({"judge": "number"}, "It costs 1,200.50 in all", "1200.5", 1.0),
        ({"judge": "number"}, "-5", "5", 0.0),
        ({"judge": "number", "tolerance": 0.5}, "first 3, then 7.4", "7", 1.0),
        ({"judge": "number", "relative": 0.01}, "102", "100", 0.0),
        ({"judge": "number", "relative": 0.02}, "102", "100", 1.0),
        ({"judge": "number"}, "none", "7", 0.0),
        ({"judge": "number"}, "7", "none", None),
        ({"judge": "labels"}, "b, a", "A,b", 1.0),
        ({"judge": "labels"}, "a, b", "a", 0.5),
        ({"judge": "labels", "labels": ["a", "b"]}, "c", "a", 0.0),
        ({"judge": "agree"}, "Paris", "The answer is Paris.", 1.0),
        ({"judge": "agree"}, '{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1.0),
        ({"judge": "agree"}, "42", "43", 0.0),
        ({"judge": "agree"}, "x", None, None),
        ({"judge": "exact"}, "x", None, None),
        ({"judge": "refusal"}, "I'm sorry, but I can't help with that.", None, 0.0),
        ({"judge": "refusal"}, "I can't help with that.", "I cannot assist with that.", 1.0),
        ({"judge": "refusal"}, "Paris", None, 1.0),
        ({"judge": "format"}, "  ", None, 0.0),
        ({"judge": "format", "max_chars": 3}, "four", None, 0.0),
        ({"judge": "format", "must": ["^[A-Z]"]}, "a", None, 0.0),
        ({"judge": "format", "must_not": ["(?i)as an ai"]}, "As an AI, no", None, 0.0),
        ({"judge": "format", "must": ["^[A-Z]"], "must_not": ["x"]}, "Abc", None, 1.0),
    ],
)
def test_what_is_good(table: dict[str, Any], answer: str, reference: str | None, value: float | None) -> None:
    assert score(table, answer, reference) == value


def test_a_pattern_that_does_not_come_to_an_end_counts_as_not_met() -> None:
    endless, text = "^(a|aa)+$", "a" * 200 + "!"
    assert score({"judge": "format", "must_not": [endless]}, text) == 0.0
    assert score({"judge": "format", "must": [endless]}, text) == 0.0


def test_json_is_judged_by_the_requests_schema() -> None:
    assert score({"judge": "json", "equal": False}, '{"a": 1}', request=ASKS_JSON) == 1.0
    assert score({"judge": "json", "equal": False}, '{"a": "1"}', request=ASKS_JSON) == 0.0
    assert score({"judge": "json"}, '{"a": 1}', '{"a": 1.0}', request=ASKS_JSON) == 1.0
    assert score({"judge": "json"}, '{"a": 1}', '{"a": 2}', request=ASKS_JSON) == 0.0
    assert score({"judge": "json"}, "prose", "prose") == 0.0


def test_a_cut_answer_is_not_well_formed_and_a_call_is_not_empty() -> None:
    assert score({"judge": "format"}, "half an", finish="length") == 0.0
    assert score({"judge": "format"}, "", calls=(Call("f", "{}"),)) == 1.0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"judge": "nmber"}, "did you mean 'number'"),
        ({"judge": "number", "tolerence": 1}, "did you mean 'tolerance'"),
        ({"judge": "number", "tolerance": "1"}, "must be a float"),
        ({"judge": "number", "tolerance": True}, "must be a float"),
        ({"judge": "labels", "labels": "a"}, "list of texts"),
        ({"judge": "format", "must": ["("]}, "no regular expression"),
        ({"judge": "agree", "embed": 1}, "unknown key 'embed'"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_nearest(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigFault, match=said.replace("(", r"\(")):
        judge_of(table)


@given(st.sampled_from(sorted(FREE)), st.text(max_size=60), st.none() | st.text(max_size=60))
def test_a_score_lies_between_bad_and_good_and_its_reason_holds_no_answer(
    name: str, answer: str, reference: str | None
) -> None:
    case = JudgeCase({}, Answer(answer), None if reference is None else Answer(reference))
    found = judge_of({"judge": name}).judge(case)
    assert found.value is None or 0 <= found.value <= 1
    assert found.cost_pico == 0 and found.reason
