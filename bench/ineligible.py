"""What the semantic stage costs a request that it doesn't concern: nothing, it should be.

A few dozen requests at a time, in turns: where a machine changes its speed from one second to the next, windows of a
second each don't compare what differs by a twentieth.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from bench.hot import Effort, Tell, at_most, cost_us, no_errors, ratio, series, speeds, warm
from bench.load import Timing, Window, chat_body, closed_loop, http_request, window_of
from bench.machine import Place, front_s, settle
from bench.report import Report
from bench.servers import Running, farthing
from bench.upstream import fast, requests_seen

__all__ = ["ineligible"]

OFF = "farthing, semantic off"
OBSERVE = "farthing, semantic in observe"
MOST_RATIO = 1.05
TURNS, QUICK_TURNS = 64, 4
EACH = 64  # requests of a turn


def tool_result(serial: str) -> bytes:
    """The request of the other experiments, but what came last is a tool's result: such a turn is matched with none."""
    body = json.loads(chat_body(serial))
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    body["messages"][-2:] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": f"Label {serial}: it was delivered to a neighbour."},
    ]
    return json.dumps(body, separators=(",", ":")).encode()


def ineligible(here: Place, effort: Effort, tell: Tell) -> Report:
    """Misses that the stage passes by, with the stage off and in observe, side by side."""
    report = Report("ineligible", "A miss that is none of the semantic stage's business", ["path", "c"])
    report.columns += ["CPU µs/request", "× off", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "RSS MiB"]
    names = series()
    windows: list[Window] = []
    at_once, count = ((64,), QUICK_TURNS) if effort.quick else ((1, 64), TURNS)
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(fast(here))
        servers = [
            stack.enter_context(farthing(name, direct.port, here, {"SEMANTIC__MODE": mode}))
            for name, mode in ((OFF, "off"), (OBSERVE, "observe"))
        ]
        for server in servers:
            warm(server, here, next(names), 1, tool_result)  # what is eligible would be embedded for seconds after
        before = requests_seen(direct)
        for concurrency in at_once:
            tell(f"ineligible: {count} turns, {concurrency} at a time")
            windows += in_turns(servers, concurrency, count, names)
        sent, seen = sum(w.requests for w in windows), requests_seen(direct) - before
        if seen < sent:
            raise RuntimeError(f"of {sent} requests {seen} reached the upstream")
    report.raw += [asdict(w) for w in windows]
    for concurrency, server in itertools.product(at_once, servers):
        multiple = ratio(windows, server.name, OFF, concurrency)
        mine = [w for w in windows if w.server == server.name and w.concurrency == concurrency]
        cost = f"{cost_us(windows, server.name, concurrency):,.0f}"
        report.rows.append([server.name, str(concurrency), cost, f"{multiple:.2f}", *speeds(mine)])
        if server.name == OBSERVE:
            what = f"CPU of a miss that isn't eligible, semantic stage in observe, {concurrency} at a time"
            report.targets.append(at_most(what, MOST_RATIO, multiple, f"{OFF} = 1"))
    report.targets.append(no_errors(windows))
    report.notes.append(
        f"Prompts of 2.3 KB that end in a tool's result, all different; {count} turns of {EACH} requests each, by a "
        "client in Python (its rates and latencies aren't those of wrk). The model is loaded all the same."
    )
    return report


def in_turns(servers: Sequence[Running], concurrency: int, count: int, names: Iterator[str]) -> list[Window]:
    """A window for each server: all of its turns together. Every other time the last goes first."""
    import uvloop

    timings: dict[str, list[Timing]] = {server.name: [] for server in servers}
    took_s = dict.fromkeys(timings, 0.0)
    before = {server.name: (settle(server.pid), front_s(server.pid)) for server in servers}
    for turn in range(count):
        for server in servers if turn % 2 else reversed(servers):
            name = next(names)
            requests = iter([http_request(tool_result(f"{name}{number:08d}")) for number in range(EACH)])
            begun_s = time.perf_counter()
            timings[server.name] += uvloop.run(closed_loop(server.port, requests, concurrency, lambda _: 0.0))
            took_s[server.name] += time.perf_counter() - begun_s
    return [window_of(one, concurrency, timings[one.name], took_s[one.name], *before[one.name]) for one in servers]
