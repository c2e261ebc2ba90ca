"""What a request of each kind costs a farthing, alone with its store and over a Valkey, in one run with a bare server.

A replica of its own (SQLite) and one over a real Valkey are asked in turns, 16 at a time: prompts that are new; the
same ones a second time, which over Valkey is a look-up there; and then a few, again and again, which comes from memory.
Streams of 23 events give the cost of an event. What is taken is processor time, Valkey's own too, by its INFO. The
bare low-level server of bench/baselines.py stands beside them in each round, so that a machine's speed is known.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping

import redis

from bench.hot import LOW, from_dict
from bench.load import chat_body, http_request
from bench.machine import Place, settle
from bench.replicas import measured as log_costs
from bench.servers import Running, farthing
from bench.streams import drive
from bench.upstream import requests_seen, streaming

__all__ = ["ALONE", "AT_ONCE", "KNOWN", "asked", "cost_us", "known", "measured", "over", "prompts"]

AT_ONCE = 16
KNOWN = 50
CHUNKS = 20
EVENTS = CHUNKS + 3  # role, finish and usage beside the pieces
LOG_ENTRIES = 10_000
ALONE = {"SEMANTIC__MODE": "off"}
PATIENT = {"STORE__DEADLINE_MS": "5000", "STORE__STALE_S": "5"}
"""On a machine that is busy otherwise, too, Redis shall be waited for, and memory before it be believed: else a hit is
counted that was a miss."""


def over(store: str) -> dict[str, str]:
    """The settings of a replica over that Valkey."""
    return ALONE | PATIENT | {"STORE__URL": store}


def prompts(series: str, count: int, stream: bool = False) -> Iterator[bytes]:
    """So many requests that nobody else makes; the same for the same series of four characters."""
    return (http_request(chat_body(f"{series}{number:08d}", stream)) for number in range(count))


def known(count: int) -> Iterator[bytes]:
    """A few requests, again and again."""
    return (http_request(chat_body(f"k{number % KNOWN:011d}")) for number in range(count))


def asked(server: Running, requests: Iterator[bytes]) -> int:
    """Send them; how many. Raises RuntimeError: one failed."""
    timings = drive(server.port, requests, AT_ONCE, lambda _: 0.0)
    if bad := sum(timing.status != 200 for timing in timings):
        raise RuntimeError(f"{server.name}: {bad} of {len(timings)} requests failed")
    return len(timings)


def cost_us(server: Running, requests: Iterator[bytes]) -> float:
    """Processor time of the server for each of them, until it has come to rest."""
    before = settle(server.pid)
    count = asked(server, requests)
    return (settle(server.pid) - before) * 1e6 / count


def measured(
    here: Place, store: str, rounds: int, count: int, tell: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """Each cost in µs as the median over the rounds, by the name that it has in bench.capacity.Costs."""
    found: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(streaming(here, chunks=CHUNKS, first_ms=20, gap_ms=10))
        bare = stack.enter_context(from_dict(LOW, here))
        alone = stack.enter_context(farthing("alone", upstream.port, here, ALONE))
        shared = stack.enter_context(farthing("shared", upstream.port, here, over(store)))
        observing = stack.enter_context(farthing("observing", upstream.port, here, {"SEMANTIC__MODE": "observe"}))
        valkey = stack.enter_context(contextlib.closing(redis.Redis.from_url(store)))
        for server in (bare, alone, shared, observing):
            asked(server, known(4 * KNOWN))
        for number in range(rounds):
            tell(f"costs: round {number + 1} of {rounds}")
            told = one_round(bare, alone, shared, observing, valkey, upstream, number, count)
            for name, cost in told.items():
                found.setdefault(name, []).append(cost)
    costs = {name: statistics.median(some) for name, some in found.items()}
    tell("the log of near-duplicates")
    log = log_costs(LOG_ENTRIES, 100)
    return costs | {"log_write_us": log["write_cpu_us"], "log_follow_us": log["follow_cpu_us"]}


def one_round(
    bare: Running,
    alone: Running,
    shared: Running,
    observing: Running,
    valkey: redis.Redis,
    upstream: Running,
    number: int,
    count: int,
) -> Mapping[str, float]:
    """Every kind of request once, so many of each. Raises RuntimeError: a hit was none, or a miss was."""
    series, streams = f"u{number:03d}", f"s{number:03d}"
    told = {"bare_us": cost_us(bare, known(8 * count))}
    for name, requests, misses in (
        ("miss_us", prompts(series, count), count),
        ("first_hit_us", prompts(series, count), 0),
        ("hit_us", known(8 * count), 0),
    ):
        with went_upstream(upstream, misses):
            told[name] = cost_us(alone, requests)
    told["event_us"] = (cost_us(alone, prompts(streams, count, stream=True)) - told["miss_us"]) / EVENTS
    told["semantic_us"] = cost_us(observing, prompts(series, count)) - told["miss_us"]
    for name, requests, size in (
        ("shared_miss", prompts(series, count), count),
        ("shared_first_hit", prompts(series, count), count),
        ("shared_hit", known(8 * count), 8 * count),
    ):
        asked(shared, known(KNOWN))  # what was held for a minute is read again
        before = used_us(valkey)
        with went_upstream(upstream, count if name == "shared_miss" else 0):
            told[f"{name}_us"] = cost_us(shared, requests)
        told[f"valkey_{name}_us"] = (used_us(valkey) - before) / size
    return told


@contextlib.contextmanager
def went_upstream(upstream: Running, wanted: int) -> Iterator[None]:
    """Raises RuntimeError: more or fewer requests than these reached it meanwhile, by more than one in a hundred."""
    before = requests_seen(upstream)
    yield
    seen = requests_seen(upstream) - before
    if abs(seen - wanted) > max(3, wanted // 100):
        raise RuntimeError(f"{seen} requests went upstream where {wanted} should have")


def used_us(valkey: redis.Redis) -> float:
    """Processor time that the server has used so far, all threads."""
    told = valkey.info("cpu")
    assert isinstance(told, dict)
    return 1e6 * (told["used_cpu_user"] + told["used_cpu_sys"])
