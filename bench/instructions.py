"""How many instructions a request is: `python -m bench.instructions [--write]`. Needs valgrind (Debian: `apt install
valgrind`); ten minutes.

farthing by its real command line inside valgrind's callgrind, one request after another; counted is what all its
threads execute outside the kernel, from the end of the warm-up until it has come to rest. The machine's speed, its
caches and the kernel don't count, so that two counts can be compared which processor time can't tell apart: what is
left of noise is when the ledger's thread rolls rows up.

Source: Valgrind's manual, "Callgrind" (`--instr-atstart`, callgrind_control).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.ineligible import tool_result
from bench.load import chat_body
from bench.machine import Place, facts, place
from bench.report import Report, publish, show
from bench.servers import ROOT, DidNotStart, free_port, started, state_of
from bench.upstream import fast

__all__ = ["counted", "total"]

WARM = 100
LOADED_S = 30  # until the model is there, inside valgrind
REST_S = 6  # until the rows are written


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, to a farthing with the semantic stage in `mode`."""

    name: str
    mode: str
    body: Callable[[str], bytes]


LOADS = (
    Load("a miss, semantic off", "off", chat_body),
    Load("a miss that isn't eligible, semantic off", "off", tool_result),
    Load("a miss that isn't eligible, semantic in observe", "observe", tool_result),
)


def total(profile: str) -> int:
    """The instructions of a callgrind profile. Raises ValueError: it says none."""
    for line in profile.splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise ValueError("the profile has no totals")


@contextlib.contextmanager
def inside(load: Load, upstream_port: int, here: Place) -> Iterator[tuple[int, int]]:
    """farthing inside callgrind, which doesn't count yet: its port and its process. Raises DidNotStart."""
    port = free_port()
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={here.folder}/profile"]
    command += [sys.executable, "-m", "farthing.proxy.cli", "serve", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1", "--state", str(state_of(load.mode, here))]
    env = {"FARTHING_LOG__LEVEL": "warning", "FARTHING_SEMANTIC__MODE": load.mode, "PYTHONHASHSEED": "0"}
    started_here = started(
        "inside callgrind", command, port, here.folder, core=here.measured, ready="/readyz", env=env, timeout_s=300
    )
    with started_here as running:
        try:
            yield port, running.pid
        finally:
            os.kill(running.pid, signal.SIGKILL)  # at an end in peace callgrind writes for minutes


def counted(load: Load, requests: int, here: Place) -> float:
    """Instructions a request. Raises DidNotStart, RuntimeError: an answer was an error, or nothing was counted."""
    with fast(here) as upstream, inside(load, upstream.port, here) as (port, pid):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        time.sleep(LOADED_S)
        sent(line, load, 0, WARM)
        control(pid, "--instr=on")
        sent(line, load, WARM, WARM)
        time.sleep(REST_S)
        control(pid, "--zero")
        sent(line, load, 2 * WARM, requests)
        time.sleep(REST_S)
        control(pid, "--dump")
        line.close()
    found = sorted(here.folder.glob("profile.*"))
    if not found:
        raise RuntimeError("callgrind wrote no profile")
    return total(found[-1].read_text("utf-8", "replace")) / requests


def sent(line: http.client.HTTPConnection, load: Load, first: int, count: int) -> None:
    """One request after another, each another prompt. Raises RuntimeError."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
    for number in range(first, first + count):
        line.request("POST", "/v1/chat/completions", load.body(f"i{number:011d}"), headers)
        answer = line.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{load.name}: the answer was {answer.status}")


def control(pid: int, what: str) -> None:
    """Tell callgrind. Raises RuntimeError."""
    told = subprocess.run(["callgrind_control", what, str(pid)], capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(f"callgrind_control {what}: {told.stdout}{told.stderr}")


def main(arguments: list[str] | None = None) -> int:
    """Count and print; 2 where it couldn't."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if shutil.which("valgrind") is None:
        console.print("valgrind is not installed (Debian: apt install valgrind)")
        return 2
    report = Report("instructions", "Instructions a request", ["what", "instructions a request", "× a miss"])
    counts: list[float] = []
    with tempfile.TemporaryDirectory(prefix="farthing-instructions-") as folder:
        here = place(Path(folder))
        known = facts(here)
        for number, load in enumerate(LOADS):
            console.print(f"instructions: {load.name}", highlight=False)
            own = Path(folder) / str(number)
            own.mkdir()
            try:
                counts.append(counted(load, given.requests, replace(here, folder=own)))
            except (DidNotStart, RuntimeError, OSError, ValueError) as error:
                console.print(f"{load.name}: {error}", markup=False)
                return 2
            report.rows.append([load.name, f"{counts[-1] / 1e6:.2f} M", f"{counts[-1] / counts[0]:.2f}"])
            report.raw.append({"load": load.name, "instructions": counts[-1]})
    report.notes.append(f"{given.requests:,} requests each, one after another, inside callgrind; no kernel in it.")
    show(report, console)
    command = " ".join(["python -m bench.instructions", *(arguments if arguments is not None else sys.argv[1:])])
    document = ROOT / "docs" / "benchmarks.md" if given.write else None
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    publish(report, known, command, when, ROOT / "bench" / "results", document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
