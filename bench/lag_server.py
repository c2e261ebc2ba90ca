"""farthing with a heart-beat in its event loop: how late the loop is, and what it was doing when it was.

`python -m bench.lag_server OUT serve ...` runs `farthing serve ...`; SIGUSR1 writes the lags to OUT.0, OUT.1, ... as
JSON. A beat is due every millisecond. Its lag is how late it came by the clock; 'busy' is how much processor time the
loop's thread used since the beat before, so that what other programs took isn't on the bill; and how often it read
from a socket meanwhile, a client's or the upstream's, tells one long work from many short ones. A second thread looks
2,000 times a second and, where the loop has been busy for `STALL_MS` without a beat, notes the innermost frames: who
holds the loop. It sees nothing of what lasts shorter, nor inside of what is compiled and keeps the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Beat", "where"]

BEAT_S = 0.001
STALL_MS = 5.0
IN_LOOP = "the loop itself: reading, writing, parsing HTTP"


class Beat:
    """The beats of one loop: lag and busy time of each, in milliseconds, and readings, since the last `take`."""

    def __init__(self) -> None:
        self.lag_ms: list[float] = []
        self.busy_ms: list[float] = []
        self.readings: list[int] = []
        self._read = 0
        self.stalls: Counter[str] = Counter()
        self.last_s = time.perf_counter()
        self._used_s = time.thread_time()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat until the loop ends."""
        self.leave_out()
        loop.call_later(BEAT_S, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s, used_s = time.perf_counter(), time.thread_time()
        self.lag_ms.append((now_s - self.last_s - BEAT_S) * 1000)
        self.busy_ms.append((used_s - self._used_s) * 1000)
        self.readings.append(self._read)
        self.last_s, self._used_s, self._read = now_s, used_s, 0
        loop.call_later(BEAT_S, self._beat, loop)

    def leave_out(self) -> None:
        """What the loop has done since the last beat doesn't count."""
        self.last_s, self._used_s, self._read = time.perf_counter(), time.thread_time(), 0

    def count_readings(self, protocol: type[Any]) -> None:
        """Count what protocols of that class are given to read from now on."""
        given = protocol.data_received

        def counted(one: Any, data: bytes) -> None:
            self._read += 1
            given(one, data)

        protocol.data_received = counted

    def watch(self, thread_id: int, ended: threading.Event) -> None:
        """Note who holds the loop whenever it is busy for too long, until `ended`, which must come before that thread's
        end; runs on a thread of its own."""
        clock = time.pthread_getcpuclockid(thread_id)
        while not ended.wait(BEAT_S / 2):
            if (time.clock_gettime(clock) - self._used_s) * 1000 > STALL_MS:
                frame = sys._current_frames().get(thread_id)
                if frame is not None:
                    self.stalls[where(frame)] += 1

    def take(self) -> dict[str, Any]:
        """What came since the last time, and forget it."""
        told = {"lag_ms": self.lag_ms, "busy_ms": self.busy_ms, "readings": self.readings}
        told["stalls"] = dict(self.stalls.most_common(12))
        self.lag_ms, self.busy_ms, self.readings, self.stalls = [], [], [], Counter()
        return told


def where(frame: FrameType | None, deep: int = 3) -> str:
    """The innermost frames as file:function, outermost first; IN_LOOP where no Python runs."""
    if frame is not None and frame.f_code.co_filename.endswith("asyncio/runners.py"):
        return IN_LOOP
    names: list[str] = []
    while frame is not None and len(names) < 40:
        names.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}")
        frame = frame.f_back
    return " > ".join(reversed(names[:deep]))


def main() -> None:
    """Run the command line with a beating loop; SIGUSR1 writes what came so far to OUT, with its number."""
    import signal

    import uvloop

    out, sys.argv = Path(sys.argv[1]), ["farthing", *sys.argv[2:]]
    beat, runs = Beat(), uvloop.run
    taken = 0

    def write() -> None:
        nonlocal taken
        made = out.with_suffix(".part")
        made.write_text(json.dumps(beat.take()), "utf-8")
        made.rename(out.with_suffix(f".{taken}"))
        taken += 1
        beat.leave_out()  # the loop was held by this, not by farthing

    async def beating(main: Any) -> Any:
        from aiohttp.web_protocol import RequestHandler

        from farthing.proxy.http1 import Connection

        beat.count_readings(RequestHandler)
        beat.count_readings(Connection)
        loop = asyncio.get_running_loop()
        beat.start(loop)
        loop.add_signal_handler(signal.SIGUSR1, write)
        ended = threading.Event()
        watching = threading.Thread(target=beat.watch, args=(threading.get_ident(), ended), daemon=True)
        watching.start()
        try:
            return await main
        finally:
            ended.set()
            watching.join()

    def run(main: Any, **given: Any) -> Any:
        return runs(beating(main), **given)

    uvloop.run = run  # the command runs its loop by this name
    from farthing.proxy.cli import main as farthing

    farthing()


if __name__ == "__main__":
    main()
