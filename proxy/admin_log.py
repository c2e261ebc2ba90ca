"""The audit log: who changed what, when, and what came of it. STATE/audit.jsonl, one JSON object a line.

`{"ts", "who", "from", "what", "asked", "status"}`. `who`: `token` or `loopback`, by what let them in. `from`: the
client's address. `asked`: what was asked for, without what may be somebody's words; a user is written as a digest
under the local secret, so that an erasure can be shown to have been done without keeping whom it forgot.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from farthing.proxy.clock import Clock
from farthing.proxy.incidents import append

__all__ = ["FILE", "AdminLog", "user_mark"]

log = structlog.get_logger("farthing.audit")

FILE = "audit.jsonl"
_LONGEST_CHARS = 200
_KEPT = frozenset(
    {
        "all", "drain", "gate", "hold_s", "key", "min_requests", "model", "name", "note", "now", "older_than",
        "replica", "scope", "series", "slice", "source", "steps", "tags", "tenant", "texts", "unit", "version", "why",
    }
)  # fmt: skip


class AdminLog:
    """Over one file. Each entry is on its way to the disk before the caller hears of success."""

    def __init__(self, path: Path, clock: Clock, secret: bytes) -> None:
        self._path = path
        self._clock = clock
        self._secret = secret
        self._writing = asyncio.Lock()

    async def note(self, who: str, address: str, what: str, asked: Mapping[str, Any], status: int) -> None:
        """One more. A disk that fails is told in the log, and fails nothing else."""
        entry = {"ts": self._clock.now_s(), "who": who, "from": address, "what": what,
                 "asked": self._told(asked), "status": status}  # fmt: skip
        line = orjson.dumps(entry) + b"\n"
        async with self._writing:
            try:
                await asyncio.to_thread(append, self._path, line)
            except OSError as error:
                log.error("an admin's change can't be written down", what=what, error=error.strerror)

    def _told(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: _short(value) for name, value in asked.items() if name in _KEPT}
        if isinstance(user := asked.get("user"), str):
            told["user"] = user_mark(self._secret, user)
        return told


def user_mark(secret: bytes, user: str) -> str:
    """What stands for a user in the audit log."""
    told = b"audit-user:" + user.encode("utf-8", "surrogatepass")
    return f"user-{hmac.new(secret, told, 'sha256').hexdigest()[:16]}"


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return (value if isinstance(value, str) else str(value)).encode("utf-8", "replace").decode()[:_LONGEST_CHARS]
