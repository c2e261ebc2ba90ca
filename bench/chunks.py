"""Many streams at once: what a chunk costs a proxy, at which rate that fills a core, and how evenly chunks still come.

A rate at which a proxy 'saturates a core' is one over its processor time a chunk, measured where each chunk still goes
through by itself: beyond, the kernel hands a proxy several chunks in one read, and the rate has no end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import cast

from bench.hot import OURS, PASS, Effort, Tell, one_request, passing
from bench.load import percentile
from bench.machine import Place, settle
from bench.report import Report, Target
from bench.servers import Running, farthing
from bench.upstream import streaming

__all__ = ["Streamed", "chunk_rate", "chunks", "cost_of"]

CHUNKS, GAP_MS = 100, 20.0
QUICK_CHUNKS = 50
PROBE_PER_S = 1_000.0
HALF = 0.5
LEAST_SHARE, MOST_ADDED_MS = 0.80, 5.0


@dataclass(slots=True)
class Streamed:
    """One stream: when each piece of it came, in seconds, and how many events were in it."""

    at_s: list[float] = field(default_factory=list)
    events: int = 0

    def gaps_ms(self) -> Iterator[float]:
        """Between a piece and the next."""
        return ((after - before) * 1000 for before, after in itertools.pairwise(self.at_s))


class _Reader(asyncio.Protocol):
    """Sends one request for a stream and notes when its pieces come."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.streamed = Streamed()
        self.ended: asyncio.Future[Streamed] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        events = data.count(b"data: ")
        if events:
            self.streamed.at_s.append(time.perf_counter())
            self.streamed.events += events
        if data.endswith(b"0\r\n\r\n") and not self.ended.done():
            self.ended.set_result(self.streamed)
            if self._transport:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError("the stream broke off"))


async def at_once(port: int, count: int, series: str, over_s: float) -> list[Streamed]:
    """So many streams whose starts are spread evenly over `over_s`. Raises ConnectionError: one broke off."""
    loop = asyncio.get_running_loop()

    async def one(number: int) -> Streamed:
        await asyncio.sleep(over_s * number / count)
        request = one_request(f"{series}{number:08d}", stream=True)
        _, reader = await loop.create_connection(lambda: _Reader(request), "127.0.0.1", port)
        return await reader.ended

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def cost_of(used_s: float, streams: list[Streamed], chunks: int = CHUNKS) -> float:
    """Processor microseconds a chunk, a stream's beginning and end on its bill. Raises ValueError: one isn't whole."""
    short = [one for one in streams if one.events != chunks + 4]  # the role before; the end, usage and [DONE] after
    if short or not streams:
        raise ValueError(f"{len(short)} of {len(streams)} streams weren't whole")
    return used_s * 1e6 / sum(one.events for one in streams)


def chunk_rate(cost_us: float) -> float:
    """Chunks a second that fill a core."""
    return 1e6 / cost_us


def load(server: Running, per_s: float, series: str, chunks: int) -> tuple[float, list[Streamed]]:
    """Streams that together bring so many chunks a second; the processor microseconds a chunk, and the streams."""
    import uvloop

    count = max(1, round(per_s * GAP_MS / 1000))
    before = settle(server.pid)
    streams = uvloop.run(at_once(server.port, count, series, over_s=0.5))
    return cost_of(settle(server.pid) - before, streams, chunks), streams


def chunks(here: Place, effort: Effort, tell: Tell) -> Report:
    """A low rate first; then half, and four fifths, of what by it fills the pass-through's core."""
    report = Report("chunks", "Chunks of many streams", ["load", "path", "chunks/s", "CPU µs/chunk", "× pass-through"])
    report.columns += ["core", "gap p50 ms", "gap p99 ms", "gap p99.9 ms", "added gap p99 ms", "delivered"]
    names = (f"{number:04x}" for number in itertools.count())
    rounds, length = min(2, effort.rounds), QUICK_CHUNKS if effort.quick else CHUNKS
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(streaming(here, chunks=length, first_ms=GAP_MS, gap_ms=GAP_MS))
        through = stack.enter_context(passing(direct.port, here))
        servers = (direct, through, stack.enter_context(farthing(OURS, direct.port, here, {"SEMANTIC__MODE": "off"})))

        def at(per_s: float, rounds: int) -> dict[str, Loaded]:
            each: dict[str, list[tuple[float, list[Streamed]]]] = {server.name: [] for server in servers}
            for number, server in itertools.product(range(rounds), servers):
                tell(f"chunks: {per_s:,.0f} a second, round {number + 1}, {server.name}")
                each[server.name].append(load(server, per_s, next(names), length))
            return {name: Loaded.of(found) for name, found in each.items()}

        probe = at(PROBE_PER_S, rounds)
        full_per_s = chunk_rate(probe[PASS].cost_us)
        loads = {"probe": (PROBE_PER_S, probe)}
        for share in (HALF,) if effort.quick else (HALF, LEAST_SHARE):
            # One round at four fifths, which no target is about.
            loads[f"{share:.0%}"] = share * full_per_s, at(share * full_per_s, rounds if share == HALF else 1)
    for name, (per_s, found) in loads.items():
        tabulate(report, name, per_s, found, length)
    reached = chunk_rate(probe[OURS].cost_us) / full_per_s
    what = "chunk rate that fills a core"
    passed = reached >= LEAST_SHARE
    report.targets.append(Target(what, f"≥ {LEAST_SHARE:.0%}", f"{reached:.1%}", passed, f"{PASS} = 100%"))
    half = loads[f"{HALF:.0%}"][1]
    added_ms = half[OURS].gap_p99_ms - half["direct"].gap_p99_ms
    what = "added gap between chunks, p99, at half of that rate"
    passed = added_ms <= MOST_ADDED_MS
    report.targets.append(Target(what, f"≤ {MOST_ADDED_MS:g} ms", f"{added_ms:.2f} ms", passed, "direct"))
    report.notes.append(
        f"Streams of {length} chunks, {GAP_MS:g} ms apart, as many at once as make the rate. Loads are shares of the "
        f"{full_per_s:,.0f} chunks a second that fill the pass-through's core: one over its processor time a "
        "chunk where each goes through by itself (probe); beyond, several come in one read and cost less. 'Delivered': "
        "the time that the chunks should take, over what they took."
    )
    return report


@dataclass(frozen=True, slots=True)
class Loaded:
    """A server at one load, medians over the rounds."""

    cost_us: float
    gap_p50_ms: float
    gap_p99_ms: float
    gap_p999_ms: float
    took_s: float

    @staticmethod
    def of(rounds: list[tuple[float, list[Streamed]]]) -> Loaded:
        """From each round's processor microseconds a chunk, and its streams."""
        return Loaded(
            median(cost for cost, _ in rounds),
            median(gap_ms(streams, 50) for _, streams in rounds),
            median(gap_ms(streams, 99) for _, streams in rounds),
            median(gap_ms(streams, 99.9) for _, streams in rounds),
            median(one.at_s[-1] - one.at_s[0] for _, streams in rounds for one in streams),
        )


def tabulate(report: Report, load: str, per_s: float, found: dict[str, Loaded], length: int) -> None:
    """Rows of one load, and its raw figures; 'added' against the same client without a proxy."""
    for name, one in found.items():
        proxied = name != "direct"
        row = [f"{per_s:,.0f}", f"{one.cost_us:,.1f}", f"{one.cost_us / found[PASS].cost_us:.2f}" if proxied else ""]
        row += [f"{per_s * one.cost_us / 1e6:.0%}", f"{one.gap_p50_ms:.2f}", f"{one.gap_p99_ms:.2f}"]
        row.append(f"{one.gap_p999_ms:.2f}")
        row.append(f"{one.gap_p99_ms - found['direct'].gap_p99_ms:.2f}" if proxied else "")
        report.rows.append([load, name, *row, f"{length * GAP_MS / 1000 / one.took_s:.0%}"])
        report.raw.append({"load": load, "per_s": per_s, "server": name, **asdict(one)})


def gap_ms(streams: list[Streamed], percent: float) -> float:
    """The percentile of the time between pieces, of all streams together."""
    return percentile([gap for one in streams for gap in one.gaps_ms()], percent)
