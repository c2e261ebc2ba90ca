"""What it costs to be shared with other processes: a lease for each miss, and what memory before Redis spares a hit.

Processor time of this process (all threads together) for one operation after the other, against a real server on
loopback and a real file, all in one run so that the lines can be compared. A miss without leases is a look-up and a
put; with them a look-up, a take and a landing.

    python -m bench.joining --count 3000        (some seconds)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from farthing.cache.alive import Alive
from farthing.cache.entry import Entry
from farthing.cache.lease import Lease, Leases, State, name_of
from farthing.cache.leases_redis import RedisLeases
from farthing.cache.leases_shared import SharedLeases
from farthing.cache.store import Store
from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore
from farthing.cache.store_shared import SharedStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.tasks import TaskGroup
from tests.fakes.valkey import running_valkey

_BODY = json.dumps({"choices": [{"message": {"content": "word " * 200}}]}).encode()
_DEADLINE_MS = 60_000.0
_CREDENTIAL = "c" * 64


def entry(number: int) -> Entry:
    """An answer of a kilobyte."""
    now_s = time.time()
    return Entry(f"{number:032x}", "t", "chat", "m", "m", "whole", "application/json", _BODY, None, now_s, now_s + 600)


async def spent_us(
    count: int, do: Callable[[int], Awaitable[object]], end: Callable[[], Awaitable[object]] | None = None
) -> float:
    """Processor time of each, in microseconds. `end`: waits for what goes on behind them."""
    begun = time.process_time()
    for number in range(count):
        await do(number)
    if end is not None:
        await end()
    return (time.process_time() - begun) / count * 1e6


async def alone(store: Store, number: int) -> None:
    """A miss without leases."""
    await store.get(f"{number:032x}", time.time())
    await store.put(entry(number))


async def shared(store: Store, leases: Leases, number: int) -> None:
    """A miss with them."""
    made = entry(number)
    await store.get(made.key, time.time())
    name = name_of(made.key, _CREDENTIAL)
    found = await leases.take(made.key, name, "f", "")
    assert found.state is State.TAKEN
    assert await leases.land(Lease(made.key, name, "f", found.token), made)


async def measure(count: int) -> dict[str, float]:
    """All figures, in microseconds of processor time."""
    clock, found = SystemClock(), {}
    with running_valkey() as url, tempfile.TemporaryDirectory() as folder:
        server = RedisStore(url, deadline_ms=_DEADLINE_MS, clock=clock)
        leases = RedisLeases(server, server, lease_s=4.0)
        found["Redis: a miss, no leases"] = await spent_us(count, lambda n: alone(server, n))
        found["Redis: a miss, with a lease"] = await spent_us(count, lambda n: shared(server, leases, count + n))
        found["Redis: a hit, asked each time"] = await spent_us(count, lambda n: server.get(f"{n:032x}", time.time()))
        near = NearStore(
            server, url, clock=clock, memory_bytes=2**28, max_entries=10**6, stale_s=60.0, name="bench",
            spawn=TaskGroup().spawn,
        )  # fmt: skip
        await near.open()
        while not near.fresh:
            await asyncio.sleep(0.01)
        found["Redis: a first hit, then held"] = await spent_us(count, lambda n: near.get(f"{n:032x}", time.time()))
        found["Redis: a hit in memory"] = await spent_us(count, lambda n: near.get(f"{n:032x}", time.time()))
        await near.close()

        path = Path(folder) / "answers.db"
        bounds = {"memory_bytes": 2**28, "max_bytes": 2**30, "max_entries": 10**6}
        store = SharedStore(path, clock=clock, flush_ms=0, spawn=TaskGroup().spawn, **bounds)
        await store.open()
        alive = Alive(path.with_name("alive"), "bench")
        rows = SharedLeases(store, path, clock, alive, lease_s=4.0, deadline_s=_DEADLINE_MS / 1000)
        found["file: a miss, no leases"] = await spent_us(count, lambda n: alone(store, n), store.flush)
        found["file: a miss, with a lease"] = await spent_us(count, lambda n: shared(store, rows, count + n))
        await rows.close()
        await store.close()
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = asyncio.run(measure(asked.count))
    console = Console()
    if asked.json:
        console.print_json(data=found)
        return
    table = Table("what", "µs of processor time")
    for what, us in found.items():
        table.add_row(what, f"{us:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
