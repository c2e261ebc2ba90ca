"""What goes between the process that answers requests and the one that sends telemetry: frames down, lines up.

A frame is its length (4 bytes, big-endian) and a pickle: both ends are this program, one started by the other, and
nobody else has the pipe.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO, NamedTuple

import orjson

from farthing.proxy.otlp_names import Target
from farthing.proxy.traces import Parent

__all__ = ["Batch", "Status", "frame", "read_frame"]


class Batch(NamedTuple):
    """Rows as plain tuples, each with its client's span; `target`: the upstream that they went to."""

    rows: list[tuple[tuple[Any, ...], Parent | None]]
    target: Target


class Status(NamedTuple):
    """`done`: spans that no longer wait; `dropped`: of them, those that no collector will see. `spans`, `metrics`: what
    came of the last call: ok, away, refused."""

    done: int = 0
    dropped: int = 0
    spans: str = "ok"
    metrics: str = "ok"

    def line(self) -> bytes:
        """As it is told."""
        return orjson.dumps(list(self)) + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Status:
        """As it was told. Raises ValueError."""
        done, dropped, spans, metrics = orjson.loads(line)
        return cls(int(done), int(dropped), str(spans), str(metrics))


def frame(value: Any) -> bytes:
    """The value as a frame."""
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(4, "big") + body


def read_frame(source: BinaryIO) -> Any:
    """The next value; None at the end, or where the last frame was cut."""
    length = source.read(4)
    if len(length) < 4:
        return None
    size = int.from_bytes(length, "big")
    body = source.read(size)
    return pickle.loads(body) if len(body) == size else None
