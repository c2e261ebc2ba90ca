"""`farthing serve --workers N`: starts N processes that listen on the same sockets, and keeps N running.

Rules of this file:
1. The listening sockets are the supervisor's, and every worker inherits them. So a connection that waits to be accepted
   is nobody's yet: whichever worker dies or drains, another one takes it. (With SO_REUSEPORT each worker has a queue of
   its own, and Linux resets what waits in it when its socket is closed: ip(7), net.ipv4.tcp_migrate_req.)
2. The keeper (slot 0) starts alone, so that files are made and brought up to date by one process.
3. A worker that ends unasked is started anew, after a pause that doubles while it doesn't live long.
4. SIGHUP replaces one worker after the other. Of the first the new one must answer before the old one is let go; where
   it can't, the old ones stay. The keeper is the last: there is never a second one.
5. Nothing heavy is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog
from rich.console import Console

from farthing.proxy import state
from farthing.proxy.board import Board
from farthing.proxy.clock import Clock, SystemClock
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.hub import LONGEST_LINE, Hub, Line
from farthing.proxy.place import Place
from farthing.proxy.tasks import TaskGroup

__all__ = ["Supervisor", "bound", "pause_s", "supervise"]

log = structlog.get_logger("farthing.workers")

T = TypeVar("T")
KEEPER = 0
_READY_WITHIN_S = 120.0
_BEYOND_DRAIN_S = 15.0  # for writing everything down, once what was under way has ended
_LONG_LIFE_S = 30.0
_LOOK_AGAIN_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0


def supervise(load: Callable[[], Config], config_path: Path | None, flags: dict[str, Any], console: Console) -> int:
    """Run until told to stop. Returns the exit status: 0 after an orderly end, 2 where it can't start."""
    gc.enable()  # which starting.begin turned off
    return asyncio.run(_supervise(load, config_path, flags, console))


async def _supervise(load: Callable[[], Config], path: Path | None, flags: dict[str, Any], console: Console) -> int:
    config = load()
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    with contextlib.ExitStack() as stack:
        stack.callback(state.claim(config.state_dir).close)
        server = config.server
        try:
            sockets = bound(server.host, server.port)
        except OSError as error:
            said = error.strerror or str(error)
            console.print(f"can't listen on {server.host}:{server.port}: {said}; choose another with --port")
            return 2
        for one in sockets:
            stack.callback(one.close)
        board = Board.make(server.workers)
        stack.callback(board.close)
        supervisor = Supervisor(config, sockets, board, None if path is None else str(path), flags)
        status = await _unless(stop, supervisor.start())
        if status is not None or stop.is_set():
            await supervisor.stop()
            return status or 0
        state.announce(config.state_dir, state.from_here(url_of(config, sockets)))
        log.info("workers are ready", workers=server.workers)
        while not stop.is_set():
            await _first(stop, reload)
            if reload.is_set() and not stop.is_set():
                reload.clear()
                await _unless(stop, supervisor.replace(load))
        log.info("draining", workers=server.workers)
        await supervisor.stop()
    return 0


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do it; None where farthing is told to stop before it is done."""
    group = TaskGroup()
    working = group.spawn(work)
    await asyncio.wait([working, group.spawn(_wait(stop))], return_when=asyncio.FIRST_COMPLETED)
    await group.drain(0)
    return working.result() if working.done() and not working.cancelled() else None


async def _first(*events: asyncio.Event) -> None:
    group = TaskGroup()
    waits = [group.spawn(_wait(event)) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    await group.drain(0)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def url_of(config: Config, sockets: Sequence[socket.socket]) -> str:
    """Where the workers listen."""
    host, port = sockets[0].getsockname()[:2]
    scheme = "http" if config.server.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bound(host: str, port: int, backlog: int = 1024) -> list[socket.socket]:
    """Sockets that listen on every address of `host`, all on one port. Raises OSError."""
    found: list[socket.socket] = []
    places = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, address in dict.fromkeys(places):
            one = socket.socket(family, kind, protocol)
            found.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind((address[0], found[0].getsockname()[1] if len(found) > 1 else address[1], *address[2:]))
            one.listen(backlog)
    except OSError:
        for one in found:
            one.close()
        raise
    return found


def pause_s(short_lives: int) -> float:
    """How long to wait before a worker is started anew that has ended so often soon after its start."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(short_lives, 20)) if short_lives else 0.0


@dataclass(slots=True, eq=False)
class _Worker:
    slot: int
    cell: int
    process: asyncio.subprocess.Process
    line: Line
    since_tick: float
    leaving: bool = False  # it was told to go


@dataclass(slots=True)
class Supervisor:
    """The workers, by slot. `config`: as it was at the start; where farthing listens stays so."""

    config: Config
    sockets: Sequence[socket.socket]
    board: Board
    config_path: str | None
    flags: dict[str, Any]
    clock: Clock = field(default_factory=SystemClock)
    tasks: TaskGroup = field(default_factory=TaskGroup)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    alive: list[_Worker] = field(default_factory=list)
    now: dict[int, _Worker] = field(default_factory=dict)
    short_lives: dict[int, int] = field(default_factory=dict)
    hub: Hub = field(init=False)

    def __post_init__(self) -> None:
        """The hub's tasks are the supervisor's."""
        self.hub = Hub(self.tasks, KEEPER)

    async def start(self) -> int | None:
        """Start all: the keeper first. The exit status where one can't."""
        for slots in ((KEEPER,), range(1, self.board.count)):
            begun = [await self._begin(slot, first=True) for slot in slots]
            for one in begun:
                if not await self._answers(one):
                    return max(1, await one.process.wait())
                self._keep(one)
        return None

    async def stop(self) -> None:
        """Let every worker drain, and end it."""
        self.stopping.set()
        await asyncio.gather(*(self._end(one) for one in list(self.alive)))
        await self.tasks.drain(1.0)

    async def replace(self, load: Callable[[], Config]) -> None:
        """One after the other: a new process under the configuration as it is now. A bad one changes nothing."""
        try:
            config = load()
        except (ConfigFault, OSError) as fault:
            log.error("the new configuration is bad; the old workers stay", fault=str(fault))
            return
        fixed = [
            name
            for name in ("host", "port", "workers")
            if getattr(config.server, name) != getattr(self.config.server, name)
        ]
        if config.state_dir != self.config.state_dir:
            log.error("the new configuration names another state directory; the old workers stay")
            return
        if fixed:
            log.warning(
                "some settings change only with a restart of all", settings=[f"server.{name}" for name in fixed]
            )
        slots = [slot for slot in sorted(self.now) if slot != KEEPER]
        for done, slot in enumerate(slots):
            if not await self._followed(slot):
                log.error("a new worker can't answer; the old ones stay", slot=slot, replaced=done)
                return
        await self._replace_keeper()
        log.info("workers are replaced", workers=len(slots) + 1)

    # -- one worker

    async def _followed(self, slot: int) -> bool:
        """A new one answers, and then the old one goes; or the new one doesn't, and the old one stays."""
        new = await self._begin(slot)
        if not await self._answers(new):
            return False
        old = self.now.get(slot)
        self._keep(new)
        if old is not None:
            await self._end(old)
        return True

    async def _replace_keeper(self) -> None:
        """The old one goes, then a new one comes; the others answer meanwhile. One that can't start is tried again."""
        old = self.now.pop(KEEPER, None)
        if old is not None:
            await self._end(old)
            await self._again(KEEPER, 0.0)

    async def _begin(self, slot: int, *, first: bool = False) -> _Worker:
        """Start a process; it doesn't answer yet.

        Nothing is awaited between its start and its place among those that are alive: told to stop there, the
        supervisor would end without it, and it would answer on."""
        cell = await self._free_cell(slot)
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
            place = Place(
                slot, self.board.count, cell, tuple(one.fileno() for one in self.sockets), theirs.fileno(),
                self.board.fd, first, self.config_path, self.flags,
            )  # fmt: skip
            try:
                process = await asyncio.create_subprocess_exec(  # cancelled, it ends what it has started
                    *(sys.executable, "-m", "farthing.proxy.worker", place.written()),
                    pass_fds=(*place.listeners, place.line, place.board),
                )
            except BaseException:
                writer.close()
                raise
        line = self.hub.listen(slot, reader, writer)
        one = _Worker(slot, cell, process, line, self.clock.tick_s())
        self.alive.append(one)
        self.tasks.spawn(self._watch(one), f"watch worker {slot}")
        return one

    async def _free_cell(self, slot: int) -> int:
        """One of the slot's two, once no process has it."""
        while True:
            taken = {one.cell for one in self.alive}
            for cell in (2 * slot, 2 * slot + 1):
                if cell not in taken:
                    return cell
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _answers(self, one: _Worker) -> bool:
        """Wait until it answers requests; False: it has ended, or has been ended since it took too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_WITHIN_S):
                await one.line.ready.wait()
        if one.line.ready.is_set() and not one.line.ended:
            return True
        await self._kill(one)
        return False

    def _keep(self, one: _Worker) -> None:
        """It is the one of its slot now; when it ends unasked another one follows."""
        if one in self.alive:
            self.now[one.slot] = one
        elif one.slot not in self.now:
            self.tasks.spawn(self._again(one.slot, pause_s(1)), "again")

    async def _watch(self, one: _Worker) -> None:
        status = await one.process.wait()
        self.alive.remove(one)
        self.board.gone(one.cell)
        if one.leaving or self.stopping.is_set() or self.now.get(one.slot) is not one:
            return
        del self.now[one.slot]
        lived_s = self.clock.tick_s() - one.since_tick
        short = self.short_lives[one.slot] = 0 if lived_s >= _LONG_LIFE_S else self.short_lives.get(one.slot, 0) + 1
        log.error("a worker ended; another one follows", slot=one.slot, status=status, in_s=pause_s(short))
        await self._again(one.slot, pause_s(short))

    async def _again(self, slot: int, wait_s: float) -> None:
        """Start one until one answers."""
        while not self.stopping.is_set() and slot not in self.now:
            await asyncio.sleep(wait_s)
            if self.stopping.is_set():
                return
            one = await self._begin(slot)
            if await self._answers(one):
                if self.stopping.is_set():
                    await self._end(one)
                else:
                    self._keep(one)
                return
            if self.stopping.is_set():
                return
            short = self.short_lives[slot] = self.short_lives.get(slot, 0) + 1
            wait_s = pause_s(short)
            log.error("a worker can't start; it is tried again", slot=slot, status=one.process.returncode, in_s=wait_s)

    async def _end(self, one: _Worker) -> None:
        """Let it drain; kill it where that takes far longer than it may."""
        one.leaving = True
        with contextlib.suppress(ProcessLookupError):
            one.process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.server.drain_s + _BEYOND_DRAIN_S):
                await one.process.wait()
        await self._kill(one)

    async def _kill(self, one: _Worker) -> None:
        if one.process.returncode is None:
            log.error("a worker doesn't end and is killed", slot=one.slot)
            with contextlib.suppress(ProcessLookupError):
                one.process.kill()
        await one.process.wait()
