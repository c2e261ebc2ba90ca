"""Sends finished rows to an OpenTelemetry collector, from a thread of its own: no request ever waits for one.

Rules of this file: `observe` only counts and puts rows into a bounded queue; a collector that is away or slow makes
spans wait there, and beyond the bound the oldest are dropped and counted; metrics lose nothing, since they are
cumulative. Trouble and its end are each logged once.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from farthing.proxy.clock import Clock
from farthing.proxy.config_otlp import Otlp as Settings
from farthing.proxy.errors import ConfigFault
from farthing.proxy.otlp_names import Target
from farthing.proxy.row import Row
from farthing.proxy.traces import Parent, Traces

if TYPE_CHECKING:
    from farthing.proxy.otlp_sdk import Sdk, Sent

__all__ = ["Otlp", "require"]

_BATCH_SPANS = 100
_CLOSE_S = 3.0


def require(settings: Settings) -> None:
    """Raise ConfigFault where telemetry is on and the libraries that send it aren't installed."""
    if settings.on and not all(map(_installed, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
        raise ConfigFault("otlp.endpoint needs the OpenTelemetry exporter: pip install 'farthing[otlp]'")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


class Otlp:
    """Takes rows from the ledger's thread. `target`: the upstream that they went to; it changes with a reload.

    `traces`: what clients said of theirs. Effects: a thread, calls to the collector.
    """

    def __init__(self, settings: Settings, sdk: Sdk, target: Target, clock: Clock) -> None:
        self.target = target
        self.traces = Traces()
        self._settings = settings
        self._sdk = sdk
        self._clock = clock
        self._log = structlog.get_logger("farthing.otlp")
        self._waiting: deque[tuple[Row, Parent | None]] = deque()
        self._overflowed = self._refused = 0  # two counters, since two threads count
        self._works = {"spans": True, "metrics": True}
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._send_on, name="otlp", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the last calls worked."""
        return all(self._works.values())

    @property
    def dropped(self) -> int:
        """Spans that no collector will see."""
        return self._overflowed + self._refused

    @property
    def pending(self) -> int:
        """Spans that wait to be sent."""
        return len(self._waiting)

    def observe(self, rows: list[Row]) -> None:
        """Take a batch of rows: count them, and keep them to be sent. Called by one thread: the ledger's writer."""
        if self._settings.spans:
            take, waiting = self.traces.take, self._waiting
            waiting.extend([(row, take(row.id)) for row in rows])
            self._overflowed += self._trimmed()
            if len(waiting) >= _BATCH_SPANS and self._works["spans"]:
                self._wake.set()
        if self._settings.metrics:
            self._sdk.measure(rows, self.target)

    def close(self) -> None:
        """Send what waits, for three seconds at most, and let go. Blocks: not for an event loop. Idempotent."""
        self._closing = True
        self._wake.set()
        self._thread.join(_CLOSE_S)
        self._sdk.stop()
        if self._waiting:
            self._refused += len(self._waiting)
            self._waiting.clear()
            self._log.warning("otlp_closed", dropped=self.dropped)

    # -- the sender's thread

    def _send_on(self) -> None:
        due_tick = self._clock.tick_s() + self._settings.metrics_every_s
        ending = False
        while not ending:
            self._wake.wait(min(self._settings.every_s, max(0.0, due_tick - self._clock.tick_s())))
            self._wake.clear()
            ending = self._closing
            while self._waiting and self._send_some():
                pass
            if self._settings.metrics and (ending or self._clock.tick_s() >= due_tick):
                self._told("metrics", self._tried(self._sdk.send_metrics))
                due_tick = self._clock.tick_s() + self._settings.metrics_every_s

    def _send_some(self) -> bool:
        """Send the oldest; whether to go on."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_SPANS))]
        sent = self._tried(lambda: self._sdk.send_spans(batch, self.target))
        self._told("spans", sent)
        if sent == "away":
            self._waiting.extendleft(reversed(batch))
            self._refused += self._trimmed()
        elif sent == "refused":
            self._refused += len(batch)
        return sent != "away"

    def _trimmed(self) -> int:
        """How many of the oldest had to go to keep the bound."""
        gone = 0
        while len(self._waiting) > self._settings.queue_rows:
            self._waiting.popleft()
            gone += 1
        return gone

    def _tried(self, send: Callable[[], Sent]) -> str:
        try:
            return send()
        except Exception:  # noqa: BLE001 - a row that can't be told must not end the thread
            self._log.exception("otlp_failed")
            return "refused"

    def _told(self, what: str, sent: str) -> None:
        """Keep the state, and log where it changes."""
        before, works = self._works[what], sent == "ok"
        self._works[what] = works
        if before and not works:
            self._log.error("otlp_failing", what=what, endpoint=self._endpoint(), answer=sent)
        elif works and not before:
            self._log.info("otlp_recovered", what=what, dropped=self.dropped)

    def _endpoint(self) -> str:
        from farthing.proxy.config import mask_url

        return mask_url(self._settings.endpoint)
