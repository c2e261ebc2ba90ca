"""What the program did of its own accord to keep its promises: when, what, why, on what evidence.

STATE/incidents.jsonl, one JSON object a line: {"ts", "kind", "what", "why", "evidence", "policy", "route"}. Never a
prompt, an answer or a key. The latest are kept in memory for the admin call; a webhook is told of each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from farthing.proxy.clock import Clock

__all__ = ["Incidents"]

log = structlog.get_logger("farthing.incidents")

_IN_MEMORY = 1000
_READ_BYTES = 2**20
_WHOLE_BYTES = 16 * 2**20  # then the file is turned over: one of the past is kept


class Incidents:
    """The log. `tell`: of the webhook, for each one. `count`: noted since the start. `shared`: other processes write
    the same file."""

    def __init__(
        self, path: Path, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None]], object], *, shared: bool = False
    ) -> None:
        self._shared = shared
        self.path = path
        self.count = 0
        self.tell: Callable[[dict[str, Any]], None] | None = None
        self._clock = clock
        self._spawn = spawn
        self._writing = asyncio.Lock()
        self._latest: deque[dict[str, Any]] = deque(tail(path), maxlen=_IN_MEMORY)

    def note(
        self,
        kind: str,
        what: str,
        why: str,
        evidence: Mapping[str, Any] | None = None,
        *,
        policy: str = "",
        route: str = "",
        alert: bool = True,
    ) -> None:
        """Log one. `kind`: a word for machines, as `rollback`. `alert`: tell the webhook too. Returns at once; on the
        event loop only."""
        entry = {"ts": self._clock.now_s(), "kind": kind, "what": what, "why": why, "evidence": dict(evidence or {}),
                 "policy": policy, "route": route}  # fmt: skip
        self.count += 1
        self._latest.append(entry)
        log.warning("incident", kind=kind, what=what, why=why, policy=policy, route=route)
        self._spawn(self._write(orjson.dumps(entry) + b"\n"))
        if alert and self.tell is not None:
            self.tell({"event": "incident"} | entry)

    def latest(self, limit: int = 100) -> list[dict[str, Any]]:
        """The latest, newest first."""
        if self._shared:
            self._latest = deque(tail(self.path), maxlen=_IN_MEMORY)
        return list(self._latest)[::-1][: max(0, limit)]

    async def _write(self, line: bytes) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(append, self.path, line)
            except OSError as error:
                log.error("an incident can't be written", path=str(self.path), error=error.strerror)


def append(path: Path, line: bytes) -> None:
    """One more line; a file that grew too long is turned over first. Raises OSError. Blocks."""
    if path.exists() and path.stat().st_size > _WHOLE_BYTES:
        path.replace(path.with_suffix(".old.jsonl"))
    with path.open("ab") as out:
        out.write(line)


_NEEDED = frozenset(("ts", "kind", "what", "why"))


def tail(path: Path, needed: frozenset[str] = _NEEDED) -> list[dict[str, Any]]:
    """The file's latest entries, oldest first; lines without what is needed, or torn, are passed by. Blocks."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = orjson.loads(line)
        except ValueError:
            continue  # torn by a crash, or the first of those that were read
        if isinstance(entry, dict) and needed <= entry.keys():
            found.append(entry)
    return found
