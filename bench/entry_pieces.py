"""What a large answer in Redis costs everybody else, whole and in pieces: `python -m bench.entry_pieces`.

A process stores and reads answers of 8 MiB that don't shrink, as fast as it can, over a real Valkey of this machine;
beside it another client asks the same server for 100 bytes, one read after the other. Told is how long those took
while answers were stored, and while they were read; how long one command held up the server, as it tells it (SET or
EVAL, and GET or HGET); and of the process its processor time for each answer, and the longest step of its event loop,
in which no other request gets on. All ways take turns in one run, so that a busy machine is busy for all of them; times
by the clock are of use only beside each other. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

from farthing.cache.codec import encode
from farthing.cache.entry import Entry
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.serve import collect_seldom
from tests.fakes.valkey import ValkeyProcess

_SIZE = 8 * 2**20
_SET, _WHOLE = 0, 2**40
_PIECES = (_SET, _WHOLE, 2**16, 2**17, 2**18, 2**19, 2**20)
_KEY = "a" * 32
_DEADLINE_MS = 60_000
_STEPS = 3


class Spent(NamedTuple):
    """Of a number of puts or gets: processor time of one, and the longest step of the event loop in each (median)."""

    cpu_ms: float
    step_ms: float


class Beside(NamedTuple):
    """Reads of the other client meanwhile."""

    count: int
    p50_us: float
    p99_us: float
    longest_us: float


async def longest_step(work: Callable[[], Awaitable[object]]) -> float:
    """The longest time in s for which the event loop did nothing else while that was done."""
    last, longest, going = time.perf_counter(), 0.0, True

    def beat() -> None:
        nonlocal last, longest
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if going:
            asyncio.get_running_loop().call_soon(beat)

    beat()
    await work()
    going = False
    return longest


async def spent(url: str, piece_bytes: int, count: int, size: int, reading: bool) -> Spent:
    """So many puts or gets."""
    collect_seldom()
    store = RedisStore(url, deadline_ms=_DEADLINE_MS, clock=SystemClock(), piece_bytes=piece_bytes or _WHOLE)
    now_s = time.time()
    body = random.Random(1).randbytes(size)
    entry = Entry(_KEY, "t", "chat", "m", "m", "whole", "application/json", body, None, now_s, now_s + 3600)
    await store.put(entry)

    async def once() -> None:
        if reading:
            await store.get(_KEY, time.time())
        elif piece_bytes == _SET:
            raw = await asyncio.to_thread(encode, entry)
            await store.run("write", lambda client: client.set(store.names.entry(_KEY), raw, px=3_600_000))
        else:
            await store.put(entry)

    began = time.process_time()
    for _ in range(count):
        await once()
    cpu_s = time.process_time() - began
    steps = [await longest_step(once) for _ in range(_STEPS)]
    found = await store.get(_KEY, time.time())
    assert found is not None and found.body == body
    await store.close()
    return Spent(1e3 * cpu_s / count, 1e3 * statistics.median(steps))


def work(url: str, piece_bytes: int, count: int, size: int, reading: bool) -> Spent:
    """`spent`, in a process of its own."""
    return asyncio.run(spent(url, piece_bytes, count, size, reading))


@contextmanager
def asking(port: int, taken_us: list[float]) -> Iterator[None]:
    """Reads of 100 bytes, one after the other, meanwhile."""
    over = threading.Event()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.sendall(b"SET small " + b"x" * 100 + b"\r\n")
            link.recv(100)
            while not over.is_set():
                began = time.perf_counter()
                link.sendall(b"GETRANGE small 0 -1\r\n")
                got = 0
                while got < 108:
                    got += len(link.recv(200))
                taken_us.append(1e6 * (time.perf_counter() - began))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def beside(taken_us: Sequence[float]) -> Beside:
    """What is told of the reads."""
    each = sorted(taken_us)
    return Beside(len(each), each[len(each) // 2], each[int(0.99 * len(each))], each[-1])


def held_up_us(server: ValkeyProcess, commands: Sequence[str]) -> float:
    """How long one of these took on average since the figures were reset, by the one that took longest."""
    told = server.command("INFO commandstats").decode()
    found = re.findall(r"cmdstat_(\w+):calls=\d+,usec=\d+,usec_per_call=([\d.]+)", told)
    return max((float(each) for name, each in found if name in commands), default=0.0)


def rows(pieces: Sequence[int], rounds: int, count: int, size: int) -> Iterator[str]:
    """The table's lines: medians over the rounds."""
    yield (
        "| pieces | | its processor time | longest step of its loop | one command held up the server "
        "| reads beside it: p50 | p99 | longest |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    found: dict[tuple[int, bool], list[tuple[Spent, Beside, float]]] = {}
    with ValkeyProcess() as server, ProcessPoolExecutor(1, get_context("spawn")) as another:
        another.submit(work, server.url, _WHOLE, 1, 1000, True).result()
        for _ in range(rounds):
            for piece_bytes in pieces:
                for reading in (False, True):
                    taken_us: list[float] = []
                    server.command("CONFIG RESETSTAT")
                    with asking(server.port, taken_us):
                        one = another.submit(work, server.url, piece_bytes, count, size, reading).result()
                    read = "get" if piece_bytes in (_SET, _WHOLE) else "hget"
                    held = held_up_us(server, [read] if reading else ["set" if piece_bytes == _SET else "eval"])
                    found.setdefault((piece_bytes, reading), []).append((one, beside(taken_us), held))
    for (piece_bytes, reading), each in found.items():
        cpu, step = (statistics.median(column) for column in zip(*(one for one, _, _ in each), strict=True))
        held = statistics.median(held for _, _, held in each)
        _, p50, p99, longest = (statistics.median(column) for column in zip(*(one for _, one, _ in each), strict=True))
        name = {_SET: "whole, by SET", _WHOLE: "whole, by the script"}.get(piece_bytes, f"{piece_bytes // 1024} KiB")
        begin = f"| {name} | {'read' if reading else 'stored'} | {cpu:.1f} ms | {step:.1f} ms | {held:.0f} µs "
        yield f"{begin}| {p50:.0f} µs | {p99:.0f} µs | {longest:.0f} µs |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--count", type=int, default=20)
    asked.add_argument("--size", type=int, default=_SIZE)
    asked.add_argument("--pieces", type=int, nargs="+", default=_PIECES)
    given = asked.parse_args(arguments)
    for line in rows(given.pieces, given.rounds, given.count, given.size):
        print(line)


if __name__ == "__main__":
    main()
