"""What the semantic stage adds to a miss from end to end: the proxy with the stage off, observing and serving.

All three stand before the same static upstream and get the same fresh questions at the same pace, in rounds one after
the other, so that whatever else the machine does falls on all of them. Serving: unproven at a cosine that no question
reaches, so that every look-up is waited for and nothing is answered. Figures are medians over the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import closed_loop, http_request, percentile
from bench.machine import Place, settle
from bench.servers import Running, farthing
from bench.upstream import fast

__all__ = ["CONCURRENCIES", "MODES", "Added", "added"]

MODES = {
    "off": {"SEMANTIC__MODE": "off"},
    "observe": {"SEMANTIC__MODE": "observe"},
    "serve": {"SEMANTIC__MODE": "serve", "SEMANTIC__UNPROVEN": "true", "SEMANTIC__THRESHOLD": "1.0"},
}
CONCURRENCIES = (1, 16)
# What one core can embed, with room to spare: beyond it a queue would be measured.
_PER_S = 40.0


@dataclass(frozen=True, slots=True)
class Added:
    """One mode at one concurrency: medians over the rounds."""

    mode: str
    concurrency: int
    p50_ms: float
    p99_ms: float
    cpu_us: float


def added(here: Place, questions: Sequence[str], rounds: int, tell: Callable[[str], None]) -> list[Added]:
    """Each question is asked once of each proxy, an equal share of them in each window."""
    share = len(questions) // (rounds * len(CONCURRENCIES))
    given = iter(questions)
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fast(here))
        servers = {
            mode: stack.enter_context(farthing(f"cost {mode}", upstream.port, here, settings))
            for mode, settings in MODES.items()
        }
        for number in range(rounds):
            for concurrency in CONCURRENCIES:
                part = [next(given) for _ in range(share)]
                for mode, server in servers.items():
                    tell(f"end to end: round {number + 1} of {rounds}, {concurrency} at a time, {mode}")
                    found.setdefault((mode, concurrency), []).append(_window(server, part, concurrency))
    return [
        Added(mode, concurrency, *(median(column) for column in zip(*windows, strict=True)))
        for (mode, concurrency), windows in found.items()
    ]


def _window(server: Running, questions: Sequence[str], concurrency: int) -> tuple[float, float, float]:
    """p50 and p99 in milliseconds, processor time of a request in microseconds. Raises RuntimeError: no 200."""
    mean_s = concurrency / _PER_S

    def pause(chance: random.Random) -> float:
        return chance.expovariate(1 / mean_s)

    before = settle(server.pid)
    timings = asyncio.run(closed_loop(server.port, iter([_request(one) for one in questions]), concurrency, pause))
    used_s = settle(server.pid) - before
    if any(timing.status != 200 for timing in timings):
        raise RuntimeError(f"{server.name}: not every answer was 200")
    took = [1000 * timing.whole_s for timing in timings]
    return percentile(took, 50), percentile(took, 99), 1e6 * used_s / len(timings)


def _request(question: str) -> bytes:
    body = {"model": "gpt-4o-mini", "temperature": 0, "messages": [{"role": "user", "content": question}]}
    return http_request(json.dumps(body).encode())
