"""What an answer says of its usage and tier, while it passes and when it is whole."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from farthing.proxy.exchange import Endpoint
from farthing.proxy.observe import StreamObserver, read_whole
from farthing.proxy.usage import Usage

CHAT = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
RESPONSES = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
BEGUN = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 5,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 5},
    "output_tokens": 1,
    "service_tier": "batch",
}


@pytest.mark.parametrize(
    ("endpoint", "events", "expected"),
    [
        (
            Endpoint.CHAT,
            [
                {"model": "m", "service_tier": "priority", "choices": [{"delta": {"content": "a"}}]},
                {"model": "m", "service_tier": "default", "choices": [], "usage": CHAT},
            ],
            Usage(9, output=2),
        ),
        (
            Endpoint.CHAT,
            [{"model": "m", "service_tier": "flex", "choices": []}, {"model": "m", "choices": [], "usage": CHAT}],
            Usage(9, output=2, tier="flex"),
        ),
        (
            Endpoint.RESPONSES,
            [
                {"type": "response.created", "response": {"model": "m", "service_tier": "auto"}},
                {"type": "response.completed", "response": {"model": "m", "service_tier": "flex", "usage": RESPONSES}},
            ],
            Usage(9, output=2, tier="flex"),
        ),
        (
            Endpoint.MESSAGES,
            [
                {"type": "message_start", "message": {"model": "m", "usage": BEGUN}},
                {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2}},
            ],
            Usage(9, output=2, cache_write_1h=5, tier="batch"),
        ),
        (Endpoint.CHAT, [{"model": "m", "service_tier": ["?"], "choices": [], "usage": CHAT}], Usage(9, output=2)),
    ],
)
def test_a_streams_usage_and_tier(endpoint: Endpoint, events: list[dict[str, Any]], expected: Usage) -> None:
    observer = StreamObserver(endpoint)
    for event in events:
        observer.see(b"data: " + orjson.dumps(event) + b"\n\n")
    assert (observer.usage, observer.model) == (expected, "m")


def test_a_whole_answers_usage_and_tier() -> None:
    answer = {"model": "m", "service_tier": "flex", "usage": CHAT}
    assert read_whole(Endpoint.CHAT, answer) == (Usage(9, output=2, tier="flex"), "m")
    assert read_whole(Endpoint.CHAT, {"service_tier": {"x": 1}, "usage": CHAT}) == (Usage(9, output=2), "")


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-Infinity", '"\\ud800"', '"\xff"'])
def test_a_stream_that_is_no_strict_json_tells_its_usage_all_the_same(odd: str) -> None:
    observer = StreamObserver(Endpoint.CHAT)
    for choices, more in ((f'[{{"logprobs":{odd}}}]', ""), ("[]", f',"usage":{orjson.dumps(CHAT).decode()}')):
        observer.see(f'data: {{"model":"m","odd":{odd},"choices":{choices}{more}}}\n\n'.encode("latin-1"))
    assert (observer.usage, observer.model) == (Usage(9, output=2), "m")
