"""A hit of a long conversation: what 112 KB cost more than 2.3 KB, in farthing and in a bare cache."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import asdict
from statistics import median

from bench.hot import LOW, OURS, Effort, Tell, at_most, cell, cost_us, from_dict, learn, series
from bench.load import Window, chat_body, long_chat_body, window
from bench.machine import Place
from bench.report import Report
from bench.servers import Running, farthing
from bench.upstream import fast

__all__ = ["long_hits"]

MOST_RATIO = 3.0
BODIES: dict[str, Callable[[str], bytes]] = {"2.3 KB": chat_body, "112 KB": long_chat_body}
DISTINCT = 8
MOST_ROUNDS = 2
TARGETS_AT = (1, 64)
"""The numbers at a time that have a target."""


def long_hits(here: Place, effort: Effort, tell: Tell) -> Report:
    """Byte-identical repeats of short and of long bodies; a process for each, so that the bills stay apart."""
    report = Report("long", "An exact hit of a long conversation", ["path", "body", "c", "CPU µs/request"])
    report.columns += ["× 2.3 KB", "requests/s", "p50 ms", "p99 ms", "p99.9 ms"]
    repeated = next(series())
    windows: list[Window] = []
    at_once = effort.concurrencies
    rounds = min(MOST_ROUNDS, effort.rounds)
    with contextlib.ExitStack() as stack:
        servers: list[tuple[str, str, Running]] = []
        with fast(here) as direct:
            for size in BODIES:
                servers.append((LOW, size, stack.enter_context(from_dict(f"{LOW}, {size}", here))))
                own = farthing(f"{OURS}, {size}", direct.port, here, {"SEMANTIC__MODE": "off"})
                servers.append((OURS, size, stack.enter_context(own)))
            for _, size, server in servers:
                learn(server, here, repeated, BODIES[size], distinct=DISTINCT)
        for number, concurrency in itertools.product(range(rounds), at_once):
            for _, size, server in servers:
                tell(f"long: round {number + 1} of {rounds}, {concurrency} at a time, {server.name}")
                windows.append(window(server, concurrency, effort.seconds, here, repeated, DISTINCT, body=BODIES[size]))
    report.raw += [asdict(w) for w in windows]
    failed = sum(w.errors for w in windows)
    if failed:
        raise RuntimeError(f"{failed} of {sum(w.requests for w in windows)} requests failed")
    for path, concurrency, size in itertools.product((LOW, OURS), at_once, BODIES):
        name = f"{path}, {size}"
        short_us, own_us = (cost_us(windows, one, concurrency) for one in (f"{path}, 2.3 KB", name))
        mine = cell(windows, name, concurrency)
        speeds = [f"{median(w.per_s for w in mine):,.0f}", f"{median(w.p50_ms for w in mine):.2f}"]
        speeds += [f"{median(w.p99_ms for w in mine):.2f}", f"{median(w.p999_ms for w in mine):.2f}"]
        report.rows.append([path, size, str(concurrency), f"{own_us:,.0f}", f"{own_us / short_us:.2f}", *speeds])
        if path == OURS and size != "2.3 KB" and concurrency in TARGETS_AT:
            what = f"CPU of a hit at 112 KB, {concurrency} at a time"
            report.targets.append(at_most(what, MOST_RATIO, own_us / short_us, "a hit at 2.3 KB = 1"))
    report.notes.append("200 messages in 112 KB, 10 in 2.3 KB; the upstream was stopped before the windows.")
    return report
