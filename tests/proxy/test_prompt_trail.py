"""Prefixes of prompts as providers tell them apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.provider_cache import NO_CACHE, ProviderCache, provider_cache
from farthing.proxy.prompt_trail import COARSE_CHARS, FINE_CHARS, PIECE_CHARS, Trail, lasting, trail_of

OPENAI, CLAUDE = provider_cache("gpt-4o"), provider_cache("claude-sonnet-4-5")
LASTING = -8066954428341545825
MARK = {"cache_control": {"type": "ephemeral"}}


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("system", "user", "assistant")
    return {"messages": [{"role": roles[at % 3], "content": text} for at, text in enumerate(texts)]} | more


def trail(payload: dict[str, Any], endpoint: str = "chat", cache: ProviderCache = OPENAI, scope: str = "me") -> Trail:
    found = trail_of(endpoint, payload, cache, (scope,))
    assert found is not None
    return found


def common(one: Trail, other: Trail) -> int:
    """How many prefixes are the same."""
    return sum(left == right for left, right in zip(one.keys, other.keys, strict=False))


TEXTS = st.lists(st.text(max_size=2000), min_size=1, max_size=4)


@given(TEXTS, TEXTS)
def test_a_prompt_that_grows_keeps_all_its_prefixes(first: list[str], more: list[str]) -> None:
    short, long = trail(chat("x", *first)), trail(chat("x", *first, *more))
    assert long.keys[: len(short.keys)] == short.keys
    assert long.ends == sorted(long.ends)
    assert len(long.keys) == len(long.ends)


@pytest.mark.parametrize("at", [0, 511, 512, 1300])
def test_a_difference_hides_no_more_than_a_piece(at: int) -> None:
    text = "abcd" * 500
    other = text[:at] + "#" + text[at + 1 :]
    assert common(trail(chat(text)), trail(chat(other))) == at // PIECE_CHARS


LONG = "".join(f"{number:08d}" for number in range(FINE_CHARS // 8 + 5 * COARSE_CHARS))


@pytest.mark.parametrize("texts", [(LONG,), ("x" * 700, LONG), (LONG[: FINE_CHARS - 100], LONG[FINE_CHARS - 100 :])])
def test_behind_a_megabyte_pieces_are_coarse(texts: tuple[str, ...]) -> None:
    whole = trail(chat(*texts))
    assert len(whole.keys) <= FINE_CHARS / PIECE_CHARS + len(LONG[FINE_CHARS:]) / COARSE_CHARS + 4
    grown, other = trail(chat(*texts, "more")), trail(chat(*texts[:-1], texts[-1][:-10] + "#" * 10))
    assert grown.keys[: len(whole.keys)] == whole.keys
    assert len(whole.keys) - common(whole, other) <= 1
    cut = trail(chat(*texts[:-1], texts[-1][: len(texts[-1]) // 2]))
    assert common(whole, cut) >= len(cut.keys) - 1
    early = trail(chat(*texts[:-1], "#" + texts[-1][1:]))
    assert common(whole, early) == (len(trail(chat(*texts[:-1])).keys) if texts[:-1] else 0)
    assert len(trail(chat(*texts), cache=CLAUDE, endpoint="messages").keys) == len(texts)


@pytest.mark.parametrize(
    "other",
    [
        chat("a", "b", tools=[{"type": "function", "function": {"name": "f"}}]),
        chat("a", "b", response_format={"type": "json_object"}),
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
    ],
)
def test_what_stands_before_changes_all_behind_it(other: dict[str, Any]) -> None:
    assert common(trail(chat("a", "b")), trail(other)) == 0


def test_what_is_not_the_prompt_changes_nothing() -> None:
    plain = chat("a", "b")
    assert trail(plain | {"temperature": 1, "user": "u", "stream": True, "max_tokens": 5}) == trail(plain)
    assert trail(plain, scope="you").keys != trail(plain).keys


def messages(*marked: int, ttl: str = "", text: str = "t") -> dict[str, Any]:
    """Five turns of one block; those of these numbers carry a mark."""
    mark = {"cache_control": MARK["cache_control"] | ({"ttl": ttl} if ttl else {})}
    return {
        "system": "s",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": f"{text}{n}"} | (mark if n in marked else {})]}
            for n in range(5)
        ],
    }


def test_marks_are_places_and_no_content() -> None:
    one, other = trail(messages(1), "messages", CLAUDE), trail(messages(4), "messages", CLAUDE)
    assert one.keys == other.keys
    assert one.marks == [(2, 300.0)]  # behind the system prompt and two turns
    assert other.marks == [(5, 300.0)]
    assert trail(messages(4, ttl="1h"), "messages", CLAUDE).marks == [(5, 3600.0)]
    assert trail(messages() | MARK, "messages", CLAUDE).marks == [(5, 300.0)]
    assert trail(messages(), "messages", CLAUDE).marks == []
    texts = {"system": "s", "messages": [{"role": "user", "content": f"t{n}"} for n in range(5)]}
    assert trail(texts, "messages", CLAUDE).keys == one.keys  # a lone text in a list or not


def test_tool_choice_and_thinking_change_the_messages_part_only() -> None:
    plain = messages(1) | {"tools": [{"name": "f", "input_schema": {}}]}
    other = plain | {"thinking": {"type": "enabled", "budget_tokens": 9}}
    assert common(trail(plain, "messages", CLAUDE), trail(other, "messages", CLAUDE)) == 2


def test_openais_breakpoints() -> None:
    cache = provider_cache("gpt-5.6")
    part = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    asked = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "b"}]}]}
    assert trail(asked, cache=cache).marks is None
    assert trail(asked | {"prompt_cache_options": {"mode": "explicit"}}, cache=cache).marks == [(0, 1800.0)]
    assert trail(chat("a"), cache=cache).ttl_s == 1800
    assert trail(chat("a", prompt_cache_retention="24h")).ttl_s == 86_400


def test_an_image_weighs_less_than_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    seen = trail({"messages": [{"role": "user", "content": [{"type": "text", "text": "a" * 4000}, image]}]})
    assert seen.ends[-1] < 8000


@pytest.mark.parametrize(
    ("endpoint", "payload"),
    [
        ("embeddings", {"input": "a" * 5000}),
        ("completions", {"prompt": ["a", "b"]}),
        ("completions", {}),
        ("chat", {"messages": "a"}),
        ("chat", {"messages": []}),
        ("chat", {}),
    ],
)
def test_what_has_no_trail(endpoint: str, payload: dict[str, Any]) -> None:
    found = trail_of(endpoint, payload, OPENAI, ("me",))
    assert found is None or endpoint == "chat"
    assert trail_of("chat", chat("a"), NO_CACHE, ("me",)) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.sampled_from(["chat", "messages", "responses", "completions"]),
    st.dictionaries(
        st.sampled_from(["messages", "input", "prompt", "system", "tools", "instructions", "prompt_cache_options"]),
        JSON | st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON, "cache_control": JSON}), max_size=3),
    ),
)
def test_any_json_has_a_trail_or_none(endpoint: str, payload: dict[str, Any]) -> None:
    for cache in (OPENAI, CLAUDE):
        found = trail_of(endpoint, payload, cache, ("me",))
        if found is not None:
            assert len(found.keys) == len(found.ends) > 0
            assert all(mark.at < len(found.keys) for mark in found.marks or ())
            assert found.keys == trail(payload, endpoint, cache).keys


def test_nesting_too_deep_has_none() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert trail_of("chat", {"messages": [{"role": "user", "content": [{"type": "x", "y": deep}]}]}, OPENAI, ()) is None


@given(TEXTS, TEXTS)
def test_lasting_keys_tell_prompts_apart_as_python_own_do(one: list[str], other: list[str]) -> None:
    long = [chat("x" * 600, *texts) for texts in (one, other)]
    own, kept = ([trail_of("chat", body, OPENAI, ("me", "m"), made) for body in long] for made in (hash, lasting))
    assert own[0] and own[1] and kept[0] and kept[1]
    assert common(own[0], own[1]) == common(kept[0], kept[1])
    assert own[0].ends == kept[0].ends


def test_lasting_keys_are_the_same_in_every_process() -> None:
    assert lasting(("tenant", "m")) == LASTING
    assert lasting(("tenan", "tm")) != LASTING
    assert -(2**63) <= lasting((LASTING, b"\xff\xfe")) < 2**63
    assert lasting((1, "\ud800")) == lasting((1, "\ud800"))
