"""What the simulated provider cache costs a request, by the length of its prompt.

    nice -n 15 python -m bench.prompt_trail

Processor time of the parts that run on the event loop: the chain of a prompt's prefixes (a first hit and a miss make
it), and its arrival in the simulation's worlds. 'Again' is the short way of a hit, which keeps the chain: after more
than a second, and within one. Least and median of many batches.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from farthing.proxy.clock import SystemClock
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.counterfactual import Counterfactual
from farthing.proxy.hit_again import Again
from farthing.proxy.prices import RateCard
from farthing.proxy.provider_reads import BOTH, ProviderReads, World
from farthing.proxy.usage import Usage

MODEL = "gpt-4o-mini"
CHARS_A_TOKEN = 4


def timed(work: Callable[[int], Any], batches: int, each: int) -> tuple[float, float]:
    """Microseconds of processor time a call: the least and the median of the batches. `work` is given a number."""
    took = []
    for batch in range(batches):
        begun = time.process_time_ns()
        for number in range(batch * each, (batch + 1) * each):
            work(number)
        took.append((time.process_time_ns() - begun) / each / 1000)
    return min(took), median(took)


def parts(chars: int, batches: int, each: int) -> list[tuple[str, tuple[float, float]]]:
    """What a prompt of so many characters costs."""
    text = ("The parcel was delivered to a neighbour, who says that it never came. " * (chars // 60 + 1))[:chars]
    payload = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    usage = Usage(fresh=chars // CHARS_A_TOKEN, output=100)
    reads, now_s = ProviderReads(), SystemClock().now_s()

    def found(number: int) -> Any:
        return reads.trail("chat", payload, MODEL, "auto", "t", usage.tokens_in)

    first = found(0)
    measured = [("hash" if first is not None else "look at the length", timed(found, batches, each))]
    if first is None:
        return measured

    def hit(number: int) -> None:
        reads.arrive(found(number), usage, now_s + number, now_s + number, (World.DIRECT,))

    def miss(number: int) -> None:
        reads.arrive(found(number), usage, now_s + number, now_s + number, BOTH)

    price = ModelPrice.model_validate({"input_usd_per_mtok": 1, "output_usd_per_mtok": 2})
    card, again = RateCard({MODEL: price}, "", ""), Again(MODEL, MODEL, first, usage)
    whole = Counterfactual(reads)
    measured += [
        ("a first hit", timed(hit, batches, each)),
        ("a miss", timed(miss, batches, each)),
        ("a hit again", timed(lambda n: again.reckon(card, whole, now_s + 2 * n), batches, each)),
        ("within a second", timed(lambda n: again.reckon(card, whole, again.at_s), batches, each)),
    ]
    return measured


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser(prog="python -m bench.prompt_trail", description=__doc__)
    given.add_argument("--batches", type=int, default=100)
    given.add_argument("--each", type=int, default=200)
    asked = given.parse_args()
    table = Table("prompt", "part", "least µs", "median µs", title=f"load average {os.getloadavg()[0]:.1f}")
    for chars in (2_000, 10_000, 100_000):
        for name, (least, middle) in parts(chars, asked.batches, asked.each):
            table.add_row(f"{chars:,} characters", name, f"{least:.2f}", f"{middle:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
