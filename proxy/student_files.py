"""Students on disk, under STATE/students.

`NAME.json` is the one that answers by that name; `kept/NAME@HASH.json` each one that did or may again, which policy
versions name, and `kept/NAME@HASH.standing.json` what is known of it; `heirs/NAME.json` one that was trained beside it
and has still to prove itself.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import structlog

from farthing.policies.student import Student, Unfit, dumped, loaded
from farthing.policies.student_standing import Standing
from farthing.proxy.errors import ConfigFault
from farthing.proxy.whole_file import write_whole

__all__ = [
    "drop_heir", "heir_of", "load", "names", "place", "save", "save_heir", "save_standing", "standing_of", "take_heir",
]  # fmt: skip

log = structlog.get_logger("farthing.student")

_MOST_KEPT = 20  # of one name


def place(state_dir: Path, name: str) -> Path:
    """Where a student lies. `name`: NAME or NAME@HASH."""
    folder = state_dir / "students"
    return folder / "kept" / f"{name}.json" if "@" in name else folder / f"{name}.json"


def names(state_dir: Path) -> list[str]:
    """Those that are there."""
    found = sorted((state_dir / "students").glob("*.json"))
    return [path.stem for path in found if not path.stem.endswith(".standing")]  # where they lay once


def load(state_dir: Path, name: str) -> Student | None:
    """The student of NAME or NAME@HASH; None where there is none. Raises Unfit: the file is damaged, or another
    one's."""
    called, _, hash = name.partition("@")
    found = _read(place(state_dir, name), called)
    if found is None and hash:
        found = _read(place(state_dir, called), called)
        return found if found is not None and found.hash == hash else None
    return found


def heir_of(state_dir: Path, name: str) -> Student | None:
    """The one that has still to prove itself; None where there is none. Raises Unfit."""
    return _read(_heir(state_dir, name), name)


def save(state_dir: Path, student: Student) -> Path:
    """Write it whole; readable by its owner only; the one before is kept. Raises ConfigFault."""
    path = place(state_dir, student.name)
    try:
        before = _read(path, student.name)
    except Unfit:
        before = None
    for one in (before, student):
        if one is not None:
            _put(place(state_dir, f"{one.name}@{one.hash}"), one)
    _put(path, student)
    _trim(state_dir, student.name)
    return path


def save_heir(state_dir: Path, student: Student) -> None:
    """Keep one beside that which answers by its name. Raises ConfigFault."""
    _put(place(state_dir, f"{student.name}@{student.hash}"), student)
    _put(_heir(state_dir, student.name), student)


def take_heir(state_dir: Path, heir: Student) -> None:
    """From now on it is the one of its name. Raises ConfigFault."""
    save(state_dir, heir)
    drop_heir(state_dir, heir.name)


def drop_heir(state_dir: Path, name: str) -> None:
    """There is none any more."""
    _heir(state_dir, name).unlink(missing_ok=True)


def standing_of(state_dir: Path, student: Student) -> Standing:
    """What is known of this very student; one that was trained anew begins anew."""
    fresh = Standing(student.bound, student.level)
    once = place(state_dir, f"{student.name}.standing")
    try:
        own = _beside(state_dir, student)
        plain = orjson.loads((own if own.exists() else once).read_bytes())
        return fresh.with_plain(plain) if plain["hash"] == student.hash else fresh
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("what is known of a student can't be read; it observes", student=student.name, error=str(error))
        return fresh


def save_standing(state_dir: Path, student: Student, standing: Standing) -> None:
    """Keep what is known. Raises OSError. Blocks."""
    path = _beside(state_dir, student)
    write_whole(path, (orjson.dumps({"hash": student.hash} | standing.plain()),))


def _heir(state_dir: Path, name: str) -> Path:
    return state_dir / "students" / "heirs" / f"{name}.json"


def _beside(state_dir: Path, student: Student) -> Path:
    return place(state_dir, f"{student.name}@{student.hash}.standing")


def _read(path: Path, name: str) -> Student | None:
    try:
        student = loaded(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unfit(error.strerror or type(error).__name__) from None
    if student.name != name:
        raise Unfit(f"it says that it is {student.name!r}")
    return student


def _put(path: Path, student: Student) -> None:
    try:
        write_whole(path, (dumped(student),))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None


def _trim(state_dir: Path, name: str) -> None:
    """Of those that are kept, only the latest stay."""
    kept = place(state_dir, f"{name}@").parent
    found = sorted(kept.glob(f"{name}@{'?' * 16}.json"), key=lambda path: path.stat().st_mtime)
    for path in found[:-_MOST_KEPT]:
        path.unlink(missing_ok=True)
        path.with_suffix(".standing.json").unlink(missing_ok=True)
