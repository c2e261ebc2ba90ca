"""The hot loops: what a miss costs, and what an exact hit costs, against the least that the same libraries allow.

Windows of a second or two go round all servers, again and again, so that whatever else the machine does falls on all of
them. Rates and latencies are medians over the rounds. Processor time is a server's of all rounds together, with what it
did between its windows and in other threads: what is put off for a minute (roll-ups) is on the bill too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median

from bench.load import Window, chat_body, http_request, window
from bench.machine import Place
from bench.report import Report, Target
from bench.servers import Running, farthing, free_port, module, started
from bench.upstream import fast, requests_seen

__all__ = [
    "Effort",
    "Tell",
    "at_most",
    "cell",
    "cost_us",
    "from_dict",
    "hit",
    "learn",
    "miss",
    "ratio",
    "speeds",
]

Tell = Callable[[str], None]
CONCURRENCIES = (1, 16, 64, 256)
SPEEDS = ("requests/s", "p50 ms", "p99 ms", "p99.9 ms", "RSS MiB")
PASS = "aiohttp pass-through"
HIT = "aiohttp app, dict"
LOW = "aiohttp low-level server, dict"
OURS = "farthing"
OBSERVE = "farthing, semantic in observe"
MOST_PASS_RATIO = 1.3
MOST_LOW_RATIO = 1.4
MOST_HIT_RATIO = 1.5
DISTINCT_HITS = 64


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. `peer_rounds` 0: no other gateways. `installs`: fetch them where they are missing.
    `memory_requests`: how many a run over memory sends."""

    rounds: int
    seconds: int
    peer_rounds: int
    peer_seconds: int
    installs: bool = True
    concurrencies: tuple[int, ...] = CONCURRENCIES
    memory_requests: int = 100_000

    @property
    def quick(self) -> bool:
        """Whether it only shows that all of it works."""
        return self.rounds < 3


def cell(windows: list[Window], server: str, concurrency: int) -> list[Window]:
    """The windows of one server at one concurrency, in the order of the rounds."""
    return [w for w in windows if w.server == server and w.concurrency == concurrency]


def cost_us(windows: list[Window], server: str, concurrency: int) -> float:
    """A request's processor time at one concurrency: what the event loop used in those windows, and its share of
    all else.

    All else is what other threads did, and what was done between the windows: rows are written and rolled up in slices
    later, often during the windows of another concurrency, so every request of the run bears the same. Raises: no
    windows.
    """
    everything = [w for w in windows if w.server == server]
    mine = cell(windows, server, concurrency)
    aside_s = everything[-1].upto_s - everything[0].from_s - sum(front(w) for w in everything)
    own_s = sum(front(w) for w in mine) / sum(w.requests for w in mine)
    return 1e6 * (own_s + aside_s / sum(w.requests for w in everything))


def front(one: Window) -> float:
    """Processor seconds that the event loop used in a window."""
    return one.used_s if one.front_s is None else one.front_s


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
    report.columns += [*SPEEDS, "added p50 ms", "added p99 ms"]
    names = series()
    windows: list[Window] = []
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(fast(here))
        servers = [
            direct,
            stack.enter_context(passing(direct.port, here)),
            stack.enter_context(farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"})),
        ]
        if not effort.quick:
            servers.append(stack.enter_context(farthing(OBSERVE, direct.port, here, {"SEMANTIC__MODE": "observe"})))
        for server in servers:
            warm(server, here, next(names), 1)
        for number, concurrency in itertools.product(range(effort.rounds), effort.concurrencies):
            for server in servers:
                if server.name == OBSERVE and number > 0:
                    continue
                tell(f"miss: round {number + 1} of {effort.rounds}, {concurrency} at a time, {server.name}")
                seen = None if server is direct else lambda: requests_seen(direct)
                windows.append(window(server, concurrency, effort.seconds, here, next(names), seen=seen))
    tabulate(report, windows, servers, direct.name, effort.concurrencies)
    for concurrency in effort.concurrencies:
        what, multiple = f"CPU of a miss, {concurrency} at a time", ratio(windows, OURS, PASS, concurrency)
        report.targets.append(at_most(what, MOST_PASS_RATIO, multiple, f"{PASS} = 1"))
    report.targets.append(no_errors(windows))
    report.notes.append(
        "Load is a closed loop: from 16 at a time on each server runs at its limit, so that latency there is mostly "
        "queueing, and requests/s is the rate at which it is saturated. 'Added' is against the same client going "
        "straight to the upstream. RSS is the largest after a window. With the semantic stage in observe there is "
        "one round: no target is its own, and its model comes to rest late."
    )
    return report


def tabulate(
    report: Report, windows: list[Window], servers: list[Running], direct: str, concurrencies: tuple[int, ...]
) -> None:
    """A row for each server and concurrency; all windows into `raw`."""
    report.raw += [asdict(w) for w in windows]
    for server, concurrency in itertools.product(servers, concurrencies):
        mine, straight = cell(windows, server.name, concurrency), cell(windows, direct, concurrency)
        if not mine:
            continue
        multiple = "" if server.name == direct else f"{ratio(windows, server.name, PASS, concurrency):.2f}"
        added = ["", ""]
        if server.name != direct:
            added = [
                f"{median(w.p50_ms for w in mine) - median(w.p50_ms for w in straight):.2f}",
                f"{median(w.p99_ms for w in mine) - median(w.p99_ms for w in straight):.2f}",
            ]
        figures = [f"{cost_us(windows, server.name, concurrency):,.0f}", multiple, *speeds(mine)]
        report.rows.append([server.name, str(concurrency), *figures, *added])


def speeds(mine: list[Window]) -> list[str]:
    """The cells under SPEEDS, of one server at one concurrency."""
    return [
        f"{median(w.per_s for w in mine):,.0f}",
        *(f"{median(ms):.2f}" for ms in zip(*((w.p50_ms, w.p99_ms, w.p999_ms) for w in mine), strict=True)),
        f"{max(w.rss_bytes for w in mine) / 2**20:.0f}",
    ]


def hit(here: Place, effort: Effort, tell: Tell) -> Report:
    """64 bodies, again and again; the upstream is stopped before the clock starts, so nothing but hits can answer."""
    report = Report("hit", "An exact hit", ["path", "c", "CPU µs/request", "× low-level", "× app", *SPEEDS])
    names = series()
    windows: list[Window] = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(from_dict(name, here)) for name in (LOW, HIT)]
        repeated = next(names)
        with fast(here) as direct:
            ours = farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"})
            servers.append(stack.enter_context(ours))
            for server in servers:
                tell(f"hit: {server.name} learns {DISTINCT_HITS} answers")
                learn(server, here, repeated)
        for number, concurrency in itertools.product(range(effort.rounds), effort.concurrencies):
            for server in servers:
                tell(f"hit: round {number + 1} of {effort.rounds}, {concurrency} at a time, {server.name}")
                windows.append(window(server, concurrency, effort.seconds, here, repeated, DISTINCT_HITS))
    report.raw += [asdict(w) for w in windows]
    for server, concurrency in itertools.product(servers, effort.concurrencies):
        multiples = [ratio(windows, server.name, other, concurrency) for other in (LOW, HIT)]
        cost = f"{cost_us(windows, server.name, concurrency):,.0f}"
        shown = [f"{multiple:.2f}" for multiple in multiples]
        report.rows.append(
            [server.name, str(concurrency), cost, *shown, *speeds(cell(windows, server.name, concurrency))]
        )
        if server.name == OURS:
            what = f"CPU of a hit, {concurrency} at a time"
            report.targets.append(at_most(what, MOST_LOW_RATIO, multiples[0], f"{LOW} = 1"))
            report.targets.append(at_most(what, MOST_HIT_RATIO, multiples[1], f"{HIT} = 1"))
    report.targets.append(no_errors(windows))
    report.notes.append("The upstream was stopped before the windows: an answer can only have come from the cache.")
    return report


def learn(
    server: Running,
    here: Place,
    repeated: str,
    body: Callable[[str], bytes] = chat_body,
    *,
    distinct: int = DISTINCT_HITS,
    seconds: int = 1,
) -> Window:
    """Have every body of `repeated` asked, and asked again; the window of the last ones.

    Raises RuntimeError: not all were answered, or badly.
    """
    for _ in range(5):  # a busy machine may not get round in the first window
        learnt = window(server, 1, seconds, here, repeated, distinct, body=body)
        if learnt.requests >= 2 * distinct and not learnt.errors:
            return learnt
    raise RuntimeError(
        f"{server.name} answered {learnt.requests} requests in {seconds} s, {learnt.errors} of them with errors"
    )


def from_dict(name: str, here: Place) -> contextlib.AbstractContextManager[Running]:
    """A bare cache: LOW on the low-level server, HIT an application, and others by how their names begin."""
    port = free_port()
    command = module("baselines", "hit" if name.startswith(HIT) else "low", "--port", str(port))
    return started(name, command, port, here.folder, core=here.measured)


def passing(upstream_port: int, here: Place) -> contextlib.AbstractContextManager[Running]:
    """The bare pass-through."""
    port = free_port()
    command = module("baselines", "pass", "--port", str(port), "--upstream", f"http://127.0.0.1:{upstream_port}")
    return started(PASS, command, port, here.folder, core=here.measured)


def warm(server: Running, here: Place, name: str, seconds: int, body: Callable[[str], bytes] = chat_body) -> None:
    """Some load before anything is measured. Raises RuntimeError: it answers with errors, or not at all."""
    learnt = window(server, 1, seconds, here, name, body=body)
    if learnt.errors or not learnt.requests:
        raise RuntimeError(f"{server.name}: {learnt.errors} errors in {learnt.requests} requests while warming up")


def at_most(what: str, most: float, measured: float, baseline: str) -> Target:
    """A ratio that must not be exceeded."""
    return Target(what, f"≤ {most:g}", f"{measured:.2f}", measured <= most, baseline)


def no_errors(windows: list[Window]) -> Target:
    """That every request was answered well."""
    failed, sent = sum(w.errors for w in windows), sum(w.requests for w in windows)
    return Target("answers that were errors", "0", f"{failed:,} of {sent:,}", failed == 0)


def one_request(serial: str, stream: bool = False) -> bytes:
    """A whole request as it goes over the wire."""
    return http_request(chat_body(serial, stream))
