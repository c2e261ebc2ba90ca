"""What an admin may ask of the capture store, and how its state is told; the command line says it in the same words."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from farthing.policies.accept import spoken
from farthing.proxy.capture import Capture
from farthing.proxy.capture_file import Selection, lines_at
from farthing.proxy.errors import ClientFault
from farthing.proxy.figures import farthing_since
from farthing.proxy.seal import Seal
from farthing.proxy.sealing import sealer

if TYPE_CHECKING:
    from farthing.proxy.build import Services
    from farthing.proxy.config import Config
    from farthing.proxy.held import State

__all__ = ["OFF", "erase", "gauges", "in_force", "selection_of", "shown", "texts", "told"]

OFF: dict[str, Any] = {"enabled": False, "rows": 0, "bytes": 0, "oldest_s": None, "newest_s": None, "damaged_files": 0}
"""What is told where nothing is captured and nothing was."""
FILE = "capture.db"
_OTHERS_WAIT_S = 5.0
_TEXTS = ("user", "tenant", "older_than")
_MOST_CHARS = 1000  # of a prompt in a list


def in_force(config: Config, held: State) -> Capture | None:
    """The store where it captures under this configuration.

    It is opened too where an earlier configuration has left something: what is kept must leave in time all the same.
    Raises ConfigFault: the keys that seal can't be had.
    """
    path = config.state_dir / FILE
    if held.capture is not None:
        held.capture.use(config.capture)
    elif config.capture.enabled or path.exists():
        wait_s = 0.0 if held.crew is None else _OTHERS_WAIT_S
        seal = sealer(config.store, held.randomness)
        held.capture = Capture(path, config.capture, held.secret, held.clock, others_wait_s=wait_s, seal=seal)
    return held.capture if config.capture.enabled else None


def shown(services: Services) -> str:
    """Its state in a few words, for the dashboard and /readyz."""
    capture = services.state.capture
    failing = capture is not None and services.config.capture.enabled and not capture.healthy
    return "failing" if failing else services.config.capture.shown


def gauges(capture: Capture | None) -> dict[str, float]:
    """Values of this moment for /metrics; none where there is no store."""
    if capture is None:
        return {}
    return {
        "capture_rows": capture.written,
        "capture_dropped": capture.dropped,
        "capture_pending_rows": capture.waiting,
        "capture_healthy": float(capture.healthy),
    }


async def told(services: Services, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Its whole state, once what waits has been written."""
    capture = services.state.capture
    if capture is None:
        return OFF
    await asyncio.to_thread(capture.flush)
    return await asyncio.to_thread(capture.told)


async def erase(services: Services, asked: dict[str, Any]) -> dict[str, int]:
    """Remove what `asked` names (see `selection_of`): how many records, and how many damaged files.

    Raises ClientFault: it can't be understood; 503 where not all could be removed.
    """
    what = selection_of(asked, services.state.clock.now_s())
    capture = services.state.capture
    if capture is None:
        return {"erased": 0, "damaged_files": 0}
    try:
        rows, files = await asyncio.to_thread(capture.erase, what)
    except (sqlite3.Error, OSError) as error:
        raise ClientFault(f"not everything could be erased, so ask again: {error}", status=503, code="failed") from None
    return {"erased": rows, "damaged_files": files}


async def texts(services: Services, last: Sequence[tuple[str, float]]) -> Mapping[str, str]:
    """What was asked under keys, redacted, as far as it is captured; none where nothing is captured now.

    `last`: each key with the moment at which it came last; one whose last coming was left out isn't found.
    """
    capture = services.state.capture
    if not last or capture is None or not services.config.capture.enabled:
        return {}
    path = services.config.state_dir / FILE
    try:
        return await asyncio.to_thread(_asked, path, last, capture.seal)
    except sqlite3.Error:
        return {}


def _asked(path: Path, last: Sequence[tuple[str, float]], seal: Seal | None) -> dict[str, str]:
    wanted, found = {key for key, _ in last}, {}
    for line in lines_at(path, [at_s for _, at_s in last], seal):
        record = orjson.loads(line)
        key = record["row"]["key_hash"]
        if key in wanted and (text := spoken(record["request"]).strip()):
            found[key] = text[:_MOST_CHARS]
    return found


def selection_of(asked: Mapping[str, Any], now_s: float) -> Selection:
    """`{"user", "tenant", "older_than": "7d"}`: all optional, all to be met; `{"all": true}` is everything.

    Raises ClientFault: another field, an empty one, or none at all.
    """
    if dict(asked) == {"all": True}:
        return Selection()
    if unknown := sorted(set(asked) - set(_TEXTS)):
        raise _fault(f"an erasure knows {', '.join(_TEXTS)}, or all alone; not {unknown[0][:40]!r}", unknown[0][:40])
    if not asked:
        raise _fault(f"say what to erase: {', '.join(_TEXTS)}, or all", "user")
    for name, value in asked.items():
        if not (isinstance(value, str) and value.strip()):
            raise _fault(f"{name} must be a text that is not empty", name)
    before_s = None
    if "older_than" in asked:
        try:
            before_s = farthing_since(asked["older_than"], now_s)
        except ValueError as error:
            raise _fault(str(error), "older_than") from None
    return Selection(asked.get("user"), asked.get("tenant"), before_s)


def _fault(message: str, param: str) -> ClientFault:
    return ClientFault(message, code="invalid_selector", param=param)
