"""Starting, waiting for and stopping the servers of a run, each a process of its own on a core of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Place, on_core

__all__ = ["DidNotStart", "Running", "farthing", "free_port", "get", "module", "started", "state_of"]

ROOT = Path(__file__).parent.parent


class DidNotStart(Exception):
    """A server ended or said nothing; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `path`: of the endpoint that is measured. `headers`: that it wants beside an SDK's, each
    with its line end."""

    name: str
    pid: int
    port: int
    path: str = "/v1/chat/completions"
    headers: str = ""

    @property
    def url(self) -> str:
        """Where load goes."""
        return f"http://127.0.0.1:{self.port}{self.path}"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, timeout_s: float = 5.0) -> str:
    """The body behind a URL of this machine, past any proxy of the environment. Raises OSError: no 2xx answer."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=timeout_s) as answer:
        return str(answer.read().decode("utf-8", "replace"))


@contextlib.contextmanager
def started(
    name: str,
    command: list[str],
    port: int,
    folder: Path,
    *,
    core: int | str,
    ready: str = "/status",
    env: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
    headers: str = "",
) -> Iterator[Running]:
    """Run `command` until the block ends; enters once `GET ready` answers 2xx.

    Raises DidNotStart. Its output is in `folder/NAME.log`. Stops with SIGTERM, after 20 s with SIGKILL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name.replace(' ', '-')}.log"
    # Nobody's settings leak in: a FARTHING_* or OPENAI_* of the shell would change what is measured.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FARTHING_", "OPENAI_", "LITELLM_"))}
    with log.open("wb") as output:
        child = subprocess.Popen(
            on_core(core, command), stdout=output, stderr=subprocess.STDOUT, env={**clean, **(env or {})}, cwd=ROOT
        )
    try:
        _wait(child, f"http://127.0.0.1:{port}{ready}", name, log, timeout_s)
        yield Running(name, child.pid, port, headers=headers)
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait(child: subprocess.Popen[bytes], url: str, name: str, log: Path, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while child.poll() is None and time.monotonic() < end:
        try:
            get(url)
            return
        except OSError:
            time.sleep(0.1)
    why = f"ended with {child.returncode}" if child.poll() is not None else f"not ready after {timeout_s:.0f} s"
    tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
    raise DidNotStart(f"{name}: {why}\n{tail}".replace(f"{ROOT}/", ""))  # it may come into a document


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of this folder's modules."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]


def state_of(name: str, here: Place) -> Path:
    """The state directory of the farthing of this name."""
    return here.folder / f"{name.replace(' ', '-')}.state"


def farthing(
    name: str, upstream_port: int | None, here: Place, settings: Mapping[str, str]
) -> contextlib.AbstractContextManager[Running]:
    """farthing by its real command line; `settings`: of its configuration, as FARTHING_* names without the prefix.

    `upstream_port`: of its one upstream; None: the settings say.
    """
    port = free_port()
    command = [sys.executable, "-m", "farthing.proxy.cli"]
    installed = Path(sys.executable).with_name("farthing")
    if installed.exists():
        command = [str(installed)]
    command += ["serve", "--port", str(port)]
    if upstream_port is not None:
        command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1"]
    command += ["--state", str(state_of(name, here))]
    env = {"FARTHING_LOG__LEVEL": "warning", **{f"FARTHING_{key}": value for key, value in settings.items()}}
    return started(name, command, port, here.folder, core=here.measured, ready="/readyz", env=env, timeout_s=60)
