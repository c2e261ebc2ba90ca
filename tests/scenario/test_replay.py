"""`farthing replay` as people run it: processes of its own, stopped by a real Ctrl-C, going on where it stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import commands

FARTHING = [sys.executable, "-c", "from farthing.proxy.cli import main; main()", "replay"]


def line(number: int) -> dict[str, Any]:
    text = f"question {number % 400} " + "with some words around it " * 120
    return {
        "ts": 1.79e9 + number,
        "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]},
        "response": {
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
            # Long enough for a provider's cache, which has read the repeated ones.
            "usage": {
                "prompt_tokens": 1300,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 1280 if number >= 400 else 0},
            },
        },
        "latency_ms": 1500,
    }


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 7 MB: enough blocks to be stopped between them, and to be read by other processes."""
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for number in range(2_000):
            out.write("{broken\n" if number == 1_200 else json.dumps(line(number)) + "\n")
    return path


def ran(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.ran("replay", *arguments, cwd=folder, timeout_s=100)


@pytest.mark.parametrize("processes", [pytest.param("1", marks=pytest.mark.long), "2"])
def test_stopped_by_ctrl_c_it_prints_what_it_has_and_goes_on_to_the_same_figures(
    trace: Path, tmp_path: Path, processes: str
) -> None:
    options = [str(trace), "--json", "--sweep", "cache.ttl_s=300,900", "--processes", processes]
    straight = ran(tmp_path, *options)
    with subprocess.Popen(
        [*FARTHING, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as going:
        assert going.stderr is not None and going.stdout is not None
        first = going.stderr.readline()
        going.send_signal(signal.SIGINT)
        printed, told = going.communicate(timeout=100)
    part = json.loads(printed)
    rest = ran(tmp_path, *options, "--resume")
    again = ran(tmp_path, *options, "--resume")

    assert straight.returncode == 0, straight.stderr
    assert first.startswith("replaying: ")
    assert (going.returncode, part["finished"]) == (130, False), told
    assert 0 < part["requests"] < 1_999 and "--resume" in told
    for lane in part["replayed"]:  # none is missing, though all of them waited to be put in order
        assert lane["requests"] == part["requests"] and lane["baseline_usd"] > 0
    assert rest.returncode == 0, rest.stderr
    assert json.loads(rest.stdout) == json.loads(straight.stdout)
    whole = json.loads(rest.stdout)
    assert (whole["requests"], whole["broken"]["first"][0]["line"]) == (1_999, 1_201)
    assert (again.returncode, "nothing to resume" in again.stderr) == (2, True)


def test_the_table_and_the_drawings(trace: Path, tmp_path: Path) -> None:
    shown = ran(tmp_path, str(trace), "--by", "model", "--set", "cache.ttl_s=900")
    swept = ran(tmp_path, str(trace), "--sweep", "cache.ttl_s=300:900:300", "--html", "s.html", "--png", "s.png")

    assert shown.returncode == 0, shown.stderr
    assert "farthing would have saved" in shown.stdout and "gpt-4o-mini" in shown.stdout
    assert "line 1,201: not JSON" in shown.stdout
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.count("%") > 6 and "cache.ttl_s" in swept.stdout
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "s.html").read_text("utf-8")
