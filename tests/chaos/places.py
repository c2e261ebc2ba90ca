"""The processes of a run: farthings, their Valkey, the links between them, the upstream. All on loopback.

Each replica reaches Valkey over a link of its own, and all reach the upstream over one, so that each way can be cut.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tests.chaos.load import Asked
from tests.chaos.measured import Moments
from tests.fakes.commands import CLEAN
from tests.fakes.for_a_while import ForAWhile
from tests.fakes.valkey import ValkeyProcess, free_port

__all__ = ["CLEAN", "Alone", "Cluster", "Farthing", "Links", "Process", "Server", "UpstreamProcess", "three"]

ROOT = Path(__file__).parents[2]
SECRET = "5a" * 32
_READY_S, _TOLD_WITHIN_S = 150.0, 20.0  # bounds, not expectations: the machine may be busy


class Process(ABC):
    """One process, started, stopped in every way, and started again. `piped`: it is told what to do line by line."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, *, piped: bool = False
    ) -> None:
        self.command = list(command)
        self._pipe = subprocess.PIPE if piped else None
        self.env = dict(env or {})
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's number. It must have been started."""
        assert self._child is not None
        return self._child.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._child is not None and self._child.poll() is None

    def spawn(self) -> None:
        """Start it; see `await_ready`."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command, cwd=ROOT, env=CLEAN | self.env, stdin=self._pipe, stdout=self._pipe or log, stderr=log
            )

    @abstractmethod
    def await_ready(self) -> None:
        """Wait until it does what it is for. Raises RuntimeError: it ended, or never did."""

    def start(self) -> float:
        """Start it and wait until it is ready; the seconds that took."""
        began = time.monotonic()
        self.spawn()
        self.await_ready()
        return time.monotonic() - began

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> float:
        """SIGKILL, and wait for its end; when it was sent (time.monotonic)."""
        sent = time.monotonic()
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            sent = time.monotonic()
            self._child.wait()
        return sent

    def stop(self) -> int:
        """SIGTERM, and wait: its exit status."""
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        return self._child.wait(timeout=60)

    def said(self) -> str:
        """Its log."""
        return self._log.read_text("utf-8", "replace")

    def wait_for(self, url: str) -> None:
        """Wait until the URL answers 200. Raises RuntimeError: it ended, or never did."""
        began, last = time.monotonic(), ""
        while time.monotonic() - began < _READY_S:
            if not self.runs:
                raise RuntimeError(f"{self.command[2:5]} ended: {self.said()[-2000:]}")
            try:
                with urllib.request.urlopen(url, timeout=2) as told:
                    if told.status == 200:
                        return
            except urllib.error.HTTPError as refused:
                last = f"{refused.code} {refused.read()[:500]!r}"
            except OSError as error:
                last = repr(error)
            time.sleep(0.02)
        raise RuntimeError(f"{url} did not answer well within {_READY_S:g} s ({last}): {self.said()[-2000:]}")


class Farthing(Process):
    """One `farthing serve` with a state directory of its own. `more`: settings, as FARTHING_* variables."""

    def __init__(self, state: Path, upstream: str, **more: str) -> None:
        state.mkdir(parents=True, exist_ok=True)
        (state / "secret").write_text(SECRET + "\n", "ascii")
        self.state = state
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            (
                *(sys.executable, "-m", "farthing.proxy.cli", "serve", "--port", str(self.port)),
                *("--upstream", upstream, "--state", str(state)),
            ),
            state.with_suffix(".log"),
            {"FARTHING_SEMANTIC__MODE": "off"} | more,
        )

    def await_ready(self) -> None:
        """Process.await_ready."""
        self.wait_for(f"{self.url}/readyz")


class UpstreamProcess(Process):
    """The scripted upstream."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        super().__init__((sys.executable, "-m", "tests.chaos.upstream", str(self.port)), home / "upstream.log")

    def await_ready(self) -> None:
        """Process.await_ready."""
        began = time.monotonic()
        while time.monotonic() - began < _READY_S:
            with suppress(OSError):
                return self.wait_s(0.01)
            time.sleep(0.02)
        raise RuntimeError(f"the upstream did not start: {self.said()[-2000:]}")

    def wait_s(self, seconds: float) -> None:
        """How long each answer takes to begin from now on."""
        self._tell("wait", seconds)

    def status(self, status: int) -> None:
        """What status each answer has from now on."""
        self._tell("status", status)

    def chats(self) -> int:
        """How many chats it was asked for."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/asked", timeout=_TOLD_WITHIN_S) as told:
            return int(told.read())

    def _tell(self, what: str, value: float) -> None:
        told = urllib.request.Request(f"http://127.0.0.1:{self.port}/{what}", data=str(value).encode())
        urllib.request.urlopen(told, timeout=_TOLD_WITHIN_S).close()


class Links(Process):
    """Links to these targets, in their order. `ports`: where each listens."""

    def __init__(self, home: Path, targets: Sequence[int]) -> None:
        self.ports = [free_port() for _ in targets]
        places = [f"{port}:{target}" for port, target in zip(self.ports, targets, strict=True)]
        super().__init__((sys.executable, "-m", "tests.chaos.link", *places), home / "links.log", piped=True)

    def await_ready(self) -> None:
        """Process.await_ready: they listen."""
        assert self._child is not None
        self._told(self._child)

    def become(self, mode: str, which: Sequence[int]) -> None:
        """Change the links of these numbers; done when this returns. `mode`: as in link.py."""
        child = self._child
        assert child is not None and child.stdin is not None
        for number in which:
            child.stdin.write(f"{self.ports[number]} {mode}\n".encode())
            child.stdin.flush()
            self._told(child)

    def _told(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        if child.stdout.readline() != b"ok\n":
            raise RuntimeError(f"the links ended: {self.said()[-2000:]}")

    def close(self) -> None:
        """End them."""
        child = self._child
        if child is not None and child.stdin is not None and child.stdout is not None:
            self.kill()
            child.stdin.close()
            child.stdout.close()


class Server(Protocol):
    """What farthings share their answers by. `port`: that of its first process; `url`: as `store.url` has it."""

    @property
    def url(self) -> str: ...

    @property
    def port(self) -> int: ...

    def start(self) -> None:
        """Start it and wait until it answers."""
        ...

    def close(self) -> None:
        """End it."""
        ...


V = TypeVar("V", bound=Server)


class Asking(ForAWhile):
    """How a place is asked, and what is claimed of it alone, where it says nothing else (scene.Place)."""

    credential = "sk-chaos"
    alike = False

    def shown(self, asked: Sequence[Asked], moments: Moments) -> bool:
        """scene.Place.shown: nothing is needed."""
        return True

    def more_broken(self, asked: Sequence[Asked], moments: Moments, notes: dict[str, Any]) -> list[str]:
        """scene.Place.more_broken: nothing."""
        return []


class Cluster(Asking, Generic[V]):
    """Three farthings over one server and one upstream. Links 0 to 2: a replica's to the server; 3: all's upstream.

    `linked`: whether the replicas reach the server by these links; else they have its own URL. `more`: settings of all
    replicas.
    """

    TO_VALKEY = (0, 1, 2)
    TO_UPSTREAM = (3,)

    def __init__(self, home: Path, valkey: V, *, linked: bool = False, **more: str) -> None:
        self.home = home
        self.valkey = valkey
        self.upstream = UpstreamProcess(home)
        self.links = Links(home, [self.valkey.port] * 3 + [self.upstream.port])
        to_upstream = f"http://127.0.0.1:{self.links.ports[3]}/v1"
        self.replicas = [
            Farthing(
                home / f"replica{number}",
                to_upstream,
                **more | {"FARTHING_STORE__URL": self._linked(number) if linked else valkey.url},
            )
            for number in range(3)
        ]

    def _linked(self, number: int) -> str:
        return f"redis://127.0.0.1:{self.links.ports[number]}/0"

    @property
    def urls(self) -> list[str]:
        """Where the replicas answer."""
        return [replica.url for replica in self.replicas]

    @property
    def direct(self) -> str:
        """Where the upstream answers, past every farthing and over the same link."""
        return f"http://127.0.0.1:{self.links.ports[3]}"

    def start(self) -> None:
        """ForAWhile.start. At the same time, but that no replica begins with an outage of the server."""
        self.upstream.spawn()
        self.links.spawn()
        self.valkey.start()
        self.links.await_ready()
        self.prepare()
        for replica in self.replicas:
            replica.spawn()
        self.upstream.await_ready()
        for replica in self.replicas:
            replica.await_ready()

    def prepare(self) -> None:
        """What is to be done once the server is there and before the first replica is."""

    def close(self) -> None:
        """ForAWhile.close."""
        for replica in self.replicas:
            replica.kill()
        self.links.close()
        self.upstream.kill()
        self.valkey.close()


def three(home: Path) -> Cluster[ValkeyProcess]:
    """Three farthings over one Valkey, each by a link of its own."""
    return Cluster(home, ValkeyProcess(), linked=True)


class Alone(Asking):
    """One farthing with everything in its own state directory, and its upstream. `more`: settings."""

    def __init__(self, home: Path, state: Path | None = None, **more: str) -> None:
        self.home = home
        self.upstream = UpstreamProcess(home)
        self.replicas = [Farthing(state or home / "alone", f"http://127.0.0.1:{self.upstream.port}/v1", **more)]

    @property
    def farthing(self) -> Farthing:
        """The one."""
        return self.replicas[0]

    @property
    def direct(self) -> str:
        """Where the upstream answers, past farthing."""
        return f"http://127.0.0.1:{self.upstream.port}"

    def start(self) -> None:
        """ForAWhile.start."""
        self.upstream.spawn()
        self.farthing.spawn()
        self.upstream.await_ready()
        self.farthing.await_ready()

    def close(self) -> None:
        """ForAWhile.close."""
        self.farthing.kill()
        self.upstream.kill()
