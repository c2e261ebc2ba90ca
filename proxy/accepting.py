"""Takes connections from sockets on which other processes listen too, so that all have about as many.

Rules of this file:
1. One connection a turn: a burst is shared by all who are awake, and whoever is busy takes less.
2. Who has more open than another one leaves the next to others for a moment (`WAIT_S`), and then takes it all the same:
   nothing waits for a process that hangs.
3. Who has far more open than another one (that one was started anew, say) ends some with their next answer, and their
   clients come again.
4. Who drains takes none any more; those that wait are the others'. What it has open ends with the next answer, so that
   no client writes into a connection that is being closed, unless it has been idle for `LINGER_S`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

import structlog

from farthing.proxy.crew import Crew
from farthing.proxy.every import Every
from farthing.proxy.front import FrontServer
from farthing.proxy.tasks import TaskGroup

__all__ = ["Accepting"]

log = structlog.get_logger("farthing.server")

WAIT_S = 0.001
LINGER_S = 2.0
_PAUSE_S = 0.1  # where there is no descriptor left, say
_LOOK_AGAIN_S = 0.02
_SHED_EVERY_S = 0.5
_FEW = 2


class Accepting:
    """`context`: of TLS; None without."""

    def __init__(self, crew: Crew, front: FrontServer, tasks: TaskGroup, context: ssl.SSLContext | None) -> None:
        self._crew = crew
        self._front = front
        self._tasks = tasks
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._open = self._coming = 0
        front.counted = self._count

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """What is listened on."""
        return self._crew.sockets

    def start(self) -> None:
        """Take connections from now on."""
        self._sheds = Every(_SHED_EVERY_S, self._tasks, self._shed, "shed")
        self._crew.board.takes(self._crew.cell, takes=True)
        for one in self.sockets:
            self._loop.add_reader(one.fileno(), self._there, one)

    async def stop(self) -> None:
        """Take none any more, and wait a while for those that are open to end with an answer."""
        self._sheds.stop()
        self._crew.board.takes(self._crew.cell, takes=False)
        for one in self.sockets:
            self._loop.remove_reader(one.fileno())
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._front.leaving = True
        if self._crew.board.fewest(self._crew.cell) is None:
            return  # nobody else would take them
        until = self._loop.time() + LINGER_S
        while self._open and self._loop.time() < until:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _count(self, connections: int) -> None:
        self._open = connections
        self._tell()

    def _tell(self) -> None:
        self._crew.board.opened(self._crew.cell, self._open + self._coming)

    async def _shed(self) -> None:
        fewest = self._crew.board.fewest(self._crew.cell)
        more = 0 if fewest is None else self._open - fewest
        self._front.sheds = more // 2 if more > max(_FEW, self._open // 10) else 0

    def _there(self, one: socket.socket) -> None:
        """Somebody waits to be accepted."""
        fewest = self._crew.board.fewest(self._crew.cell)
        if fewest is not None and self._open + self._coming > fewest:
            self._later(one, WAIT_S)
        else:
            self._take(one)

    def _later(self, one: socket.socket, wait_s: float) -> None:
        self._loop.remove_reader(one.fileno())
        self._waiting[one] = self._loop.call_later(wait_s, self._again, one)

    def _again(self, one: socket.socket) -> None:
        del self._waiting[one]
        self._loop.add_reader(one.fileno(), self._there, one)
        self._take(one)

    def _take(self, one: socket.socket) -> None:
        try:
            connection, _ = one.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another one was faster, or it has gone
        except OSError as error:
            log.error("a connection can't be accepted", fault=error.strerror)
            if one not in self._waiting:
                self._later(one, _PAUSE_S)
            return
        connection.setblocking(False)
        self._coming += 1
        self._tell()
        self._tasks.spawn(self._connect(connection), "accept")

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._front, connection, ssl=self._context)
        except (OSError, ssl.SSLError):
            connection.close()  # it has gone, or speaks no TLS
        finally:
            self._coming -= 1
            self._tell()
