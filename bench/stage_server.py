"""farthing with a meter round each stage: `python -m bench.stage_server OUT time|memory serve ...`.

SIGUSR1 writes what came since the last time to OUT.0, OUT.1, ... as JSON: by name, a figure for each call, and for each
thread, as 'thread NAME', the processor microseconds that it has used in all. In
`time`: microseconds of the clock, of which medians are taken, so that what interrupts a few calls doesn't count; the
meter's own are taken off. In `memory`: [blocks kept, most bytes at once] by the interpreter's own count, which a clock
couldn't be run beside. What waits is metered step by step: waiting isn't on the bill. `BENCH_SHORT=off` keeps
hits from taking their short way.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Meter", "Metered", "stepped"]


class Meter:
    """Figures by name. `enter` and `leave` go round a call or a step of one. Memory is counted from the first `take`
    on: what is loaded before, the tokenizer above all, would take minutes under the interpreter's count."""

    def __init__(self, *, memory: bool) -> None:
        self.calls: dict[str, list[Any]] = {}
        self._memory = memory
        self._own_us, self._own_memory = 0.0, (0, 0)
        if not memory:
            self._own_us = median(self._own())

    def _own(self) -> list[Any]:
        """What the meter itself takes."""
        return [self.leave(self.enter()) for _ in range(1000)]

    def enter(self) -> Any:
        """The state before."""
        if not self._memory:
            return time.perf_counter_ns()
        tracemalloc.reset_peak()
        return sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]

    def leave(self, before: Any) -> Any:
        """What came since."""
        if not self._memory:
            return self._us(before)
        peak, blocks = tracemalloc.get_traced_memory()[1], sys.getallocatedblocks()
        return blocks - before[0] - self._own_memory[0], peak - before[1] - self._own_memory[1]

    def _us(self, before_ns: int) -> float:
        return (time.perf_counter_ns() - before_ns) / 1000 - self._own_us

    def note(self, name: str, figures: list[Any]) -> None:
        """One call, of one step or more."""
        if not self._memory:
            told: Any = max(0.0, sum(figures))
        else:
            told = [sum(one[0] for one in figures), max(one[1] for one in figures)]
        self.calls.setdefault(name, []).append(told)

    def take(self) -> dict[str, list[Any]]:
        """All figures since the last time."""
        told, self.calls = self.calls, {}
        if self._memory and not tracemalloc.is_tracing():
            tracemalloc.start(1)
            own = self._own()
            self._own_memory = (int(median(one[0] for one in own)), int(median(one[1] for one in own)))
        return told


class stepped:  # noqa: N801 - it stands where a coroutine function's result stands
    """What a call returned that waits; each of its steps is metered, and noted together at the end."""

    def __init__(self, meter: Meter, name: str, waits: Awaitable[Any], so_far: list[Any]) -> None:
        self._meter, self._name, self._waits, self._figures = meter, name, waits, so_far

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._waits.__await__()
        send: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        try:
            while True:
                before = self._meter.enter()
                try:
                    wanted = send()
                except StopIteration as end:
                    return end.value
                finally:
                    self._figures.append(self._meter.leave(before))
                try:
                    given = yield wanted
                except BaseException as error:  # noqa: BLE001 - whatever is thrown in goes on to who waits
                    send = _thrown(steps, error)
                else:
                    send = _sent(steps, given)
        finally:
            self._meter.note(self._name, self._figures)


def _thrown(steps: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def _sent(steps: Any, given: Any) -> Callable[[], Any]:
    return lambda: next(steps) if given is None else steps.send(given)


class Metered:
    """A stage with a meter round its two methods; everything else is the stage's own."""

    def __init__(self, stage: Any, meter: Meter) -> None:
        self._stage, self._meter = stage, meter
        self.name, self.hard = stage.name, stage.hard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def on_request(self, ex: Any) -> Any:
        """The way in."""
        return metered(self._meter, f"{self.name}, in", self._stage.on_request, ex)

    def on_end(self, ex: Any) -> Any:
        """The way out."""
        return metered(self._meter, f"{self.name}, out", self._stage.on_end, ex)


def metered(meter: Meter, name: str, call: Callable[..., Any], *given: Any) -> Any:
    """The call's result, its figures noted: now, or when what it returned has been waited for."""
    before = meter.enter()
    try:
        result = call(*given)
    except BaseException:
        meter.note(name, [meter.leave(before)])
        raise
    figures = [meter.leave(before)]
    if inspect.isawaitable(result):
        return stepped(meter, name, result, figures)
    meter.note(name, figures)
    return result


def threads_us() -> dict[str, list[float]]:
    """Processor microseconds of each kind of thread of this process so far, by its name without a number."""
    found: dict[str, float] = {}
    for one in threading.enumerate():
        if one.ident is not None:
            used_us = time.clock_gettime(time.pthread_getcpuclockid(one.ident)) * 1e6
            name = f"thread {one.name.rstrip('0123456789_-')}"
            found[name] = found.get(name, 0.0) + used_us
    return {name: [us] for name, us in found.items()}


def main() -> None:
    """Put the meter in, and run the command line."""
    out, memory = Path(sys.argv[1]), sys.argv[2] == "memory"
    sys.argv = ["farthing", *sys.argv[3:]]
    import uvloop

    from farthing.proxy import account, ledger, pipeline, repeat, server
    from farthing.proxy.cli import main as farthing

    meter = Meter(memory=memory)
    plain, runs, taken = pipeline.ways, uvloop.run, 0

    def ways(stages: Any) -> Any:
        return tuple((Metered(stage, meter), acts, ends) for stage, acts, ends in plain(stages))

    def put(owner: Any, name: str, told: str) -> None:
        call = getattr(owner, name)
        setattr(owner, name, lambda *given: metered(meter, told, call, *given))

    def write() -> None:
        nonlocal taken
        made = out.with_suffix(".part")
        made.write_text(json.dumps(meter.take() | threads_us()), "utf-8")
        made.rename(out.with_suffix(f".{taken}"))
        taken += 1

    async def told(main: Any) -> Any:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, write)
        return await main

    patched: Any = pipeline
    patched.ways = ways
    if os.environ.get("BENCH_SHORT") == "off":
        short: Any = repeat.Repeats
        short.find = lambda *_: None
    else:
        put(repeat.Repeats, "find", "short way, found")
        put(repeat.Repeats, "answer", "short way, answered")
    put(server.Relay, "handle", "all of the handler")
    put(ledger.Ledger, "append", "ledger, append")
    put(account.Account, "row", "ledger, row made")
    put(server.Relay, "_send", "answer, sent")
    put(repeat.Repeats, "learn", "short way, learnt")
    loops: Any = uvloop
    loops.run = lambda main, **given: runs(told(main), **given)
    farthing()


if __name__ == "__main__":
    main()
