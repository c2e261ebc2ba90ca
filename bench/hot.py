"""The hot loops: what a miss costs, and what an exact hit costs, against the least that the same libraries allow.

Windows of a second or two go round all servers, again and again, so that whatever else the machine does falls on all of
them. Rates and latencies are medians over the rounds. Processor time is a server's of all rounds together, with what it
did between its windows: what is put off for a minute (roll-ups) is on the bill too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median

from bench import litellm
from bench.load import Window, chat_body, http_request, window
from bench.machine import Place
from bench.report import Report, Target
from bench.servers import DidNotStart, Running, farthing, free_port, module, started
from bench.upstream import fast, requests_seen

__all__ = ["Effort", "Tell", "cell", "cost_us", "hit", "miss", "ratio"]

Tell = Callable[[str], None]
CONCURRENCIES = (1, 16, 64)
PASS = "aiohttp pass-through"
HIT = "aiohttp app, dict"
OURS = "farthing"
OBSERVE = "farthing, semantic in observe"
MOST_PASS_RATIO = 2.0
LEAST_LITELLM_RATIO = 25.0
MOST_HIT_RATIO = 1.5
DISTINCT_HITS = 64


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. `litellm_rounds` 0: not at all. `installs`: fetch LiteLLM where it is missing."""

    rounds: int
    seconds: int
    litellm_rounds: int
    litellm_seconds: int
    installs: bool = True
    concurrencies: tuple[int, ...] = CONCURRENCIES


def cell(windows: list[Window], server: str, concurrency: int) -> list[Window]:
    """The windows of one server at one concurrency, in the order of the rounds."""
    return [w for w in windows if w.server == server and w.concurrency == concurrency]


def cost_us(windows: list[Window], server: str, concurrency: int) -> float:
    """A request's processor time at one concurrency, with its share of what was done between windows. Raises: no
    windows."""
    everything = [w for w in windows if w.server == server]
    mine = cell(windows, server, concurrency)
    between_s = everything[-1].upto_s - everything[0].from_s - sum(w.used_s for w in everything)
    own_s = sum(w.used_s for w in mine) / sum(w.requests for w in mine)
    return 1e6 * (own_s + between_s / sum(w.requests for w in everything))


def ratio(windows: list[Window], server: str, other: str, concurrency: int) -> float:
    """The processor time of `server` in multiples of that of `other`. Raises: no windows."""
    return cost_us(windows, server, concurrency) / cost_us(windows, other, concurrency)


def series() -> Iterator[str]:
    """Names of four characters, a new one for every window, so that no prompt ever comes twice."""
    return (f"{number:04x}" for number in itertools.count())


def miss(here: Place, effort: Effort, tell: Tell) -> Report:
    """Unique prompts, not streamed, before a static upstream; every request must have reached it."""
    report = Report(
        "miss", "A miss: exact cache, tidy, ledger and metrics on", ["path", "c", "CPU µs/request", "× pass-through"]
    )
    report.columns += ["requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"]
    names = series()
    windows: list[Window] = []
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(fast(here))
        off = farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"})
        observe = farthing(OBSERVE, direct.port, here, {"SEMANTIC__MODE": "observe"})
        servers = [
            direct,
            stack.enter_context(passing(direct.port, here)),
            stack.enter_context(off),
            stack.enter_context(observe),
        ]
        peer: Running | None = None
        if effort.litellm_rounds:
            first = " (the first time it is installed, which takes minutes)" if effort.installs else ""
            tell(f"miss: LiteLLM starts{first}")
            try:
                peer = stack.enter_context(litellm.proxy(direct.port, here, install=effort.installs))
            except (litellm.NotInstalled, DidNotStart) as error:
                report.notes.append(f"LiteLLM: {str(error).splitlines()[0]}")
        else:
            report.notes.append("LiteLLM: left out as asked")
        for server in servers:
            warm(server, here, next(names), 1)
        if peer:
            warm(peer, here, next(names), 5)
        for number, concurrency in itertools.product(range(effort.rounds), effort.concurrencies):
            for server in servers:
                tell(f"miss: round {number + 1} of {effort.rounds}, {concurrency} at a time, {server.name}")
                windows.append(
                    window(
                        server,
                        concurrency,
                        effort.seconds,
                        here,
                        next(names),
                        seen=None if server is direct else lambda: requests_seen(direct),
                    )
                )
            if peer and number < effort.litellm_rounds:
                tell(f"miss: round {number + 1} of {effort.litellm_rounds}, {concurrency} at a time, {peer.name}")
                windows.append(
                    window(
                        peer,
                        concurrency,
                        effort.litellm_seconds,
                        here,
                        next(names),
                        seen=lambda: requests_seen(direct),
                    )
                )
    servers += [peer] if peer else []
    tabulate(report, windows, servers, direct.name)
    for concurrency in effort.concurrencies:
        report.targets.append(
            at_most(
                f"CPU of a miss, {concurrency} at a time, in pass-throughs",
                MOST_PASS_RATIO,
                ratio(windows, OURS, PASS, concurrency),
            )
        )
    report.targets.append(against_peer(windows, peer.name if peer else None, effort.concurrencies))
    report.targets.append(no_errors(windows))
    report.notes.append(
        "Load is a closed loop: at 16 and 64 at a time each server runs at its limit, so that latency there is mostly "
        "queueing. 'Added' is against the same client going straight to the upstream."
    )
    return report


def tabulate(report: Report, windows: list[Window], servers: list[Running], direct: str) -> None:
    """A row for each server and concurrency; all windows into `raw`."""
    report.raw += [asdict(w) for w in windows]
    for server, concurrency in itertools.product(servers, CONCURRENCIES):
        mine, straight = cell(windows, server.name, concurrency), cell(windows, direct, concurrency)
        if not mine:
            continue
        p50_ms, p99_ms = median(w.p50_ms for w in mine), median(w.p99_ms for w in mine)
        multiple = "" if server.name == direct else f"{ratio(windows, server.name, PASS, concurrency):.2f}"
        added = ["", ""]
        if server.name != direct:
            added = [
                f"{p50_ms - median(w.p50_ms for w in straight):.2f}",
                f"{p99_ms - median(w.p99_ms for w in straight):.2f}",
            ]
        cpu_us, per_s = cost_us(windows, server.name, concurrency), median(w.per_s for w in mine)
        figures = [f"{cpu_us:,.0f}", multiple, f"{per_s:,.0f}", f"{p50_ms:.2f}", f"{p99_ms:.2f}"]
        report.rows.append([server.name, str(concurrency), *figures, *added])


def hit(here: Place, effort: Effort, tell: Tell) -> Report:
    """64 bodies, again and again; the upstream is stopped before the clock starts, so nothing but hits can answer."""
    report = Report(
        "hit", "An exact hit", ["path", "c", "CPU µs/request", "× bare app", "requests/s", "p50 ms", "p99 ms"]
    )
    names = series()
    windows: list[Window] = []
    with contextlib.ExitStack() as stack:
        port = free_port()
        command = module("baselines", "hit", "--port", str(port))
        servers = [stack.enter_context(started(HIT, command, port, here.folder, core=here.measured))]
        repeated = next(names)
        with fast(here) as direct:
            ours = farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"})
            servers.append(stack.enter_context(ours))
            for server in servers:
                tell(f"hit: {server.name} learns {DISTINCT_HITS} answers")
                learnt = window(server, 1, 1, here, repeated, DISTINCT_HITS)
                if learnt.requests < 2 * DISTINCT_HITS:
                    raise RuntimeError(f"{server.name} answered only {learnt.requests} requests in a second")
        for number, concurrency in itertools.product(range(effort.rounds), effort.concurrencies):
            for server in servers:
                tell(f"hit: round {number + 1} of {effort.rounds}, {concurrency} at a time, {server.name}")
                windows.append(window(server, concurrency, effort.seconds, here, repeated, DISTINCT_HITS))
    report.raw += [asdict(w) for w in windows]
    for server, concurrency in itertools.product(servers, effort.concurrencies):
        mine = cell(windows, server.name, concurrency)
        multiple = ratio(windows, server.name, HIT, concurrency)
        figures = [
            f"{cost_us(windows, server.name, concurrency):,.0f}",
            f"{multiple:.2f}",
            f"{median(w.per_s for w in mine):,.0f}",
        ]
        figures += [f"{median(w.p50_ms for w in mine):.2f}", f"{median(w.p99_ms for w in mine):.2f}"]
        report.rows.append([server.name, str(concurrency), *figures])
        if server.name == OURS:
            what = f"CPU of a hit, {concurrency} at a time, in bare apps"
            report.targets.append(at_most(what, MOST_HIT_RATIO, multiple))
    report.targets.append(no_errors(windows))
    report.notes.append("The upstream was stopped before the windows: an answer can only have come from the cache.")
    return report


def passing(upstream_port: int, here: Place) -> contextlib.AbstractContextManager[Running]:
    """The bare pass-through."""
    port = free_port()
    command = module("baselines", "pass", "--port", str(port), "--upstream", f"http://127.0.0.1:{upstream_port}")
    return started(PASS, command, port, here.folder, core=here.measured)


def warm(server: Running, here: Place, name: str, seconds: int) -> None:
    """Some load before anything is measured. Raises RuntimeError: it answers with errors, or not at all."""
    learnt = window(server, 1, seconds, here, name)
    if learnt.errors or not learnt.requests:
        raise RuntimeError(f"{server.name}: {learnt.errors} errors in {learnt.requests} requests while warming up")


def at_most(what: str, most: float, measured: float) -> Target:
    """A ratio that must not be exceeded."""
    return Target(what, f"≤ {most:g}", f"{measured:.2f}", measured <= most)


def against_peer(windows: list[Window], peer: str | None, concurrencies: tuple[int, ...]) -> Target:
    """How many times farthing's CPU the peer needs, at the concurrency that is kindest to the peer."""
    what, goal = "LiteLLM's CPU for a miss, in farthings", f"≥ {LEAST_LITELLM_RATIO:g}"
    if peer is None:
        return Target(what, goal, "see below", None)
    ratios = [ratio(windows, peer, OURS, concurrency) for concurrency in concurrencies]
    at = " / ".join(map(str, concurrencies))
    shown = " / ".join(f"{ratio:.0f}" for ratio in ratios)
    return Target(what, goal, f"{shown} at {at}", min(ratios) >= LEAST_LITELLM_RATIO)


def no_errors(windows: list[Window]) -> Target:
    """That every request was answered well."""
    failed, sent = sum(w.errors for w in windows), sum(w.requests for w in windows)
    return Target("answers that were errors", "0", f"{failed:,} of {sent:,}", failed == 0)


def one_request(serial: str, stream: bool = False) -> bytes:
    """A whole request as it goes over the wire."""
    return http_request(chat_body(serial, stream))
