"""What sealing stored answers costs a hit and a store, in processor time: `python -m bench.sealing_cost`.

The two ways are measured in turns in one process, so that a busy machine is busy for both.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

from farthing.cache.codec import decode, encode
from farthing.cache.entry import Entry
from farthing.proxy.seal import Sealer
from farthing.proxy.usage import Usage

_ROUNDS = 15
_ROUND_S = 0.05
_WORDS = ("the", "answer", "is", "that", "each", "of", "these", "words", "comes", "again", "now", "and", "then")


def entry(size: int) -> Entry:
    """An answer of about that many bytes, of text that shrinks as text does."""
    text, number = "", 0
    while len(text) < size:
        number = (number * 1_103_515_245 + 12_345) % 2**31
        text += _WORDS[number % len(_WORDS)] + f" {number % 997} "
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text[:size]}}]}).encode()
    return Entry(
        key="a" * 32, scope="b" * 32, endpoint="chat", model_requested="m", model_served="m", shape="whole",
        content_type="application/json", body=body, usage=Usage(fresh=7, output=3), stored_s=1.0, expires_s=2e9,
    )  # fmt: skip


def cpu_us(work: Callable[[], object]) -> float:
    """Processor time of one call, in µs, over about 50 ms of calls."""
    count, began = 0, time.process_time()
    while (spent := time.process_time() - began) < _ROUND_S:
        for _ in range(20):
            work()
        count += 20
    return spent / count * 1e6


def main() -> None:
    """Measure and print a table."""
    seal = Sealer([os.urandom(32)], os.urandom)
    print("| answer | stored open | stored sealed | read open | read sealed | more for a hit | bytes more |")
    print("|---|---|---|---|---|---|---|")
    for size in (300, 2_000, 16_000, 200_000):
        one = entry(size)
        plain, sealed = encode(one), encode(one, seal)
        works: list[Callable[[], object]] = [
            lambda one=one: encode(one),
            lambda one=one: encode(one, seal),
            lambda plain=plain: decode(plain),
            lambda sealed=sealed: decode(sealed, seal),
        ]
        rounds = [[cpu_us(work) for work in works] for _ in range(_ROUNDS)]
        stored, shut, read, opened = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(
            f"| {len(one.body):,} B | {stored:.1f} µs | {shut:.1f} µs | {read:.1f} µs | {opened:.1f} µs "
            f"| {opened - read:+.1f} µs | {len(sealed) - len(plain)} |"
        )


if __name__ == "__main__":
    main()
