"""Students on disk: STATE/students/NAME.json, and what is known of each in NAME.standing.json beside it."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import structlog

from farthing.policies.student import Student, Unfit, dumped, loaded
from farthing.policies.student_standing import Standing
from farthing.proxy.errors import ConfigFault

__all__ = ["load", "names", "place", "save", "save_standing", "standing_of"]

log = structlog.get_logger("farthing.student")


def place(state_dir: Path, name: str) -> Path:
    """Where a student lies."""
    return state_dir / "students" / f"{name}.json"


def names(state_dir: Path) -> list[str]:
    """Those that are there."""
    found = sorted((state_dir / "students").glob("*.json"))
    return [path.stem for path in found if not path.stem.endswith(".standing")]


def load(state_dir: Path, name: str) -> Student | None:
    """The student; None where there is none. Raises Unfit: the file is damaged, or another one's."""
    try:
        student = loaded(place(state_dir, name).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unfit(error.strerror or type(error).__name__) from None
    if student.name != name:
        raise Unfit(f"it says that it is {student.name!r}")
    return student


def save(state_dir: Path, student: Student) -> Path:
    """Write it whole; readable by its owner only. Raises ConfigFault."""
    path = place(state_dir, student.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, dumped(student))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None
    return path


def standing_of(state_dir: Path, student: Student) -> Standing:
    """What is known of this very student; one that was trained anew begins anew."""
    fresh = Standing(student.bound, student.level)
    path = _beside(state_dir, student.name)
    try:
        plain = orjson.loads(path.read_bytes())
        return fresh.with_plain(plain) if plain["hash"] == student.hash else fresh
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("what is known of a student can't be read; it observes", student=student.name, error=str(error))
        return fresh


def save_standing(state_dir: Path, student: Student, standing: Standing) -> None:
    """Keep what is known. Raises OSError. Blocks."""
    _write(_beside(state_dir, student.name), orjson.dumps({"hash": student.hash} | standing.plain()))


def _beside(state_dir: Path, name: str) -> Path:
    return place(state_dir, f"{name}.standing")


def _write(path: Path, body: bytes) -> None:
    aside = path.with_suffix(".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    aside.replace(path)
