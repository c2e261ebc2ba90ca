"""What goes between the process that answers requests and the one that sends telemetry: frames down, lines up.

A frame is two lengths (4 bytes each, big-endian), JSON of the first one, and bytes of the second one: texts of clients
go as they came, and the JSON says where each ends. Nothing in it can be anything but values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import orjson

from farthing.proxy.capture_record import Said
from farthing.proxy.config_capture import Capture
from farthing.proxy.config_otlp import Otlp as Settings
from farthing.proxy.ledger_file import washed
from farthing.proxy.otlp_names import Target
from farthing.proxy.row import Row
from farthing.proxy.traces import Parent

__all__ = ["Batch", "Start", "Status", "Told", "batch_in", "read_frame", "start_in"]

Frame = tuple[Any, memoryview]


class Told(NamedTuple):
    """A row, its client's span, and what may be told of its texts."""

    row: Row
    parent: Parent | None
    said: Said | None


class Start(NamedTuple):
    """What the sender must know before anything else. `secret`: what redaction's digests are made with."""

    settings: Settings
    secret: bytes

    def frame(self) -> bytes:
        """As it is written: the headers' values in clear, since it is the sender that sends them."""
        settings = self.settings.model_dump(mode="json")
        settings["headers"] = {name: value.get_secret_value() for name, value in self.settings.headers.items()}
        return _frame(orjson.dumps({"settings": settings, "secret": self.secret.hex()}))


class Batch(NamedTuple):
    """Rows; `target`: the upstream that they went to; `chosen`: what is taken out of their texts, None where they have
    none."""

    rows: Sequence[Told]
    target: Target
    chosen: Capture | None

    def frame(self) -> bytes:
        """As it is written. A text or number in a row that JSON can't hold is washed, as the ledger does it."""
        texts: list[bytes] = []
        for _, _, said in self.rows:
            if said is not None:
                texts += [said.request, said.answer or b""]
        chosen = self.chosen.model_dump(mode="json") if texts and self.chosen is not None else None
        try:
            head = orjson.dumps([self.target[:], chosen, [_listed(one, one.row[:]) for one in self.rows]])
        except TypeError:
            head = orjson.dumps([self.target[:], chosen, [_listed(one, washed(one.row)) for one in self.rows]])
        return _frame(head, *texts)


class Status(NamedTuple):
    """`done`: spans that no longer wait; `dropped`: of them, those that no collector will see. `spans`, `metrics`: what
    came of the last call: ok, away, refused. `content_bytes`: of texts that no longer wait, as `size_of` counts them;
    `content_dropped`: texts that were left out."""

    done: int = 0
    dropped: int = 0
    spans: str = "ok"
    metrics: str = "ok"
    content_bytes: int = 0
    content_dropped: int = 0

    def line(self) -> bytes:
        """As it is told."""
        return orjson.dumps(self[:]) + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Status:
        """As it was told. Raises ValueError."""
        done, dropped, spans, metrics, content_bytes, content_dropped = orjson.loads(line)
        return cls(int(done), int(dropped), str(spans), str(metrics), int(content_bytes), int(content_dropped))


def start_in(frame: Frame) -> Start:
    """What `Start.frame` wrote. Raises ValueError, KeyError, TypeError."""
    head, _ = frame
    return Start(Settings.model_validate(head["settings"]), bytes.fromhex(head["secret"]))


def batch_in(frame: Frame) -> Batch:
    """What `Batch.frame` wrote. Raises ValueError, TypeError."""
    (target, chosen, listed), texts = frame
    rows, at = [], 0
    for row, parent, told in listed:
        said = None
        if told is not None:
            path, asked, answered = told
            begun, at = at, at + asked + (answered or 0)
            answer = None if answered is None else bytes(texts[begun + asked : at])
            said = Said(path, bytes(texts[begun : begun + asked]), answer)
        above = None if parent is None else Parent(int(parent[0], 16), parent[1], parent[2])
        rows.append(Told(Row._make(row), above, said))
    return Batch(rows, Target(*target), None if chosen is None else Capture.model_validate(chosen))


def read_frame(source: BinaryIO) -> Frame | None:
    """The next frame; None at the end, or where the last one was cut."""
    lengths = source.read(8)
    if len(lengths) < 8:
        return None
    size, more = int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")
    body = memoryview(source.read(size + more))
    return (orjson.loads(body[:size]), body[size:]) if len(body) == size + more else None


def _frame(head: bytes, *texts: bytes) -> bytes:
    more = sum(map(len, texts))
    return b"".join((len(head).to_bytes(4, "big"), more.to_bytes(4, "big"), head, *texts))


def _listed(told: Told, row: Sequence[Any]) -> tuple[Any, ...]:
    """One row as JSON has it: a trace's id is longer than its numbers."""
    _, parent, said = told
    above = None if parent is None else (f"{parent.trace_id:x}", parent.span_id, parent.flags)
    if said is None:
        return row, above, None
    return row, above, (said.path, len(said.request), None if said.answer is None else len(said.answer))
