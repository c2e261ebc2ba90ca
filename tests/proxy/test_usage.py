"""Usage in disjoint buckets, whoever counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.usage import EXTRAS, Usage, UsageSource, from_payload, tier_of, total

COUNTS = st.one_of(
    st.none(), st.integers(-5, 10**9 + 5) | st.integers(0, 30), st.text(max_size=2), st.booleans(), st.floats()
)
NAMES = [
    "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "cache_write_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "total_tokens", "audio_tokens",
    "image_tokens", "prompt_cache_hit_tokens", "ephemeral_1h_input_tokens", "thinking_tokens", "web_search_requests",
]  # fmt: skip
MORE = ["cache_creation", "server_tool_use", "cached_tokens_details", "service_tier", "speed", "inference_geo"]
DETAILS = ["prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"]
PARTS = st.dictionaries(st.sampled_from(NAMES), COUNTS, max_size=5)
PAYLOADS = PARTS | st.dictionaries(st.sampled_from(NAMES + DETAILS + MORE), COUNTS | PARTS, max_size=8)


@pytest.mark.parametrize(
    ("endpoint", "payload", "expected"),
    [
        ("chat", {"prompt_tokens": 10, "completion_tokens": 5}, Usage(fresh=10, output=5)),
        (
            "chat",
            {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 256, "accepted_prediction_tokens": 0},
            },
            Usage(fresh=86, cached=1920, output=44, reasoning=256),
        ),
        (
            "chat",
            {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 30}},
            Usage(fresh=50, cached=20, cache_write=30),
        ),
        ("chat", {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 99}}, Usage(cached=10)),
        ("chat", {"prompt_tokens": 10, "prompt_tokens_details": None, "completion_tokens": None}, Usage(fresh=10)),
        ("embeddings", {"prompt_tokens": 8, "total_tokens": 8}, Usage(fresh=8)),
        (
            "responses",
            {
                "input_tokens": 75,
                "input_tokens_details": {"cached_tokens": 25},
                "output_tokens": 1186,
                "output_tokens_details": {"reasoning_tokens": 1024},
            },
            Usage(fresh=50, cached=25, output=162, reasoning=1024),
        ),
        (
            "messages",
            {
                "input_tokens": 21,
                "cache_creation_input_tokens": 188,
                "cache_read_input_tokens": 1800,
                "output_tokens": 393,
            },
            Usage(fresh=21, cached=1800, cache_write=188, output=393),
        ),
        ("embeddings", {"total_tokens": 5}, Usage(fresh=5)),
        ("embeddings", {"total_tokens": 5, "completion_tokens": 2}, Usage(fresh=3, output=2)),
        (
            "embeddings",
            {"total_tokens": 1, "completion_tokens": 2},
            Usage(fresh=0, output=2, source=UsageSource.CONTRADICTED),
        ),
        ("embeddings", {"total_tokens": -1}, None),
        ("chat", {}, None),
        ("chat", {"prompt_tokens": -1}, None),
        ("chat", {"prompt_tokens": "12"}, None),
        ("chat", {"prompt_tokens": True}, None),
        ("chat", {"prompt_tokens": 5.0}, None),
        ("chat", {"prompt_tokens": 10**9 + 1}, None),
        ("chat", {"prompt_tokens": 10**9}, Usage(fresh=10**9)),
        ("chat", {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}}, None),
        ("chat", {"prompt_tokens": 5, "prompt_tokens_details": "?"}, Usage(fresh=5)),
        ("messages", {"output_tokens": 5}, None),
        ("messages", {"input_tokens": 5, "cache_read_input_tokens": None}, Usage(fresh=5)),
        ("responses", {"prompt_tokens": 5}, None),
    ],
)
def test_providers_payloads(endpoint: str, payload: dict[str, Any], expected: Usage | None) -> None:
    assert from_payload(endpoint, payload) == expected


RECORDED = json.loads((Path(__file__).parent / "usage_payloads.json").read_text("utf-8"))


@pytest.mark.parametrize("recorded", RECORDED, ids=[one["comment"][:60] for one in RECORDED])
def test_what_providers_really_send(recorded: dict[str, Any]) -> None:
    usage = from_payload(recorded["endpoint"], recorded["usage"], recorded.get("tier", ""))
    assert usage == Usage(**recorded["expected"])
    if "total_tokens" in recorded["usage"]:
        assert usage.tokens_in + usage.tokens_out == recorded["usage"]["total_tokens"]


@given(st.sampled_from(["chat", "completions", "embeddings", "responses", "messages"]), PAYLOADS, st.text(max_size=9))
def test_buckets_are_disjoint_and_their_sum_is_the_providers(endpoint: str, payload: dict[str, Any], tier: str) -> None:
    usage = from_payload(endpoint, payload, tier)
    if usage is None:
        return
    counts = [getattr(usage, name) for name in ("fresh", "cached", "cache_write", "output", "reasoning", *EXTRAS)]
    assert min(counts) >= 0
    assert usage.tokens_in + usage.tokens_out + usage.searches == sum(counts)
    whole = payload.get("total_tokens")
    if endpoint == "messages":
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        assert usage.tokens_in == sum(payload.get(name) or 0 for name in names)
        assert usage.tokens_out == (payload.get("output_tokens") or 0)
        return
    given, made = ("input", "output") if endpoint == "responses" else ("prompt", "completion")
    told = (payload.get(f"{given}_tokens") or 0) + (payload.get(f"{made}_tokens") or 0)
    if type(whole) is int and told < whole <= 10**9:
        told = whole
    assert usage.tokens_in + usage.tokens_out == told
    below = type(whole) is int and whole != 0 and whole < told
    assert usage.source is (UsageSource.CONTRADICTED if below else UsageSource.UPSTREAM)
    if endpoint != "embeddings":
        assert usage.tokens_in == (payload.get(f"{given}_tokens") or 0)


KEYS = st.sampled_from(NAMES + DETAILS + MORE) | st.text(max_size=3)
ABSURD = st.recursive(
    COUNTS, lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=6
)


@given(
    st.sampled_from(["chat", "responses", "messages", "embeddings", "?"]),
    st.dictionaries(KEYS, ABSURD, max_size=6),
    COUNTS | st.lists(COUNTS, max_size=1),
)
def test_absurd_payloads_never_raise(endpoint: str, payload: dict[str, Any], tier: object) -> None:
    from_payload(endpoint, payload, tier)
    assert len(tier_of(tier)) <= 32


def test_a_tiers_many_names() -> None:
    standard = ["", None, 5, "default", "Standard", " auto ", "on_demand", "standard_only"]
    assert [tier_of(name) for name in standard] == [""] * len(standard)
    assert tier_of("Priority") == "priority"


def test_all_together_keep_every_bucket_and_a_shared_tier() -> None:
    one, other = Usage(*range(1, 6), cache_write_1h=6, audio_in=7, searches=1, tier="flex"), Usage(1, tier="flex")
    assert total([one, other]) == one._replace(fresh=2)
    assert total([one, Usage(1)]).tier == "mixed"
    assert total([]) == Usage()
    assert total([one, Usage(source=UsageSource.COUNTED, tier="flex")]).source is UsageSource.COUNTED
