"""A line to a Redis server that is cut after so many commands, at the very boundary between two of them.

async with Cutting(port) as line: line.after(3); RedisStore(line.url)
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

__all__ = ["Cutting"]


class Cutting:
    """Passes on whole commands, and counts them. `passed`: how many there were since `after`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._left: int | None = None
        self._for_good = True
        self.passed = 0
        self._links: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        """As `store.url` has it."""
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def after(self, commands: int | None, *, for_good: bool = True) -> None:
        """From now on so many commands reach the server, and then the line is cut, before any answer to the last one
        comes back. None: it isn't. `for_good`: nothing gets through afterwards; else it is cut that once."""
        self._left, self._for_good, self.passed = commands, for_good, 0

    async def __aenter__(self) -> Cutting:
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._back(there, writer))
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    command = await _command(reader)
                    if self._left == 0:
                        break
                    if self._left is not None:
                        self._left -= 1
                    if self._left == 0:
                        back.cancel()
                        await asyncio.gather(back, return_exceptions=True)
                    self.passed += 1
                    to_there.write(command)
                    await to_there.drain()
                    if self._left == 0:
                        to_there.write_eof()
                        await there.read()  # the server has done it
                        if not self._for_good:
                            self._left = None
                        break
        finally:
            back.cancel()
            for one in (writer, to_there):
                one.close()
            self._links.discard(task)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            writer.write(some)


async def _command(reader: asyncio.StreamReader) -> bytes:
    """One command as it came. Raises IncompleteReadError: the line has ended."""
    head = await reader.readuntil(b"\r\n")
    parts = [head]
    for _ in range(int(head[1:])):
        length = await reader.readuntil(b"\r\n")
        parts += [length, await reader.readexactly(int(length[1:]) + 2)]
    return b"".join(parts)
