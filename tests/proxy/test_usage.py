"""Usage in disjoint buckets, whoever counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.usage import Usage, from_payload

COUNTS = st.one_of(st.none(), st.integers(-5, 10**9 + 5), st.text(max_size=2), st.booleans(), st.floats())
NAMES = [
    "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "cache_write_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
]  # fmt: skip
DETAILS = ["prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"]
PAYLOADS = st.dictionaries(st.sampled_from(NAMES), COUNTS) | st.dictionaries(
    st.sampled_from(NAMES + DETAILS), COUNTS | st.dictionaries(st.sampled_from(NAMES), COUNTS)
)


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


@given(st.sampled_from(["chat", "completions", "embeddings", "responses", "messages"]), PAYLOADS)
def test_buckets_are_disjoint_and_their_sum_is_the_providers(endpoint: str, payload: dict[str, Any]) -> None:
    usage = from_payload(endpoint, payload)
    if usage is None:
        return
    assert min(usage.fresh, usage.cached, usage.cache_write, usage.output, usage.reasoning) >= 0
    if endpoint == "messages":
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        assert usage.tokens_in == sum(payload.get(name) or 0 for name in names)
    else:
        given, made = ("input", "output") if endpoint == "responses" else ("prompt", "completion")
        assert usage.tokens_in == (payload.get(f"{given}_tokens") or 0)
        assert usage.tokens_out == (payload.get(f"{made}_tokens") or 0)
