"""A network that can be made worse: TCP links, in a process of their own, each told line by line on standard input.

`python -m tests.chaos.link PORT:TARGET ...`; then lines `PORT MODE`: `pass`; `slow SECONDS` (each way); `hole` (nothing
gets through and nobody is told, until it passes again: a partition); `cut` (connections are reset, new ones refused).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

_PIECE_BYTES = 65_536


class Link:
    """One listening port before one target. Bytes are never reordered or lost: a partition delays, as TCP does."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        self._slow_s = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def become(self, mode: str, slow_s: float) -> None:
        """Change what the link does, for connections that stand too."""
        self._slow_s = slow_s if mode == "slow" else 0.0
        if mode == "hole":
            self._open.clear()
        else:
            self._open.set()
        if mode == "cut" and self._server is not None:
            self._server.close()
            self._server = None
            for writer in self._ends:
                _reset(writer)
        elif mode != "cut" and self._server is None:
            await self.listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            from_far, far = await asyncio.open_connection("127.0.0.1", self._target)
            self._ends.add(far)
            done = {asyncio.create_task(self._carry(reader, far)), asyncio.create_task(self._carry(from_far, writer))}
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.cancel()
        except OSError:
            _reset(writer)
        finally:
            for end in (writer, far):
                if end is not None:
                    self._ends.discard(end)
                    with contextlib.suppress(OSError):
                        end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await self._open.wait()
                if self._slow_s:
                    await asyncio.sleep(self._slow_s)
                writer.write(piece)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side gets a reset: SO_LINGER with no time (socket(7))."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(places: list[str]) -> None:
    """Serve until standard input ends; each line done is answered by `ok`."""
    links = {}
    for place in places:
        port, _, target = place.partition(":")
        links[port] = Link(int(port), int(target))
        await links[port].listen()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    sys.stdout.write("ok\n")
    sys.stdout.flush()
    while line := (await lines.readline()).decode().split():
        await links[line[0]].become(line[1], float(line[2]) if len(line) > 2 else 0.0)
        sys.stdout.write("ok\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
