"""The capacity model against a real farthing under a mixed load that none of its costs was measured with.

Some requests are hits, some whole misses, some streams of another length than the stream benchmark's. What is compared
is processor time a request, which other work on the machine changes less than times by the clock.

    python -m bench.capacity_measured
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from rich.console import Console

from bench.capacity import Load, plan
from bench.load import chat_body, http_request
from bench.machine import place, settle
from bench.servers import farthing
from bench.streams import drive
from bench.upstream import streaming

CHUNKS = 57
EVENTS = CHUNKS + 3  # role, finish and usage beside the pieces
KNOWN = 50
MIXES = ((0.3, 0.7), (0.6, 0.3), (0.0, 1.0))


def requests(series: int, count: int, hit_ratio: float, stream_share: float) -> Iterator[bytes]:
    """A mix by chance; hits ask what `known` has asked before."""
    chance = Random(series)
    for number in range(count):
        if chance.random() < hit_ratio:
            yield http_request(chat_body(f"k{chance.randrange(KNOWN):011d}"))
        else:
            yield http_request(chat_body(f"n{series:03d}{number:08d}", chance.random() < stream_share))


def known() -> Iterator[bytes]:
    """What shall be a hit later."""
    return (http_request(chat_body(f"k{number:011d}")) for number in range(KNOWN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        here = place(Path(folder))
        with (
            streaming(here, chunks=CHUNKS, first_ms=50, gap_ms=10) as upstream,
            farthing("mixed", upstream.port, here, {"SEMANTIC__MODE": "off"}) as ours,
        ):
            drive(ours.port, known(), 4, lambda _: 0.0)
            series = 0
            for hit_ratio, stream_share in MIXES:
                found = []
                for _ in range(given.rounds):
                    series += 1
                    before = settle(ours.pid)
                    mix = requests(series, given.requests, hit_ratio, stream_share)
                    timings = drive(ours.port, mix, 16, lambda _: 0.0)
                    if any(timing.status != 200 for timing in timings):
                        raise RuntimeError("requests failed")
                    found.append((settle(ours.pid) - before) * 1e6 / len(timings))
                load = Load(1, hit_ratio=hit_ratio, stream_share=stream_share, events=EVENTS, semantic=False)
                said, measured = plan(load).cpu_us, statistics.median(found)
                console.print(
                    f"{hit_ratio:.0%} hits, {stream_share:.0%} of misses streams of {EVENTS} events: "
                    f"model {said:,.0f} µs, measured {measured:,.0f} µs a request ({said / measured - 1:+.0%})"
                )


if __name__ == "__main__":
    main()
