"""The pipe to the process that sends telemetry: processor time a row to write and to read a batch, beside pickle's.

    nice -n 15 python -m bench.otlp_wire

Both write and read the same 500 rows, in turns; 'pickle' is what the pipe spoke before: the rows as plain tuples.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from farthing.proxy.capture_record import Said
from farthing.proxy.config_capture import Capture
from farthing.proxy.otlp_names import Target
from farthing.proxy.otlp_wire import Batch, Told, batch_in, read_frame
from farthing.proxy.row import Row
from farthing.proxy.traces import Parent
from tests.fakes.rows import plausible

ROWS = 500


def cpu_us(work: Callable[[], Any]) -> float:
    """Microseconds of processor time a row."""
    begun_s = time.process_time()
    work()
    return (time.process_time() - begun_s) * 1e6 / ROWS


def pickled(told: list[Told]) -> bytes:
    """The rows as the pipe had them before."""
    return pickle.dumps([(tuple(one.row), one.parent, one.said) for one in told], protocol=pickle.HIGHEST_PROTOCOL)


def unpickled(body: bytes) -> list[Told]:
    """And read."""
    return [Told(Row._make(row), parent, said) for row, parent, said in pickle.loads(body)]


def framed(frame: bytes) -> Batch:
    """A frame read."""
    got = read_frame(io.BytesIO(frame))
    assert got is not None
    return batch_in(got)


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser(prog="python -m bench.otlp_wire", description=__doc__)
    given.add_argument("--rounds", type=int, default=200)
    rounds = given.parse_args().rounds
    said = Said("/v1/chat/completions", b"r" * 2000, b"a" * 1000)
    parent = Parent(2**127 + 1, 2**63 + 1, 1)
    rows = plausible(ROWS)
    table = Table("rows", "pipe", "to write", "to read", "bytes", title=f"CPU µs a row; load {os.getloadavg()[0]:.1f}")
    for name, more in (("plain", None), ("with 3 kB of texts", said)):
        told = [
            Told(row, parent, more and Said(more.path, b"%d" % at + more.request, more.answer))
            for at, row in enumerate(rows)
        ]
        batch = Batch(told, Target("openai", "api.openai.com", 443), Capture())
        ways: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
            "pickle": (lambda told=told: pickled(told), unpickled),  # type: ignore[misc]
            "frames": (batch.frame, framed),
        }
        bodies = {way: write() for way, (write, _) in ways.items()}
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (write, read) in ways.items():
                body = bodies[way]
                taken[way].append((cpu_us(write), cpu_us(lambda read=read, body=body: read(body))))  # type: ignore[misc]
        for way, each in taken.items():
            wrote, read_us = (median(column) for column in zip(*each, strict=True))
            table.add_row(name, way, f"{wrote:.2f}", f"{read_us:.2f}", f"{len(bodies[way]):,}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
