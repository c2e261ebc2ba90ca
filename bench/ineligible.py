"""What the semantic stage costs a request that it doesn't concern: nothing, it should be."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import asdict

from bench.hot import Effort, Tell, at_most, cost_us, no_errors, ratio, series, speeds, warm
from bench.load import Window, chat_body, window
from bench.machine import Place
from bench.report import Report
from bench.servers import farthing
from bench.upstream import fast, requests_seen

__all__ = ["ineligible"]

OFF = "farthing, semantic off"
OBSERVE = "farthing, semantic in observe"
MOST_RATIO = 1.05
MOST_ROUNDS = 4


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
    at_once = (64,) if effort.quick else (1, 64)
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(fast(here))
        servers = [
            stack.enter_context(farthing(name, direct.port, here, {"SEMANTIC__MODE": mode}))
            for name, mode in ((OFF, "off"), (OBSERVE, "observe"))
        ]
        for server in servers:
            warm(server, here, next(names), 1, tool_result)  # what is eligible would be embedded for seconds after
        for number, concurrency in itertools.product(range(min(MOST_ROUNDS, effort.rounds)), at_once):
            for server in servers:
                tell(f"ineligible: round {number + 1}, {concurrency} at a time, {server.name}")
                windows.append(
                    window(
                        server,
                        concurrency,
                        effort.seconds,
                        here,
                        next(names),
                        seen=lambda: requests_seen(direct),
                        body=tool_result,
                    )
                )
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
        "Prompts of 2.3 KB that end in a tool's result, all different. The model is loaded all the same."
    )
    return report
