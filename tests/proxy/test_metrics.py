"""Counters against rows, bounded labels, losses, and gauges that fail."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from farthing.proxy.metrics import Metrics
from farthing.proxy.row import MONEY_COLUMNS
from tests.fakes.rows import DOLLAR, plausible, row


def scraped(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.render().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((f"farthing_{name}", frozenset(labels.items())))


def test_a_row_is_counted_once_everywhere() -> None:
    metrics = Metrics()
    tries = [{"status": 503}, {"status": 0}, {"status": 200}]
    metrics.observe(
        [
            row(id="a", baseline_usd=3 * DOLLAR, cost_usd=2 * DOLLAR, saved_compress_usd=DOLLAR,
                overhead_usd=DOLLAR // 4, tokens_in_original=100, tokens_in_sent=80, tokens_out=5,
                latency_ms=800.0, overhead_ms=2.0, ttft_ms=300.0, attempts=3, attempts_detail=json.dumps(tries)),
            row(id="b", cache="joined", attempts=3, attempts_detail=json.dumps(tries)),
        ]
    )  # fmt: skip
    labels = {"endpoint": "chat", "model": "gpt-4o-mini", "outcome": "completed", "status_class": "2xx"}
    assert value(metrics, "requests_total", cache="miss", **labels) == 1
    assert value(metrics, "requests_total", cache="joined", **labels) == 1
    assert value(metrics, "tokens_total", model="gpt-4o-mini", kind="in_original") == 100
    assert value(metrics, "tokens_total", model="gpt-4o-mini", kind="in_sent") == 80
    assert value(metrics, "cost_usd_total") == 2
    assert value(metrics, "baseline_usd_total") == 3
    assert value(metrics, "overhead_usd_total") == 0.25
    assert value(metrics, "saved_usd_total", cause="compress") == 1
    assert value(metrics, "request_duration_seconds_sum", cache="miss") == 0.8
    assert value(metrics, "request_duration_seconds_bucket", cache="miss", le="1.0") == 1
    assert value(metrics, "request_duration_seconds_bucket", cache="miss", le="0.5") == 0
    assert value(metrics, "overhead_seconds_count") == 2
    assert value(metrics, "time_to_first_byte_seconds_sum") == 0.3
    assert [value(metrics, "upstream_attempts_total", status_class=name) for name in ("5xx", "none", "2xx")] == [
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("endpoint", ["audit", "judge"])
def test_farthings_own_calls_have_a_label_of_their_own_and_nobody_waited_for_them(endpoint: str) -> None:
    metrics = Metrics()
    metrics.observe([row(id="a", endpoint=endpoint, cache="bypass", overhead_usd=DOLLAR, latency_ms=900.0)])
    labels = {"model": "gpt-4o-mini", "cache": "bypass", "outcome": "completed", "status_class": "2xx"}
    assert value(metrics, "requests_total", endpoint=endpoint, **labels) == 1
    assert not value(metrics, "request_duration_seconds_count", cache="bypass")
    assert value(metrics, "overhead_usd_total") == 1


def test_unknown_prices_are_counted_and_losses_have_their_own_counter() -> None:
    metrics = Metrics()
    metrics.observe(
        [
            row(id="a", **dict.fromkeys(MONEY_COLUMNS)),
            row(id="b", baseline_usd=DOLLAR, cost_usd=3 * DOLLAR, saved_prompt_cache_usd=-2 * DOLLAR),
        ]
    )
    assert value(metrics, "unpriced_requests_total") == 1
    assert value(metrics, "saved_usd_total", cause="prompt_cache") == 0
    assert value(metrics, "lost_usd_total", cause="prompt_cache") == 2


def test_names_beyond_the_cap_are_other_and_nothing_a_client_writes_makes_a_label_otherwise() -> None:
    metrics = Metrics(max_names=3)
    metrics.observe(
        [row(id=str(i), model_requested=f"m{i}", endpoint=f"e{i}", cache=f"c{i}", outcome=f"o{i}", status=i * 100)
         for i in range(40)]
    )  # fmt: skip
    metrics.observe([row(id="long", model_requested="m" * 1000)])
    labels = [dict(key[1]) for key in scraped(metrics) if key[0] == "farthing_requests_total"]
    assert {each["model"] for each in labels} == {"m0", "m1", "m2", "other"}
    assert {each["endpoint"] for each in labels} == {"other", "chat"}
    assert {each["cache"] for each in labels} == {"other", "miss"}
    assert {each["status_class"] for each in labels} <= {"none", "1xx", "2xx", "3xx", "4xx", "5xx"}


def test_the_counters_agree_with_the_rows() -> None:
    metrics, rows = Metrics(), plausible(500)
    for i in range(0, 500, 50):
        metrics.observe(rows[i : i + 50])
    cost = sum(each.cost_usd or 0 for each in rows) / DOLLAR
    assert value(metrics, "cost_usd_total") == pytest.approx(cost, rel=1e-9)
    counted = sum(v for (name, _), v in scraped(metrics).items() if name == "farthing_requests_total")
    assert counted == 500


def test_gauges_are_asked_at_each_scrape_and_a_broken_one_hides_no_other() -> None:
    metrics, now = Metrics(), {"in_flight_requests": 1.0, "ledger_dropped_rows": 2.0, "stage_errors:semantic": 3.0}

    def broken() -> Mapping[str, float]:
        raise RuntimeError("away")

    metrics.watch(broken)
    metrics.watch(lambda: now)
    assert value(metrics, "in_flight_requests") == 1
    now["in_flight_requests"] = 7.0
    assert value(metrics, "in_flight_requests") == 7
    assert value(metrics, "ledger_dropped_rows_total") == 2
    assert value(metrics, "stage_errors_total", stage="semantic") == 3
    assert value(metrics, "store_entries") is None


def test_two_of_them_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.observe([row()])
    assert value(other, "overhead_seconds_count") == 0
    assert any(name == "farthing_build_info" for name, _ in scraped(other))
    assert one.content_type.startswith("text/plain")


@pytest.mark.parametrize("detail", ["", "{}", "[1]", '[{"status": "x"}]', "[{}]", "null"])
def test_attempts_that_can_not_be_read_are_not_counted(detail: str) -> None:
    metrics = Metrics()
    metrics.observe([row(attempts_detail=detail)])
    assert not any(name == "farthing_upstream_attempts_total" for name, _ in scraped(metrics))


def test_counters_have_no_created_twins() -> None:
    metrics = Metrics()
    metrics.observe(plausible(20))
    names = {name for name, _ in scraped(metrics)}
    assert "farthing_requests_total" in names and not any(name.endswith("_created") for name in names)
