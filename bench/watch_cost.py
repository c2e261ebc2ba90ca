"""What watching for drift costs: `python -m bench.watch_cost`. Processor time of one thread, medians over rounds.

Three parts. What the event loop pays for each request: the question whether its texts are wanted. What the ledger's
thread pays for each row. What the watch's own thread pays for each request that it looks at, with slices, once all
references are complete; of these there are `watch.per_s` a second at most.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
from multidict import CIMultiDict, CIMultiDictProxy
from rich.console import Console
from rich.table import Table

from farthing.proxy.clock import FakeClock
from farthing.proxy.config_watch import Watch
from farthing.proxy.exchange import Endpoint, Exchange, Original
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.row import Row
from farthing.proxy.watching import Watching, _Said
from tests.fakes.rows import plausible

ROUNDS = 15
ROWS = 500
TEXT = "How do I change the delivery address of an order that I placed yesterday? " * 3


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(prog="python -m bench.watch_cost", description=__doc__).parse_args()
    rows = plausible(ROWS)
    table = Table("part", "µs", title="watching: processor time, medians")
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        settings = Watch(per_s=1000, reference_requests=50, reference_days=0)
        watch = Watching(Path(folder) / "watch.json", settings, FakeClock(), "m")
        watch.close()  # its thread's work is done here, where it can be timed
        teach(watch, rows)
        ex = exchange()
        watch._texts.left = 0.0
        table.add_row("event loop: a request that isn't wanted", f"{each_us(lambda: watch.wants(ex), 10_000):.2f}")
        watch._rows.left = 10.0
        table.add_row("ledger's thread: a row, 500 at once", f"{each_us(lambda: fed(watch, rows), 20) / ROWS:.2f}")
        table.add_row("watch's thread: a row, four slices", f"{per_row_us(watch, rows):.0f}")
        table.add_row("watch's thread: a request and its answer, six slices", f"{per_text_us(watch, rows):.0f}")
        vectors = np.random.default_rng(1).normal(size=(3_000, 384)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for vector in vectors:
            watch._board.topic(vector, 0.0)
        given = iter(vectors)
        table.add_row(
            "watch's thread: an embedding", f"{each_us(lambda: watch._board.topic(next(given), 0.0), 150):.0f}"
        )
        spent = time.process_time()
        watch._save()
        table.add_row("watch's thread: writing watch.json, once a minute", f"{(time.process_time() - spent) * 1e6:.0f}")
        size = (Path(folder) / "watch.json").stat().st_size
    Console().print(table)
    Console().print(f"watch.json: {size / 1024:.0f} KiB, {len(watch._board._series)} series")


def each_us(work: Callable[[], object], times: int) -> float:
    """One call, the median over rounds."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - begun) / times * 1e6)
    return statistics.median(found)


def fed(watch: Watching, rows: list[Row]) -> None:
    """A batch for the ledger's listener, at the default of ten rows that are taken."""
    watch._rows.left = 10.0
    watch.on_rows(rows)
    watch._queue.clear()


def teach(watch: Watching, rows: list[Row]) -> None:
    """Complete all references."""
    for row in rows:
        watch._count(row)
        watch._read(row, said())


def per_row_us(watch: Watching, rows: list[Row]) -> float:
    """One row."""
    dice = random.Random(1)
    return each_us(lambda: watch._count(dice.choice(rows)), 500)


def per_text_us(watch: Watching, rows: list[Row]) -> float:
    """One request with its answer."""
    dice, texts = random.Random(2), said()
    return each_us(lambda: watch._read(dice.choice(rows), texts), 500)


def said() -> _Said:
    """A request and an answer of some hundred words."""
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT * 3}, "finish_reason": "stop"}]}
    return _Said({"messages": [{"role": "user", "content": TEXT}]}, orjson.dumps(answer))


def exchange() -> Exchange:
    """A chat."""
    headers = CIMultiDictProxy(CIMultiDict())
    ex = Exchange(
        "far-0", Original("POST", "/v1/chat/completions", headers, cast(Any, None), HeaderFacts(())), 0.0, 0.0
    )
    ex.endpoint, ex.payload = Endpoint.CHAT, {"messages": [{"role": "user", "content": TEXT}]}
    return ex


if __name__ == "__main__":
    main()
