"""The credentials that the upstream refused last time: they get no hits until a success, a restart or not.

One line a change, `+` or `-` and the credential's HMAC, appended in order by one thread; the file is written anew when
it is opened. No key stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from farthing.proxy.peers import Peers

__all__ = ["Refused"]

log = structlog.get_logger("farthing")

_MOST = 100_000


class Refused(MutableSet[str]):
    """A set of credentials that outlives the process. Where the file can't be written it goes on from memory.

    `peers`: other processes that write the same file, and are told of every change; then it is not written anew.
    """

    def __init__(self, path: Path, peers: Peers | None = None) -> None:
        self._path = path
        self._known: dict[str, None] = {}
        self._writer = ThreadPoolExecutor(1, "refused")
        self._works = True
        self._peers = peers
        if peers is not None:
            peers.when_told("refused", self._hear)
        try:
            for line in path.read_text("ascii").splitlines() if path.exists() else ():
                sign, credential = line[:1], line[1:]
                self._known.pop(credential, None)
                if sign == "+" and credential:
                    self._known[credential] = None
            if peers is None:
                self._rewrite()
        except (OSError, UnicodeDecodeError) as error:
            self._fail(error)

    def __contains__(self, credential: object) -> bool:
        return credential in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, value: str) -> None:
        """The upstream refused it. Beyond 100,000 the oldest is let go."""
        if value in self._known:
            return
        self._known[value] = None
        self._note(f"+{value}\n")
        if len(self._known) > _MOST:
            self.discard(next(iter(self._known)))

    def discard(self, value: str) -> None:
        """The upstream took it again."""
        if value in self._known:
            del self._known[value]
            self._note(f"-{value}\n")

    def close(self) -> None:
        """Write what waits."""
        self._writer.shutdown()

    def _hear(self, line: str) -> None:
        """Another process has noted it, and written it down."""
        if line[:1] == "+":
            self._known[line[1:]] = None
        else:
            self._known.pop(line[1:], None)

    def _note(self, line: str) -> None:
        if self._peers is not None:
            self._peers.tell("refused", line.rstrip("\n"))
        self._writer.submit(self._append, line)

    def _append(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="ascii") as out:
                out.write(line)
        except OSError as error:
            self._fail(error)

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"+{credential}\n" for credential in self._known), "ascii")
        fresh.replace(self._path)

    def _fail(self, error: Exception) -> None:
        if self._works:
            self._works = False
            log.warning("refused credentials are kept in memory only", error=type(error).__name__)
