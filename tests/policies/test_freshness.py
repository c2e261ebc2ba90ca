"""How long answers live: the first rule that matches, and what kind of answer one is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.freshness import KINDS, Freshness, Kind, Lifetime, Rule, kinds_of


def said(content: str | None, *, finish: str = "stop", **more: Any) -> bytes:
    message = {"role": "assistant", "content": content} | more
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}).encode()


NUMBERED = {"id": "d", "type": "function", "function": {"name": "f", "arguments": '{"n": 3}'}}
CALL = [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (said("The lift is on the left."), {"text"}),
        (said("It costs 6 euros."), {"text", "figures"}),
        (said("Es kostet ٦ Euro."), {"text", "figures"}),
        (said('{"city": "Oslo"}'), {"json"}),
        (said(' [1, 2]\n'), {"json", "figures"}),
        (said('{"city": "Oslo"'), {"text"}),
        (said("7"), {"text", "figures"}),
        (said("I'm sorry, but I can't help with that."), {"refusal"}),
        (said(None, refusal="No."), {"refusal"}),
        (said(None, tool_calls=CALL, finish="tool_calls"), {"tool_call"}),
        (said(None, tool_calls=[NUMBERED]), {"tool_call", "figures"}),
        (said(""), {"other"}),
        (b'{"object": "list", "data": [{"embedding": [0.1]}]}', {"other"}),
        (b"\xff", {"other"}),
        (b'data: {"choices":[{"index":0,"delta":{"content":"on the 3rd"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
         {"text", "figures"}),
        (b'{"type":"message","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn"}', {"text"}),
    ],
)  # fmt: skip
def test_kinds(body: bytes, kinds: set[Kind]) -> None:
    assert kinds_of(body) == kinds


def test_of_several_choices_each_counts() -> None:
    one, other = (json.loads(said(text))["choices"][0] for text in ("Yes.", '{"a": 1}'))
    assert kinds_of(json.dumps({"choices": [one, other | {"index": 1}]}).encode()) == {"text", "json", "figures"}


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(said)))
def test_kinds_of_anything(body: bytes) -> None:
    kinds = kinds_of(body)
    assert kinds <= set(KINDS) and kinds - {"figures"}


def life(
    rules: list[Rule], *, model: str = "gpt-4o-mini", tags: tuple[tuple[str, str], ...] = (), body: bytes = b""
) -> Lifetime:
    return Freshness(100, rules).of((model, "served-1"), "chat", tags, body or said("The lift."))


def test_without_rules_everything_lives_as_long_as_the_cache_says() -> None:
    assert life([]) == Lifetime(100, None)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule(), True),
        (Rule(model="gpt-4o*"), True),
        (Rule(model="served-?"), True),
        (Rule(model="gpt-4o"), False),
        (Rule(model="GPT-4o*"), False),
        (Rule(endpoint="chat"), True),
        (Rule(endpoint="responses"), False),
        (Rule(tag="doc=kb-1"), True),
        (Rule(tag="doc=kb-2"), True),
        (Rule(tag="doc=kb-*"), True),
        (Rule(tag="doc=kb"), False),
        (Rule(tag="team=kb-1"), False),
        (Rule(kind="text"), True),
        (Rule(kind="figures"), False),
        (Rule(model="gpt-4o*", tag="doc=*", kind="json"), False),
        (Rule(model="gpt-4o*", tag="doc=*", kind="text", endpoint="chat"), True),
    ],
)
def test_a_rule_matches_where_all_of_it_does(rule: Rule, matches: bool) -> None:
    given_ttl = Rule(rule.model, rule.endpoint, rule.tag, rule.kind, ttl_s=7, semantic_ttl_s=3)
    expected = Lifetime(7, 3) if matches else Lifetime(100, None)
    assert life([given_ttl], tags=(("doc", "kb-1|kb-2"), ("team", "search"))) == expected


def test_the_first_that_matches_wins_and_gives_what_it_says() -> None:
    rules = [Rule(kind="figures", semantic_ttl_s=0), Rule(kind="text", ttl_s=7), Rule(ttl_s=9)]

    assert life(rules, body=said("6 euros")) == Lifetime(100, 0)
    assert life(rules) == Lifetime(7, None)
    assert life(rules, body=said("{}")) == Lifetime(9, None)
