"""Which of the processes that share a folder are alive: each holds a file of its own locked, and the kernel lets go of
it when the process ends, however it ends (flock(2)).

Rules of this file: a name is never used again; a file is removed only by who holds its lock; and what can't be found
out isn't said: then a process is taken to be alive, and has no name to be looked up by.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Alive"]


class Alive:
    """This process's mark in `folder`, under `name`, which must be new; and a look at those of others."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._lock: int | None = None

    @property
    def name(self) -> str:
        """What others find it by; '' where it has no mark."""
        return "" if self._lock is None else self._name

    def begin(self) -> None:
        """Make the mark, if that can be done here."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._lock = _locked(self._folder / self._name, os.O_CREAT | os.O_EXCL)

    def dead(self, name: str) -> bool:
        """Whether the process of that name has surely ended."""
        try:
            lock = _locked(self._folder / name)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        if lock is not None:
            os.close(lock)
        return lock is not None

    def sweep(self) -> None:
        """Remove the marks of processes that have ended."""
        with suppress(OSError):
            for path in self._folder.iterdir():
                lock = _locked(path)
                if lock is not None:
                    path.unlink(missing_ok=True)
                    os.close(lock)

    def close(self) -> None:
        """Remove the mark; idempotent."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            with suppress(OSError):
                (self._folder / self._name).unlink(missing_ok=True)
            os.close(lock)


def _locked(path: Path, flags: int = 0) -> int | None:
    """The file, locked; None where another one holds it, or it was removed meanwhile. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None
