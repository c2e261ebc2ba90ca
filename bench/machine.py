"""What the kernel says of this machine and of a running server: processor time, memory, cores, versions.

A server's figures are those of its process and of all its descendants, so that one which forks isn't flattered.
Source: proc(5), `/proc/PID/stat` and `/proc/PID/status`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Place", "Stat", "cpu_s", "facts", "on_core", "parse_stat", "place", "rss_bytes", "settle"]


@dataclass(frozen=True, slots=True)
class Stat:
    """One process: its parent, and the clock ticks that it and its reaped children have used, user and system."""

    parent: int
    ticks: int


def parse_stat(text: str) -> Stat:
    """Read `/proc/PID/stat`; the command's name, in parentheses, may itself hold spaces and parentheses."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]))


def processes() -> dict[int, Stat]:
    """Every process of this machine, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (OSError, ValueError):  # it has just ended
                continue
    return found


def family(pid: int, alive: dict[int, Stat]) -> list[int]:
    """`pid` and all its living descendants."""
    members = [pid] if pid in alive else []
    for member in members:  # grows while it is walked
        members += [child for child, stat in alive.items() if stat.parent == member]
    return members


def cpu_s(pid: int) -> float:
    """Processor seconds, user and system, of the process, its threads and its descendants, to 10 ms."""
    alive = processes()
    return sum(alive[member].ticks for member in family(pid, alive)) / os.sysconf("SC_CLK_TCK")


def front_s(pid: int) -> float:
    """Processor seconds of the process and its descendants in their first threads, the ones that run event loops."""
    ticks = 0
    for member in family(pid, processes()):
        with contextlib.suppress(OSError):  # it has just ended
            text = Path(f"/proc/{member}/task/{member}/stat").read_text()
            ticks += sum(int(field) for field in text[text.rindex(")") + 2 :].split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory of the process and its descendants; pages that they share count once for each."""
    total = 0
    for member in family(pid, processes()):
        for line in Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def settle(pid: int, longest_s: float = 5.0) -> float:
    """Wait until the server does nothing more, at most `longest_s`; its processor seconds by then.

    Work put off until after the answer (ledger, store, embedding) belongs to the requests that caused it, and must not
    run into the next server's window. "Nothing": no more than one 10 ms tick in 150 ms.
    """
    end = time.monotonic() + longest_s
    before = cpu_s(pid)
    while time.monotonic() < end:
        time.sleep(0.15)
        now = cpu_s(pid)
        if now - before <= 0.011:
            return now
        before = now
    return before


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens: a folder of its own, a core for load and upstream, a core for the measured server; or
    several for either, as taskset lists them."""

    folder: Path
    load: int | str
    measured: int | str


def place(folder: Path) -> Place:
    """The first and the last of this process's cores (the same one where there is only one); binds it to the first."""
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine[0]})
    return Place(folder, mine[0], mine[-1])


def on_core(core: int | str, command: list[str]) -> list[str]:
    """The command, bound to a core where `taskset` is there to bind it."""
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


def facts(here: Place) -> dict[str, str]:
    """The machine and the versions, for the report; no host name, no path."""
    known = {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "cores": f"load and upstream on {here.load}, the measured server on {here.measured}"
        + ("" if here.load != here.measured else " (one core only: figures suffer)"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in ("aiohttp", "uvloop", "orjson"):
        known[package] = metadata.version(package)
    known["commit"] = _first_line(["git", "describe", "--always", "--dirty"])
    for program, command in (("nginx", ["nginx", "-v"]), ("wrk", ["wrk", "-v"])):
        if shutil.which(program):
            known[program] = _first_line(command).removeprefix("nginx version: ").partition("Copyright")[0].strip()
    return known


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return next(iter((ran.stdout + ran.stderr).splitlines()), "unknown")
