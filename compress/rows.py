"""JSON written as rows: the notation, and how it is read back to JSON. Pure; `recode_json` writes it.

    text    = [before] legend LF [frame LF] 1*table ["#end" after]
    legend  = "JSON as rows" or "JSON lines as rows", and in words how to read what follows; the decoder skips the words
    frame   = compact JSON in which #1, #2 stand for what the tables hold; left out where it would be just #1
    table   = "#" number SP ["{key},"] (columns / "[" columns "]") 1*(LF [cell ","] row)   ; {key}: of an object
    columns = column *("," column)
    column  = name *("." name) [":text" / "[" columns "]" / "{" columns "}" / "[]"] ["?" / "=" cell]
    row     = cell *("," cell) *("," column-path "=" cell)
    cell    = nothing / JSON value / bare string / "[" row *(";" row) "]" / "{" row "}" / "[" cell *(";" cell) "]"

Rules of this file:
1. A row holds a cell for each column without "?" or "="; after them the others that differ from their column's head.
   "=" is the value of every row that says no other, "?" that the member is absent there. An empty cell is absent too.
2. A bare string is one that no JSON scalar looks like, without separators, brackets or quotes where they would mislead;
   what isn't bare is JSON. In a ":text" column, and for a {key}, what looks like a number is a string all the same.
3. "a.b" is the member b of the object a. A name that isn't plain stands as a JSON string, so a dot in it is its own.
4. The columns inside of brackets are those of the objects in such a cell: "[" a list of them, "{" one of them,
   "[]" a list of plain values. A table whose whole head stands in brackets has a list of objects for each row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import orjson

__all__ = ["BARE", "BARE_INSIDE", "END", "LEGEND", "LEGEND_LINES", "NAME", "SCALAR", "decode_rows", "find_rows"]

LEGEND, LEGEND_LINES = "JSON as rows", "JSON lines as rows"
END = "#end"

SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null")
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
BARE = re.compile(rf'(?![\s"#;\[\]{{}}])[^,{_CONTROL}]++(?<!\s)')
BARE_INSIDE = re.compile(rf'(?![\s"#])[^,;\[\]{{}}{_CONTROL}]++(?<!\s)')
NAME = re.compile(rf'(?!\s)[^.,;:=?#"\[\]{{}}\\{_CONTROL}]++(?<!\s)')
_QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_MARK = re.compile(_QUOTED.pattern + r"|#([1-9][0-9]*+)")
_HEAD = re.compile(r"#([1-9][0-9]{0,8}) (\{key\},)?")
_START = re.compile(rf"(?:{LEGEND}|{LEGEND_LINES})[^\n]*+\n")
_JSON = json.JSONDecoder()
_DEEPEST = 32


class Rows(NamedTuple):
    """Where rows stand in a text: what comes before, their lines without the legend, what comes after."""

    before: str
    legend: str
    lines: list[str]
    after: str


@dataclass(slots=True)
class _Column:
    names: list[str]  # JSON strings
    path: str  # as written in the head
    kind: str  # "", ":text", "[", "{", "[]"
    inner: _Table | None
    dense: bool
    value: str | None  # JSON; of the rows that say no other; None: absent


@dataclass(slots=True)
class _Table:
    columns: list[_Column]
    dense: list[int]
    others: dict[str, int]  # a column's path, to its place
    simple: bool  # all dense columns are plain
    template: str  # for rows in which nothing is absent


_One = Callable[[_Table, str], str]


def find_rows(text: str) -> Rows | None:
    """The first rows in a text; None where there are none."""
    start = _START.search(text)
    if start is None:
        return None
    lines = text[start.end() :].split("\n")
    after = ""
    for i, line in enumerate(lines):
        if line.startswith(END):
            after = "\n".join([line.removeprefix(END), *lines[i + 1 :]])
            lines = lines[:i]
            break
    return Rows(text[: start.start()], start[0], lines, after)


def decode_rows(text: str) -> str:
    """The text with its rows as JSON again, compact; JSON lines as an array of them. Raises ValueError: not rows."""
    found = find_rows(text)
    if found is None:
        raise ValueError("no rows here")
    lines = found.lines
    values: list[str] = []
    try:
        frame, at = ("#1", 0) if lines[0].startswith("#") else (lines[0], 1)
        while at < len(lines):
            head = _HEAD.match(lines[at])
            if head is None or int(head[1]) != len(values) + 1:
                raise ValueError(f"no head of a table: {lines[at][:80]!r}")
            end = at + 1
            while end < len(lines) and not lines[end].startswith("#"):
                end += 1
            line, bracket = lines[at], "]" if lines[at].startswith("[", head.end()) else ""
            table, stop = _columns(line, head.end() + len(bracket), bracket, 0)
            if stop != len(line):
                raise ValueError(f"more than columns in {line[:80]!r}")
            one = _list if bracket else _line
            rows = lines[at + 1 : end]
            values.append(_keyed(table, rows, one) if head[2] else _listed(table, rows, one))
            at = end
        marks = [mark[1] for mark in _MARK.finditer(frame) if mark[1]]
        if marks != [str(number + 1) for number in range(len(values))]:
            raise ValueError("the frame has not each table once")
        whole = _MARK.sub(lambda mark: values[int(mark[1]) - 1] if mark[1] else mark[0], frame)
    except (IndexError, RecursionError) as error:
        raise ValueError("the rows end too early") from error
    return found.before + whole + found.after


def _listed(table: _Table, rows: list[str], one: _One) -> str:
    return "[" + ",".join([one(table, row) for row in rows]) + "]"


def _keyed(table: _Table, rows: list[str], one: _One) -> str:
    members = []
    for row in rows:
        key, at = _quoted(row, 0) if row[:1] == '"' else _bare(row, 0, BARE, text_only=True)
        members.append(f"{key}:{one(table, row[_past(row, at, ',') :])}")
    return "{" + ",".join(members) + "}"


def _list(table: _Table, row: str) -> str:
    """One row as a JSON list of objects."""
    value, at = _several(row, 0, lambda at: _row(table, row, at, BARE_INSIDE, 1))
    if at != len(row):
        raise ValueError(f"more than a row: {row[:80]!r}")
    return value


def _line(table: _Table, row: str) -> str:
    """One row as a JSON object."""
    if not table.simple or '"' in row or "[" in row or "{" in row:
        value, at = _row(table, row, 0, BARE, 0)
        if at != len(row):
            raise ValueError(f"more than a row: {row[:80]!r}")
        return value
    cells = row.split(",")
    values = [column.value for column in table.columns]
    width = len(table.dense)
    for place, cell in zip(table.dense, cells, strict=False):
        if not cell:
            values[place] = None
        elif table.columns[place].kind or SCALAR.fullmatch(cell) is None:
            values[place] = _string(cell)
        else:
            values[place] = cell
    if len(cells) != width:
        if len(cells) < width:
            raise ValueError(f"too few cells: {row[:80]!r}")
        for cell in cells[width:]:
            path, _, rest = cell.partition("=")
            column = table.columns[table.others[path]] if path in table.others else None
            if column is None:
                raise ValueError(f"no column {path[:80]!r}")
            values[table.others[path]] = _cell(column, rest, 0, BARE, 0)[0]
    return _object(table, values)


def _row(table: _Table, text: str, at: int, bare: re.Pattern[str], depth: int) -> tuple[str, int]:
    """The row that begins at `at` as JSON, and where it ends."""
    values = [column.value for column in table.columns]
    for nth, place in enumerate(table.dense):
        if nth:
            at = _past(text, at, ",")
        values[place], at = _cell(table.columns[place], text, at, bare, depth)
    while text[at : at + 1] == ",":
        path, at = _path(text, at + 1)
        place = table.others.get(path, -1)
        if place < 0:
            raise ValueError(f"no column {path[:80]!r}")
        values[place], at = _cell(table.columns[place], text, _past(text, at, "="), bare, depth)
    return _object(table, values), at


def _object(table: _Table, values: list[str | None]) -> str:
    if None not in values:
        return table.template % tuple(values)
    return _nested([(column.names, value) for column, value in zip(table.columns, values, strict=True)], 0)


def _nested(members: list[tuple[list[str], str | None]], depth: int) -> str:
    """The JSON object of columns that share their first `depth` names; columns of one object stand together."""
    parts: list[str] = []
    at = 0
    while at < len(members):
        names, value = members[at]
        end = at + 1
        if len(names) == depth + 1:
            if value is not None:
                parts.append(f"{names[depth]}:{value}")
        else:
            while end < len(members) and len(members[end][0]) > depth + 1 and members[end][0][depth] == names[depth]:
                end += 1
            parts.append(f"{names[depth]}:{_nested(members[at:end], depth + 1)}")
        at = end
    return "{" + ",".join(parts) + "}"


def _cell(column: _Column, text: str, at: int, bare: re.Pattern[str], depth: int) -> tuple[str | None, int]:
    """The cell that begins at `at` as JSON (None: absent), and where it ends."""
    first = text[at : at + 1]
    if first in ("", ",", ";", "]", "}"):
        return None, at
    if first == '"':
        return _quoted(text, at)
    if first not in ("[", "{"):
        return _bare(text, at, bare, text_only=column.kind == ":text")
    if column.inner is not None and first == column.kind:
        inner = column.inner
        if first == "{":
            value, at = _row(inner, text, at + 1, BARE_INSIDE, depth + 1)
            return value, _past(text, at, "}")
        values, at = _several(text, at, lambda at: _row(inner, text, at, BARE_INSIDE, depth + 1))
        return values, at
    if column.kind == "[]" and first == "[":
        return _several(text, at, lambda at: _cell(_PLAIN, text, at, BARE_INSIDE, depth + 1))
    end = _JSON.raw_decode(text, at)[1]
    return text[at:end], end


def _several(text: str, at: int, one: Callable[[int], tuple[str | None, int]]) -> tuple[str, int]:
    """A bracketed list, its members divided by semicolons."""
    if text[at + 1 : at + 2] == "]":
        return "[]", at + 2
    values: list[str] = []
    while True:
        value, at = one(at + 1)
        if value is None:
            raise ValueError("an empty cell in a list")
        values.append(value)
        if text[at : at + 1] != ";":
            return "[" + ",".join(values) + "]", _past(text, at, "]")


def _bare(text: str, at: int, bare: re.Pattern[str], *, text_only: bool = False) -> tuple[str, int]:
    found = bare.match(text, at)
    if found is None:
        raise ValueError(f"no cell at {text[at : at + 80]!r}")
    cell = found[0]
    return (cell if not text_only and SCALAR.fullmatch(cell) else _string(cell)), found.end()


def _quoted(text: str, at: int) -> tuple[str, int]:
    found = _QUOTED.match(text, at)
    if found is None:
        raise ValueError(f"a string that doesn't end: {text[at : at + 80]!r}")
    return found[0], found.end()


def _past(text: str, at: int, char: str) -> int:
    if text[at : at + 1] != char:
        raise ValueError(f"no {char} at {text[at : at + 80]!r}")
    return at + 1


def _string(text: str) -> str:
    try:
        return orjson.dumps(text).decode()
    except TypeError as error:
        raise ValueError("a lone surrogate") from error


def _path(text: str, at: int) -> tuple[str, int]:
    """The dotted names at `at`, as written."""
    start = at
    while True:
        at = _name(text, at)[1]
        if text[at : at + 1] != ".":
            return text[start:at], at
        at += 1


def _name(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] == '"':
        return _quoted(text, at)
    found = NAME.match(text, at)
    if found is None:
        raise ValueError(f"no name at {text[at : at + 80]!r}")
    return _string(found[0]), found.end()


def _columns(text: str, at: int, close: str, depth: int) -> tuple[_Table, int]:
    """The columns of a head up to the bracket `close`, or to the end of the text."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    columns: list[_Column] = []
    while True:
        column, at = _column(text, at, close, depth)
        columns.append(column)
        if text[at : at + 1] != ",":
            break
        at += 1
    if close:
        at = _past(text, at, close)
    dense = [place for place, column in enumerate(columns) if column.dense]
    others = {column.path: place for place, column in enumerate(columns) if not column.dense}
    simple = all(columns[place].kind in ("", ":text") for place in dense)
    holes: list[tuple[list[str], str | None]] = [
        ([name.replace("%", "%%") for name in column.names], "%s") for column in columns
    ]
    return _Table(columns, dense, others, simple, _nested(holes, 0)), at


def _column(text: str, at: int, close: str, depth: int) -> tuple[_Column, int]:
    start = at
    names: list[str] = []
    while True:
        name, at = _name(text, at)
        names.append(name)
        if text[at : at + 1] != ".":
            break
        at += 1
    path = text[start:at]
    kind, inner = "", None
    following = text[at : at + 1]
    if text.startswith("[]", at):
        kind, at = "[]", at + 2
    elif following in ("[", "{") and following:
        inner, at = _columns(text, at + 1, "]" if following == "[" else "}", depth + 1)
        kind = following
    elif text.startswith(":text", at):
        kind, at = ":text", at + 5
    column = _Column(names, path, kind, inner, True, None)
    if text[at : at + 1] == "?":
        column.dense, at = False, at + 1
    elif text[at : at + 1] == "=":
        column.dense = False
        column.value, at = _cell(column, text, at + 1, BARE_INSIDE if close else BARE, depth)
    return column, at


_PLAIN = _Column([], "", "", None, True, None)
