"""Where a stopped replay is kept until it goes on: one file in the state directory, readable by its owner only.

It holds Python objects, which must never be loaded from a stranger: so the file is signed with the state directory's
secret, and anything else is refused before it is looked at. Services (models, prices, configurations with their keys)
are left out, and put back in their places when it is loaded.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farthing.proxy.errors import ConfigFault
from farthing.proxy.replay_run import Run
from farthing.proxy.whole_file import write_whole

__all__ = ["load", "save", "state_file"]

_MAGIC = b"farthing-replay-1\n"
_SIGNATURE_BYTES = 32
_LOCK = type(threading.Lock())


def state_file(state_dir: Path, trace: Path) -> Path:
    """The file for a trace."""
    return state_dir / f"{trace.name}.replay-state"


def save(path: Path, run: Run, fingerprint: str, secret: bytes, services: Mapping[str, Any]) -> None:
    """Write the run; a reader sees the old file or the new one. `services`: by name. Raises ConfigFault."""
    out = io.BytesIO()
    _Writer(out, services).dump((fingerprint, run))
    content = out.getvalue()
    try:
        write_whole(path, (_MAGIC, hmac.digest(secret, content, "sha256"), content))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None


def load(path: Path, fingerprint: str, secret: bytes, services: Mapping[str, Any]) -> Run:
    """The run that `save` wrote. Raises ConfigFault: none, not ours, or of another trace or other settings."""
    try:
        content = path.read_bytes()
    except OSError:
        raise ConfigFault(f"nothing to resume: there is no {path}") from None
    signed, body = content[len(_MAGIC) :][:_SIGNATURE_BYTES], content[len(_MAGIC) + _SIGNATURE_BYTES :]
    if not content.startswith(_MAGIC) or not hmac.compare_digest(signed, hmac.digest(secret, body, "sha256")):
        raise ConfigFault(f"{path} was not written by this farthing, or is damaged: run without --resume")
    try:
        written_for, run = _Reader(io.BytesIO(body), services).load()
    except Exception as error:  # noqa: BLE001 - of another version: whatever it raises, the operator begins anew
        raise ConfigFault(f"{path} can't be used ({type(error).__name__}): run without --resume") from None
    if written_for != fingerprint or not isinstance(run, Run):
        raise ConfigFault(f"{path} is of another trace or other settings: run without --resume")
    return run


def fingerprint_of(*parts: object) -> str:
    """What a run hangs on, as a hash."""
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()


class _Writer(pickle.Pickler):
    def __init__(self, out: io.BytesIO, services: Mapping[str, Any]) -> None:
        super().__init__(out, protocol=5)
        self._names = {id(service): name for name, service in services.items()}

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        return (threading.Lock, ()) if type(obj) is _LOCK else NotImplemented


class _Reader(pickle.Unpickler):
    def __init__(self, source: io.BytesIO, services: Mapping[str, Any]) -> None:
        super().__init__(source)
        self._services = services

    def persistent_load(self, pid: Any) -> Any:
        return self._services[pid]
