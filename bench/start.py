"""How long a start takes: from the command to the first answer, by the clock and of the processor, and the imports.

From bytecode that an earlier start wrote, as on every start but the first. The first request is sent again and again
until it is answered, so that what is measured is what a client would see; it goes through to the upstream.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.hot import Effort, Tell
from bench.load import chat_body
from bench.machine import Place, cpu_s, on_core, rss_bytes
from bench.report import Report, Target
from bench.servers import ROOT, DidNotStart, free_port
from bench.upstream import fast

__all__ = ["Start", "from_bytecode", "start"]

MOST_ROUNDS = 3
GOALS_S: Mapping[str, float] = {"off": 1.0, "observe": 3.0}


@dataclass(frozen=True, slots=True)
class Start:
    """One start, in seconds from the command: to the first answer and to `/readyz`; processor seconds by the answer."""

    answered_s: float
    ready_s: float
    used_s: float
    rss_bytes: int


def from_bytecode(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python writes its bytecode to `folder` and reads it from there."""
    clean = {k: v for k, v in env.items() if not k.startswith(("FARTHING_", "OPENAI_"))}
    clean.pop("PYTHONDONTWRITEBYTECODE", None)
    return clean | {"PYTHONPYCACHEPREFIX": str(folder)}


def one_start(upstream_port: int, here: Place, mode: str, number: int) -> Start:
    """Start farthing, ask until it answers, wait until it is ready, stop it. Raises DidNotStart."""
    port = free_port()
    command = [sys.executable, "-m", "farthing.proxy.cli", "serve", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1", "--state", str(here.folder / f"start-{mode}")]
    env = from_bytecode(here.folder / "bytecode", os.environ)
    env |= {"FARTHING_LOG__LEVEL": "warning", "FARTHING_SEMANTIC__MODE": mode}
    log = here.folder / f"start-{mode}-{number}.log"
    with log.open("wb") as output:
        begun_s = time.monotonic()
        child = subprocess.Popen(
            on_core(here.measured, command), stdout=output, stderr=subprocess.STDOUT, env=env, cwd=ROOT
        )
        try:
            body = chat_body(f"st{number:010d}")
            _until(child, port, "POST", "/v1/chat/completions", body, begun_s + 60, log)
            answered_s, used_s = time.monotonic() - begun_s, cpu_s(child.pid)
            _until(child, port, "GET", "/readyz", b"", begun_s + 60, log)
            return Start(answered_s, time.monotonic() - begun_s, used_s, rss_bytes(child.pid))
        finally:
            child.terminate()
            child.wait(30)


def _until(
    child: subprocess.Popen[bytes], port: int, method: str, path: str, body: bytes, end_s: float, log: Path
) -> None:
    """Ask every few milliseconds until the answer is a 200. Raises DidNotStart."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
    while child.poll() is None and time.monotonic() < end_s:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as line:
            try:
                line.request(method, path, body, headers)
                if line.getresponse().status == 200:
                    return
            except OSError:
                pass
        time.sleep(0.005)
    raise DidNotStart("\n".join(log.read_text("utf-8", "replace").splitlines()[-15:]))


def imported_s(here: Place, what: str) -> float:
    """Processor seconds of an import, from bytecode."""
    code = f"import time; a = time.process_time(); import {what}; print(time.process_time() - a)"
    env = from_bytecode(here.folder / "bytecode", os.environ)
    command = on_core(here.measured, [sys.executable, "-c", code])
    return float(subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def start(here: Place, effort: Effort, tell: Tell) -> Report:
    """Starts without and with the semantic stage in turns; the first of each writes the bytecode and isn't counted."""
    report = Report(
        "start", "Start-up", ["semantic stage", "first answer s", "slowest s", "CPU s", "ready s", "RSS MiB"]
    )
    found: dict[str, list[Start]] = {mode: [] for mode in GOALS_S}
    rounds = min(MOST_ROUNDS, effort.rounds)
    with fast(here) as upstream:
        for number in range(rounds + 1):
            # The first starts only write bytecode. The one with the stage writes nearly all of the other's.
            for mode in list(GOALS_S)[1:] if effort.quick and not number else GOALS_S:
                tell(f"start: {number} of {rounds}, semantic stage {mode}")
                one = one_start(upstream.port, here, mode, number)
                if number:
                    found[mode].append(one)
    for mode, each in found.items():
        answered_s = median(one.answered_s for one in each)
        row = [f"{answered_s:.2f}", f"{max(one.answered_s for one in each):.2f}"]
        row += [f"{median(one.used_s for one in each):.2f}", f"{median(one.ready_s for one in each):.2f}"]
        report.rows.append([mode, *row, f"{median(one.rss_bytes for one in each) / 2**20:.0f}"])
        report.raw += [{"mode": mode, "answered_s": one.answered_s, "ready_s": one.ready_s} for one in each]
        goal_s = GOALS_S[mode]
        what = f"first answer after the command, semantic stage {mode}"
        report.targets.append(Target(what, f"≤ {goal_s:.1f} s", f"{answered_s:.2f} s", answered_s <= goal_s))
    tell("start: imports")
    imports_ms = {
        what: median(imported_s(here, what) for _ in range(rounds)) * 1000
        for what in ("farthing.proxy.app", "farthing.proxy.cli", "aiohttp, pydantic, uvloop")
    }
    report.raw.append({"imports_ms": imports_ms})
    listed = ", ".join(f"{what} {ms:.0f} ms" for what, ms in imports_ms.items())
    report.notes.append(f"Imports, processor time: {listed}. `python -m bench.guard` fails where ours grow by a fifth.")
    report.notes.append(
        "The clock begins with the command. The first request is tried every 5 ms and goes through to the upstream; "
        "the state directory is there from the start before. With the stage, its model is warmed beside the traffic."
    )
    return report
