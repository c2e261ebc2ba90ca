"""The demo's servers: ready, early death, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from farthing.proxy.demo_servers import NotStarted, Server, free_port


async def test_a_server_gets_ready_and_stops(tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-m", "farthing.proxy.simulated", "--port", str(port)]
    server = await Server.start("the upstream", argv, tmp_path / "upstream.log")
    await server.ready(f"http://127.0.0.1:{port}/health", 30)
    await server.stop()
    assert await server.ended() == 0
    await server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)


async def test_early_death_is_told_with_the_last_words(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('no such model')"]
    server = await Server.start("the model", argv, tmp_path / "model.log")
    with pytest.raises(NotStarted, match=r"(?s)the model ended with status 1.*no such model"):
        await server.ready(f"http://127.0.0.1:{free_port()}/health", 30)
    await server.stop()


async def test_never_ready_is_told(tmp_path: Path) -> None:
    sleeper = await Server.start("sleeper", ["sleep", "60"], tmp_path / "sleeper.log")
    with pytest.raises(NotStarted, match="sleeper was not ready within 0 s"):
        await sleeper.ready(f"http://127.0.0.1:{free_port()}/health", 0.3)
    await sleeper.stop()
    assert await sleeper.ended() == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    starts_child = (
        "import subprocess, time; from farthing.proxy import tied; "
        "print(subprocess.Popen(tied.command(['sleep', '60'])).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", starts_child], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        deadline = time.monotonic() + 10
        while "sleep" not in Path(f"/proc/{child}/cmdline").read_text().split("\0")[0]:  # it has become the command
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.kill()
        parent.wait()
    while running(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def running(pid: int) -> bool:
    """Whether the process exists and is no zombie: who adopts it here may never reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "farthing.proxy.tied", str(os.getppid() + 100_000), "echo", "started"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == ("" if sys.platform == "linux" else "started\n")
