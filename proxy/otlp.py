"""Hands finished rows to the process that sends them to an OpenTelemetry collector: no request ever waits for one.

Rules of this file: `observe` only puts rows into a bounded queue; one thread hands them on, another hears what became
of them. A sender that dies is started anew; what it had not sent is counted as dropped. Trouble and its end are each
logged once.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress

import structlog

from farthing.proxy.clock import Clock
from farthing.proxy.config_capture import Capture
from farthing.proxy.config_otlp import Otlp as Settings
from farthing.proxy.errors import ConfigFault
from farthing.proxy.otlp_contents import Contents, size_of
from farthing.proxy.otlp_names import Target
from farthing.proxy.otlp_wire import Batch, Start, Status, Told
from farthing.proxy.row import Row
from farthing.proxy.tied import command
from farthing.proxy.traces import Traces

__all__ = ["Otlp", "require"]

_BATCH_ROWS = 500
_BATCH_BYTES = 8 * 2**20  # of texts, beyond which a batch takes no further row
_LEAST_ROWS = 1000  # metrics need each row: the bound on spans is the sender's, which has counted them by then
_CLOSE_S = 5.0  # the sender itself takes three at most
_SOON_S = 0.05
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)


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

    `traces`: what clients said of theirs. `contents`: what they and models said; None where it isn't told.
    `secret`: what redaction's digests are made with. Effects: a child process, two threads.
    """

    def __init__(self, settings: Settings, target: Target, clock: Clock, chosen: Capture, secret: bytes) -> None:
        self.target = target
        self.traces = Traces()
        self.contents = Contents(chosen) if settings.content else None
        self._settings = settings
        self._secret = secret
        self._clock = clock
        self._log = structlog.get_logger("farthing.otlp")
        self._waiting: deque[Told] = deque()
        self._overflowed = self._lost = self._handed = self._deaths = 0
        self._content_lost = self._content_handed = 0  # texts; bytes of them, since this sender was started
        self._status = Status()
        self._told = Status()  # what was logged last
        self._books = threading.Lock()  # round the lines above: both threads write them
        self._wake = threading.Event()
        self._closing = self._closed = False
        self._child = self._started()
        self._thread = threading.Thread(target=self._hand_on, name="otlp", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether there is a sender, and its last calls worked."""
        return self._child.poll() is None and self._status.spans == self._status.metrics == "ok"

    @property
    def dropped(self) -> int:
        """Spans, and texts of spans, that no collector will see."""
        texts = self._content_lost + self._status.content_dropped
        if self.contents is not None:
            texts += self.contents.dropped
        return self._overflowed + self._lost + self._status.dropped + texts

    @property
    def pending(self) -> int:
        """Spans that wait to be sent."""
        return len(self._waiting) + self._handed - self._status.done if self._settings.spans else 0

    @property
    def process_id(self) -> int:
        """Of the sender."""
        return self._child.pid

    def observe(self, rows: list[Row]) -> None:
        """Take a batch of rows. Called by one thread: the ledger's writer."""
        take, waiting, contents = self.traces.take, self._waiting, self.contents
        if contents is None:
            waiting.extend([Told(row, take(row.id), None) for row in rows])
        else:
            waiting.extend([Told(row, take(row.id), contents.pop(row.id)) for row in rows])
        most = max(self._settings.queue_rows, _LEAST_ROWS)
        while len(waiting) > most:
            with suppress(IndexError):  # the other thread may have taken it
                self._let_go_of(waiting.popleft())
                self._overflowed += 1
        self._wake.set()

    def close(self) -> None:
        """Have sent what waits, for some seconds at most, and let go. Blocks: not for an event loop. Idempotent."""
        if self._closed:
            return
        self._closing = self._closed = True
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():  # the sender doesn't read, or doesn't end
            self._child.kill()
            self._thread.join()
        self._let_go()
        if self._settings.spans:
            self._overflowed += len(self._waiting)
            self._lost += self._handed - self._status.done
            self._handed = self._status.done
        self._waiting.clear()
        if self.dropped:
            self._log.warning("otlp_closed", dropped=self.dropped)

    # -- the thread that hands on

    def _hand_on(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            ending = self._closing
            while self._waiting and self._child.poll() is None and self._hand_some():
                pass
            if ending:
                with suppress(OSError):
                    self._stdin.close()
                self._child.wait()
                return
            if self._child.poll() is not None:
                self._start_anew()

    def _hand_some(self) -> bool:
        """Hand on the oldest; whether to go on."""
        waiting, batch, size = self._waiting, list[Told](), 0
        while waiting and len(batch) < _BATCH_ROWS and size < _BATCH_BYTES:
            with suppress(IndexError):  # the ledger's thread may have dropped it
                batch.append(waiting.popleft())
                said = batch[-1].said
                size += 0 if said is None else size_of(said)
        with self._books:
            self._handed += len(batch)
            self._content_handed += size
        try:
            chosen = None if self.contents is None else self.contents.chosen
            self._stdin.write(Batch(batch, self.target, chosen).frame())
            self._stdin.flush()
        except OSError:
            with self._books:
                self._handed -= len(batch)
                self._content_handed -= size
            waiting.extendleft(reversed(batch))
            return False
        return True

    def _start_anew(self) -> None:
        pause_s = _PAUSES_S[min(self._deaths, len(_PAUSES_S) - 1)]
        self._deaths += 1
        self._log.error("otlp_sender_died", exit_status=self._child.returncode, again_in_s=pause_s)
        self._let_go()
        with self._books:
            self._lost += self._status.dropped + (self._handed - self._status.done if self._settings.spans else 0)
            self._content_lost += self._status.content_dropped
            gone = self._content_handed - self._status.content_bytes
            self._handed, self._content_handed, self._status = 0, 0, Status()
        if self.contents is not None:
            self.contents.let_go(gone)
        until_tick = self._clock.tick_s() + pause_s
        while not self._closing and self._clock.tick_s() < until_tick:
            self._wake.wait(_SOON_S)
            self._wake.clear()
        if not self._closing:
            self._child = self._started()
        self._wake.set()

    # -- the child

    def _started(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            command([sys.executable, "-m", "farthing.proxy.otlp_child"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which has rows to hand on first
        )
        assert child.stdin is not None
        self._stdin = child.stdin
        with suppress(OSError):
            child.stdin.write(Start(self._settings, self._secret).frame())
            child.stdin.flush()
        self._hearing = threading.Thread(target=self._hear, args=(child,), name="otlp-told", daemon=True)
        self._hearing.start()
        return child

    def _let_go_of(self, told: Told) -> None:
        if told.said is not None and self.contents is not None:
            self.contents.let_go(size_of(told.said))

    def _let_go(self) -> None:
        """The child has ended: hear its last words, and close what led to it."""
        self._child.wait()
        self._hearing.join()
        with suppress(OSError):
            self._stdin.close()

    def _hear(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                try:
                    status = Status.of(line)
                except ValueError:
                    continue
                with self._books:
                    gone, self._status = status.content_bytes - self._status.content_bytes, status
                if self.contents is not None:
                    self.contents.let_go(gone)
                self._tell_changes(status)
        child.wait()
        self._wake.set()

    def _tell_changes(self, status: Status) -> None:
        """Log what began to fail, and what works again."""
        from farthing.proxy.config import mask_url

        before, self._told = self._told, status
        for what, was, now in (("spans", before.spans, status.spans), ("metrics", before.metrics, status.metrics)):
            if was == "ok" != now:
                self._log.error("otlp_failing", what=what, endpoint=mask_url(self._settings.endpoint), answer=now)
            elif now == "ok" != was:
                self._log.info("otlp_recovered", what=what, dropped=self.dropped)
