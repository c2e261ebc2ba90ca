"""Latency at half and at four fifths of what each server can do, each request timed from when it was due."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from statistics import median

from bench.hot import (
    DISTINCT_HITS,
    LOW,
    OURS,
    PASS,
    Effort,
    Tell,
    from_dict,
    learn,
    one_request,
    passing,
    series,
    warm,
)
from bench.load import window
from bench.machine import Place, settle
from bench.open_loop import open_loop, summed
from bench.report import Report, Target
from bench.servers import Running, farthing
from bench.upstream import fast

__all__ = ["open_load"]

SHARES = (0.5, 0.8)
CONNECTIONS = 128
MOST_ADDED_MS = 1.0
AT_ONCE = 64


def open_load(here: Place, effort: Effort, tell: Tell) -> Report:
    """Two loads for each server: shares of what it did itself in a closed loop just before, 64 at a time."""
    report = Report("open", "Latency at a given load, from when each request was due", ["what", "path", "load"])
    report.columns += ["requests/s", "p50 ms", "p99 ms", "p99.9 ms", "most ms", "CPU µs/request", "sent late p99 ms"]
    names = series()
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(fast(here))
        through = stack.enter_context(passing(direct.port, here))
        ours = stack.enter_context(farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"}))
        for server in () if effort.quick else (direct, through, ours):
            warm(server, here, next(names), 1)
        full = {one.name: at_most_per_s(one, here, next(names), 0, effort) for one in (through, ours)}
        # The upstream itself is asked at the rates of the pass-through: what the client sees without a proxy.
        full[direct.name] = full[PASS]
        rounds(report, "miss", [direct, through, ours], full, lambda: unique(next(names)), effort, tell)
        with from_dict(LOW, here) as low:
            repeated = next(names)
            for server in (low, ours):
                learn(server, here, repeated)
            full = {one.name: at_most_per_s(one, here, repeated, DISTINCT_HITS, effort) for one in (low, ours)}
            rounds(report, "hit", [low, ours], full, lambda: again(repeated), effort, tell)
    p50_ms = {(row[0], row[1], row[2]): float(row[4]) for row in report.rows}
    added_ms = p50_ms["hit", OURS, "50%"] - p50_ms["miss", direct.name, "50%"]
    what = "a hit's p50 at half of saturation, above nginx's"
    passed = added_ms <= MOST_ADDED_MS
    report.targets.append(Target(what, f"≤ {MOST_ADDED_MS:g} ms", f"{added_ms:.2f} ms", passed, "direct"))
    report.notes.append(
        f"Requests leave evenly, over at most {CONNECTIONS} connections; one that finds none free waits, and its wait "
        "counts. 100 % is what the server did in a closed loop, 64 at a time, in the same run; 'direct' is asked at "
        "the pass-through's rates. 'Sent late' is the client's own fault and part of every figure beside it. Medians "
        "over the rounds; 'most' is the slowest of all."
    )
    return report


def unique(name: str) -> Iterator[bytes]:
    """Requests whose prompts all differ."""
    return (one_request(f"{name}{number:08d}") for number in itertools.count())


def again(repeated: str) -> Iterator[bytes]:
    """The bodies that every server has learnt, round and round."""
    return itertools.cycle([one_request(f"{repeated}{number:08d}") for number in range(DISTINCT_HITS)])


def at_most_per_s(server: Running, here: Place, name: str, distinct: int, effort: Effort) -> float:
    """The rate at which the server is saturated."""
    each = [window(server, AT_ONCE, effort.seconds, here, name, distinct) for _ in range(min(3, effort.rounds))]
    return median(one.per_s for one in each)


def rounds(
    report: Report,
    what: str,
    servers: list[Running],
    full: dict[str, float],
    requests: Callable[[], Iterator[bytes]],
    effort: Effort,
    tell: Tell,
) -> None:
    """Every server at every load in turns; rows and raw figures into the report."""
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for number, share in itertools.product(range(min(3, effort.rounds)), SHARES[:1] if effort.quick else SHARES):
        for server in servers:
            tell(f"open: {what}, round {number + 1}, {share:.0%} of {full[server.name]:,.0f}/s, {server.name}")
            before = settle(server.pid)
            told = open_loop(
                server.port, requests(), share * full[server.name], effort.seconds + (not effort.quick), CONNECTIONS
            )
            used_s = settle(server.pid) - before
            one = summed(told) | {"cpu_us": used_s * 1e6 / len(told.latency_s), "rate": share * full[server.name]}
            if told.errors:
                raise RuntimeError(f"{server.name}: {told.errors} of {len(told.latency_s)} answers were errors")
            found.setdefault((server.name, share), []).append(one)
            report.raw.append({"what": what, "server": server.name, "share": share, **one})
    for (name, share), each in found.items():
        row = [f"{median(one['rate'] for one in each):,.0f}"]
        row += [f"{median(one[key] for one in each):.2f}" for key in ("p50_ms", "p99_ms", "p99.9_ms")]
        row += [f"{max(one['p100_ms'] for one in each):.1f}", f"{median(one['cpu_us'] for one in each):,.0f}"]
        row.append(f"{median(one['late_p99_ms'] for one in each):.2f}")
        report.rows.append([what, name, f"{share:.0%}", *row])
