"""Copies a state directory while farthing runs: every SQLite file by SQLite's own online backup, the rest as it is.

    python3 deploy/backup.py STATE COPY        COPY must not exist; it is readable by its owner only.

To restore, stop farthing and start it with `--state COPY`. Needs Python alone. Each file is of one moment, but not all
of the same: a row may lack the answer that was stored a moment later, which costs a miss. Databases come last, so that
what waits in a file to be written into one is in the copy at least once; a start takes it over once.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

LEFT_OUT = ("lock", "-wal", "-shm", ".new", ".new.json")  # the last two: written aside, to take another's place


def main(state: Path, copy: Path) -> None:
    copy.mkdir(mode=0o700, parents=True)
    for path in sorted(state.rglob("*"), key=lambda path: (path.suffix == ".db", path)):
        to = copy / path.relative_to(state)
        if path.is_symlink() or path.name.endswith(LEFT_OUT) or not path.exists():
            continue
        if path.is_dir():
            to.mkdir(mode=0o700)
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path, timeout=30)) as source, closing(sqlite3.connect(to)) as target:
                source.backup(target)
            to.chmod(0o600)
        else:
            with suppress(FileNotFoundError):  # farthing has removed it since
                shutil.copy2(path, to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
