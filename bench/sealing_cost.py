"""What sealing costs where texts are stored and read, in processor time: `python -m bench.sealing_cost`.

Each place's own form is made and read, with a text of each size, without the disk or server behind it: what is measured
is what a seal adds. A stopped replay is one text, sealed as a capture is. The two ways are measured in turns in one
process, so that a busy machine is busy for both. `--rounds`, `--round-s` and `--sizes`: a run that only shows that all
works.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from farthing.cache import log_redis_wire, semantic_disk
from farthing.cache.codec import decode, encode
from farthing.cache.entry import Entry
from farthing.compress import decided
from farthing.proxy import defer_store
from farthing.proxy.seal import Seal, Sealer, anew, closed, opened
from farthing.proxy.usage import Usage

_ROUNDS = 15
_ROUND_S = 0.05
_SIZES = (300, 2_000, 16_000, 200_000)
_CALLS = 20
_DIM = 256
_WORDS = ("the", "answer", "is", "that", "each", "of", "these", "words", "comes", "again", "now", "and", "then")
_KEY = b"k" * decided.KEY_BYTES


class Way(NamedTuple):
    """One place, open or sealed: what stores a text, and what reads what is stored. `size`: bytes as stored."""

    store: Callable[[], object]
    read: Callable[[], object]
    size: int


def text_of(size: int) -> str:
    """Of that many characters, which shrinks as text does."""
    text, number = "", 0
    while len(text) < size:
        number = (number * 1_103_515_245 + 12_345) % 2**31
        text += _WORDS[number % len(_WORDS)] + f" {number % 997} "
    return text[:size]


def entry(size: int) -> Entry:
    """An answer of about that many bytes."""
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text_of(size)}}]}).encode()
    return Entry(
        key="a" * 32, scope="b" * 32, endpoint="chat", model_requested="m", model_served="m", shape="whole",
        content_type="application/json", body=body, usage=Usage(fresh=7, output=3), stored_s=1.0, expires_s=2e9,
    )  # fmt: skip


def answers(size: int, seal: Seal | None) -> Way:
    """`answers.db` and Redis."""
    one = entry(size)
    stored = encode(one, seal)
    return Way(lambda: encode(one, seal), lambda: decode(stored, seal), len(stored))


def near_duplicates(size: int, seal: Seal | None) -> Way:
    """`semantic.db`: a text with its vector."""
    plain = len(text_of(size)).to_bytes(4, "big") + text_of(size).encode() + np.ones(_DIM, "<f4").tobytes()
    bound = semantic_disk._bound("a" * 32, "b" * 32, "m")
    return _marked(plain, seal, bound)


def replicas_log(size: int, seal: Seal | None) -> Way:
    """The replicas' log in Redis."""
    row = semantic_disk.Row("b" * 32, "a" * 32, text_of(size), 2e9, np.ones(_DIM, np.float32), 0.1)
    stored = log_redis_wire.pack(row, seal)
    return Way(
        lambda: log_redis_wire.pack(row, seal),
        lambda: log_redis_wire.unpack("a" * 32, stored, _DIM, seal),
        len(stored),
    )


def compressed(size: int, seal: Seal | None) -> Way:
    """`decided.db` and `removed.db`, and the same in Redis."""
    one = decided.Decision((text_of(size),), ("rows",), (5,))
    stored = decided.encode(_KEY, one, seal)
    return Way(lambda: decided.encode(_KEY, one, seal), lambda: decided.decode(_KEY, stored, seal), len(stored))


def captures(size: int, seal: Seal | None) -> Way:
    """`capture.db`."""
    return _marked(text_of(size).encode(), seal, b"capture\0id\0tenant\0user")


def deferred(size: int, seal: Seal | None) -> Way:
    """`deferred.db`: a body."""
    plain, bound = text_of(size).encode(), defer_store._bound("d" * 32, "body")
    if seal is None:
        return Way(lambda: plain, lambda: plain, len(plain))
    stored = seal.close(plain, bound)
    return Way(lambda: seal.close(plain, bound), lambda: seal.open(stored, bound), len(stored))


PLACES: Sequence[tuple[str, Callable[[int, Seal | None], Way]]] = (
    ("answers", answers),
    ("near-duplicates", near_duplicates),
    ("replicas' log", replicas_log),
    ("decided, removed", compressed),
    ("captures", captures),
    ("deferred", deferred),
)


def _marked(plain: bytes, seal: Seal | None, bound: bytes) -> Way:
    stored = closed(seal, plain, bound)
    return Way(lambda: closed(seal, plain, bound), lambda: opened(seal, stored, bound), len(stored))


def cpu_us(work: Callable[[], object], round_s: float) -> float:
    """Processor time of one call, in µs, over about `round_s` of calls."""
    count, began = 0, time.process_time()
    while True:
        for _ in range(_CALLS):
            work()
        count += _CALLS
        if (spent := time.process_time() - began) >= round_s:
            return spent / count * 1e6


def rows(sizes: Sequence[int], rounds: int, round_s: float) -> Iterator[str]:
    """The table's lines, one for each place and size; `reseal`: a text's way from one key to another."""
    now, before = os.urandom(32), os.urandom(32)
    seal, old = Sealer([now, before], os.urandom), Sealer([before], os.urandom)
    yield "| where | text | stored open | stored sealed | read open | read sealed | more for a read | bytes more |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, place in PLACES:
        for size in sizes:
            bare, shut = place(size, None), place(size, seal)
            works = (bare.store, shut.store, bare.read, shut.read)
            measured = [[cpu_us(work, round_s) for work in works] for _ in range(rounds)]
            stored, closed_us, read, opened_us = (statistics.median(each) for each in zip(*measured, strict=True))
            yield (
                f"| {name} | {size:,} B | {stored:.1f} µs | {closed_us:.1f} µs | {read:.1f} µs | {opened_us:.1f} µs "
                f"| {opened_us - read:+.1f} µs | {shut.size - bare.size} |"
            )
    for size in sizes:
        under_old = closed(old, text_of(size).encode(), b"")
        spent = statistics.median(cpu_us(lambda at=under_old: anew(seal, at, b""), round_s) for _ in range(rounds))
        yield f"| reseal | {size:,} B | – | {spent:.1f} µs | – | – | – | 0 |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=_ROUNDS)
    asked.add_argument("--round-s", type=float, default=_ROUND_S)
    asked.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    given = asked.parse_args(arguments)
    for line in rows(given.sizes, given.rounds, given.round_s):
        print(line)


if __name__ == "__main__":
    main()
