"""`farthing capture` as a process: through a running farthing, and on what it has left."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

from tests.fakes.commands import farthing
from tests.fakes.proxying import chat
from tests.fakes.upstream import scripted
from tests.scenario.test_serve import serving

ON = {"FARTHING_CAPTURE__ENABLED": "true"}


async def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(farthing, "capture", *arguments, "--state", "state", cwd=cwd)


def told(ended: subprocess.CompletedProcess[str]) -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def test_status_export_erase_and_purge(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path, **ON) as (child, client):
        for user in ("u1", "u2", "u1"):
            body = chat(f"I am {user}, u@example.com")
            await client.post("/v1/chat/completions", json=body, headers={"x-farthing-user": user})

        state = told(await run("status", "--json", cwd=tmp_path))
        assert (state["enabled"], state["rows"], state["healthy"]) == (True, 3, True)
        exported = await run("export", "trace.jsonl", "--since", "1h", cwd=tmp_path)
        assert (exported.returncode, exported.stderr.strip()) == (0, "3 requests exported")
        found = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text("utf-8").splitlines()]
        assert [line["user"] for line in found] == ["u1", "u2", "u1"]
        assert "u@example.com" not in json.dumps(found)
        assert stat.S_IMODE((tmp_path / "trace.jsonl").stat().st_mode) == 0o600
        assert told(await run("erase", "--user", "u1", "--json", cwd=tmp_path)) == {"erased": 2, "damaged_files": 0}
        child.send_signal(signal.SIGTERM)
        await asyncio.wait_for(child.wait(), 20)

    named = await run("export", "-o", "again.jsonl", cwd=tmp_path)
    assert named.returncode == 0
    assert json.loads((tmp_path / "again.jsonl").read_text("utf-8"))["user"] == "u2"
    assert (await run("export", "-o", "again.jsonl", "other.jsonl", cwd=tmp_path)).returncode == 2
    piped = await run("export", cwd=tmp_path)
    assert [json.loads(line)["user"] for line in piped.stdout.splitlines()] == ["u2"]
    shown = (await run("status", cwd=tmp_path)).stdout
    assert "capture is off" in shown and "kept: 1 request," in shown
    assert (await run("erase", "--user", "nobody", cwd=tmp_path)).stdout == "0 requests erased\n"
    assert (await run("purge", cwd=tmp_path)).stdout == "1 request erased\n"
    assert told(await run("status", "--json", cwd=tmp_path))["rows"] == 0


async def test_what_cannot_be_done_is_said_with_its_status(tmp_path: Path) -> None:
    assert (await run("export", cwd=tmp_path)).returncode == 3
    nothing = await run("erase", cwd=tmp_path)
    assert (nothing.returncode, "say what to erase" in nothing.stderr) == (2, True)
    assert (await run("erase", "--older-than", "soon", cwd=tmp_path)).returncode == 2
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "capture.db").write_bytes(b"SECRET, no database " * 500)
    assert (await run("status", cwd=tmp_path)).returncode == 2
    assert (await run("purge", cwd=tmp_path)).stdout == "0 requests erased, 1 damaged file removed\n"
    assert not any(b"SECRET" in file.read_bytes() for file in (tmp_path / "state").iterdir())
    for command in ("status", "export", "erase", "purge"):
        assert "Example: farthing capture" in (await run(command, "--help", cwd=tmp_path)).stdout
