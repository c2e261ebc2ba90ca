"""What things weigh in memory: an exact entry, a semantic one, an idle connection, an open stream.

RSS of a real farthing before and after many of them, the difference over their number. RSS grows in steps of what the
allocator takes, so many are needed; what a request leaves behind for other reasons is measured with the cache off, and
taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.hot import Effort, Tell, one_request
from bench.load import Connection, closed_loop
from bench.machine import Place, rss_bytes, settle
from bench.report import Report
from bench.servers import Running, farthing, get
from bench.upstream import fast, streaming

__all__ = ["Weight", "weights"]

EMBEDDED_S = 0.03
"""A prompt of these is embedded in half that time."""
NO_BOUND = {"STORE__MAX_ENTRIES": "1000000", "STORE__MEMORY_BYTES": str(2**30)}


@dataclass(frozen=True, slots=True)
class Weight:
    """RSS before and after so many more, in bytes."""

    count: int
    before: int
    after: int

    @property
    def each(self) -> float:
        """Bytes for one."""
        return (self.after - self.before) / self.count


def sent(port: int, serials: Iterator[int], count: int, pause_s: float = 0.0) -> None:
    """So many new prompts, 16 at a time or, with a pause, one by one. Raises RuntimeError: one failed."""
    import uvloop

    requests = (one_request(f"w{number:011d}") for number in itertools.islice(serials, count))
    at_once = 1 if pause_s else 16
    if any(one.status != 200 for one in uvloop.run(closed_loop(port, requests, at_once, lambda _: pause_s))):
        raise RuntimeError("requests failed")


def entries(
    here: Place, settings: Mapping[str, str], name: str, count: int, gauge: str, pause_s: float = 0.0
) -> Weight:
    """Misses, kept or not as `settings` say; the first tenth and at most 500 only warm up.

    `gauge`: that counts what is kept.
    `pause_s`: after each, for a stage that passes by what comes faster than it can embed.

    Raises RuntimeError: less than half of it was.
    """
    serials = itertools.count()
    with fast(here) as upstream, farthing(name, upstream.port, here, settings) as ours:
        sent(ours.port, serials, min(500, count) + count // 10, pause_s)
        before, known = at_rest(ours), kept(ours, gauge)
        sent(ours.port, serials, count, pause_s)
        after = at_rest(ours)
        more = kept(ours, gauge) - known if gauge else count
        if more < count // 2:
            raise RuntimeError(f"{name}: of {count} answers only {more} were kept")
        return Weight(more, before, after)


def kept(server: Running, gauge: str) -> int:
    """How many entries a gauge of /metrics tells of; 0 without one."""
    lines = get(f"http://127.0.0.1:{server.port}/metrics").splitlines() if gauge else []
    return next((int(float(line.split()[1])) for line in lines if line.startswith(f"farthing_{gauge} ")), 0)


def at_rest(server: Running) -> int:
    """RSS when it has done what it put off."""
    settle(server.pid)
    time.sleep(1.0)
    return rss_bytes(server.pid)


async def held(port: int, count: int, server: Running) -> tuple[Weight, Weight]:
    """So many connections that have had an answer and wait; then as many with a stream half come."""
    loop = asyncio.get_running_loop()

    async def connected() -> Connection:
        return (await loop.create_connection(Connection, "127.0.0.1", port))[1]

    async def answered(line: Connection, number: int) -> Connection:
        await line.exchange(one_request(f"i{number:011d}"))
        return line

    warm = [await answered(await connected(), number) for number in range(20)]
    before = await asyncio.to_thread(at_rest, server)
    lines = [await answered(await connected(), 100 + number) for number in range(count)]
    idle = Weight(count, before, await asyncio.to_thread(at_rest, server))
    streams = [
        loop.create_task(line.exchange(one_request(f"o{number:011d}", stream=True)))
        for number, line in enumerate(lines)
    ]
    await asyncio.sleep(2.0)
    streaming_bytes = await asyncio.to_thread(rss_bytes, server.pid)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    for line in lines + warm:
        line.close()
    return idle, Weight(count, idle.after, streaming_bytes)


def connections(here: Place, count: int) -> tuple[Weight, Weight]:
    """An idle connection, and an open stream with its connection upstream."""
    import uvloop

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count)), hard))
    off = {"SEMANTIC__MODE": "off", "CACHE__MODE": "off"}
    with (
        streaming(here, chunks=200, first_ms=0.5, gap_ms=500) as upstream,
        farthing("farthing, many connections", upstream.port, here, off) as ours,
    ):
        return uvloop.run(held(ours.port, count, ours))


def weights(here: Place, effort: Effort, tell: Tell) -> Report:
    """A row for each kind of thing."""
    report = Report("weights", "What things weigh", ["one", "bytes", "measured over", "bounded by"])
    many, some, held_open = (800, 200, 100) if effort.quick else (8_000, 800, 500)
    off = {"SEMANTIC__MODE": "off"}
    found: dict[str, Weight] = {}
    for name, settings, count, gauge, pause_s in (
        ("no cache", off | {"CACHE__MODE": "off"}, many, "", 0.0),
        ("exact", off | NO_BOUND, many, "store_entries", 0.0),
        ("semantic", {"SEMANTIC__MODE": "observe", **NO_BOUND}, some, "semantic_entries", EMBEDDED_S),
    ):
        tell(f"weights: {count:,} misses, {name}")
        found[name] = entries(here, settings, f"farthing, {name}", count, gauge, pause_s)
    tell("weights: connections and streams")
    with contextlib.suppress(OSError):
        found["idle"], found["stream"] = connections(here, held_open)
    for name, one in found.items():
        report.raw.append({"what": name, "count": one.count, "before": one.before, "after": one.after})
    left = found["no cache"].each
    exact = found["exact"].each - left
    near = found["semantic"].each - exact - left
    lines = [
        ("exact entry, an answer of 0.7 KB", exact, found["exact"].count, "store.memory_bytes, store.max_entries"),
        ("semantic entry beside it", near, found["semantic"].count, "semantic.max_entries, semantic.max_bytes"),
        ("what a miss leaves behind, cache off", left, many, "nothing kept: the allocator, and bounded caches filling"),
    ]
    if "idle" in found:
        count = found["idle"].count
        lines.append(("idle connection of a client", found["idle"].each, count, "server.keepalive_s"))
        lines.append(
            ("open stream, with its connection upstream", found["stream"].each, count, "limits.buffer_bytes each")
        )
    report.rows += [[what, f"{each:,.0f}", f"{count:,}", bound] for what, each, count, bound in lines]
    report.notes.append(
        "RSS of the whole process at rest, before and after; prompts of 2.3 KB, all different. An open stream is "
        "looked at two seconds after it began; its buffer grows with the answer to limits.buffer_bytes at most."
    )
    return report
