"""Records of experiments under STATE/experiments: `ID.json`, and `ID.txt` for people once one has ended.

What was declared, the arms' versions, the salt and the start are written once and never change; the state, the latest
reading and its history do. A directory that can't be written costs the record, never a request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog

from farthing.proxy.whole_file import write_whole

__all__ = ["Record", "RecordArm", "Records", "hash_of"]

log = structlog.get_logger("farthing.experiments")

_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class RecordArm:
    """An arm as it was begun. `version`: its policy's."""

    name: str
    version: str
    share: float


@dataclass(slots=True)
class Record:
    """One experiment. `declared`: hash of what the configuration says; `state`: running, stopped, decided, guardrail,
    broken, ended. `points`: [moment, {arm: [difference, low, high]}]; `least_p`: of the shares, so far."""

    id: str
    name: str
    declared: str
    declaration: dict[str, Any]
    arms: list[RecordArm]
    salt: str
    since_s: float
    state: str = "running"
    why: str = ""
    ended_s: float | None = None
    least_p: float = 1.0
    reading: dict[str, Any] | None = None
    points: list[list[Any]] = field(default_factory=list)

    @classmethod
    def begin(
        cls, name: str, declared: str, declaration: Mapping[str, Any], arms: list[RecordArm], now_s: float
    ) -> Record:
        """A new one, named after its content."""
        content = [name, declared, dict(declaration), [asdict(arm) for arm in arms], now_s]
        found = hash_of(content)
        return cls(f"e-{found}", name, declared, dict(declaration), arms, f"{name} {found}", now_s)

    @classmethod
    def read(cls, held: Mapping[str, Any]) -> Record:
        """From a file. ValueError, KeyError, TypeError: it is none."""
        return cls(**{**held, "arms": [RecordArm(**arm) for arm in held["arms"]]})

    def point(self, at_s: float, apart: Mapping[str, list[float | None]]) -> None:
        """One more of the history; where there are too many, every other one goes."""
        self.points.append([at_s, dict(apart)])
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]


def hash_of(content: Any) -> str:
    """Twelve hex digits of the content's SHA-256."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Records:
    """The records in `folder`. Everything here blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Record]:
        """Every record, oldest first."""
        found = []
        for path in self.folder.glob("e-*.json"):
            try:
                found.append(Record.read(orjson.loads(path.read_bytes())))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("an experiment's record can't be read", file=str(path), error=str(error))
        return sorted(found, key=lambda one: one.since_s)

    def save(self, record: Record, text: str = "") -> None:
        """Write it, whole or not at all; `text` beside it."""
        self._put(f"{record.id}.json", orjson.dumps(asdict(record), option=orjson.OPT_INDENT_2) + b"\n")
        if text:
            self._put(f"{record.id}.txt", text.encode())

    def _put(self, name: str, body: bytes) -> None:
        path = self.folder / name
        try:
            write_whole(path, (body,))
        except OSError as error:
            log.warning("an experiment's record can't be written", file=str(path), error=error.strerror)
