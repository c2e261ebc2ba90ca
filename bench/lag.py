"""Does anything stall the event loop? A heart-beat inside farthing (bench/lag_server.py) under many kinds of load."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.hot import Effort, Tell, one_request
from bench.load import chat_body, closed_loop, http_request, percentile
from bench.machine import Place
from bench.open_loop import open_loop
from bench.report import Report, Target
from bench.servers import Running, free_port, started
from bench.upstream import streaming

__all__ = ["BUCKETS_MS", "KINDS", "histogram", "huge_body", "lag"]

BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
MOST_MS = 5.0
SIZES_BYTES = {"100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}


def histogram(values: Sequence[float], buckets: Sequence[float] = BUCKETS_MS) -> list[int]:
    """How many are at most each bound, and more than the one before; last: how many are above all."""
    counts = [0] * (len(buckets) + 1)
    for value in values:
        counts[next((number for number, bound in enumerate(buckets) if value <= bound), len(buckets))] += 1
    return counts


def huge_body(size_bytes: int, shape: str, serial: str) -> bytes:
    """A request of about that size. `shape`: 'messages' of 2 KB each, 'one' message, 'tools' whose results are JSON
    tables. Raises ValueError: another shape."""
    text = f"Case {serial}: " + "the carrier says it was delivered to a neighbour on Tuesday; who pays, and when? " * 25
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You answer for the support desk of a shop."}]
    match shape:
        case "messages":
            count = size_bytes // (len(text) + 40)
            messages += [{"role": "assistant" if n % 2 else "user", "content": f"{n} {text}"} for n in range(count)]
            messages.append({"role": "user", "content": "Sum it up."})
        case "one":
            messages.append({"role": "user", "content": (text * (size_bytes // len(text) + 1))[:size_bytes]})
        case "tools":
            rows = [{"id": n, "name": f"parcel {n} {serial}", "state": "delivered", "days": n % 30} for n in range(400)]
            table = json.dumps(rows)
            call = {"type": "function", "function": {"name": "list", "arguments": "{}"}}
            for number in range(max(1, size_bytes // len(table))):
                named = f"call_{number}"
                messages.append({"role": "assistant", "content": None, "tool_calls": [{"id": named, **call}]})
                messages.append({"role": "tool", "tool_call_id": named, "content": table})
        case _:
            raise ValueError(f"no such shape: {shape}")
    asked = {"model": "gpt-4o-mini", "messages": messages, "temperature": 0, "max_tokens": 200}
    return json.dumps(asked, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Kind:
    """A load, by name, and what sends it. `run` gets the server's port and the seconds that a steady load lasts."""

    name: str
    run: Callable[[int, int], None]


def steady(requests: Callable[[], Iterator[bytes]], per_s: float) -> Callable[[int, int], None]:
    """So many requests a second."""
    return lambda port, seconds: _well(open_loop(port, requests(), per_s, seconds, 64).errors)


def streams(port: int, seconds: int) -> None:
    """Twenty streams at a time."""
    import uvloop

    count = 20 * seconds
    made = (one_request(f"ls{number:010d}", stream=True) for number in range(count))
    _well(sum(one.status != 200 for one in uvloop.run(closed_loop(port, made, 20, lambda _: 0.0))))


def single(body: Callable[[str], bytes], times: int) -> Callable[[int, int], None]:
    """One request after another, each sent whole."""

    def run(port: int, _: int) -> None:
        for number in range(times):
            _well(sent_alone(port, http_request(body(f"{number:012d}"))) != 200)

    return run


def sent_alone(port: int, request: bytes) -> int:
    """The status of the answer to a request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = b""
        while piece := line.recv(65_536):
            answer += piece
    return int(answer.split(b" ", 2)[1])


def _well(errors: int) -> None:
    if errors:
        raise RuntimeError(f"{errors} answers were errors")


def numbered(start: str, distinct: int = 10**9) -> Callable[[], Iterator[bytes]]:
    """Requests whose prompts differ, or come again after so many."""
    return lambda: (http_request(chat_body(f"{start}{number % distinct:010d}")) for number in range(10**9))


def learnt(requests: Callable[[], Iterator[bytes]], distinct: int, per_s: float) -> Callable[[int, int], None]:
    """So many requests a second, once the different ones have been asked one by one: else they come as a burst of
    misses."""

    def run(port: int, seconds: int) -> None:
        for request in itertools.islice(requests(), distinct):
            _well(sent_alone(port, request) != 200)
        steady(requests, per_s)(port, seconds)

    return run


def huge(shape: str, size: str) -> Callable[[str], bytes]:
    """Bodies of that shape and size."""
    return lambda serial: huge_body(SIZES_BYTES[size], shape, serial)


KINDS = (
    Kind("nothing", lambda _, seconds: time.sleep(seconds)),
    Kind("misses, 300 a second", steady(numbered("lm"), 300)),
    Kind("hits, 1,500 a second", learnt(numbered("lh", 64), 64, 1500)),
    Kind("20 streams at a time", streams),
    *(Kind(f"{size} in messages of 2 KB", single(huge("messages", size), 3)) for size in SIZES_BYTES),
    *(Kind(f"{size} in one message", single(huge("one", size), 3)) for size in SIZES_BYTES),
    *(Kind(f"{size} of tool results", single(huge("tools", size), 3)) for size in SIZES_BYTES),
    Kind("10 MB, the same again", single(lambda _: huge_body(10_000_000, "messages", "same"), 4)),
)
NOT_QUICK = ("100 KB", "1 MB", "10 MB in one", "10 MB of tool")


@contextlib.contextmanager
def beating(upstream_port: int, here: Place) -> Iterator[tuple[Running, Path]]:
    """farthing as installed, semantic stage in observe, with the heart-beat; and where the beats will be."""
    port, out = free_port(), here.folder / "beats"
    command = [sys.executable, "-m", "bench.lag_server", str(out), "serve", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1", "--state", str(here.folder / "lag.state")]
    env = {"FARTHING_LOG__LEVEL": "warning", "FARTHING_SEMANTIC__MODE": "observe"}
    with started(
        "farthing beating", command, port, here.folder, core=here.measured, ready="/readyz", env=env, timeout_s=60
    ) as running:
        yield running, out


def beats(running: Running, out: Path, number: int) -> dict[str, Any]:
    """What came since the last time. Raises TimeoutError: the loop has not answered for 30 s."""
    os.kill(running.pid, signal.SIGUSR1)
    path = out.with_suffix(f".{number}")
    end = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError("the loop gave no beats")
        time.sleep(0.02)
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return told


def lag(here: Place, effort: Effort, tell: Tell) -> Report:
    """Every kind of load in turn, on one proxy; what came while it ran, and for half a second after it."""
    bounds = [f"≤ {bound:g}" for bound in BUCKETS_MS]
    report = Report(
        "lag", "How late the event loop is", ["load", "beats", *bounds, "more", "most busy ms", "reads then"]
    )
    report.columns += ["most late ms", "who held it"]
    worst: dict[str, float] = {}
    with (
        streaming(here, chunks=20, first_ms=20, gap_ms=10) as upstream,
        beating(upstream.port, here) as (ours, out),
    ):
        for request in (http_request(chat_body("warm-up-0000")), one_request("warm-up-0001", stream=True)):
            sent_alone(ours.port, request)
        beats(ours, out, 0)
        kinds = [kind for kind in KINDS if not (effort.quick and kind.name.startswith(NOT_QUICK))]
        for number, kind in enumerate(kinds, 1):
            tell(f"lag: {kind.name}")
            kind.run(ours.port, effort.seconds + (not effort.quick))
            time.sleep(0.5)  # what is put off until after the answer
            told = beats(ours, out, number)
            busy, late = told["busy_ms"], told["lag_ms"]
            worst[kind.name] = max(late)
            held = next(iter(told["stalls"]), "") if max(busy) > MOST_MS else ""
            reads = told["readings"][busy.index(max(busy))]
            counts = [f"{count:,}" for count in histogram(busy)]
            report.rows.append([kind.name, f"{len(busy):,}", *counts, f"{max(busy):.1f}", str(reads)])
            report.rows[-1] += [f"{max(late):.1f}", held]
            figures: dict[str, float] = {"reads_in_the_busiest": reads} | {
                f"p{p:g}_busy_ms": percentile(busy, p) for p in (50, 99, 99.9, 100)
            }
            report.raw.append({"load": kind.name, "beats": len(busy), **figures, "stalls": told["stalls"]})
    name, most_ms = max(worst.items(), key=lambda one: one[1])
    most_busy_ms = max(float(one["p100_busy_ms"]) for one in report.raw)
    for what, ms in (
        (f"latest beat of the event loop: {name}", most_ms),
        ("most that its own thread held it", most_busy_ms),
    ):
        report.targets.append(Target(what, f"≤ {MOST_MS:g} ms", f"{ms:.1f} ms", ms <= MOST_MS))
    report.notes.append(
        "A beat is due every millisecond. The buckets count, for each beat, the processor time in ms that the loop's "
        "thread used since the one before, so that other programs don't count; 'late' is by the clock, and does count "
        "them, and what held the interpreter's lock in another thread. 'Reads then': how often the loop was given "
        "something to read from a socket, a client's or the upstream's, in the busiest beat: a request is one of the "
        "client's and, on a miss, at least one of the upstream's, so that many of them are many requests. 'Who held "
        "it': the innermost frames most often seen when it had been busy for 5 ms without a beat."
    )
    return report
