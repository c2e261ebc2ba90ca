"""The bench's provider bills by the published rules, and its ways are in the order that they must be."""

from __future__ import annotations

import pytest

from bench.marked_provider import Bill, MarkedProvider, TooManyMarks
from bench.prompt_cache import PROVIDERS, measure, traffic

MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
LONG = "word " * 1499  # and its role


def block(text: str, mark: dict[str, object] | None = None) -> dict[str, object]:
    return {"type": "text", "text": text} | (mark or {})


def asked(*blocks: dict[str, object]) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def test_what_is_marked_is_written_and_then_read_for_five_minutes() -> None:
    provider = MarkedProvider()
    body = asked(block(LONG, MARK), block("a"))
    assert provider.messages(body, 0) == Bill(fresh=2, written=1500)
    assert provider.messages(body, 299) == Bill(fresh=2, read=1500)
    assert provider.messages(body, 598) == Bill(fresh=2, read=1500)
    assert provider.messages(body, 900) == Bill(fresh=2, written=1500)
    assert provider.messages(asked(block(LONG, HOUR)), 2000) == Bill(written_1h=1500)
    assert provider.messages(asked(block(LONG), block("b")), 2001) == Bill(fresh=1502)


def test_what_is_too_short_is_not_cached_and_five_marks_are_too_many() -> None:
    assert MarkedProvider().messages(asked(block("short", MARK)), 0) == Bill(fresh=2)
    with pytest.raises(TooManyMarks):
        MarkedProvider().messages(asked(*[block(LONG, MARK)] * 5), 0)


def test_a_mark_looks_back_twenty_blocks() -> None:
    for more, read in ((19, 1500), (20, 0)):
        provider = MarkedProvider()
        provider.messages(asked(block(LONG, MARK)), 0)
        tail = [block("x") for _ in range(more - 1)]
        assert provider.messages(asked(block(LONG), *tail, block("end", MARK)), 1).read == read


def test_in_explicit_mode_only_breakpoints_are_written_and_read() -> None:
    point = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    provider = MarkedProvider()
    body = asked(block(LONG, point), block(LONG)) | {"prompt_cache_options": {"mode": "explicit"}}
    assert provider.chat(body, 0) == Bill(fresh=1500, written=1500)
    assert provider.chat(body, 1) == Bill(fresh=1500, read=1500)
    assert provider.chat(asked(block(LONG), block(LONG)), 2) == Bill(read=1500, written=1500)


@pytest.mark.parametrize("provider", list(PROVIDERS))
async def test_the_decision_costs_less_than_any_rule_and_more_than_the_future(provider: str) -> None:
    prices = PROVIDERS[provider][1]
    cost = {way: sums.usd(prices) for way, sums in (await measure(0.8, 3, provider)).items()}
    farthing, foreseen = cost.pop("farthing"), cost.pop("foreseen")
    assert foreseen < farthing < min(cost.values())


def test_traffic_is_the_same_each_time() -> None:
    assert traffic(0.2, 5) == traffic(0.2, 5)
    assert traffic(0.2, 5) != traffic(0.2, 6)
