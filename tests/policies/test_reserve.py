"""What a request may use: the bounds it sets itself, what was learnt, images apart."""

from __future__ import annotations

from random import Random
from string import printable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.reserve import Learned, estimate
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage


def estimated(endpoint: str = "chat", learned: Learned | None = None, **payload: Any) -> Usage:
    body = orjson.dumps(payload)
    return estimate(endpoint, payload, body, "m", learned or Learned())


@pytest.mark.parametrize(
    ("endpoint", "payload", "output"),
    [
        ("chat", {"max_tokens": 10}, 10),
        ("chat", {"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ("chat", {"max_completion_tokens": 1, "max_tokens": 5000}, 5000),
        ("chat", {"max_output_tokens": 1}, 4096),
        ("responses", {"max_output_tokens": 30, "max_tokens": 1}, 30),
        ("responses", {"max_tokens": 1}, 4096),
        ("messages", {"max_tokens": 30, "max_completion_tokens": 1}, 30),
        ("completions", {"max_tokens": 7, "n": 2, "best_of": 5}, 35),
        ("completions", {"max_tokens": 7, "n": 2, "prompt": ["a", "b", "c"]}, 42),
        ("completions", {"max_tokens": 7, "prompt": [[1, 2], [3]]}, 14),
        ("completions", {"max_tokens": 7, "prompt": [1, 2, 3]}, 7),
        ("chat", {"max_tokens": True}, 4096),
        ("chat", {"max_tokens": -1}, 4096),
        ("chat", {"max_tokens": "many"}, 4096),
        ("chat", {"max_tokens": 5000.0}, 5000),
        ("chat", {"max_tokens": "5000"}, 5000),
        ("chat", {"max_tokens": 10, "n": "3"}, 30),
        ("chat", {"max_tokens": 1e300, "n": 2.0}, 10**8),
        ("chat", {"max_tokens": "nan"}, 4096),
        ("chat", {}, 4096),
    ],
)
def test_output_is_what_the_request_allows(endpoint: str, payload: dict[str, Any], output: int) -> None:
    assert estimated(endpoint, **payload).output == output


def test_embeddings_write_nothing() -> None:
    assert estimated("embeddings", input="x").output == 0


@given(st.lists(st.integers(0, 10_000), min_size=20, max_size=300))
def test_few_answers_exceed_what_is_learnt(lengths: list[int]) -> None:
    learned = Learned()
    for length in lengths:
        learned.learn("m", length)

    bound, latest = learned.output("m"), lengths[-256:]
    assert sum(length > bound for length in latest) <= 0.05 * len(latest) + 1
    assert learned.output("another") == 4096


def test_models_that_are_remembered_are_bounded() -> None:
    learned = Learned(most_models=2)
    for model in "abc":
        learned.learn(model, 1)

    assert list(learned.models) == ["b", "c"]


ENCODED = "iVBOR" * 100_000
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}}),
    "responses": ("responses", {"type": "input_image", "image_url": f"data:image/png;base64,{ENCODED}"}),
    "messages": (
        "messages",
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ENCODED}},
    ),
    "by its address": ("chat", {"type": "image_url", "image_url": {"url": "https://a.test/x.png"}}),
}


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("nested", [False, True])
def test_an_image_is_not_taken_for_text(shown: str, nested: bool) -> None:
    endpoint, part = SHOWN[shown]
    part = {"type": "tool_result", "content": [part]} if nested else part
    turns = [{"role": "user", "content": [part, part]}]
    several = estimated(endpoint, **{"input" if endpoint == "responses" else "messages": turns}).fresh

    assert 10_000 < several < 11_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": f"data:image/png;base64,{ENCODED}"},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{ENCODED}"}},
        {"type": "input_audio", "input_audio": {"data": ENCODED, "format": "mp3"}},
    ],
)
def test_what_is_no_image_is_not_taken_for_one(part: dict[str, Any]) -> None:
    """A text that begins as an image does would be a way round every hard budget."""
    assert estimated(messages=[{"content": [part, {"type": "image_url", "image_url": "x"}]}]).fresh > 500_000


def test_no_text_has_more_tokens_than_are_taken() -> None:
    """Random characters have 0.72 tokens a byte, rare scripts one."""
    tokenizer, anything = Tokenizer(), Random(1)
    for text in ("", "x", "word " * 100, chr(0x13000) * 1_000, "".join(anything.choices(printable, k=5_000))):
        payload = {"messages": [{"role": "user", "content": text}] * 3}
        assert tokenizer.count_request("chat", payload, "gpt-4o") <= estimated(**payload).fresh


def test_an_image_has_many_tokens_of_some_models() -> None:
    payload = {"messages": [{"content": [SHOWN["chat"][1]]}]}
    body = orjson.dumps(payload)

    assert estimate("chat", payload, body, "gpt-4o-mini-2024-07-18", Learned()).fresh > 48_000
    assert estimate("chat", payload, body, "an alias", Learned(), served="gpt-4o-mini").fresh > 48_000


def test_what_is_marked_for_the_providers_cache_is_taken_to_be_written_to_it() -> None:
    marked = {"messages": [{"content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}]}
    hour = {"messages": [{"content": [{"cache_control": {"type": "ephemeral", "ttl": "1h"}}]}]}

    assert estimated(**marked).cache_write > 0 == estimated(**marked).fresh
    assert estimated(**hour).cache_write_1h > 0
    assert estimated(service_tier="priority").tier == "priority"
