"""What befalls a farthing's own disk and files, and how they are looked at afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from tests.chaos.places import CLEAN, Farthing

__all__ = ["DISK", "checkpointed", "fill", "noise", "ready_said", "relieve", "salvaged", "sound"]

DISK = "12m"
_PAGE_BYTES = 4096


def fill(farthing: Farthing) -> str:
    """Fill its disk to the last byte; without a disk of its own, let no file of it grow (setrlimit(2)). How."""
    if os.path.ismount(farthing.state):
        with (farthing.state / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"\0" * _PAGE_BYTES):
                pass
        return f"a tmpfs of {DISK}, filled"
    resource.prlimit(farthing.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    return "RLIMIT_FSIZE of 1 byte"


def relieve(farthing: Farthing) -> None:
    """Undo `fill`. The ledger tries again every quarter of a second; the rows that waited must be there afterwards."""
    (farthing.state / "filler").unlink(missing_ok=True)
    resource.prlimit(farthing.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def ready_said(url: str) -> str:
    """/readyz's status, and what it says of the ledger."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as told:
            return f"{told.status}, ledger {json.load(told)['ledger']}"
    except urllib.error.HTTPError as refused:
        return f"{refused.code}, ledger {json.load(refused)['ledger']}"


def checkpointed(path: Path) -> bool:
    """Whether what is in the database's log is in its pages now; not, where somebody holds its lock."""
    with closing(sqlite3.connect(path, timeout=0)) as db, contextlib.suppress(sqlite3.OperationalError):
        return bool(db.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0)
    return False  # it was stopped while it held the lock


def noise(path: Path, rng: random.Random) -> str:
    """Overwrite every third page of a file, from its third on; of a smaller one its second half. Its name."""
    size = path.stat().st_size
    spots = range(3 * _PAGE_BYTES, size, 3 * _PAGE_BYTES) or range(size // 2, size, size)
    with path.open("r+b") as out:
        for at in spots:
            out.seek(at)
            out.write(rng.randbytes(min(_PAGE_BYTES, size - at)))
    return path.name


def salvaged(state: Path) -> list[str]:
    """Read ledgers that were moved aside back, as far as they can be; what `farthing ledger salvage` said of each."""
    said = []
    for path in state.glob("ledger.corrupt-*.db"):
        command = [sys.executable, "-m", "farthing.proxy.cli", "ledger", "salvage", str(path), "--json"]
        ran = subprocess.run([*command, "--state", str(state)], env=CLEAN, capture_output=True, text=True)
        said.append((ran.stdout or ran.stderr).strip())
    return said


def sound(path: Path) -> str:
    """`ok`, or what SQLite finds wrong in a database."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return str(db.execute("pragma integrity_check(1)").fetchone()[0])
