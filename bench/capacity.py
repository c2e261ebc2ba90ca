"""How many replicas, Redis shards, gigabytes and dollars a load needs: a model out of measured costs.

The model is arithmetic over `Costs` and `Load`. Processor times are those of one run of `bench.capacity_measured`
(docs/capacity.json), in which a bare low-level server stood beside farthing: on a machine where that takes half as
long, all of them are taken for half as long (`Costs.on`). What the model leaves out it says: garbage collection at its
worst, noisy neighbours, an upstream's limits.

    python -m bench.capacity                              the tables of docs/operations.md (--write: into it)
    python -m bench.capacity --requests-per-day 2e7       one load
    python -m bench.capacity --bare-us 50                 a machine whose bare server takes that long
    python -m bench.capacity --simulate                   how busy a replica may be, by a queue of its own
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

__all__ = ["KEPT", "TIMED", "Costs", "Load", "Plan", "kept_costs", "plan", "request_us", "waits_ms"]

KEPT = Path(__file__).parents[1] / "docs" / "capacity.json"
DAY_S = 86_400
GIB = 2**30
SIZES = (1e3, 1e5, 1e6, 1e7, 1e8, 1e9)
MOST_FOLLOWED = 0.25
FASTER_US = 50.0
"""The bare server on the same machine on its faster day, 64 at a time: docs/benchmarks.md."""
COLUMNS = (
    *("requests a day", "at the peak / s", "cores busy", "of a core, the log", "replicas", "where bare takes 50 µs"),
    *("in flight each", "GiB each", "entries", "store GiB", "Redis shards", "network MB/s", "ledger GiB/day"),
    "USD a month",
)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one thing takes. In µs of processor time, all of one run, 16 at a time:

    `bare_us`: the bare low-level server's, which the others are multiples of. `miss_us`, `first_hit_us`, `hit_us`: of a
    replica of its own; a *first* hit is one whose answer this replica hasn't given lately, so that it takes the way
    through the stages. `shared_*`: of one over a Valkey, where a first hit is a look-up there, and a miss a look-up, a
    lease and a write. `valkey_*`: Valkey's own for each. `event_us`: of one event of a stream (23 events).
    `semantic_us`: what observing adds to a miss. `log_write_us`, `log_follow_us`: of a near-duplicate that is put into
    the replicas' log, and that a replica takes from it.

    `vector_bytes`: what a process grows by for an entry of the lists, a million of them (docs/index-sizes.json has
    every kind). `ledger_row_bytes`: docs/benchmarks.md, "A large ledger".

    Assumed, not measured: `redis_bytes` (what one shard is planned with), `entry_overhead_bytes` (a key and header in
    Redis), `prompt_bytes` (beside a vector), `in_flight_bytes`, and both prices.
    """

    bare_us: float
    miss_us: float
    first_hit_us: float
    hit_us: float
    shared_miss_us: float
    shared_first_hit_us: float
    shared_hit_us: float
    valkey_shared_miss_us: float
    valkey_shared_first_hit_us: float
    valkey_shared_hit_us: float
    event_us: float
    semantic_us: float
    log_write_us: float
    log_follow_us: float
    replica_bytes: int = 512 * 2**20
    in_flight_bytes: int = 64 * 1024
    redis_bytes: int = 16 * GIB
    entry_overhead_bytes: int = 350
    vector_bytes: float = 1_114
    prompt_bytes: float = 2_300
    ledger_row_bytes: float = 7.8 * GIB / 9_999_990
    core_usd_per_month: float = 25
    gib_usd_per_month: float = 3

    def on(self, bare_us: float) -> Costs:
        """The same on a machine whose bare server takes that long."""
        return replace(self, **{name: getattr(self, name) * bare_us / self.bare_us for name in TIMED})


TIMED = tuple(name for name in Costs.__dataclass_fields__ if name.endswith("_us"))


def kept_costs(path: Path = KEPT) -> Costs:
    """Those that were measured last."""
    told: Mapping[str, Any] = json.loads(path.read_text("utf-8"))["costs"]
    return Costs(**told)


@dataclass(frozen=True, slots=True)
class Load:
    """`peak`: the busiest minute's rate, in mean rates. `again_share`: of the hits, those whose answer the same replica
    has given within the last minute, so that it comes from memory by the short way; 0, as assumed, is the worst.
    `fresh_share`: of the misses, those that are stored anew. `busy`: how much of a core a replica may use at that
    peak. `spare`: replicas that may be away (one that restarts, one that has died)."""

    requests_per_day: float
    peak: float = 3.0
    hit_ratio: float = 0.3
    again_share: float = 0.0
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
    """`cores`: busy with requests at the peak. `followed`: of each replica's core, what taking the others'
    near-duplicates from the log uses; None: no log, since it would use more than `MOST_FOLLOWED` of what a replica may
    (`semantic.shared = false`). `network_bytes_per_s`: in and out of all replicas, both sides, at the peak."""

    peak_per_s: float
    cpu_us: float
    cores: float
    followed: float | None
    replicas: int
    in_flight: float
    replica_bytes: float
    entries: float
    store_bytes: float
    shards: int
    network_bytes_per_s: float
    ledger_bytes_per_day: float
    usd_per_month: float


def request_us(load: Load, costs: Costs, *, shared: bool, log: bool = False) -> float:
    """Processor time of a replica for a request of this load. `log`: what misses leave goes to the replicas' log."""
    return sum(work * share for work, share in pieces_us(load, costs, shared=shared, log=log))


def pieces_us(load: Load, costs: Costs, *, shared: bool, log: bool) -> list[tuple[float, float]]:
    """(microseconds, how many of them a request has on average)."""
    miss = 1 - load.hit_ratio
    once, first, again = (
        (costs.shared_miss_us, costs.shared_first_hit_us, costs.shared_hit_us)
        if shared
        else (costs.miss_us, costs.first_hit_us, costs.hit_us)
    )
    written = load.fresh_share * costs.log_write_us if log else 0.0
    return [
        (first, load.hit_ratio * (1 - load.again_share)),
        (again, load.hit_ratio * load.again_share),
        (once + (costs.semantic_us if load.semantic else 0.0) + written, miss),
        (costs.event_us, miss * load.stream_share * load.events),
    ]


def plan(load: Load, costs: Costs) -> Plan:
    """What the load needs. `in_flight`: a replica's at the peak, which is what an autoscaler is told."""
    peak_per_s = load.requests_per_day / DAY_S * load.peak
    miss = 1 - load.hit_ratio
    alone = peak_per_s < 10 and peak_per_s * request_us(load, costs, shared=False) / 1e6 <= load.busy
    followed = None
    if load.semantic and not alone:
        share = peak_per_s * miss * load.fresh_share * costs.log_follow_us / 1e6
        followed = share if share <= MOST_FOLLOWED * load.busy else None
    cpu_us = request_us(load, costs, shared=not alone, log=followed is not None)
    cores = peak_per_s * cpu_us / 1e6
    needed = max(1, math.ceil(cores / (load.busy - (followed or 0.0))))
    replicas = needed if alone else needed + load.spare
    in_flight = peak_per_s * miss * load.answer_s / needed
    entries = load.requests_per_day * miss * load.fresh_share * load.ttl_days
    store_bytes = entries * (load.answer_bytes + costs.entry_overhead_bytes)
    index_bytes = min(entries, 100_000) * (costs.vector_bytes + costs.prompt_bytes) if load.semantic else 0
    by_rate = peak_per_s * valkey_us(load, costs) / 1e6 / load.busy
    shards = 0 if alone else max(1, math.ceil(by_rate), math.ceil(store_bytes / costs.redis_bytes))
    replica_bytes = costs.replica_bytes + index_bytes + in_flight * costs.in_flight_bytes
    moved = load.request_bytes + load.answer_bytes
    network = peak_per_s * moved * (1 + miss) + peak_per_s * load.answer_bytes * (0 if alone else 1)
    memory_gib = (replicas * replica_bytes + 2 * shards * store_bytes / max(1, shards)) / GIB  # a copy of each shard
    usd = (replicas + 2 * shards) * costs.core_usd_per_month + memory_gib * costs.gib_usd_per_month
    return Plan(
        peak_per_s,
        cpu_us,
        cores,
        followed,
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


def valkey_us(load: Load, costs: Costs) -> float:
    """Valkey's processor time for a request of this load; the log's is not in it."""
    first = load.hit_ratio * (1 - load.again_share)
    return (
        first * costs.valkey_shared_first_hit_us
        + (load.hit_ratio - first) * costs.valkey_shared_hit_us
        + (1 - load.hit_ratio) * costs.valkey_shared_miss_us
    )


def waits_ms(busy: float, load: Load, costs: Costs, seed: int, requests: int = 200_000) -> tuple[float, float]:
    """How long (p50, p99) work waits for the one thread of a replica over Valkey, which is busy for that share of the
    time.

    Simulated: pieces of work arrive by chance (Poisson); a hit and a miss's first part are each one, and so is each
    event of a stream. First come, first served, as an event loop does.
    """
    chance = np.random.default_rng(seed)
    pieces = pieces_us(load, costs, shared=True, log=False)
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


def rows(base: Load, costs: Costs, faster_us: float) -> list[list[str]]:
    """A row for each size of load, as docs/operations.md has them. `faster_us`: another machine's bare server."""
    found = []
    for size in SIZES:
        load = replace(base, requests_per_day=size)
        made, faster = plan(load, costs), plan(load, costs.on(faster_us))
        log = "–" if not made.shards else "off" if made.followed is None else f"{made.followed:.1%}"
        found.append([
            f"{size:,.0f}", f"{made.peak_per_s:,.4g}" if made.peak_per_s < 100 else f"{made.peak_per_s:,.0f}",
            f"{made.cores:,.2f}" if made.cores < 10 else f"{made.cores:,.0f}", log,
            f"{made.replicas:,}", f"{faster.replicas:,}", f"{made.in_flight:,.0f}", f"{made.replica_bytes / GIB:.1f}",
            f"{made.entries:,.0f}", f"{made.store_bytes / GIB:,.2f}", f"{made.shards or 'none: SQLite'}",
            f"{made.network_bytes_per_s / 1e6:,.1f}", f"{made.ledger_bytes_per_day / GIB:,.2f}",
            f"{made.usd_per_month:,.0f}",
        ])  # fmt: skip
    return found


def waits(base: Load, costs: Costs, seed: int) -> list[tuple[float, float, float]]:
    """(how busy, p50 ms, p99 ms). What observing adds is left out: another thread does it."""
    base = replace(base, semantic=False)
    return [(busy, *waits_ms(busy, base, costs, seed)) for busy in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests-per-day", type=float)
    for name in ("hit_ratio", "again_share", "stream_share", "events", "answer_s", "ttl_days", "busy"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Load(0), name))
    parser.add_argument("--no-semantic", action="store_true")
    parser.add_argument("--bare-us", type=float, help="what the bare server takes on your machine (measured: as kept)")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help="docs/operations.md anew, by what is kept; no other option"
    )
    given = parser.parse_args()
    costs = kept_costs()
    if given.write:
        from bench import capacity_page

        capacity_page.write()
        return
    if given.bare_us is not None:
        costs = costs.on(given.bare_us)
    base = Load(
        given.requests_per_day or 0,
        hit_ratio=given.hit_ratio,
        again_share=given.again_share,
        stream_share=given.stream_share,
        events=given.events,
        answer_s=given.answer_s,
        ttl_days=given.ttl_days,
        busy=given.busy,
        semantic=not given.no_semantic,
    )
    console = Console(width=200)
    if given.simulate:
        shown = Table("busy", "wait p50 ms", "wait p99 ms")
        for busy, p50, p99 in waits(base, costs, given.seed):
            shown.add_row(f"{busy:.0%}", f"{p50:.2f}", f"{p99:.2f}")
    elif given.requests_per_day:
        shown = Table("", f"{given.requests_per_day:,.0f} requests a day")
        for name, value in asdict(plan(base, costs)).items():
            shown.add_row(name, "no log" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")
    else:
        shown = Table(*COLUMNS)
        for row in rows(base, costs, FASTER_US):
            shown.add_row(*row)
    console.print(shown)


if __name__ == "__main__":
    main()
