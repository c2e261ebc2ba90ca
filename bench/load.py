"""Load: wrk for hot loops, an own client for streams and for runs that need an exact number of requests.

wrk costs a few microseconds a request, so that on one core with the upstream it isn't what is measured. Its script
makes either unique prompts (a counter in the last user message: every request a miss) or goes round a few (hits).
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.http1 import Framer, Part, status_of
from bench.machine import Place, front_s, on_core, rss_bytes, settle
from bench.servers import Running

__all__ = ["Timing", "Window", "chat_body", "closed_loop", "http_request", "long_chat_body", "percentile", "window"]

MARK = "@@@@@@@@@@@@"
TURN = (
    "Our customer asks whether the parcel of last Tuesday, which the carrier says was delivered to a neighbour, counts "
    "as received under the returns policy, and from which day the period runs. "
)


def chat_body(serial: str, stream: bool = False) -> bytes:
    """A chat request of 2.3 KB with ten messages, as SDKs send it. `serial`: 12 characters, in the last message."""
    messages = [{"role": "system", "content": "You answer for the support desk of a shop. Quote the policy."}]
    for turn in range(9):
        case = f"Label {serial}: " if turn == 8 else ""
        messages.append({"role": "assistant" if turn % 2 else "user", "content": f"{case}({turn}) {TURN}"})
    request: dict[str, object] = {"model": "gpt-4o-mini", "messages": messages, "temperature": 0, "max_tokens": 200}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(request, separators=(",", ":")).encode()


def http_request(body: bytes, path: str = "/v1/chat/completions", headers: str = "") -> bytes:
    """The request as it goes over the wire, with headers of the kind and number that an SDK sends.

    `headers`: further ones, each with its line end.
    """
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        "User-Agent: OpenAI/Python 2.7.1\r\nX-Stainless-Lang: python\r\nX-Stainless-Runtime: CPython\r\n"
        f"X-Stainless-Retry-Count: 0\r\nAuthorization: Bearer sk-bench\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def long_chat_body(serial: str) -> bytes:
    """A chat request of 112 KB with 200 messages: a long conversation with an agent."""
    turns = [f"({turn}) {TURN}{TURN}{TURN[:151]}" for turn in range(198)]
    messages = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(turns)]
    messages.insert(0, {"role": "system", "content": "You answer for the support desk of a shop. Quote the policy."})
    messages.append({"role": "user", "content": f"Case {serial}: {TURN}"})
    request = {"model": "gpt-4o-mini", "messages": messages, "temperature": 0, "max_tokens": 200}
    return json.dumps(request, separators=(",", ":")).encode()


def lua(series: str, distinct: int, body: Callable[[str], bytes] = chat_body, headers: str = "") -> str:
    """wrk's script. `series`: 4 characters that no other window uses. `distinct`: bodies to go round; 0: all differ."""
    head, _, tail = http_request(body(MARK), headers=headers).decode().partition(MARK)
    count = f"counter % {distinct}" if distinct else "counter"
    return f"""
local head, tail, counter = {_quoted(head)}, {_quoted(tail)}, 0
request = function()
  counter = counter + 1
  return head .. string.format("{series}%08d", {count}) .. tail
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {{"requests":%d,"us":%d,"errors":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def _quoted(text: str) -> str:
    """A Lua string: JSON's escapes but for the slash mean the same there."""
    return json.dumps(text)


@dataclass(frozen=True, slots=True)
class Window:
    """What one server did in one short window of load. `requests`: all that it worked on, also those cut off.

    `from_s`, `upto_s`: the server's processor seconds by then, at rest before and after it; `front_s`: those of
    them that its event loop used in between, None: all. `rss_bytes`: after it.
    """

    server: str
    concurrency: int
    requests: int
    errors: int
    per_s: float
    p50_ms: float
    p99_ms: float
    from_s: float
    upto_s: float
    p999_ms: float = 0.0
    rss_bytes: int = 0
    front_s: float | None = None

    @property
    def used_s(self) -> float:
        """Processor seconds in the window."""
        return self.upto_s - self.from_s

    @property
    def cpu_us(self) -> float:
        """A request's share of it."""
        return self.used_s * 1e6 / max(1, self.requests)


def window(
    server: Running,
    concurrency: int,
    seconds: int,
    here: Place,
    series: str,
    distinct: int = 0,
    seen: Callable[[], int] | None = None,
    body: Callable[[str], bytes] = chat_body,
) -> Window:
    """Load `server` with wrk for a while. CPU until it has come to rest, over the requests that it worked on.

    `seen`: a count of requests upstream; where it grew by more than wrk had answered (the last ones of a slow server
    are cut off when the window ends), its growth is the number of requests. Raises RuntimeError: wrk is not there, or
    fails.
    """
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed (Debian: apt install wrk nginx)")
    script = here.folder / "load.lua"
    script.write_text(lua(series, distinct, body, server.headers), "utf-8")
    seen_before = seen() if seen else 0
    before = settle(server.pid)
    front_before_s = front_s(server.pid)
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), server.url]
    ran = subprocess.run(on_core(here.load, command), capture_output=True, text=True, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise RuntimeError(f"wrk failed on {server.name}: {ran.stdout[-300:]}{ran.stderr[-300:]}")
    told = json.loads(lines[0].removeprefix("RESULT "))
    upto_s = settle(server.pid)
    requests = max(told["requests"], seen() - seen_before if seen else 0)
    return Window(
        server=server.name,
        concurrency=concurrency,
        requests=requests,
        errors=told["errors"],
        per_s=told["requests"] / (told["us"] / 1e6),
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
        from_s=before,
        upto_s=upto_s,
        p999_ms=told["p999_us"] / 1000,
        rss_bytes=rss_bytes(server.pid),
        front_s=front_s(server.pid) - front_before_s,
    )


def window_of(
    server: Running,
    concurrency: int,
    timings: Sequence[Timing],
    took_s: float,
    from_s: float,
    front_from_s: float | None = None,
) -> Window:
    """What `closed_loop` saw of a server in `took_s`, once that has come to rest. `from_s`, `front_from_s`: of `settle`
    and `front_s` before; None: all that it uses in the window is the event loop's. Raises ValueError: no timings."""
    p50_ms, p99_ms, p999_ms = (percentile([one.whole_s for one in timings], p) * 1000 for p in (50, 99, 99.9))
    return Window(
        server=server.name,
        concurrency=concurrency,
        requests=len(timings),
        errors=sum(one.status != 200 for one in timings),
        per_s=len(timings) / took_s,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        from_s=from_s,
        upto_s=settle(server.pid),
        p999_ms=p999_ms,
        rss_bytes=rss_bytes(server.pid),
        front_s=None if front_from_s is None else front_s(server.pid) - front_from_s,
    )


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile. Raises ValueError: no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(slots=True)
class Timing:
    """One answer: seconds from the request's last byte handed over to the body's first and to the answer's end."""

    status: int = 0
    first_s: float = 0.0
    whole_s: float = 0.0
    body_bytes: int = 0
    tail: bytes = field(default=b"", repr=False)


class Connection(asyncio.Protocol):
    """A client connection that carries one request at a time."""

    def __init__(self) -> None:
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Timing] | None = None
        self._timing = Timing()
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    async def exchange(self, request: bytes) -> Timing:
        """Send, and wait for the whole answer. Raises ConnectionError: the server has hung up."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("closed")
        self._answered = asyncio.get_running_loop().create_future()
        self._timing = Timing()
        self._transport.write(request)
        self._sent = time.perf_counter()
        return await self._answered

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter() - self._sent
        timing = self._timing
        for part, piece in self._framer.feed(data):
            if part is Part.HEAD:
                timing.status = status_of(piece)
            elif part is Part.BODY:
                timing.first_s = timing.first_s or now
                timing.body_bytes += len(piece)
                timing.tail = piece[-64:]
            elif self._answered and not self._answered.done():
                timing.whole_s = now
                self._answered.set_result(timing)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answered and not self._answered.done():
            self._answered.set_exception(ConnectionError("the server hung up"))

    def close(self) -> None:
        """Hang up."""
        if self._transport:
            self._transport.close()


async def closed_loop(
    port: int, requests: Iterator[bytes], concurrency: int, pause: Callable[[random.Random], float], seed: int = 0
) -> list[Timing]:
    """Send all requests over `concurrency` connections, each waiting for its answer, then for `pause` seconds.

    `requests` must come to an end. Raises ConnectionError: a connection broke.
    """
    loop = asyncio.get_running_loop()
    timings: list[Timing] = []

    async def one(chance: random.Random) -> None:
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        try:
            await asyncio.sleep(pause(chance))
            for request in requests:
                timings.append(await connection.exchange(request))
                seconds = pause(chance)
                if seconds:
                    await asyncio.sleep(seconds)
        finally:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(one(random.Random(seed * 1000 + number)))
    return timings
