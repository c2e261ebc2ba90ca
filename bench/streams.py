"""Streams: how much later the first byte comes, and whether memory grows with the number of requests."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from random import Random
from statistics import median

from bench.hot import OBSERVE, OURS, Effort, Tell, one_request, passing
from bench.load import Timing, closed_loop, percentile
from bench.machine import Place, rss_bytes, settle
from bench.report import Report, Target
from bench.servers import Running, farthing
from bench.upstream import requests_seen, streaming
from farthing.proxy.ledger_upkeep import ROLL_EVERY_S

__all__ = ["memory", "stream"]

CONCURRENT = 50
CHUNKS, FIRST_MS, GAP_MS = 20, 50.0, 10.0
MOST_ADDED_MS = 2.0
MOST_GROWTH = 0.10
BOUND_ENTRIES = 4_000


def drive(port: int, requests: Iterator[bytes], concurrency: int, pause: Callable[[Random], float]) -> list[Timing]:
    """The closed loop on an event loop of its own."""
    import uvloop

    return uvloop.run(closed_loop(port, requests, concurrency, pause))


def stream(here: Place, effort: Effort, tell: Tell) -> Report:
    """50 streams at a time, their starts spread by chance, straight to the upstream and through each proxy in turns."""
    report = Report("stream", f"Streams, {CONCURRENT} at a time: time to the first byte", ["path", "p50 ms", "p99 ms"])
    report.columns += ["p99.9 ms", "added p50 ms", "added p99 ms", "whole p50 ms", "CPU µs/stream"]
    found: dict[str, list[dict[str, float]]] = {}
    firsts: dict[str, list[float]] = {}  # of all rounds: one has too few for its 99.9th percentile
    serials = itertools.count()
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(streaming(here, chunks=CHUNKS, first_ms=FIRST_MS, gap_ms=GAP_MS))
        servers = [
            direct,
            stack.enter_context(passing(direct.port, here)),
            stack.enter_context(farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"})),
        ]
        if not effort.quick:
            servers.append(stack.enter_context(farthing(OBSERVE, direct.port, here, {"SEMANTIC__MODE": "observe"})))
        for server in servers:
            drive(server.port, fresh(serials, CONCURRENT * 2), CONCURRENT, spread)
        for number, server in itertools.product(range(effort.rounds), servers):
            if server.name == OBSERVE and number > 0:
                continue
            tell(f"stream: round {number + 1} of {effort.rounds}, {server.name}")
            before = settle(server.pid)
            timings = drive(server.port, until(serials, effort.seconds + (not effort.quick)), CONCURRENT, spread)
            cpu_us = (settle(server.pid) - before) * 1e6 / len(timings)
            check(server, timings)
            found.setdefault(server.name, []).append(summary(timings) | {"cpu_us": cpu_us})
            firsts.setdefault(server.name, []).extend(one.first_s * 1000 for one in timings)
    straight = found[direct.name]
    for server in servers:
        rounds = found[server.name]
        report.raw += [{"server": server.name, **one} for one in rounds]
        row = [f"{middle(rounds, which):.2f}" for which in ("p50_ms", "p99_ms")]
        row.append(f"{percentile(firsts[server.name], 99.9):.2f}")
        added_ms = middle(rounds, "p50_ms") - middle(straight, "p50_ms")
        added_99_ms = middle(rounds, "p99_ms") - middle(straight, "p99_ms")
        row += ["", ""] if server is direct else [f"{added_ms:.2f}", f"{added_99_ms:.2f}"]
        report.rows.append([server.name, *row, f"{middle(rounds, 'whole_ms'):.1f}", f"{middle(rounds, 'cpu_us'):,.0f}"])
        if server.name == OURS:
            what = f"added time to first byte, p50, {CONCURRENT} streams"
            report.targets.append(
                Target(what, f"≤ {MOST_ADDED_MS:g} ms", f"{added_ms:.2f} ms", added_ms <= MOST_ADDED_MS)
            )
    report.notes.append(
        f"{CHUNKS + 3} events a stream, {GAP_MS:g} ms apart, the first {FIRST_MS:g} ms after the request; unique "
        "prompts; each client pauses 0 to 100 ms between its streams. p99.9 is of all rounds "
        f"together, {min(map(len, firsts.values())):,} streams of each at least; of less than a thousand it is the "
        "slowest."
    )
    return report


def spread(chance: Random) -> float:
    """A pause of 0 to 100 ms: without it, 50 clients that start together would stay together."""
    return chance.uniform(0.0, 0.1)


def fresh(serials: Iterator[int], count: int) -> Iterator[bytes]:
    """So many streamed requests, no prompt twice."""
    return (one_request(f"s{number:011d}", stream=True) for number in itertools.islice(serials, count))


def until(serials: Iterator[int], seconds: float) -> Iterator[bytes]:
    """Streamed requests, no prompt twice, until the time is up."""
    end = time.monotonic() + seconds
    for number in serials:
        if time.monotonic() > end:
            return
        yield one_request(f"s{number:011d}", stream=True)


def check(server: Running, timings: list[Timing]) -> None:
    """Every stream came whole. Raises RuntimeError."""
    bad = [t for t in timings if t.status != 200 or b"data: [DONE]" not in t.tail]
    if bad or not timings:
        raise RuntimeError(f"{server.name}: {len(bad)} of {len(timings)} streams were not whole; first: {bad[:1]}")


def summary(timings: list[Timing]) -> dict[str, float]:
    """Milliseconds of one round."""
    first = [t.first_s * 1000 for t in timings]
    return {
        "streams": len(timings),
        "p50_ms": percentile(first, 50),
        "p99_ms": percentile(first, 99),
        "whole_ms": percentile([t.whole_s * 1000 for t in timings], 50),
    }


def middle(rounds: list[dict[str, float]], what: str) -> float:
    """The median over the rounds."""
    return median(one[what] for one in rounds)


def memory(here: Place, effort: Effort, tell: Tell) -> Report:
    """Unique requests, every second one a stream, with a cache that is full before a tenth of them."""
    total = effort.memory_requests
    bound = min(BOUND_ENTRIES, total // 25)
    report = Report("memory", f"Memory over {total:,} requests", ["requests", "RSS MiB", "against a tenth"])
    settings = {"SEMANTIC__MODE": "off", "STORE__MAX_ENTRIES": str(bound), "STORE__MEMORY_BYTES": str(8 * 2**20)}
    sizes: dict[int, int] = {}
    steps = 20
    with (
        streaming(here, chunks=8, first_ms=0, gap_ms=0) as direct,
        farthing(OURS, direct.port, here, settings) as ours,
    ):
        started_s = time.monotonic()
        for step in range(steps):
            tell(f"memory: {step * total // steps:,} of {total:,} requests")
            numbers = range(step * total // steps, (step + 1) * total // steps)
            timings = drive(ours.port, mixed(numbers), 32, lambda _: 0.0)
            failed = sum(t.status != 200 for t in timings)
            if failed or len(timings) != len(numbers):
                raise RuntimeError(f"{failed} of {len(numbers)} requests failed")
            if numbers.stop == total // 10 and not effort.quick:
                tell("memory: until the ledger has rolled up for the first time, and loaded numpy for it")
                time.sleep(max(0.0, started_s + ROLL_EVERY_S + 3.0 - time.monotonic()))
            settle(ours.pid)
            sizes[numbers.stop] = rss_bytes(ours.pid)
        reached = requests_seen(direct)
    early, late = sizes[total // 10], sizes[total]
    for count in (total // 20, total // 10, total // 5, total // 2, total):
        size = sizes[count]
        report.rows.append([f"{count:,}", f"{size / 2**20:.1f}", f"{size / early - 1:+.1%}"])
    report.raw += [{"requests": count, "rss_bytes": size} for count, size in sizes.items()]
    growth = late / early - 1
    what = f"RSS after {total:,} requests against {total // 10:,}"
    report.targets.append(Target(what, f"≤ +{MOST_GROWTH:.0%}", f"{growth:+.1%}", growth <= MOST_GROWTH))
    report.targets.append(Target("requests that reached the upstream", f"{total:,}", f"{reached:,}", reached == total))
    report.notes.append(f"Unique prompts, every second one a stream, 32 at a time; the cache holds {bound:,} answers.")
    if not effort.quick:
        report.notes.append(
            "At a tenth it waits until rows have been rolled up once: numpy is loaded with the first time, some 25 MiB "
            "that don't come again."
        )
    return report


def mixed(numbers: range) -> Iterator[bytes]:
    """One request for each number, odd ones streamed."""
    return (one_request(f"m{number:011d}", stream=bool(number % 2)) for number in numbers)
