"""Copies a state directory while farthing runs: every SQLite file by SQLite's own online backup, the rest as it is.

    python3 deploy/backup.py STATE COPY        COPY must not exist; it is readable by its owner only.

To restore, stop farthing and start it with `--state COPY`. Needs Python alone. Each file is of one moment, but not all
of the same: a row may lack the answer that was stored a moment later, which costs a miss.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

LEFT_OUT = ("lock", "-wal", "-shm")


def main(state: Path, copy: Path) -> None:
    copy.mkdir(mode=0o700, parents=True)
    for path in sorted(state.rglob("*")):
        to = copy / path.relative_to(state)
        if path.is_symlink() or path.name.endswith(LEFT_OUT):
            continue
        if path.is_dir():
            to.mkdir(mode=0o700)
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path, timeout=30)) as source, closing(sqlite3.connect(to)) as target:
                source.backup(target)
            to.chmod(0o600)
        else:
            shutil.copy2(path, to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
