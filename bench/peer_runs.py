"""What other gateways and caches need for a miss and for a hit, beside farthing in the same run."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from statistics import median

from bench import litellm
from bench.gateways import PEERS, cachellm, gptcache_us, headroom, portkey
from bench.hot import LOW as BARE
from bench.hot import (
    OURS,
    PASS,
    Effort,
    Tell,
    cell,
    cost_us,
    from_dict,
    learn,
    no_errors,
    one_request,
    passing,
    series,
    warm,
)
from bench.load import Window, chat_body, closed_loop, window, window_of
from bench.machine import Place, settle
from bench.peers import NotInstalled
from bench.report import Report, Target
from bench.servers import DidNotStart, Running, farthing
from bench.upstream import fast, requests_seen

__all__ = ["against", "fetch", "peers"]

AT_ONCE = (1, 16, 64, 256)
ONCE = frozenset({16, 256})  # measured in one round only: a whole run must stay under twenty minutes
DISTINCT = 8
LEAST = {("miss", "LiteLLM"): 25.0, ("hit", "LiteLLM"): 300.0, ("hit", "CacheLLM"): 10.0}
"""How many times farthing's processor time each must need."""

Opened = Callable[[], AbstractContextManager[Running]]


def peers(here: Place, effort: Effort, tell: Tell) -> Report:
    """Misses before the upstream, then hits without it; every peer that is there, the others named with why not."""
    report = Report("peers", "Other gateways", ["what", "path", "c", "CPU µs/request", "× farthing"])
    report.columns += ["requests/s", "p50 ms", "p99 ms", "p99.9 ms", "RSS MiB"]
    if not effort.peer_rounds:
        report.notes.append("Left out, as asked.")
        return report
    misses, hits = measured(report, here, effort, tell)
    for what, windows in (("miss", misses), ("hit", hits)):
        report.raw += [{"what": what, **asdict(w)} for w in windows]
        names = list(dict.fromkeys(w.server for w in windows))
        for name, concurrency in itertools.product(names, AT_ONCE):
            mine = cell(windows, name, concurrency)
            own_us = cost_us(windows, name, concurrency)
            row = [f"{own_us:,.0f}", f"{own_us / cost_us(windows, OURS, concurrency):.1f}"]
            row += [f"{median(w.per_s for w in mine):,.0f}", f"{median(w.p50_ms for w in mine):.2f}"]
            row += [f"{median(w.p99_ms for w in mine):.2f}", f"{median(w.p999_ms for w in mine):.2f}"]
            row.append(f"{max(w.rss_bytes for w in mine) / 2**20:.0f}")
            report.rows.append([what, name, str(concurrency), *row])
        report.targets += [against(windows, what, peer, least) for (of, peer), least in LEAST.items() if of == what]
    gptcache(report, effort, here, tell)
    report.targets.append(no_errors(misses + hits))
    report.notes.append(
        f"A hit: {DISTINCT} bodies again and again, the upstream stopped, load by a client in Python (its rates and "
        "latencies aren't those of wrk). LiteLLM, Headroom and CacheLLM as installed "
        "from PyPI, Portkey from npm, one process each, logs down to errors; Headroom with its optimiser off, CacheLLM "
        "with its memory back end, and both it and LiteLLM told to cache conversations. Peers are judged at the "
        "concurrency that is kindest to them; 16 and 256 at a time are one round. Of a window of less than a thousand "
        "requests p99.9 is the slowest."
    )
    return report


def fetch() -> None:
    """Install every peer that is missing (2 GB, a minute or two); of those that can't be, `peers` says why not."""
    for installed in (litellm.installed, *PEERS):
        with contextlib.suppress(NotInstalled):
            installed(install=True)


def measured(report: Report, here: Place, effort: Effort, tell: Tell) -> tuple[list[Window], list[Window]]:
    """The windows of misses, and those of hits."""
    names, install = series(), effort.installs
    off = {"SEMANTIC__MODE": "off"}
    misses: list[Window] = []
    hits: list[Window] = []
    repeated = next(names)
    with contextlib.ExitStack() as outer:
        with contextlib.ExitStack() as stack:
            direct = stack.enter_context(fast(here))
            ours = outer.enter_context(farthing(OURS, direct.port, here, off))
            servers = [stack.enter_context(passing(direct.port, here)), ours]
            opened: dict[str, Opened] = {
                "LiteLLM": lambda: litellm.proxy(direct.port, here, install=install),
                "Portkey": lambda: portkey(direct.port, here, install=install),
                "Headroom": lambda: headroom(direct.port, here, install=install),
            }
            servers += started_peers(opened, stack, report, tell, lambda one: warm(one, here, next(names), 2))
            for number, concurrency in rounds(effort.peer_rounds):
                for server in servers:
                    tell(f"peers: miss, round {number + 1}, {concurrency} at a time, {server.name}")
                    quick = server.name in (PASS, OURS)
                    seconds = effort.seconds if quick else max(effort.peer_seconds, concurrency // 40)
                    seen = lambda: requests_seen(direct)  # noqa: E731 - it is called before the block ends
                    misses.append(window(server, concurrency, seconds, here, next(names), seen=seen))
            caching = [outer.enter_context(from_dict(BARE, here)), ours]
            opened = {
                "LiteLLM's cache": lambda: litellm.proxy(direct.port, here, install=install, cache=True),
                "CacheLLM": lambda: cachellm(direct.port, here, install=install),
            }

            per_s: dict[str, float] = {}

            def fill(one: Running) -> None:
                per_s[one.name] = learn(one, here, repeated, distinct=DISTINCT, seconds=2).per_s

            for one in caching:
                fill(one)
            caching += started_peers(opened, outer, report, tell, fill)
        for server in [one for one in caching if not from_cache(one, repeated)]:
            report.notes.append(f"{server.name}: it doesn't answer from its cache, and is left out of the hits")
            caching.remove(server)
        for number, concurrency in rounds(effort.peer_rounds):
            for server in caching:
                tell(f"peers: hit, round {number + 1}, {concurrency} at a time, {server.name}")
                count = max(2 * concurrency, int(per_s[server.name] * effort.seconds))
                hits.append(exactly(server, concurrency, count, repeated))
    return misses, hits


def rounds(count: int) -> Iterator[tuple[int, int]]:
    """Which round, and how many at a time: each in so many rounds, those of `ONCE` in the first."""
    for number, concurrency in itertools.product(range(count), AT_ONCE):
        if number == 0 or concurrency not in ONCE:
            yield number, concurrency


def from_cache(server: Running, repeated: str) -> bool:
    """Whether it answers what it has learnt, now that there is no upstream, within five seconds."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as line:
        try:
            line.request("POST", server.path, chat_body(f"{repeated}{0:08d}"), headers)
            return line.getresponse().status == 200
        except OSError:
            return False


def exactly(server: Running, concurrency: int, count: int, repeated: str) -> Window:
    """So many hits, all of them answered: of a slow server's, a window by the clock would cut many off."""
    import uvloop

    requests = (one_request(f"{repeated}{number % DISTINCT:08d}") for number in range(count))
    before_s, begun_s = settle(server.pid), time.perf_counter()
    timings = uvloop.run(closed_loop(server.port, requests, concurrency, lambda _: 0.0))
    return window_of(server, concurrency, timings, time.perf_counter() - begun_s, before_s)


def started_peers(
    opened: dict[str, Opened],
    stack: contextlib.ExitStack,
    report: Report,
    tell: Tell,
    warmed: Callable[[Running], None],
) -> list[Running]:
    """Those that are there and answer; of the others a note says why not."""
    found: list[Running] = []
    for name, one in opened.items():
        tell(f"peers: {name} starts (where it is missing, it is installed first)")
        try:
            server = stack.enter_context(one())
            warmed(server)
            found.append(server)
        except (NotInstalled, DidNotStart, RuntimeError) as error:
            report.notes.append(f"{name}: {' '.join(str(error).split())[:300]}")
    return found


def gptcache(report: Report, effort: Effort, here: Place, tell: Tell) -> None:
    """A row for its `get`, which is called in its process, without a server."""
    tell("peers: GPTCache's get")
    texts = [chat_body(f"g{number:011d}").decode() for number in range(64)]
    try:
        rounds = gptcache_us(texts, 5 * effort.peer_rounds, here, install=effort.installs)
    except (NotInstalled, RuntimeError) as error:
        report.notes.append(f"GPTCache: {' '.join(str(error).split())[:300]}")
        return
    report.raw += [{"what": "get", "server": "GPTCache", "cpu_us": used, "clock_us": took} for used, took in rounds]
    used_us, took_us = (median(column) for column in zip(*rounds, strict=True))
    report.rows.append(
        ["hit", "GPTCache's get, no HTTP", "1", f"{used_us:,.0f}", "", "", f"{took_us / 1000:.2f}", "", "", ""]
    )


def against(windows: list[Window], what: str, peer: str, least: float) -> Target:
    """How many times farthing's CPU the peer needs, at the concurrency that is kindest to the peer."""
    told, goal = f"{peer}'s CPU for a {what}", f"≥ {least:g}"
    names = {w.server for w in windows if w.server.startswith(peer)}
    if not names:
        return Target(told, goal, "it isn't here, see below", None, "farthing = 1")
    name = names.pop()
    at_once = sorted({w.concurrency for w in windows if w.server == name})
    ratios = [cost_us(windows, name, c) / cost_us(windows, OURS, c) for c in at_once]
    shown = " / ".join(f"{ratio:.0f}" for ratio in ratios)
    measured = f"{shown} at {' / '.join(map(str, at_once))}"
    return Target(told, goal, measured, min(ratios) >= least, "farthing = 1")
