"""The capacity model: its sums, its directions, its queue against queueing theory, and where its figures come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import capacity_page
from bench.capacity import KEPT, TIMED, Costs, Load, kept_costs, plan, request_us, valkey_us, waits_ms
from bench.capacity_measured import MIXES, earlier, load_of, mixed
from bench.capacity_units import known
from bench.index_pages import KEPT as KEPT_INDEXES
from bench.report import replace_section

COSTS = Costs(
    bare_us=40,
    miss_us=300,
    first_hit_us=150,
    hit_us=50,
    shared_miss_us=700,
    shared_first_hit_us=400,
    shared_hit_us=60,
    valkey_shared_miss_us=30,
    valkey_shared_first_hit_us=20,
    valkey_shared_hit_us=2,
    event_us=100,
    semantic_us=1000,
    log_write_us=20,
    log_follow_us=60,
)


def test_the_arithmetic_by_hand_of_replicas_over_redis() -> None:
    load = Load(
        8_640_000, peak=2, hit_ratio=0.5, again_share=0.25, stream_share=0.5, events=10, semantic=False, answer_s=4,
        busy=0.5,
    )  # fmt: skip
    made = plan(load, COSTS)
    assert made.peak_per_s == 200
    assert made.cpu_us == 0.5 * (0.75 * 400 + 0.25 * 60) + 0.5 * (700 + 0.5 * 10 * 100)
    assert made.cores == pytest.approx(200 * 757.5 / 1e6)
    assert (made.replicas, made.shards, made.followed) == (1 + 2, 1, None)
    assert made.in_flight == 200 * 0.5 * 4
    assert valkey_us(load, COSTS) == 0.5 * (0.75 * 20 + 0.25 * 2) + 0.5 * 30


def test_a_laptop_needs_one_process_and_no_redis_and_pays_for_none() -> None:
    load = Load(1000, hit_ratio=0.5, stream_share=0, semantic=False)
    made = plan(load, COSTS)
    assert (made.replicas, made.shards) == (1, 0)
    assert made.cpu_us == 0.5 * 150 + 0.5 * 300


def test_each_replica_pays_for_what_the_others_put_into_the_log() -> None:
    load = Load(86_400_000, peak=1, hit_ratio=0.5, fresh_share=0.8, stream_share=0, busy=0.5)
    made = plan(load, COSTS)
    assert made.followed == pytest.approx(1000 * 0.5 * 0.8 * 60 / 1e6)
    assert made.cpu_us == 0.5 * 400 + 0.5 * (700 + 1000 + 0.8 * 20)
    assert made.replicas == 3 + 2  # 1.058 cores of 0.476 each
    huge = plan(replace(load, requests_per_day=8_640_000_000), COSTS)
    assert huge.followed is None, "all of a core, and more"
    assert huge.cpu_us == 0.5 * 400 + 0.5 * (700 + 1000)


def test_a_machine_that_is_twice_as_fast_needs_half_of_it() -> None:
    load = Load(1e8)
    assert plan(load, COSTS.on(20)).cores == pytest.approx(plan(load, COSTS).cores / 2)
    assert COSTS.on(20).vector_bytes == COSTS.vector_bytes


@given(st.floats(1e3, 1e9), st.floats(0, 0.9))
def test_more_hits_never_cost_more_and_more_requests_never_need_less(per_day: float, hit_ratio: float) -> None:
    load = Load(per_day, hit_ratio=hit_ratio)
    loads = load, replace(load, hit_ratio=hit_ratio + 0.1), replace(load, peak=6)
    made, warmer, busier = (plan(one, COSTS) for one in loads)
    assert warmer.cores <= made.cores
    assert warmer.entries <= made.entries
    assert busier.replicas >= made.replicas
    assert busier.usd_per_month >= made.usd_per_month


def test_the_simulated_queue_waits_as_theory_says() -> None:
    """One kind of work alone: M/D/1. Of its pieces a share of 1 - busy never waits, and the mean wait is
    busy / (2 (1 - busy)) pieces (Pollaczek and Khinchine): 4.5 at 0.9."""
    load, costs = Load(1, hit_ratio=1.0, again_share=1.0, semantic=False), replace(COSTS, shared_hit_us=50)
    p50, p99 = waits_ms(0.3, load, costs, 1)
    assert p50 == 0
    assert 0.05 < p99 < 0.2  # one to four pieces of 50 µs
    p50, p99 = waits_ms(0.9, load, costs, 1)
    assert 0.1 < p50 < 4.5 * 0.05
    assert p99 > 4 * p50


def test_the_models_vector_is_as_large_as_the_measured_one() -> None:
    figures = json.loads(KEPT_INDEXES.read_text("utf-8"))
    lists = [one for one in figures if one["index"].startswith("IVF, 16 bits")]
    largest = max(lists, key=lambda one: one["entries"])
    assert kept_costs().vector_bytes == pytest.approx(largest["resident"], rel=0.01)


def told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KEPT.read_text("utf-8"))
    return found


def test_every_time_in_the_model_was_measured_in_the_kept_run() -> None:
    assert set(told()["costs"]) == set(TIMED)
    assert all(value > 0 for value in told()["costs"].values())
    costs = kept_costs()
    assert costs.shared_first_hit_us > costs.shared_hit_us, "Redis is asked"
    assert costs.shared_miss_us > costs.miss_us


def test_the_model_was_held_against_mixes_over_a_real_valkey_and_without() -> None:
    """The kept figures are the model's by the kept costs, at the speed that the machine had then."""
    found = told()["mixes"]
    assert {(one["shared"], one["hit_ratio"], one["again_share"], one["stream_share"]) for one in found} == {
        (shared, *mix) for shared in (False, True) for mix in MIXES
    }
    for one in found:
        load = load_of((one["hit_ratio"], one["again_share"], one["stream_share"]))
        said = request_us(load, kept_costs().on(one["bare_us"]), shared=one["shared"])
        assert said == pytest.approx(one["model_us"], rel=0.01)
        assert min(one["rounds_us"]) <= one["measured_us"] <= max(one["rounds_us"])


def test_the_page_says_what_is_kept() -> None:
    page = capacity_page.PAGE.read_text("utf-8")
    for section, text in capacity_page.sections(told()).items():
        assert replace_section(page, section, text) == page, "python -m bench.capacity --write"


def test_the_page_is_written_where_its_marks_are_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = [f"<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->" for name in capacity_page.sections(told())]
    page.write_text("\n".join(["before", *marks, "after"]), "utf-8")
    capacity_page.write(page)
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter") and "old" not in text
    page.write_text("no marks", "utf-8")
    with pytest.raises(ValueError, match="marks"):
        capacity_page.write(page)


def test_a_mix_is_what_it_is_called() -> None:
    """First hits are what was asked before, each once; those that come again are a few; misses are new."""
    hits, again, streams = 0.6, 0.5, 0.3
    sent = list(mixed(3, 4000, (hits, again, streams)))
    before, few = set(earlier(3, 4000)), set(known(1000))
    first = [one for one in sent if one in before]
    repeated = [one for one in sent if one in few]
    new = [one for one in sent if one not in before and one not in few]
    assert len(set(first)) == len(first) and len(set(new)) == len(new)
    assert len(first) / len(sent) == pytest.approx(hits * (1 - again), abs=0.03)
    assert len(repeated) / len(sent) == pytest.approx(hits * again, abs=0.03)
    assert sum(b'"stream":true' in one for one in new) / len(new) == pytest.approx(streams, abs=0.04)
    assert not set(new) & set(mixed(4, 4000, (0.0, 0.0, streams)))
