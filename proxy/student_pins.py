"""Which student of a name a configuration means: `NAME@HASH` in place of `NAME`, so that a policy's version, which is
named after its content, is another one where the student is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from farthing.proxy.config import Config

__all__ = ["pinned", "unpinned", "with_student"]


def pinned(config: Config) -> Config:
    """With the students that answer by their names now; those that aren't there stay as they are. Blocks."""
    return _changed(config, lambda name: name if "@" in name else _latest(config.state_dir, name))


def unpinned(config: Config) -> Config:
    """As somebody declares it: students by their names alone."""
    return _changed(config, lambda name: name.partition("@")[0])


def with_student(config: Config, name: str, hash: str) -> Config:
    """With that student of this name."""
    return _changed(config, lambda one: f"{name}@{hash}" if one.partition("@")[0] == name else one)


def _latest(state_dir: Path, name: str) -> str:
    from farthing.policies.student import Unfit
    from farthing.proxy import student_files

    try:
        student = student_files.load(state_dir, name)
    except Unfit:
        return name
    return name if student is None else f"{name}@{student.hash}"


def _changed(config: Config, change: Callable[[str], str]) -> Config:
    made = tuple(
        one.model_copy(update={"student": now}) if one.student and (now := change(one.student)) != one.student else one
        for one in config.variants
    )
    return config if made == config.variants else config.model_copy(update={"variants": made})
