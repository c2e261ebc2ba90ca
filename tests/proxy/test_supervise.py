"""Workers, from their start to their end."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.board import Board
from farthing.proxy.config import load
from farthing.proxy.supervise import Supervisor


async def test_told_to_stop_while_a_worker_starts_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word comes while its line is opened. One that ran by then would answer on, with nobody to end it."""
    opening, running = asyncio.Event(), []
    spawn = asyncio.create_subprocess_exec

    async def started(*_: Any, **__: Any) -> Any:
        running.append(await spawn(sys.executable, "-c", "import time; time.sleep(60)"))
        return running[-1]

    async def held(*, sock: socket.socket, limit: int) -> None:
        with closing(sock):
            opening.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    monkeypatch.setattr(asyncio, "open_unix_connection", held)
    config = load(None, {}, {"upstream.url": "http://127.0.0.1:9/v1", "state_dir": tmp_path, "server.workers": 2})
    with closing(Board.make(2)) as board:
        supervisor = Supervisor(config, [], board, None, {})
        starting = asyncio.create_task(supervisor.start())
        await asyncio.wait_for(opening.wait(), 20)
        starting.cancel()
        await asyncio.wait({starting})
        await supervisor.stop()
    left = [one.pid for one in running if one.returncode is None]
    for one in running:
        one.kill()
        await one.wait()
    assert left == []
