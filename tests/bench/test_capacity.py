"""The capacity model: its sums, its directions, and its queue against what queueing theory says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.capacity import Costs, Load, plan, waits_ms
from bench.index_pages import KEPT

COSTS = Costs(miss_us=300, hit_us=50, event_us=100, semantic_us=1000)


def test_the_arithmetic_by_hand() -> None:
    load = Load(8_640_000, peak=2, hit_ratio=0.5, stream_share=0.5, events=10, semantic=False, answer_s=4, busy=0.5)
    made = plan(load, COSTS)
    assert made.peak_per_s == 200
    assert made.cpu_us == 0.5 * 50 + 0.5 * (300 + 0.5 * 10 * 100)
    assert made.cores == pytest.approx(200 * 425 / 1e6)
    assert (made.replicas, made.shards) == (1 + 2, 1)
    assert made.in_flight == 200 * 0.5 * 4


def test_a_laptop_needs_one_process_and_no_redis() -> None:
    made = plan(Load(1000))
    assert (made.replicas, made.shards) == (1, 0)


@given(st.floats(1e3, 1e9), st.floats(0, 0.9))
def test_more_hits_never_cost_more_and_more_requests_never_need_less(per_day: float, hit_ratio: float) -> None:
    load = Load(per_day, hit_ratio=hit_ratio)
    made, warmer, busier = plan(load), plan(replace(load, hit_ratio=hit_ratio + 0.1)), plan(replace(load, peak=6))
    assert warmer.cores <= made.cores
    assert warmer.entries <= made.entries
    assert busier.replicas >= made.replicas
    assert busier.usd_per_month >= made.usd_per_month


def test_the_simulated_queue_waits_as_theory_says() -> None:
    """One kind of work alone: M/D/1. Of its pieces a share of 1 - busy never waits, and the mean wait is
    busy / (2 (1 - busy)) pieces (Pollaczek and Khinchine): 4.5 at 0.9."""
    load = Load(1, hit_ratio=1.0, semantic=False)
    p50, p99 = waits_ms(0.3, load, COSTS, 1)
    assert p50 == 0
    assert 0.05 < p99 < 0.2  # one to four pieces of 50 µs
    p50, p99 = waits_ms(0.9, load, COSTS, 1)
    assert 0.1 < p50 < 4.5 * 0.05
    assert p99 > 4 * p50


def test_the_models_vector_is_as_large_as_the_measured_one() -> None:
    figures = json.loads(KEPT.read_text("utf-8"))
    lists = [one for one in figures if one["index"].startswith("IVF, 16 bits")]
    assert Costs().vector_bytes == pytest.approx(max(lists, key=lambda one: one["entries"])["resident"], rel=0.01)
