"""What it costs to choose a replica and a key for an attempt, with what its answer teaches.

    nice -n 15 python -m bench.pool_choice

Processor time of `Pool.pick`, `Lease.answered` and `Lease.done`; under affinity with the chain of the prompt's blocks.
Least and median of many batches. Nothing is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.prompt_trail import timed
from farthing.compress.provider_cache import Kind, ProviderCache
from farthing.policies.affinity import NO_PREFIX, Prefix
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.config import Upstream
from farthing.proxy.pool import Pool
from farthing.proxy.pool_open import open_pool
from farthing.proxy.prompt_trail import trail_of
from farthing.proxy.tasks import TaskGroup

LIMITS = [
    ("x-ratelimit-limit-requests", "10000"), ("x-ratelimit-remaining-requests", "9000"),
    ("x-ratelimit-reset-requests", "6ms"), ("x-ratelimit-limit-tokens", "2000000"),
    ("x-ratelimit-remaining-tokens", "1900000"), ("x-ratelimit-reset-tokens", "3ms"),
]  # fmt: skip
ENGINE = ProviderCache(Kind.AUTOMATIC)


def pool(replicas: int, keys: int, balance: str) -> Pool:
    """A pool of servers that nobody asks."""
    urls = [f"http://127.0.0.1:{9000 + number}/v1" for number in range(replicas)]
    given: dict[str, Any] = {"url": urls[0], "replicas": urls if replicas > 1 else [], "balance": balance}
    if keys:
        given["api_keys"] = [f"sk-{number}" for number in range(keys)]
    upstream = Upstream.model_validate(given)
    return open_pool(upstream, spawn=TaskGroup().spawn, clock=SystemClock(), randomness=SystemRandomness())


def chain(chars: int) -> Prefix:
    """A prompt's blocks."""
    text = ("Which of these orders is late, and why? " * (chars // 40 + 1))[:chars]
    trail = trail_of("chat", {"messages": [{"role": "user", "content": text}]}, ENGINE, ("m",))
    return NO_PREFIX if trail is None else Prefix(trail.keys, trail.ends)


async def measured(batches: int, each: int) -> list[tuple[str, tuple[float, float]]]:
    """Each case, in a loop, since pools belong to one."""
    found = []
    for name, replicas, keys, balance, chars in (
        ("one address", 1, 0, "least", 0),
        ("2 replicas", 2, 0, "least", 0),
        ("8 replicas", 8, 0, "least", 0),
        ("64 replicas", 64, 0, "least", 0),
        ("5 keys, limits read from each answer", 1, 5, "least", 0),
        ("affinity among 4, 4,000 characters", 4, 0, "affinity", 4_000),
        ("affinity among 4, 100,000 characters", 4, 0, "affinity", 100_000),
    ):
        here, headers = pool(replicas, keys, balance), LIMITS if keys else []

        def attempt(number: int, here: Pool = here, chars: int = chars, headers: Any = headers) -> None:
            lease = here.pick(chain(chars) if chars else NO_PREFIX)
            lease.answered(200, headers)
            lease.done()

        found.append((name, timed(attempt, batches, each)))
        here.close()
    return found


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser(prog="python -m bench.pool_choice", description=__doc__)
    given.add_argument("--batches", type=int, default=50)
    given.add_argument("--each", type=int, default=400)
    asked = given.parse_args()
    table = Table("pool", "least µs", "median µs", title=f"load average {os.getloadavg()[0]:.1f}")
    for name, (least, middle) in asyncio.run(measured(asked.batches, asked.each)):
        table.add_row(name, f"{least:.2f}", f"{middle:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
