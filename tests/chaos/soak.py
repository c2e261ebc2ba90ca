"""`make soak`: two million requests through one farthing, with its memory, descriptors and latency sampled.

Nineteen in twenty are hits among 2,000 answers; the rest are new, so that every bound is reached after a fifth of the
run and eviction is at work from then on (the store is bounded at 16 MiB in memory and 20,000 entries). Every answer is
compared with the right one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.http1 import Framer, Part, status_of
from bench.load import http_request
from bench.machine import rss_bytes
from bench.provenance import about
from tests.chaos.answers import answer, asked
from tests.chaos.measured import row_ids
from tests.chaos.places import Alone

_KNOWN = 2_000
_FRESH_SHARE = 0.05
_CLIENTS = 16
_SAMPLES = 60
_BOUNDS = {"FARTHING_STORE__MEMORY_BYTES": str(2**24), "FARTHING_STORE__MAX_ENTRIES": "20000"}
GROWTH = 0.05
"""How much the median of RSS in the last quarter may lie above that of the second quarter, beside 8 MiB."""
FULL_AFTER = 400_000
"""Every bound is reached by then: those of the store above, and 20,000 prompts that the ledger's sums count by."""
LEAK_MIB, LEAK_PER = 2.0, 500_000
"""How much RSS may grow in so many requests of the second half, by the median of the slopes between its samples, where
everything is full by then."""


@dataclass(frozen=True, slots=True)
class Sample:
    """After so many requests: what the process holds, and latencies of the requests since the sample before."""

    requests: int
    rss_mib: float
    descriptors: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Soak:
    """A run under way."""

    requests: int
    rng: random.Random
    done: int = 0
    begun: int = 0
    failed: int = 0
    wrong: int = 0
    times_ms: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def next(self) -> str | None:
        """The next prompt; None after the last."""
        if self.begun >= self.requests:
            return None
        self.begun += 1
        if self.rng.random() < _FRESH_SHARE:
            return f"fresh {self.begun}"
        return f"known {self.rng.randrange(_KNOWN)}"

    def sample(self, pid: int) -> None:
        """Note what the process holds now."""
        times_ms, self.times_ms = self.times_ms, []
        cuts = quantiles(times_ms, n=100, method="inclusive")
        held = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        self.samples.append(
            Sample(self.done, round(rss_bytes(pid) / 2**20, 1), held, round(cuts[49], 2), round(cuts[98], 2))
        )

    async def client(self, port: int, pid: int) -> None:
        """One connection, as long as there is something to ask."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            while (prompt := self.next()) is not None:
                began = time.perf_counter()
                writer.write(http_request(asked(prompt, stream=False)))
                status, body = await _answer(reader)
                self.times_ms.append((time.perf_counter() - began) * 1000)
                self.done += 1
                self.failed += status != 200
                self.wrong += status == 200 and answer(prompt).encode() not in body
                if self.done % max(1, self.requests // _SAMPLES) == 0:
                    self.sample(pid)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    framer, head, body = Framer(), b"", []
    while True:
        piece = await reader.read(65_536)
        if not piece:
            raise ConnectionError("farthing closed the connection")
        for part, text in framer.feed(piece):
            if part is Part.HEAD:
                head = text
            elif part is Part.BODY:
                body.append(text)
            else:
                return status_of(head), b"".join(body)


def growth_mib(samples: Sequence[Sample]) -> float:
    """By how much RSS grows in LEAK_PER requests: the median of the slopes between all pairs (Theil and Sen), which a
    few samples can't turn."""
    slopes = [
        (late.rss_mib - early.rss_mib) / (late.requests - early.requests) * LEAK_PER
        for at, early in enumerate(samples)
        for late in samples[at + 1 :]
        if late.requests > early.requests
    ]
    return median(slopes) if slopes else 0.0


def broken(soak: Soak, rows: int) -> list[str]:
    """The claims that did not hold."""
    quarter = len(soak.samples) // 4
    early, late = soak.samples[quarter : 2 * quarter], soak.samples[3 * quarter :]
    rss = [median(sample.rss_mib for sample in part) for part in (early, late)]
    half = soak.samples[len(soak.samples) // 2 :]
    slope = growth_mib(half) if half[0].requests >= FULL_AFTER else 0.0
    claims = {
        f"{soak.failed} failed": soak.failed,
        f"{soak.wrong} wrong answers": soak.wrong,
        f"{soak.done - rows} ledger rows are missing": soak.done - rows,
        f"memory grew from {rss[0]} to {rss[1]} MiB": rss[1] > rss[0] * (1 + GROWTH) + 8,
        f"memory grows by {slope:.1f} MiB in {LEAK_PER:,} requests of the second half": slope > LEAK_MIB,
        "descriptors grew": max(s.descriptors for s in late) > max(s.descriptors for s in early) + 2,
        "latency doubled": median(s.p50_ms for s in late) > 2 * median(s.p50_ms for s in early) + 1,
    }
    return [claim for claim, holds_not in claims.items() if holds_not]


async def run(requests: int) -> tuple[Soak, dict[str, Any]]:
    """The whole soak, and what is told of it."""
    soak = Soak(requests, random.Random(5))
    with tempfile.TemporaryDirectory(prefix="farthing-soak-") as home, Alone(Path(home), **_BOUNDS) as alone:
        began = time.monotonic()
        await asyncio.gather(*(soak.client(alone.farthing.port, alone.farthing.pid) for _ in range(_CLIENTS)))
        took_s = time.monotonic() - began
        await asyncio.sleep(1)
        rows = row_ids([alone.farthing.state])
    told = {
        "requests": soak.done,
        "took_s": round(took_s),
        "failed": soak.failed,
        "wrong": soak.wrong,
        "rows": rows.total(),
        "broken": broken(soak, rows.total()),
        "samples": [asdict(sample) for sample in soak.samples],
    }
    return soak, told


def main() -> int:
    """0 where every claim held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, help="where the samples go, as JSON")
    given = parser.parse_args()
    soak, told = asyncio.run(run(given.requests))
    last = soak.samples[-1]
    sys.stdout.write(
        f"{soak.done} requests in {told['took_s']} s; {last.rss_mib} MiB, {last.descriptors} descriptors, "
        f"p50 {last.p50_ms} ms, p99 {last.p99_ms} ms" + "".join(f"\n  {claim}" for claim in told["broken"]) + "\n"
    )
    if given.out:
        command = "make soak" + ("" if given.requests == 2_000_000 else f" ARGS='--requests {given.requests}'")
        given.out.write_text(json.dumps(told | about(command), indent=1) + "\n", "utf-8")
    return 1 if told["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
