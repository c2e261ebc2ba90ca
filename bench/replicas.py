"""What a new replica costs until it holds what the others do, and what it costs to follow them; against a real server.

A writer fills the log in a Redis or Valkey of this machine with vectors of 384 dimensions; then replicas start, as
farthing's do. Times of the replica are this process's own processor time, in the two halves that run on different
threads in farthing: fetching (the event loop's) and taking over (the near-duplicates' thread). Beside them stands the
time on the clock, which on a machine that does other work is only an upper bound.

    python -m bench.replicas --entries 10000,100000        (half a minute; 1000000 takes some minutes and 8 GB)

With `--write`, for a machine that has nothing else to do: docs/replicas-start.json, and the table of docs/replicas.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import replicas_page
from bench.machine import rss_bytes
from bench.provenance import about
from farthing.cache.log_redis import RedisLog
from farthing.cache.semantic import SemanticCache
from farthing.cache.semantic_disk import Row
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.serve import collect_seldom
from tests.fakes.valkey import running_valkey

DIM = 384
_BLOCK = 10_000
_LATER_S = 4e9
_CHANGES = 2_000


class Given:
    """An embedder's name and size; nothing is embedded here."""

    name, dim, batch, max_tokens = "bench", DIM, 1, 256

    def count(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return unit(np.random.default_rng(len(texts)), len(texts))


def unit(chance: np.random.Generator, count: int) -> NDArray[np.float32]:
    """That many vectors of length 1."""
    drawn = chance.standard_normal((count, DIM), np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def rows(entries: int, scopes: int) -> Iterator[Row]:
    """Entries with texts of some 60 characters and keys and scopes as long as farthing's."""
    chance = np.random.default_rng(1)
    for start in range(0, entries, _BLOCK):
        for at, vector in enumerate(unit(chance, min(_BLOCK, entries - start)), start):
            text = f"how do i change the delivery address of order {at:09d} today"
            yield Row(f"{at % scopes:064x}", f"{at:032x}", text, _LATER_S, vector, 0.001)


def a_log(url: str) -> RedisLog:
    """One replica's."""
    store = RedisStore(url, deadline_ms=60_000, clock=SystemClock(), threshold=2, max_connections=4)
    name = SystemRandomness().token(8)
    return RedisLog(store, embedder=Given.name, dim=DIM, writer=name, clock=SystemClock(), noise=name)


class Spent:
    """Processor time of this process and the clock's, of what is done in a `with`."""

    def __enter__(self) -> Spent:
        self._cpu, self._tick = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s, self.clock_s = time.process_time() - self._cpu, time.perf_counter() - self._tick


async def filled(log: RedisLog, entries: int, scopes: int) -> Spent:
    """Put them all into the log."""
    with Spent() as spent:
        await log.exchange()
        for row in rows(entries, scopes):
            while not log.room:
                await log.exchange()
            log.put(row)
        while log.waiting:
            await log.exchange()
    return spent


async def started(url: str, entries: int) -> tuple[SemanticCache, RedisLog, dict[str, float]]:
    """A replica that begins with nothing, until it has all; and what that took."""
    collect_seldom()  # as `farthing serve` does
    log = a_log(url)
    cache = SemanticCache.open(None, Given(), max_entries=2 * entries, max_bytes=2**40, replicas=log)
    before = rss_bytes(os.getpid())
    with Spent() as fetching:
        await log.exchange()
    most = rss_bytes(os.getpid()) - before
    with Spent() as taking:
        cache.follow()
    with Spent() as looking:
        row = next(rows(1, 1))
        cache.near(row.scope, row.text, 0.0)
    assert len(cache) == entries, f"{len(cache)} of {entries}"
    costs = {
        "fetching_cpu_s": fetching.cpu_s,
        "taking_cpu_s": taking.cpu_s,
        "clock_s": fetching.clock_s + taking.clock_s,
        "first_search_cpu_ms": 1000 * looking.cpu_s,
        "fetched_bytes": most,
        "rss_bytes": rss_bytes(os.getpid()) - before,
    }
    return cache, log, costs


async def followed(log: RedisLog, cache: SemanticCache, theirs: RedisLog, entries: int) -> dict[str, float]:
    """Some changes that `log` writes and the replica takes over."""
    await log.exchange()
    log.snapshot()
    for at in range(_CHANGES):
        vector = unit(np.random.default_rng(at), 1)[0]
        log.put(Row(f"{0:064x}", f"new{at:029x}", f"something new {at}", _LATER_S, vector, 0.001))
    with Spent() as writing:
        while log.waiting:
            await log.exchange()
    with Spent() as reading:
        while await theirs.exchange():
            cache.follow()
        cache.follow()
    assert len(cache) == entries + _CHANGES
    return {
        "write_cpu_us": 1e6 * writing.cpu_s / _CHANGES,
        "follow_cpu_us": 1e6 * reading.cpu_s / _CHANGES,
        "changes": _CHANGES,
        "converged_clock_s": writing.clock_s + reading.clock_s,
    }


async def replica(url: str, entries: int) -> dict[str, float]:
    """A replica's part, in a process that has done nothing else."""
    cache, log, costs = await started(url, entries)
    writer = a_log(url)
    costs |= await followed(writer, cache, log, entries)
    for one in (writer, log):
        await one.store.close()
    return costs


def measured(entries: int, scopes: int) -> dict[str, float]:
    """All of it, over a server of its own."""

    async def fill(url: str) -> tuple[float, int]:
        writer = a_log(url)
        spent = await filled(writer, entries, scopes)
        held = (await writer.store.stats()).bytes
        await writer.store.close()
        return 1e6 * spent.cpu_s / entries, held

    with running_valkey() as url:
        fill_cpu_us, held = asyncio.run(fill(url))
        found = {"entries": entries, "scopes": scopes, "fill_cpu_us": fill_cpu_us, "server_bytes": held}
        with ProcessPoolExecutor(1, get_context("spawn")) as another:
            return found | another.submit(_replica, url, entries).result()


def _replica(url: str, entries: int) -> dict[str, float]:
    return asyncio.run(replica(url, entries))


def main() -> None:
    """Measure each size, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", default="10000,100000")
    parser.add_argument("--scopes", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep it, and write docs/replicas.md's table anew")
    given = parser.parse_args()
    note = about(" ".join(["python -m bench.replicas", *sys.argv[1:]]))
    found = [measured(int(size), given.scopes) for size in given.entries.split(",")]
    if given.write:
        replicas_page.write(replicas_page.kept([one | note for one in found]))
    if given.json:
        print(json.dumps(found))
        return
    table = Table("", *(f"{int(one['entries']):,} entries" for one in found))
    for name in found[0]:
        table.add_row(name, *(f"{one[name]:,.3f}" for one in found))
    Console().print(table)


if __name__ == "__main__":
    main()
