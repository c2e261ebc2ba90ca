"""What sends telemetry to the collector, in a process of its own: `python -m farthing.proxy.otlp_child`.

It is fed through its standard input and tells its state on its standard output (`otlp_wire.py`), and ends when its
input does. So spans, metrics and their protocol never hold the interpreter lock of the process that answers requests.

Rules of this file: rows are only counted and put into a bounded queue as they come; a collector that is away or slow
makes spans wait there, and beyond the bound the oldest are dropped and counted; metrics lose nothing, since they are
cumulative.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from farthing.proxy.clock import Clock, SystemClock, SystemRandomness
from farthing.proxy.config_capture import Capture
from farthing.proxy.config_otlp import Otlp as Settings
from farthing.proxy.otlp_contents import size_of
from farthing.proxy.otlp_names import Target
from farthing.proxy.otlp_wire import Batch, Status, Told, batch_in, read_frame, start_in

if TYPE_CHECKING:
    from farthing.proxy.otlp_content import Content, Value
    from farthing.proxy.otlp_sdk import Sdk, Sent

__all__ = ["Sender", "main"]

_BATCH_SPANS = 100
_BATCH_CONTENT_BYTES = 4 * 2**20  # of one call: a collector refuses a body that is too large, for good
_CLOSE_S = 3.0


@dataclass(slots=True)
class _Waiting:
    """A span that is to be sent. `content`: what its texts became, which takes time and so is done once."""

    told: Told
    content: Mapping[str, Value] | None = None


class Sender:
    """Takes batches from one thread and sends them from another. Effects: a thread, calls to the collector.

    `content`: makes attributes of texts; None where none are told. `tell`: is given the state whenever it may have
    changed.
    """

    def __init__(
        self, settings: Settings, sdk: Sdk, clock: Clock, tell: Callable[[Status], None], content: Content | None = None
    ) -> None:
        self._settings = settings
        self._content = content
        most = _BATCH_CONTENT_BYTES // settings.content_bytes if settings.content else _BATCH_SPANS
        self._batch_spans = min(most, _BATCH_SPANS)
        self._chosen = Capture()
        self._sdk = sdk
        self._clock = clock
        self._tell = tell
        self._target = Target("", "", 0)
        self._waiting: deque[_Waiting] = deque()
        self._sent = self._overflowed = self._refused = 0  # the second one is the taking thread's
        self._content_bytes = self._content_dropped = 0
        self._books = threading.Lock()  # round the first of them
        self._answers = {"spans": "ok", "metrics": "ok"}
        self._wake = threading.Event()
        self._telling = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._send_on, name="otlp", daemon=True)
        self._thread.start()

    def take(self, batch: Batch) -> None:
        """Count the rows, and keep them to be sent."""
        self._target = batch.target
        if batch.chosen is not None:
            self._chosen = batch.chosen
        if self._settings.spans:
            self._waiting.extend([_Waiting(one) for one in batch.rows])
            self._overflowed += self._trimmed()
            if len(self._waiting) >= self._batch_spans and self._answers["spans"] == "ok":
                self._wake.set()
        if self._settings.metrics:
            self._sdk.measure([one.row for one in batch.rows], batch.target)
        self._say()

    def close(self) -> None:
        """Send what waits, for three seconds at most."""
        self._closing = True
        self._wake.set()
        self._thread.join(_CLOSE_S)
        self._sdk.stop()
        self._refused += len(self._waiting)
        self._waiting.clear()
        self._say()

    def _send_on(self) -> None:
        due_tick = self._clock.tick_s() + self._settings.metrics_every_s
        ending = False
        while not ending:
            self._wake.wait(min(self._settings.every_s, max(0.0, due_tick - self._clock.tick_s())))
            self._wake.clear()
            ending = self._closing
            while self._waiting and self._send_some():
                self._say()
            if self._settings.metrics and (ending or self._clock.tick_s() >= due_tick):
                self._answers["metrics"] = self._tried(self._sdk.send_metrics)
                due_tick = self._clock.tick_s() + self._settings.metrics_every_s
            self._say()

    def _send_some(self) -> bool:
        """Send the oldest; whether to go on."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_spans))]
        answer = self._answers["spans"] = self._tried(lambda: self._sent_of(batch))
        if answer == "away":
            self._waiting.extendleft(reversed(batch))
            self._refused += self._trimmed()
        elif answer == "refused":
            self._refused += len(batch)
        else:
            self._sent += len(batch)
        if answer != "away":
            for one in batch:
                self._let_go_of(one)
        return answer != "away"

    def _sent_of(self, batch: list[_Waiting]) -> Sent:
        if self._content is not None:
            self._content.use(self._chosen)
            for one in batch:
                if one.content is None:
                    one.content = self._content_of(self._content, one.told)
        spans = [(one.told.row, one.told.parent, one.content or {}) for one in batch]
        return self._sdk.send_spans(spans, self._target)

    def _content_of(self, content: Content, told: Told) -> Mapping[str, Value]:
        row, parent, said = told
        if said is None or (parent is not None and not parent.flags & 1):  # whose client records nothing, nor do we
            return {}
        try:
            found = content.of(said, row)
        except Exception as error:  # noqa: BLE001 - a text must not cost its batch of spans
            self._complain(error)
            found = {"farthing.content.left_out": "unreadable"}
        self._content_dropped += "gen_ai.input.messages" not in found and bool(found)
        return found

    def _let_go_of(self, one: _Waiting) -> None:
        if one.told.said is not None:
            with self._books:
                self._content_bytes += size_of(one.told.said)

    def _trimmed(self) -> int:
        """How many of the oldest had to go to keep the bound."""
        gone = 0
        while len(self._waiting) > self._settings.queue_rows:
            self._let_go_of(self._waiting.popleft())
            gone += 1
        return gone

    def _tried(self, send: Callable[[], Sent]) -> str:
        try:
            return str(send())
        except Exception as error:  # noqa: BLE001 - a row that can't be told must not end the thread
            self._complain(error)
            return "refused"

    @staticmethod
    def _complain(error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]  # what it says may hold what the row does
        sys.stderr.write(f"otlp: {type(error).__name__} at {where.name}:{where.lineno}\n")

    def _say(self) -> None:
        with self._telling:
            dropped = self._overflowed + self._refused
            spans, metrics = self._answers["spans"], self._answers["metrics"]
            done = self._sent + dropped
            self._tell(Status(done, dropped, spans, metrics, self._content_bytes, self._content_dropped))


def main(given: BinaryIO, told: BinaryIO) -> None:
    """Send what comes in until it ends. Raises EOFError where not even the settings come."""
    from farthing.proxy.otlp_sdk import Sdk

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it complains at every try; the parent tells once

    def tell(status: Status) -> None:
        told.write(status.line())
        told.flush()

    frame = read_frame(given)
    if frame is None:
        raise EOFError("no settings came")
    settings, secret = start_in(frame)
    clock, content = SystemClock(), None
    if settings.content:
        from farthing.proxy.otlp_content import Content

        content = Content(settings.content_bytes, secret, clock)
    sender = Sender(settings, Sdk(settings, SystemRandomness()), clock, tell, content)
    while (frame := read_frame(given)) is not None:
        sender.take(batch_in(frame))
    sender.close()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
