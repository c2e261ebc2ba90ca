"""Latency at half and at four fifths of what each server can do, each request timed from when it was due."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
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
from bench.load import Window, window
from bench.machine import Place, settle
from bench.open_loop import open_loop, summed
from bench.report import Report, Target
from bench.servers import Running, farthing
from bench.upstream import fast

__all__ = ["achieved", "open_load", "saturation"]

SHARES = (0.5, 0.8)
CONNECTIONS = 128
MOST_ADDED_MS = 1.0
AT_ONCE = 64
FULL_WINDOWS, FULL_S = 3, 2
LEAST_ACHIEVED = 0.98


def open_load(here: Place, effort: Effort, tell: Tell) -> Report:
    """Two loads for each server: shares of what it did itself in a closed loop just before, 64 at a time."""
    report = Report("open", "Latency at a given load, from when each request was due", ["what", "path", "load"])
    report.columns += [
        "offered/s",
        "achieved/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "most ms",
        "CPU µs/request",
        "sent late p99 ms",
    ]
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
    p50_ms = {(row[0], row[1], row[2]): float(row[5]) for row in report.rows}
    added_ms = p50_ms["hit", OURS, "50%"] - p50_ms["miss", direct.name, "50%"]
    what = "a hit's p50 at half of saturation, above nginx's"
    passed = added_ms <= MOST_ADDED_MS
    report.targets.append(Target(what, f"≤ {MOST_ADDED_MS:g} ms", f"{added_ms:.2f} ms", passed, "direct"))
    report.notes.append(
        f"Requests leave evenly, over at most {CONNECTIONS} connections; one that finds none free waits, and its wait "
        "counts. 100 % is the least that the server did in closed loops, 64 at a time, in the same run, and no more "
        "than its processor time a request, with what it puts off, lets through a core; 'direct' is asked at "
        f"the pass-through's rates. 'Overload': answers came at less than {LEAST_ACHIEVED:.0%} of the offered rate, so "
        "that latencies grow as long as the load lasts. 'Sent late' is the client's own fault and part of every figure "
        "beside it. Medians over the rounds; 'most' is the slowest of all."
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
    count, seconds = (1, effort.seconds) if effort.quick else (FULL_WINDOWS, FULL_S)
    return saturation([window(server, AT_ONCE, seconds, here, name, distinct) for _ in range(count)])


def saturation(windows: Sequence[Window]) -> float:
    """Requests a second that a server can go on with: the least of the windows, and of what its processor time allows.

    In a window of seconds a server may do more than it can go on with: its ledger's rows wait to be written.
    """
    return min(min(one.per_s, 1e6 / one.cpu_us if one.cpu_us else one.per_s) for one in windows)


def achieved(offered_per_s: float, per_s: float) -> str:
    """The cell: the rate of the answers, and whether it was too little."""
    return f"{per_s:,.0f}{'' if per_s >= LEAST_ACHIEVED * offered_per_s else ', overload'}"


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
            one = summed(told) | {"cpu_us": used_s * 1e6 / len(told.latency_s), "per_s": told.per_s}
            one["offered_per_s"] = share * full[server.name]
            if told.errors:
                raise RuntimeError(f"{server.name}: {told.errors} of {len(told.latency_s)} answers were errors")
            found.setdefault((server.name, share), []).append(one)
            report.raw.append({"what": what, "server": server.name, "share": share, **one})
    for (name, share), each in found.items():
        offered, per_s = (median(one[key] for one in each) for key in ("offered_per_s", "per_s"))
        row = [f"{offered:,.0f}", achieved(offered, per_s)]
        row += [f"{median(one[key] for one in each):.2f}" for key in ("p50_ms", "p99_ms", "p99.9_ms")]
        row += [f"{max(one['p100_ms'] for one in each):.1f}", f"{median(one['cpu_us'] for one in each):,.0f}"]
        row.append(f"{median(one['late_p99_ms'] for one in each):.2f}")
        report.rows.append([what, name, f"{share:.0%}", *row])
