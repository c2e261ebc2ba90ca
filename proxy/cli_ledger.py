"""`farthing ledger ...`: rows as files, whether the ledger is sound, and what can be saved of a damaged one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from farthing.proxy.clock import SystemClock
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import farthing_since, open_ledger
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_check import checked
from farthing.proxy.ledger_export import export as write
from farthing.proxy.ledger_salvage import salvage as save
from farthing.proxy.report import disarmed

__all__ = ["check", "export", "salvage"]

_FAR_S = 1e13  # later than any row


def export(config: Config, form: str, since: str, until: str, to: Path | None, console: Console) -> int:
    """Write rows to a file or to standard output; 3 where there is no ledger. Raises ConfigFault."""
    now_s = SystemClock().now_s()
    since_s, until_s = _moment(since, now_s, 0.0), _moment(until, now_s, _FAR_S)
    with _reading(config, console) as conn:
        if conn is None:
            return 3
        total = conn.execute("select count(*) from requests where ts >= ? and ts < ?", (since_s, until_s)).fetchone()[0]
        with _progress(console, total) as told:
            count = write(conn, since_s, until_s, form, to, told)
        left_out = conn.execute("select count(*) from requests where not (ts >= 0 and ts < ?)", (_FAR_S,)).fetchone()[0]
    if to is not None:
        console.print(f"{count:,} rows written to {to}", markup=False, highlight=False)
    if left_out:
        aside = f"{left_out:,} rows left out: their moment is before 1970, or later than any calendar has"
        Console(stderr=True).print(aside, style="yellow", highlight=False)
    return 0


def check(config: Config, emit: Callable[[Any], None] | None, console: Console) -> int:
    """Print whether the ledger is sound; 1 where it isn't, 3 where there is none. Raises ConfigFault."""
    with _reading(config, Console(stderr=True)) as conn:
        if conn is None:
            return 3
        found = checked(conn)
    if emit is not None:
        emit(found)
    else:
        console.print(
            f"{found['rows']:,} rows, {found['rolled_up']:,} of them in {found['rollups']:,} roll-up lines",
            highlight=False,
        )
        for fault in found["faults"]:
            console.print(f"! {disarmed(fault)}", markup=False, highlight=False)
        more = found["fault_count"] - len(found["faults"])
        console.print(
            "sound: the identity holds in every row and roll-up, and roll-ups are the sums of their rows"
            if found["ok"]
            else f"{found['fault_count']:,} faults" + (f", {more:,} of them not shown" if more else "")
        )
    return 0 if found["ok"] else 1


def salvage(config: Config, damaged: Path, emit: Callable[[Any], None] | None, console: Console) -> int:
    """Add a damaged ledger's readable rows to the present one. Raises ConfigFault."""
    path = config.state_dir / "ledger.db"
    if not damaged.is_file():
        raise ConfigFault(f"there is no file {damaged}")
    if damaged.resolve() == path.resolve():
        raise ConfigFault(f"{damaged} is the present ledger: serve moves it aside where it is damaged")
    if not path.exists():
        Ledger(path).close()
    with _progress(console, None) as told:
        counts = save(damaged, path, told)
    if emit is not None:
        emit(counts)
    else:
        unsure = "; which pages were free couldn't be told: removed rows may be among them"
        console.print(
            f"{counts['read']:,} rows read, {counts['added']:,} of them new and added to {path}; "
            f"{counts['from_leaves']:,} stood below damaged pages; "
            f"{counts['unreadable']:,} row numbers between weren't found" + (unsure if counts["free_unknown"] else ""),
            markup=False,
            highlight=False,
        )
    return 0


def _moment(text: str, now_s: float, otherwise: float) -> float:
    try:
        return farthing_since(text, now_s) if text else otherwise
    except ValueError as error:
        raise ConfigFault(str(error)) from None


@contextmanager
def _reading(config: Config, console: Console) -> Iterator[sqlite3.Connection | None]:
    path = config.state_dir / "ledger.db"
    if not path.exists():
        console.print(f"there is no ledger at {path} yet", markup=False)
        yield None
        return
    try:
        with closing(open_ledger(path)) as conn:
            yield conn
    except sqlite3.Error as error:
        raise ConfigFault(f"can't read the ledger {path}: {error}") from None


@contextmanager
def _progress(console: Console, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows rows on a terminal, and nothing in a pipe."""
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task("rows", total=total)
        yield lambda rows: shown.advance(task, rows)
