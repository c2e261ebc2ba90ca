"""The demo's servers, each in a process of its own: started, waited for, and stopped in every case.

Rules of this file: a server that dies early or is never ready raises `NotStarted` with the end of its log; nobody
leaves a process behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from farthing.proxy import tied
from farthing.proxy.errors import FarthingError

__all__ = ["NotStarted", "Server", "free_port"]

STOP_S = 10.0
POLL_S = 0.1


class NotStarted(FarthingError):
    """One of the demo's servers could not be started; the message says which, and what it said last."""


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One child process with its log file."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._child = child
        self._log = log

    @classmethod
    async def start(cls, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Server:
        """Start `argv` in the log's folder, both outputs to the log. It gets no Ctrl-C of its own: we stop it.

        Must be called on the main thread: Linux ties the child to the thread that started it.
        """
        with log.open("ab") as out:
            child = await asyncio.create_subprocess_exec(
                *tied.command(argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                cwd=log.parent,
                env=dict(os.environ if env is None else env),
                start_new_session=True,
            )
        return cls(name, child, log)

    async def ready(self, url: str, timeout_s: float) -> None:
        """Wait until `url` answers 200. Raises NotStarted."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
            while asyncio.get_running_loop().time() < deadline:
                if self._child.returncode is not None:
                    raise NotStarted(f"{self.name} ended with status {self._child.returncode}.{self._last_words()}")
                try:
                    if (await http.get(url)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(POLL_S)
        raise NotStarted(f"{self.name} was not ready within {timeout_s:.0f} s.{self._last_words()}")

    async def ended(self) -> int:
        """Its exit status, when it has ended."""
        return await self._child.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_S; idempotent."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._child.wait(), STOP_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._child.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal where it still runs."""
        if self._child.returncode is None:
            self._child.send_signal(number)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n  ".join([" It said last:", *lines[-12:]]) if lines else " It said nothing."
