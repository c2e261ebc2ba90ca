"""How long SQLite's log of a database is, and how long it may get. It only reads.

SQLite tells it to nobody who doesn't write, and the file's size is that of its longest time.
Source: sqlite.org/fileformat.html#the_write_ahead_log
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_left
from pathlib import Path

__all__ = ["most_pages", "pages_in"]

_LEAST_PAGES, _MOST_PAGES = 1_000, 16_000  # 4 and 64 MB; the former is SQLite's own
_PAGE_BYTES = 4_096
_SHARE = 8  # of what the disk has free
_HEADER_BYTES, _FRAME_BYTES = 32, 24


def pages_in(database: Path) -> int:
    """Pages that were written since the log began anew; 0 where there is no log."""
    try:
        with database.with_name(f"{database.name}-wal").open("rb", buffering=0) as log:
            header = log.read(_HEADER_BYTES)
            frame_bytes, salts = _FRAME_BYTES + int.from_bytes(header[8:12], "big"), header[16:24]

            def older(number: int) -> bool:
                """Whether the frame is of the time before: then so are all that follow it."""
                log.seek(_HEADER_BYTES + number * frame_bytes + 8)
                return log.read(8) != salts

            frames = max(0, os.fstat(log.fileno()).st_size - _HEADER_BYTES) // frame_bytes
            return bisect_left(range(frames), True, key=older)
    except OSError:
        return 0


def most_pages(database: Path) -> int:
    """How long the log may get until rows wait for it to begin anew: less where the disk has little room."""
    try:
        free_bytes = shutil.disk_usage(database.parent).free
    except OSError:
        free_bytes = 0
    return min(_MOST_PAGES, max(_LEAST_PAGES, free_bytes // _SHARE // _PAGE_BYTES))
