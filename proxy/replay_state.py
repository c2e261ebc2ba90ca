"""Where a stopped replay is kept until it goes on: one file in the state directory, readable by its owner only.

It holds what the lanes know, as lines of JSON (proxy/object_graph.py), signed with the state directory's secret: what
isn't ours is refused before it is looked at. Services (models, prices, configurations with their keys) are left out,
and put back in their places when it is loaded. Where stored answers are sealed it is too: it holds the trace's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farthing.proxy.errors import ConfigFault
from farthing.proxy.object_graph import graph_of, lines_of_graph
from farthing.proxy.replay_run import Run
from farthing.proxy.seal import Seal, SealedElsewhere, anew, closed, opened
from farthing.proxy.whole_file import write_whole

__all__ = ["load", "resealed", "save", "state_file"]

_MAGIC = b"farthing-replay-2\n"
_SIGNATURE_BYTES = 32
_BOUND = b"replay state"


def state_file(state_dir: Path, trace: Path) -> Path:
    """The file for a trace."""
    return state_dir / f"{trace.name}.replay-state"


def save(
    path: Path, run: Run, fingerprint: str, secret: bytes, services: Mapping[str, Any], seal: Seal | None = None
) -> None:
    """Write the run; a reader sees the old file or the new one. `services`: by name. Raises ConfigFault."""
    try:
        plain = b"\n".join((fingerprint.encode(), *lines_of_graph(run, services)))
    except TypeError as error:
        raise ConfigFault(f"this run can't be kept: {error}") from None
    try:
        write_whole(path, _signed(closed(seal, plain, _BOUND), secret))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None


def load(path: Path, fingerprint: str, secret: bytes, services: Mapping[str, Any], seal: Seal | None = None) -> Run:
    """The run that `save` wrote. Raises ConfigFault: none, not ours, sealed under a key that isn't here, or of another
    trace or other settings."""
    try:
        content = path.read_bytes()
    except OSError:
        raise ConfigFault(f"nothing to resume: there is no {path}") from None
    body = _body(content, secret)
    if body is None:
        raise ConfigFault(f"{path} was not written by this farthing, or is damaged: run without --resume")
    try:
        written_for, *lines = opened(seal, body, _BOUND).split(b"\n")
    except SealedElsewhere as elsewhere:
        raise ConfigFault(f"{path}: {elsewhere}: name it in store.encryption_old_keys") from None
    except ValueError as error:
        raise ConfigFault(f"{path} can't be used ({error}): run without --resume") from None
    if written_for != fingerprint.encode():
        raise ConfigFault(f"{path} is of another trace or other settings: run without --resume")
    try:
        run = graph_of(lines, services)
    except ValueError as error:  # of another version
        raise ConfigFault(f"{path} can't be used ({error}): run without --resume") from None
    if not isinstance(run, Run):
        raise ConfigFault(f"{path} holds no run: run without --resume")
    return run


def resealed(content: bytes, secret: bytes, seal: Seal) -> tuple[bytes, ...] | None:
    """The pieces of a file that `save` wrote, under the seal's current key; None where it is so already.

    Raises SealedElsewhere; ValueError: it isn't ours, or was changed.
    """
    body = _body(content, secret)
    if body is None:
        raise ValueError("not written by this farthing, or damaged")
    again = anew(seal, body, _BOUND)
    return None if again is None else _signed(again, secret)


def _body(content: bytes, secret: bytes) -> bytes | None:
    signed, body = content[len(_MAGIC) :][:_SIGNATURE_BYTES], content[len(_MAGIC) + _SIGNATURE_BYTES :]
    good = content.startswith(_MAGIC) and hmac.compare_digest(signed, hmac.digest(secret, body, "sha256"))
    return body if good else None


def _signed(body: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]:
    return _MAGIC, hmac.digest(secret, body, "sha256"), body


def fingerprint_of(*parts: object) -> str:
    """What a run hangs on, as a hash."""
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()
