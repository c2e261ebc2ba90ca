"""How many replicas, Redis shards, gigabytes and dollars a load needs: a model out of measured costs.

The model is arithmetic over `Costs` (docs/benchmarks.md: processor time of a miss, a hit, a stream) and `Load`. What it
leaves out it says: garbage collection at its worst, noisy neighbours, an upstream's limits.

    python -m bench.capacity                              the table of docs/operations.md
    python -m bench.capacity --requests-per-day 2e7       one load
    python -m bench.capacity --simulate                   how busy a replica may be, by a queue of its own
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

__all__ = ["Costs", "Load", "Plan", "plan", "waits_ms"]

DAY_S = 86_400
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Costs:
    """What one thing takes. Processor times: docs/benchmarks.md, at 16 at a time, semantic cache off; `semantic_us`:
    what observing adds to a miss, which looks at fewer the busier it is. `event_us`: of one event of a stream, from the
    stream benchmark (23 events). `vector_bytes`: what a process grows by for an entry of the lists, a million of them
    (docs/index-sizes.json has every kind). `ledger_row_bytes`: docs/benchmarks.md, "A large ledger".

    Assumed, not measured: `redis_ops_per_s` and `redis_bytes` (what one shard is planned with), `entry_overhead_bytes`
    (a key and header in Redis), `prompt_bytes` (beside a vector), `in_flight_bytes`, and both prices.
    """

    miss_us: float = 262
    hit_us: float = 56
    event_us: float = (2_524 - 384) / 23
    semantic_us: float = 1_210 - 262
    replica_bytes: int = 512 * 2**20
    in_flight_bytes: int = 64 * 1024
    redis_ops_per_s: float = 50_000
    redis_bytes: int = 16 * GIB
    entry_overhead_bytes: int = 350
    vector_bytes: float = 1_114
    prompt_bytes: float = 2_300
    ledger_row_bytes: float = 7.8 * GIB / 9_999_990
    core_usd_per_month: float = 25
    gib_usd_per_month: float = 3


@dataclass(frozen=True, slots=True)
class Load:
    """`peak`: the busiest minute's rate, in mean rates. `busy`: how much of a core a replica may use at that peak.
    `spare`: replicas that may be away (one that restarts, one that has died)."""

    requests_per_day: float
    peak: float = 3.0
    hit_ratio: float = 0.3
    stream_share: float = 0.7
    events: float = 200
    semantic: bool = True
    request_bytes: float = 8_000
    answer_bytes: float = 3_000
    answer_s: float = 6.0
    ttl_days: float = 1.0
    fresh_share: float = 0.7
    busy: float = 0.6
    spare: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """`network_bytes_per_s`: in and out of all replicas, both sides, at the peak."""

    peak_per_s: float
    cpu_us: float
    cores: float
    replicas: int
    in_flight: float
    replica_bytes: float
    entries: float
    store_bytes: float
    shards: int
    network_bytes_per_s: float
    ledger_bytes_per_day: float
    usd_per_month: float


def plan(load: Load, costs: Costs = Costs()) -> Plan:
    """What the load needs. `in_flight`: a replica's at the peak, which is what an autoscaler is told."""
    peak_per_s = load.requests_per_day / DAY_S * load.peak
    miss = 1 - load.hit_ratio
    streamed_us = load.stream_share * load.events * costs.event_us
    cpu_us = load.hit_ratio * costs.hit_us + miss * (
        costs.miss_us + streamed_us + (costs.semantic_us if load.semantic else 0)
    )
    cores = peak_per_s * cpu_us / 1e6
    needed = max(1, math.ceil(cores / load.busy))
    alone = needed == 1 and peak_per_s < 10
    replicas = needed if alone else needed + load.spare
    in_flight = peak_per_s * miss * load.answer_s / needed
    entries = load.requests_per_day * miss * load.fresh_share * load.ttl_days
    store_bytes = entries * (load.answer_bytes + costs.entry_overhead_bytes)
    index_bytes = min(entries, 100_000) * (costs.vector_bytes + costs.prompt_bytes) if load.semantic else 0
    ops_per_s = peak_per_s * (1 + miss)
    by_rate, by_size = ops_per_s / costs.redis_ops_per_s, store_bytes / costs.redis_bytes
    shards = 0 if alone else max(1, math.ceil(by_rate), math.ceil(by_size))
    replica_bytes = costs.replica_bytes + index_bytes + in_flight * costs.in_flight_bytes
    moved = load.request_bytes + load.answer_bytes
    network = peak_per_s * moved * (1 + miss) + peak_per_s * load.answer_bytes * (0 if alone else 1)
    memory_gib = (replicas * replica_bytes + 2 * shards * store_bytes / max(1, shards)) / GIB  # a copy of each shard
    usd = (replicas + 2 * shards) * costs.core_usd_per_month + memory_gib * costs.gib_usd_per_month
    return Plan(
        peak_per_s,
        cpu_us,
        cores,
        replicas,
        in_flight,
        replica_bytes,
        entries,
        store_bytes,
        shards,
        network,
        load.requests_per_day * costs.ledger_row_bytes,
        usd,
    )


def waits_ms(busy: float, load: Load, costs: Costs, seed: int, requests: int = 200_000) -> tuple[float, float]:
    """How long (p50, p99) work waits for a replica's one thread, which is busy for that share of the time.

    Simulated: pieces of work arrive by chance (Poisson); a hit and a miss's first part are each one, and so is each
    event of a stream. First come, first served, as an event loop does.
    """
    chance = np.random.default_rng(seed)
    pieces = _pieces_us(load, costs)
    works, shares = np.array([work for work, _ in pieces]), np.array([share for _, share in pieces])
    rate_per_us = busy / float(works @ (shares / shares.sum()))
    arrivals = np.cumsum(chance.exponential(1 / rate_per_us, requests))
    service = chance.choice(works, requests, p=shares / shares.sum())
    done = 0.0
    waits = np.empty(requests)
    for at, (came, takes) in enumerate(zip(arrivals, service, strict=True)):
        waits[at] = max(0.0, done - came)
        done = max(done, came) + takes
    return float(np.percentile(waits, 50)) / 1000, float(np.percentile(waits, 99)) / 1000


def _pieces_us(load: Load, costs: Costs) -> list[tuple[float, float]]:
    """(microseconds, how many of them a request has on average)."""
    miss = 1 - load.hit_ratio
    return [
        (costs.hit_us, load.hit_ratio),
        (costs.miss_us + (costs.semantic_us if load.semantic else 0), miss),
        (costs.event_us, miss * load.stream_share * load.events),
    ]


def table(loads: list[Load]) -> Table:
    """The plans, aligned."""
    shown = Table(
        "requests a day", "at the peak / s", "cores", "replicas", "in flight each", "GiB each", "entries", "store GiB",
        "shards", "network MB/s", "ledger GiB/day", "USD a month",
    )  # fmt: skip
    for load in loads:
        made = plan(load)
        shown.add_row(
            f"{load.requests_per_day:,.0f}", f"{made.peak_per_s:,.1f}", f"{made.cores:,.2f}", f"{made.replicas:,}",
            f"{made.in_flight:,.0f}", f"{made.replica_bytes / GIB:.1f}", f"{made.entries:,.0f}",
            f"{made.store_bytes / GIB:,.2f}", f"{made.shards}" if made.shards else "SQLite",
            f"{made.network_bytes_per_s / 1e6:,.1f}", f"{made.ledger_bytes_per_day / GIB:,.2f}",
            f"{made.usd_per_month:,.0f}",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests-per-day", type=float, action="append")
    parser.add_argument("--hit-ratio", type=float, default=Load(0).hit_ratio)
    parser.add_argument("--events", type=float, default=Load(0).events)
    parser.add_argument("--answer-s", type=float, default=Load(0).answer_s)
    parser.add_argument("--ttl-days", type=float, default=Load(0).ttl_days)
    parser.add_argument("--no-semantic", action="store_true")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    base = Load(
        0,
        hit_ratio=given.hit_ratio,
        events=given.events,
        answer_s=given.answer_s,
        ttl_days=given.ttl_days,
        semantic=not given.no_semantic,
    )
    console = Console(width=200)
    if given.simulate:
        shown = Table("busy", "wait p50 ms", "wait p99 ms")
        for busy in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
            p50, p99 = waits_ms(busy, base, Costs(), given.seed)
            shown.add_row(f"{busy:.0%}", f"{p50:.2f}", f"{p99:.2f}")
        console.print(shown)
        return
    sizes = given.requests_per_day or [1e3, 1e5, 1e6, 1e7, 1e8, 1e9]
    console.print(table([replace(base, requests_per_day=size) for size in sizes]))


if __name__ == "__main__":
    main()
