"""The ledger's row: every fact of an exchange in the column that bears its name."""

from __future__ import annotations

from typing import Any, cast

from multidict import CIMultiDict, CIMultiDictProxy

from farthing.policies.spend import DayTotal
from farthing.proxy.account import Account
from farthing.proxy.attribute import Money
from farthing.proxy.clock import FakeClock
from farthing.proxy.exchange import Attempt, CacheStatus, Call, Controls, Endpoint, Exchange, Original, Outcome
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.prices import RateCard
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource


def exchange() -> Exchange:
    original = Original("POST", "/v1/x", CIMultiDictProxy(CIMultiDict()), cast(Any, None), HeaderFacts(()))
    ex = Exchange("id", original, 1000.0, 50.0)
    facts: dict[str, Any] = {
        "endpoint": Endpoint.CHAT, "status": 200, "outcome": Outcome.COMPLETED, "stream": True, "tenant": "tenant",
        "key": "key", "controls": Controls(user="user", tags=(("a", "b"),)), "model": "asked",
        "cache": CacheStatus.MISS,
        "cache_reason": "reason", "similarity": 0.5, "p_wrong": 0.25, "compress": "tidy", "tokens_saved": 7,
        "policy": "policy", "experiment": "experiment", "arm": "arm", "config_id": "config", "first_byte_tick": 51.0,
        "ended_tick": 53.0,
    }  # fmt: skip
    for name, value in facts.items():
        setattr(ex, name, value)
    ex.call = Call(
        "flight", upstream="upstream", attempts=[Attempt("upstream", 200, "", 1.5, 0.5)], started_tick=50.5,
        ended_tick=52.5, model_served="served",
    )  # fmt: skip
    ex.stage_ms["exact"] = 1.25
    ex.decide("tidy", "shortened", "a lot")
    return ex


def test_a_row_has_each_fact_under_its_name() -> None:
    account = Account(RateCard({}, "", "http://u"), None, Tokenizer(), DayTotal(), FakeClock())
    usage = Usage(fresh=10, cached=20, cache_write=30, output=40, reasoning=50, source=UsageSource.COUNTED)
    row = account.row(exchange(), usage, Money(1, 2, 3, 4, 5, 6, 7, 8, "prices", modelled=True))
    assert row._asdict() == {
        "id": "id", "flight_id": "flight", "ts": 1000.0, "endpoint": "chat", "status": 200, "outcome": "completed",
        "error": "", "stream": 1, "tenant": "tenant", "key_hash": "key", "user": "user", "tags": '{"a":"b"}',
        "model_requested": "asked", "model_served": "served", "upstream": "upstream", "attempts": 1, "cache": "miss",
        "cache_reason": "reason", "similarity": 0.5, "p_wrong": 0.25, "compress": "tidy", "tokens_in_original": 67,
        "tokens_in_sent": 60, "tokens_in_cached": 20, "tokens_in_cache_write": 30, "tokens_out": 90,
        "tokens_reasoning": 50, "usage_source": "counted", "baseline_usd": 1, "cost_usd": 2, "overhead_usd": 3,
        "saved_exact_usd": 4, "saved_semantic_usd": 5, "saved_compress_usd": 6, "saved_route_usd": 7,
        "saved_prompt_cache_usd": 8, "price_source": "prices", "modelled": 1, "latency_ms": 3000.0, "ttft_ms": 1000.0,
        "upstream_ms": 2000.0, "overhead_ms": 1000.0, "stage_ms": '{"exact":1.250}',
        "decisions": '[["tidy","shortened","a lot"]]',
        "attempts_detail":
            '[{"upstream":"upstream","status":200,"error":"","duration_ms":1.500,"backoff_ms":0.500}]',
        "policy": "policy", "experiment": "experiment", "arm": "arm", "config_id": "config",
    }  # fmt: skip


def test_whoever_joined_paid_nothing_and_tried_nothing() -> None:
    account = Account(RateCard({}, "", "http://u"), None, Tokenizer(), DayTotal(), FakeClock())
    ex = exchange()
    ex.leads, ex.cache = False, CacheStatus.JOINED
    row = account.row(ex, Usage(fresh=10, cached=20, output=40), Money())
    assert (row.attempts, row.attempts_detail, row.upstream_ms) == (0, "[]", None)
    assert (row.tokens_in_original, row.tokens_in_sent, row.tokens_in_cached, row.tokens_out) == (30, 0, 0, 40)
    unknown = account.row(ex, None, Money())
    assert (unknown.tokens_in_original, unknown.tokens_in_sent, unknown.tokens_out, unknown.usage_source) == (
        None, None, None, "",
    )  # fmt: skip
