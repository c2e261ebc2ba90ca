"""What fuzzing has found worth keeping: one line of base64 for each input, one file for each target."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from pathlib import Path

__all__ = ["keep", "kept"]

_HOME = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The inputs of a target, failures of former times among them."""
    path = _HOME / f"{target}.txt"
    return [b64decode(line) for line in path.read_text("ascii").split()] if path.exists() else []


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Write them anew, the shortest first."""
    _HOME.mkdir(exist_ok=True)
    lines = [b64encode(one).decode() for one in sorted(set(inputs), key=lambda one: (len(one), one))]
    (_HOME / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")
