"""The ledger's rows as files: JSON lines, CSV, Parquet. Rows are read in batches, oldest first.

Rules of this file: a batch is read by itself, so that a long export holds nothing back in the ledger; money stays
integer pico-dollars; a file that isn't whole has another name (`FILE.part`).
"""

from __future__ import annotations

import csv
import io
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Protocol, get_args, get_type_hints

import orjson

from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import columns
from farthing.proxy.report import unformulated
from farthing.proxy.row import COLUMNS, MONEY_COLUMNS, Row

__all__ = ["FORMATS", "batches", "export"]

FORMATS = ("jsonl", "csv", "parquet")
BATCH_ROWS = 10_000
Values = Sequence[Any]


class Writer(Protocol):
    """Writes batches of rows to a file."""

    def write(self, rows: Sequence[Values]) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Finish what was written."""
        ...


def export(
    conn: sqlite3.Connection, since_s: float, until_s: float, form: str, to: Path | None, told: Callable[[int], None]
) -> int:
    """Write the rows of [since_s, until_s) to `to`, or to standard output; how many. `told`: of each batch's rows.

    Raises ConfigFault where the file can't be written, a format isn't known, or pyarrow isn't there.
    """
    if form not in FORMATS:
        raise ConfigFault(f"--format: {form!r} is not one of {', '.join(FORMATS)}")
    if to is None and form == "parquet":
        raise ConfigFault("Parquet needs a file: -o FILE")
    part = None if to is None else to.with_name(f"{to.name}.part")
    count = 0
    try:
        out = sys.stdout.buffer if part is None else part.open("wb")
        try:
            with closing(_WRITERS[form](out)) as writer:
                for rows in batches(conn, since_s, until_s):
                    writer.write(rows)
                    count += len(rows)
                    told(len(rows))
            out.flush()
        finally:
            if part is not None:
                out.close()
        if part is not None and to is not None:
            part.replace(to)
    except BrokenPipeError:
        raise  # who reads has had enough
    except OSError as error:
        raise ConfigFault(f"can't write {to or 'to standard output'}: {error}") from None
    return count


def batches(conn: sqlite3.Connection, since_s: float, until_s: float) -> Iterator[list[Values]]:
    """The rows of a span in order of time, some thousands at a time."""
    query = (
        f"select rowid, ts, {columns()} from requests where ts < ? and (ts, rowid) > (?, ?) order by ts, rowid limit ?"
    )
    at: tuple[float, int] = (since_s, -1)
    while found := conn.execute(query, (until_s, *at, BATCH_ROWS)).fetchall():
        at = (found[-1][1], found[-1][0])
        yield [values[2:] for values in found]


class _Lines:
    """A JSON object a line, as `ledger.jsonl` writes them."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, rows: Sequence[Values]) -> None:
        self._out.writelines(
            orjson.dumps(dict(zip(COLUMNS, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )

    def close(self) -> None:
        pass


class _Csv:
    """RFC 4180 with a line of names; empty where nothing is known. Texts that a spreadsheet would run are disarmed."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._line((COLUMNS,))

    def write(self, rows: Sequence[Values]) -> None:
        self._line([unformulated(value) if isinstance(value, str) else value for value in row] for row in rows)

    def _line(self, rows: Any) -> None:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        self._out.write(text.getvalue().encode())

    def close(self) -> None:
        pass


class _Parquet:
    """Columns with their types; the unit of money stands in the columns' metadata."""

    def __init__(self, out: IO[bytes]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigFault("Parquet needs pyarrow: pip install 'farthing[parquet]'") from None
        kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
        fields = []
        for name, hint in get_type_hints(Row).items():
            kind, *optional = get_args(hint) or (hint,)
            unit = {"unit": "1e-12 USD"} if name in MONEY_COLUMNS else {}
            fields.append(pyarrow.field(name, kinds[kind], nullable=bool(optional), metadata=unit or None))
        self._pyarrow, self._schema = pyarrow, pyarrow.schema(fields)
        self._writer = parquet.ParquetWriter(out, self._schema, compression="zstd")

    def write(self, rows: Sequence[Values]) -> None:
        arrays = [
            self._pyarrow.array(values, type=field.type)
            for values, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


_WRITERS: dict[str, Callable[[IO[bytes]], Writer]] = {"jsonl": _Lines, "csv": _Csv, "parquet": _Parquet}
