"""The budget of a request: microseconds and memory of each stage, for a hit by the short way, a hit, and a miss."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.hot import Effort, Tell
from bench.load import chat_body, closed_loop, http_request
from bench.machine import Place, settle
from bench.profile_shares import LEDGERS
from bench.report import Report, Target
from bench.servers import Running, free_port, started
from bench.upstream import fast

__all__ = ["budget_rows", "stages"]

WHOLE = "all of the handler"
APPEND, ROW = "ledger, append", "ledger, row made"
THREAD, LOOP = "thread ", "MainThread"
MOST_APPEND_US = 10.0
DISTINCT = 16
LEAST_US = 0.05
BACK = ("store", "semantic", "compress", "route", "prompt_cache", "spend", "upstream")
WAYS = ("hit, short way", "hit, through the stages", "miss")


@contextlib.contextmanager
def metered(upstream_port: int, here: Place, kind: str, short: bool) -> Iterator[tuple[Running, Path]]:
    """farthing with a meter; `kind`: 'time' or 'memory'; `short`: whether hits may take their short way."""
    port, out = free_port(), here.folder / f"stages-{kind}-{short}"
    command = [sys.executable, "-m", "bench.stage_server", str(out), kind, "serve", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1", "--state", f"{out}.state"]
    env = {"FARTHING_LOG__LEVEL": "warning", "FARTHING_SEMANTIC__MODE": "off"}
    if not short:
        env["BENCH_SHORT"] = "off"
    name = f"farthing metered {kind} {short}"
    with started(
        name, command, port, here.folder, core=here.measured, ready="/readyz", env=env, timeout_s=60
    ) as running:
        yield running, out


def taken(running: Running, path: Path) -> dict[str, list[Any]]:
    """The figures since the last time. Raises TimeoutError."""
    os.kill(running.pid, signal.SIGUSR1)
    end = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError("the meter told nothing")
        time.sleep(0.02)
    told: dict[str, list[Any]] = json.loads(path.read_text("utf-8"))
    return told


def asked(port: int, count: int, start: str, distinct: int) -> None:
    """So many requests, one at a time; `distinct` prompts go round, 0: all differ. Raises RuntimeError: one failed."""
    import uvloop

    requests = (http_request(chat_body(f"{start}{n % distinct if distinct else n:010d}")) for n in range(count))
    timings = uvloop.run(closed_loop(port, requests, 1, lambda _: 0.0))
    if any(one.status != 200 for one in timings):
        raise RuntimeError("requests failed")


def run(upstream_port: int, here: Place, kind: str, count: int) -> dict[str, tuple[dict[str, list[Any]], float]]:
    """By way: the figures of so many requests, and the processor microseconds of the whole process for each."""
    found: dict[str, tuple[dict[str, list[Any]], float]] = {}
    for short in (True, False):
        with metered(upstream_port, here, kind, short) as (server, out):
            asked(server.port, 3 * DISTINCT, "sh", DISTINCT)
            asked(server.port, 50, "sw", 0)
            settle(server.pid)
            before_us = threads_of(taken(server, out.with_suffix(".0")))
            todo = [WAYS[0]] if short else list(WAYS[1:])
            for number, way in enumerate(todo, 1):
                before = settle(server.pid)
                asked(server.port, count, "sm" if way == "miss" else "sh", 0 if way == "miss" else DISTINCT)
                used_us = (settle(server.pid) - before) * 1e6 / count
                told = taken(server, out.with_suffix(f".{number}"))
                after_us = threads_of(told)
                for name, us in after_us.items():
                    told[THREAD + name] = [(us - before_us.get(name, 0.0)) / count]
                before_us = after_us
                found[way] = told, used_us
    return found


def threads_of(told: Mapping[str, list[Any]]) -> dict[str, float]:
    """By name, what each kind of thread has used so far, in microseconds."""
    return {name.removeprefix(THREAD): each[0] for name, each in told.items() if name.startswith(THREAD)}


def budget_rows(
    figures: Mapping[str, list[float]], memory: Mapping[str, list[tuple[int, int]]], process_us: float, count: int
) -> list[list[str]]:
    """Rows of a way: part, µs a request, its share, blocks kept, most bytes. Parts that take nothing are left out.

    A part's time is its median call's, times its calls for each request. 'The rest of the handler' is what no part has.
    Figures of threads are theirs for each request; what neither they nor the handler have is the event loop's.
    """
    threads_us = threads_of(figures)
    parts = {name: median(each) * len(each) / count for name, each in figures.items() if not name.startswith(THREAD)}
    whole_us = parts.pop(WHOLE)
    # The ledger's row is within the account's way out; the stages of BACK run in a task of the flight's own.
    back_us = sum(us for name, us in parts.items() if name.partition(",")[0] in BACK)
    inside_us = sum(
        us for name, us in parts.items() if name.partition(",")[0] not in BACK and name not in (APPEND, ROW)
    )
    ledgers_us = sum(threads_us.pop(name, 0.0) for name in LEDGERS)
    others_us = sum(us for name, us in threads_us.items() if name != LOOP)
    parts["the rest of the handler: pipeline, reading the flight"] = max(0.0, whole_us - inside_us)
    parts["ledger's threads"] = ledgers_us
    parts["other threads: watch, store, helpers"] = others_us
    parts["the loop: aiohttp, sockets, timers, tasks"] = max(
        0.0, process_us - whole_us - back_us - ledgers_us - others_us
    )
    parts["whole process"] = process_us
    return [
        [name, f"{us:,.1f}", f"{us / process_us:.0%}", *_memory(memory.get(name, []))]
        for name, us in parts.items()
        if us >= LEAST_US
    ]


def _memory(calls: list[tuple[int, int]]) -> tuple[str, str]:
    """Medians: blocks that are there after the call, and the most bytes that it had at once."""
    if not calls:
        return "", ""
    return f"{median(one[0] for one in calls):,.0f}", f"{median(one[1] for one in calls):,.0f}"


def stages(here: Place, effort: Effort, tell: Tell) -> Report:
    """Times first, then memory in another run, since counting memory takes time."""
    count = 200 if effort.quick else 2000
    report = Report("stages", "A request's budget", ["way", "part", "µs", "share", "blocks kept", "most bytes"])
    with fast(here) as upstream:
        tell(f"stages: {count} requests each way, time")
        times = run(upstream.port, here, "time", count)
        tell("stages: memory")
        memory = run(upstream.port, here, "memory", 100)
    for way in WAYS:
        figures, process_us = times[way]
        rows = budget_rows(figures, memory[way][0], process_us, count)
        report.rows += [[way, *row] for row in rows]
        medians = {name: median(each) for name, each in figures.items() if not name.startswith(THREAD)}
        report.raw.append({"way": way, "process_us": process_us, "median_us": medians})
        appended_us = medians[APPEND]
        what = f"ledger's append on the request path, {way}"
        passed = appended_us <= MOST_APPEND_US
        report.targets.append(Target(what, f"≤ {MOST_APPEND_US:g} µs", f"{appended_us:.1f} µs", passed))
        if ROW in medians:
            both_us = medians[ROW] + appended_us
            what = f"ledger's row made and appended on the request path, {way}"
            passed = both_us <= MOST_APPEND_US
            report.targets.append(Target(what, f"≤ {MOST_APPEND_US:g} µs", f"{both_us:.1f} µs", passed))
    report.notes.append(
        "One request at a time, so nothing is amortised over a busy loop; a part's figure is the median of its calls "
        "by the clock, the meter's own taken off, waiting not counted; the whole process is its processor time, "
        "with the meter's. 'Ledger, append' and 'ledger, row made' are within 'account, out'; a hit by the short way "
        "has its row made within 'short way, answered' (the figure is among the small things), and one through the "
        "stages a second time, for the short way, within 'short way, learnt'. Threads: processor time by the system's "
        "count. What is within the handler's rest and the loop says the profile. Parts of 0.05 µs and less are left "
        "out. "
        "Memory, in a run of its own: blocks of the interpreter that are there after the call, and the most bytes that "
        "it had at once."
    )
    return report
