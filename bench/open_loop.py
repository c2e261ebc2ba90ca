"""Open-loop load: requests leave by a clock, not when the last answer came, and latency counts from when each was due.

A closed loop asks less while the server stalls, and so leaves out of its percentiles just what one wants to see
('coordinated omission'). Here a request that is due while every connection is busy waits, and its wait is part of its
latency. Written without asyncio: the event loop's timers are rounded to a millisecond, ten requests' time.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httptools

from bench.load import percentile

__all__ = ["Told", "due_s", "open_loop", "summed"]


@dataclass(frozen=True, slots=True)
class Told:
    """One run. Seconds for each answered request, in the order of the answers. `over_s`: from the first to the last.

    `latency_s`: from the time when it was due to its answer's last byte. `late_s`: from then to when it was sent,
    where a connection was free, so that being late was the client's own fault. `errors`: answers other than 200.
    """

    latency_s: Sequence[float]
    late_s: Sequence[float]
    errors: int
    took_s: float
    over_s: float = 0.0

    @property
    def per_s(self) -> float:
        """The rate at which answers came: what was asked for, unless that was more than the server can do."""
        return (len(self.latency_s) - 1) / self.over_s if self.over_s > 0 else 0.0


def due_s(rate_per_s: float, seconds: float) -> Iterator[float]:
    """When each request is due, from the start: evenly, so many a second. Raises ValueError: no rate."""
    if rate_per_s <= 0:
        raise ValueError("the rate must be above nothing")
    return (number / rate_per_s for number in range(int(rate_per_s * seconds)))


class _Line:
    """One connection, with the request that it carries."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.done = False
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, due: float) -> None:
        """Send a request; on the loopback interface a few KB never wait."""
        self.due, self.done = due, False
        self._parser = httptools.HttpResponseParser(self)
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Read what is there; whether the answer is whole. Raises ConnectionError: the server hung up."""
        piece = self.socket.recv(262_144)
        if not piece:
            raise ConnectionError("the server hung up")
        self._parser.feed_data(piece)
        return self.done

    def on_message_complete(self) -> None:
        """httptools: the answer has ended."""
        self.done = True

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self._parser.get_status_code())


def open_loop(
    port: int, requests: Iterator[bytes], rate_per_s: float, seconds: float, connections: int, grace_s: float = 10.0
) -> Told:
    """Send `requests` at the rate for so long, over at most so many connections, and wait for the last answer.

    Raises ConnectionError; TimeoutError: what was due wasn't all answered `grace_s` after the end.
    """
    lines = [_Line(port) for _ in range(connections)]
    poll = select.epoll()
    by_number = {line.socket.fileno(): line for line in lines}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    free = deque(lines)
    schedule = deque(due_s(rate_per_s, seconds))
    latency_s: list[float] = []
    late_s: list[float] = []
    errors = under_way = 0
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        begun = time.perf_counter()
        first_s = answered = 0.0
        last_free_s = 0.0  # when a connection came free that the next request had waited for
        while schedule or under_way:
            now = time.perf_counter() - begun
            while schedule and free and schedule[0] <= now:
                due = schedule.popleft()
                free.popleft().send(next(requests), due)
                under_way += 1
                late_s.append(max(0.0, time.perf_counter() - begun - max(due, last_free_s)))
            if now > seconds + grace_s:
                raise TimeoutError(f"{under_way + len(schedule)} requests unanswered {grace_s:g} s after the end")
            wait_s = max(0.0, schedule[0] - now) if schedule and free else 0.1
            if wait_s:
                select.select([poll], [], [], wait_s)
            for number, _ in poll.poll(0):
                line = by_number[number]
                if line.receive():
                    answered = time.perf_counter() - begun
                    first_s = first_s or answered
                    latency_s.append(answered - line.due)
                    errors += line.status != 200
                    if not free:
                        last_free_s = answered
                    free.append(line)
                    under_way -= 1
        return Told(latency_s, late_s, errors, time.perf_counter() - begun, answered - first_s)
    finally:
        if gc_was_on:
            gc.enable()
        poll.close()
        for line in lines:
            line.socket.close()


def summed(told: Told) -> dict[str, float]:
    """Milliseconds at the percentiles, and the client's own lateness."""
    shown = {f"p{percent:g}_ms": percentile(list(told.latency_s), percent) * 1000 for percent in (50, 99, 99.9, 100)}
    late_ms = percentile(list(told.late_s), 99) * 1000
    return shown | {"late_p99_ms": late_ms, "errors": told.errors, "requests": len(told.latency_s)}
