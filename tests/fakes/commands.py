"""`farthing ...` as a process of its own: forked off one that has imported farthing, since an import takes a second.

Whoever is forked sets itself up as a fresh interpreter would: its own arguments, environment, folder and standard
streams, and the ordinary end of an interpreter. What a start itself does is for tests that run `python -m
farthing.proxy.cli`. The parent (this file as a script) tells of ends over a pipe, since it alone may wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

__all__ = ["CLEAN", "Command", "farthing", "forked", "forks", "ran"]

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("FARTHING_", "OPENAI_"))}
MOST_BYTES = 1 << 20


class Command:
    """One that was forked. As asyncio's processes, it is waited for, and sent signals."""

    def __init__(self, pid: int, told: int) -> None:
        self.pid = pid
        self._told = told
        self._status: int | None = None

    def ended(self, within_s: float | None = None) -> int | None:
        """Its exit status, waited for so long at most; minus the signal that ended it."""
        if self._status is None and select.select([self._told], [], [], within_s)[0]:
            self._status = os.waitstatus_to_exitcode(int(os.read(self._told, 32)))
            os.close(self._told)
        return self._status

    @property
    def returncode(self) -> int | None:
        return self.ended(0)

    async def wait(self) -> int:
        while (status := self.ended(0)) is None:
            await asyncio.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that has imported all, and forks."""

    def __init__(self) -> None:
        self._asks, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        with child:
            self._parent = subprocess.Popen([sys.executable, __file__], stdin=child, env=CLEAN)

    def command(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int]) -> Command:
        told, tells = os.pipe()
        asked = json.dumps({"argv": argv, "cwd": str(cwd), "env": dict(env)}).encode()
        try:
            with self._turn:
                socket.send_fds(self._asks, [asked], [*streams, tells])
                return Command(int(self._asks.recv(32)), told)
        finally:
            os.close(tells)

    def close(self) -> None:
        self._asks.close()
        self._parent.wait()


@cache
def _forks() -> Forks:
    return Forks()


@contextmanager
def forks() -> Iterator[None]:
    """At its end, the parent of all ends, if there is one."""
    try:
        yield
    finally:
        if _forks.cache_info().currsize:
            _forks().close()
            _forks.cache_clear()


def forked(*argv: str, cwd: Path, env: Mapping[str, str], stderr: IO[bytes]) -> Command:
    """`farthing ...`, running; nothing comes in, and standard output isn't kept."""
    with Path(os.devnull).open("r+b") as nothing:
        return _forks().command(argv, cwd, env, (nothing.fileno(), nothing.fileno(), stderr.fileno()))


def ran(
    *argv: str, cwd: Path | None = None, env: Mapping[str, str] = CLEAN, stdin: str = "", timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """`farthing ...`, ended, with what it printed. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        streams = (given.fileno(), out.fileno(), err.fileno())
        command = _forks().command(argv, cwd or Path.cwd(), env, streams)
        if (status := command.ended(timeout_s)) is None:
            command.kill()
            command.ended()
            raise subprocess.TimeoutExpired(list(argv), timeout_s)
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(list(argv), status, out.read().decode(), err.read().decode())


def farthing(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return ran(*arguments, cwd=cwd, env=CLEAN | env)


def _become(asked: Mapping[str, Any], streams: list[int]) -> None:
    """In the child: what a fresh interpreter would be."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["farthing", *asked["argv"]]


def _parent() -> bool:
    """Fork whenever it is asked for. True: this is a child; False: nobody asks any more."""
    asks = socket.socket(fileno=os.dup(0))
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    telling: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asks, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            while telling:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                    os.write(telling[pid], str(status).encode())
                os.close(telling.pop(pid))
        if asks in ready:
            message, files, _, _ = socket.recv_fds(asks, MOST_BYTES, 4)
            if not message:
                return False
            *streams, tells = files
            pid = os.fork()
            if not pid:
                asks.detach()
                _become(json.loads(message), streams)
                return True
            for stream in streams:
                os.close(stream)
            telling[pid] = tells
            asks.send(str(pid).encode())


if __name__ == "__main__":
    del sys.path[0]  # this folder, which is no place of modules
    import farthing.proxy.cli
    import farthing.proxy.serve

    gc.freeze()
    if _parent():
        farthing.proxy.cli.main()
