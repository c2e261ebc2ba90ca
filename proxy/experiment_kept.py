"""An experiment's sums on disk, so that they are exact after a restart whatever the number of rows.

STATE/experiments/ID.sums holds the sums as they were at some moment, and the id of the ledger's row that was counted
last. What came after that row is read from the ledger, in the order in which it was written, and what was said after
that moment from the outcomes. Without such a file, or where the ledger doesn't hold that row, all of it is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import structlog

from farthing.proxy.experiment_data import Data
from farthing.proxy.figures import columns
from farthing.proxy.outcomes import FILE, Change
from farthing.proxy.row import ERRANDS, Row
from farthing.proxy.whole_file import write_whole

__all__ = ["forget", "keep", "keep_agreed", "kept_agreed", "restore"]

log = structlog.get_logger("farthing.experiments")

_FORM = 1
_AT_ONCE = 5_000


def keep(path: Path, data: Data, now_s: float) -> None:
    """Write the sums, whole or not at all. Blocks; a disk that can't be written costs a longer start."""
    with data.lock:  # the plain values are made under it, the rest is not
        body = orjson.dumps(
            {"form": _FORM, "at_s": now_s, **_about(data), **data.plain()},
            option=orjson.OPT_NON_STR_KEYS,
        )
    try:
        write_whole(path, (body,))
    except OSError as error:
        log.warning("an experiment's sums can't be written", file=str(path), error=error.strerror)


def forget(path: Path) -> None:
    """The experiment is over."""
    path.unlink(missing_ok=True)


def restore(path: Path, data: Data) -> None:
    """The sums as they were, and what came since. Blocks. Raises sqlite3.Error."""
    if not data.ledger.is_file():
        return
    with closing(sqlite3.connect(f"{data.ledger.absolute().as_uri()}?mode=ro", uri=True)) as conn:
        kept = _read(path, data)
        found = None if kept is None else conn.execute("select rowid from requests where id = ?", [kept["last"]])
        last = None if found is None else found.fetchone()
        heard_s = None
        if kept is not None and last is not None:
            data.put_plain(kept)
            heard_s = float(kept["at_s"])
        _rows(conn, data, 0 if last is None else last[0])
    _said(data, heard_s)


def keep_agreed(path: Path, slices: Sequence[Any]) -> None:
    """Write what replicas agree upon, for when the shared store has lost it. Blocks."""
    try:
        write_whole(path, (orjson.dumps(list(slices)),))
    except OSError as error:
        log.warning("an experiment's sums can't be written", file=str(path), error=error.strerror)


def kept_agreed(path: Path) -> list[Any] | None:
    """What `keep_agreed` wrote; None: nothing, or damaged. Blocks."""
    try:
        return list(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("what replicas agreed upon can't be read", file=str(path), error=str(error))
        return None


def _about(data: Data) -> dict[str, Any]:
    """What sums are only good for."""
    wanted = [[one.name, one.kind, list(one.bounds or ())] for one in data.wanted]
    return {"name": data.name, "arms": list(data.arms), "unit": data.unit, "since_s": data.since_s, "wanted": wanted,
            "sliced": list(data.sliced)}  # fmt: skip


def _read(path: Path, data: Data) -> dict[str, Any] | None:
    try:
        kept = orjson.loads(path.read_bytes())
        about = _about(data)
        if kept["form"] == _FORM and {name: kept[name] for name in about} == about:
            return dict(kept)
        log.warning("an experiment's sums are of something else; all rows are read", file=str(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("an experiment's sums can't be read; all rows are", file=str(path), error=str(error))
    return None


def _rows(conn: sqlite3.Connection, data: Data, after: int) -> None:
    errands = ", ".join(f"'{one}'" for one in ERRANDS)
    ours = "" if data.rest else f" and (experiment = ? or endpoint in ({errands}))"
    given = [after, data.since_s] if data.rest else [after, data.since_s, data.name]
    query = f"select {columns()} from requests where rowid > ? and ts >= ?{ours} order by rowid"
    rows = conn.execute(query, given)
    while some := rows.fetchmany(_AT_ONCE):
        data.on_rows([Row._make(row) for row in some])


def _said(data: Data, heard_s: float | None) -> None:
    """What was said of requests: all of it, or what came after `heard_s`."""
    path = data.ledger.with_name(FILE)
    if not path.is_file():
        return
    since_s = data.since_s if heard_s is None else heard_s
    query = """select request_id, metric, value, received_s from outcomes where (request_id, metric) in
               (select request_id, metric from outcomes where received_s >= ?) order by request_id, metric, event"""
    said: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
        for request_id, metric, value, received_s in conn.execute(query, [since_s]):
            if len(said) >= _AT_ONCE and (request_id, metric) not in said:
                _put(data, said)
            before, after = said.setdefault((request_id, metric), ([], []))
            after.append(value)
            if heard_s is not None and received_s < heard_s:
                before.append(value)
    _put(data, said)


def _put(data: Data, said: dict[tuple[str, str], tuple[list[float], list[float]]]) -> None:
    data.on_changes([Change(*key, tuple(before), tuple(after)) for key, (before, after) in said.items()])
    said.clear()
