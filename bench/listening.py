"""What is lost when one of two processes stops listening: `python -m bench.listening [--turns 3]`.

Two servers answer one byte to whoever connects; after half of the time one of them stops listening. Either each has a
socket of its own (SO_REUSEPORT), or both have inherited one. Clients connect anew for each byte. A server is busy for
2 ms with each connection, so that some wait to be accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import sys
import time
from multiprocessing.context import ForkProcess

from rich.console import Console
from rich.table import Table

__all__ = ["main"]

_CLIENTS = 32
_BUSY_S = 0.002
_LONGEST_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit status."""
    made = argparse.ArgumentParser(prog="python -m bench.listening", description=__doc__)
    made.add_argument("--turns", type=int, default=3)
    made.add_argument("--seconds", type=float, default=3.0)
    given = made.parse_args(arguments)
    table = Table("sockets", "answered", "lost")
    for own in (True, False):
        for _ in range(given.turns):
            answered, lost = turn(own=own, seconds=given.seconds)
            table.add_row("one each, SO_REUSEPORT" if own else "one, inherited", f"{answered:,}", f"{lost}")
    Console(width=None if sys.stdout.isatty() else 80).print(table)
    return 0


def turn(*, own: bool, seconds: float) -> tuple[int, int]:
    """How many connections got their answer, and how many didn't."""
    fork = multiprocessing.get_context("fork")
    with listening(0, shares=own, listens=not own) as first:
        port = first.getsockname()[1]
        servers: list[ForkProcess] = []
        for until_s in (seconds / 2, 2 * seconds):
            servers.append(fork.Process(target=serve, args=(port, None if own else first, until_s)))
            servers[-1].start()
        time.sleep(0.2)
        found = asyncio.run(clients(port, seconds))
        for one in servers:
            one.terminate()
            one.join()
    return found


def listening(port: int, *, shares: bool, listens: bool = True) -> socket.socket:
    """A socket at that port. `shares`: others may have theirs there too."""
    found = socket.socket()
    if shares:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    if listens:
        found.listen(1024)
    found.setblocking(False)
    return found


def serve(port: int, inherited: socket.socket | None, seconds: float) -> None:
    """Answer until then, stop listening, and go on with what was accepted."""

    async def answer(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            await loop.sock_recv(connection, 100)
            await loop.sock_sendall(connection, b"x")

    async def go_on() -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            with inherited or listening(port, shares=True) as here:
                while time.monotonic() < end:
                    try:
                        connection, _ = here.accept()
                    except BlockingIOError:
                        await asyncio.sleep(0.001)
                        continue
                    connection.setblocking(False)
                    group.create_task(answer(connection))
                    time.sleep(_BUSY_S)
                    await asyncio.sleep(0)

    asyncio.run(go_on())


async def clients(port: int, seconds: float) -> tuple[int, int]:
    """Connect, send, read, again and again."""
    answered = lost = 0

    async def one() -> None:
        nonlocal answered, lost
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                async with asyncio.timeout(_LONGEST_S):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"?")
                    got = await reader.read(1)
                writer.close()
            except (OSError, TimeoutError):
                got = b""
            answered, lost = answered + (got == b"x"), lost + (got != b"x")

    await asyncio.gather(*(one() for _ in range(_CLIENTS)))
    return answered, lost


if __name__ == "__main__":
    sys.exit(main())
