"""Recode, rule "rows": lists of like objects in a JSON text as a head and rows. Decodes to the equal value. Pure.

Rules of this file:
1. Equal means: the same members in the same order, numbers as they were spelled, strings the same characters. White
   space between tokens and the way a character was escaped don't count. Text around the JSON stays as it is.
2. JSON that readers may take differently is left alone: duplicate keys, NaN, lone surrogates, a byte order mark, more
   than 200 levels. Objects whose members come in contradicting orders stay JSON.
3. Nothing is written that a model must put together from parts: no common prefixes cut off, no differences, no
   dictionary of codes. An identifier that stood in the text stands in the rows.

The notation, and the decoder: `rows`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from farthing.compress.json_part import json_part, same_json
from farthing.compress.rows import BARE, BARE_INSIDE, END, LEGEND, LEGEND_LINES, NAME, SCALAR, decode_rows, find_rows

__all__ = ["JsonRows"]

_FEWEST_CHARS = 120  # below this the legend costs more than any rows save
_COMMON_SHARE = 0.8  # a value that so many rows share stands in the head, the others in their rows
_FEWEST_FOR_COMMON = 3
_MOST_SHAPES = 64  # objects with more different sets of members are not like each other
_SPARSEST = 3  # nor are those that together have more than so many times the members of one
_MOST_COLUMNS = 256
_LONGEST_LISTS = 8  # on average, for a list of lists to have a row for each
_DEEPEST_COLUMNS = 8
_DEEPEST_FRAME = 100

_LEGEND_WORDS = (
    ("frame", "#1 stands for what the rows under #1 hold"),
    ("common", "name=value in a head: so in each row"),
    ("other", "name=value in a head: so in each row that says no other at its end"),
    ("rare", "name?: absent unless the row says it at its end"),
    ("dots", "a.b: member b of object a"),
    ("[", "a[b,c]: list of objects, a cell is [row;row]"),
    ("{", "a{b,c}: object, a cell is {row}"),
    ("lists", "#1 [b,c]: a list of lists, a row is [object;object]"),
    ("[]", "a[]: list, a cell is [value;value]"),
    (":text", "a:text: strings"),
    ("key", "{key}: name of the member that holds the row"),
    ("absent", "empty cell: absent"),
)


class _Absent:
    """The type of the value that a member has where it isn't there."""


_ABSENT = _Absent()


class _NotRows(Exception):
    """These values can't be written as rows."""


@dataclass(slots=True)
class _Column:
    path: str
    kind: str  # as in `rows`
    inner: str  # the columns inside of the brackets
    cells: list[str | None]
    common: bool = False
    value: str | None = None  # the common one


class JsonRows:
    """Lists of like objects, and objects of like objects, as rows; wherever they are in a JSON text."""

    name = "rows"
    loss = ""

    def encode(self, text: str) -> str | None:
        """The text with its JSON as rows; None: no JSON in it, nothing in it that repeats, or ambiguous JSON."""
        if len(text) < _FEWEST_CHARS or LEGEND in text or LEGEND_LINES in text:
            return None
        parsed = json_part(text)
        if parsed is None:
            return None
        writer = _Writer()
        try:
            frame = writer.frame(parsed.value, 0)
            if not writer.tables:
                return None
            short = "\n".join([writer.legend(frame, parsed.lines), *([] if frame == "#1" else [frame]), *writer.tables])
            short.encode()
        except (ValueError, TypeError, RecursionError):
            return None
        after = f"\n{END}{parsed.after}" if parsed.before or parsed.after else ""
        short = parsed.before + short + after
        return short if len(short) < len(text) else None

    def restores(self, text: str, short: str) -> bool:
        """Whether `short` decodes to the text with its JSON equal; see rule 1 of this file."""
        found = find_rows(short)
        parsed = json_part(text)
        if found is None or parsed is None or found.legend.startswith(LEGEND_LINES) != parsed.lines:
            return False
        try:
            decoded = decode_rows(short)
        except ValueError:
            return False
        before, after = parsed.before, parsed.after
        if not decoded.startswith(before) or not decoded.endswith(after):
            return False
        inner = decoded[len(before) : len(decoded) - len(after)]
        return inner == parsed.compact or same_json(inner, parsed.compact)


class _Writer:
    """Writes one JSON value; gathers its tables, and what the legend has to explain."""

    def __init__(self) -> None:
        self.tables: list[str] = []
        self._used: set[str] = set()

    def legend(self, frame: str, lines: bool) -> str:
        """The first line: how to read the rest, only what occurs in it."""
        used = self._used | ({"frame"} if frame != "#1" else set())
        used -= {"common"} if "other" in used else set()
        words = [words for use, words in _LEGEND_WORDS if use in used]
        return "; ".join([LEGEND_LINES if lines else LEGEND, *words])

    def frame(self, value: Any, depth: int) -> str:
        """The value as JSON with #n in the place of what became a table."""
        if type(value) not in (list, dict) or not value or depth > _DEEPEST_FRAME:
            return _dumped(value)
        members = list(value.values()) if type(value) is dict else value
        kinds = set(map(type, members))
        if not kinds & {list, dict}:
            return _dumped(value)
        table = self._table(value, members) if len(kinds) == 1 and len(members) > 1 else None
        if table is not None:
            self.tables.append(table)
            return f"#{len(self.tables)}"
        if type(value) is dict:
            parts = [f"{_dumped(key)}:{self.frame(member, depth + 1)}" for key, member in value.items()]
            return "{" + ",".join(parts) + "}"
        return "[" + ",".join([self.frame(member, depth + 1) for member in value]) + "]"

    def _table(self, value: Any, members: list[Any]) -> str | None:
        """The list, or object, of objects or of short lists of them as a table; None where it would be longer."""
        used = set(self._used)
        try:
            head, rows = self._lists_as_rows(members) if type(members[0]) is list else self._objects_as_rows(members)
        except _NotRows:
            self._used = used
            return None
        if type(value) is dict:
            self._used.add("key")
            head = "{key}," + head
            rows = [f"{_bare_or_json(key, BARE)},{row}" for key, row in zip(value, rows, strict=True)]
        table = "\n".join([f"#{len(self.tables) + 1} {head}", *rows])
        if len(table) < len(_dumped(value)):
            return table
        self._used = used
        return None

    def _objects_as_rows(self, objects: list[dict[str, Any]]) -> tuple[str, list[str]]:
        if not all(objects):
            raise _NotRows
        return self._rows(self._columns(objects, BARE, 0), len(objects))

    def _lists_as_rows(self, lists: list[list[Any]]) -> tuple[str, list[str]]:
        """A row for each list; longer ones are tables of their own."""
        known = "[" in self._used
        column = self._lists("", lists, 0)
        if not known and "[" not in column.inner:
            self._used.discard("[")
        self._used.add("lists")
        if column.kind != "[" or sum(map(len, lists)) > _LONGEST_LISTS * len(lists):
            raise _NotRows
        return _head(column), [cell or "" for cell in column.cells]

    def _columns(self, objects: list[dict[str, Any]], bare: Any, depth: int) -> list[_Column]:
        """The columns of like objects. Raises _NotRows: they are not like each other."""
        columns: list[_Column] = []
        shapes = dict.fromkeys(map(tuple, objects))
        alike = len(shapes) == 1
        for key in _order(shapes, objects):
            values = [one[key] for one in objects] if alike else [one.get(key, _ABSENT) for one in objects]
            name = key if NAME.fullmatch(key) else _dumped(key)
            columns += self._column(name, values, bare, depth)
        return columns

    def _column(self, name: str, values: list[Any], bare: Any, depth: int) -> list[_Column]:
        kinds = set(map(type, values))
        if depth < _DEEPEST_COLUMNS and (dict in kinds or list in kinds) and kinds <= {dict, list, type(None), _Absent}:
            used = set(self._used)
            try:
                if kinds == {dict} and all(values):
                    return self._flattened(name, values, bare, depth)
                if list not in kinds:
                    return [self._objects(name, values, depth)]
                if dict not in kinds:
                    return [self._lists(name, values, depth)]
            except _NotRows:
                self._used = used
        cells = [None if value is _ABSENT else _cell(value, bare) for value in values]
        if kinds <= {str, _Absent} and any(cell is not None and cell[0] == '"' for cell in cells):
            texts = [None if value is _ABSENT else _bare_or_json(value, bare) for value in values]
            if texts != cells:
                self._used.add(":text")
                return [_Column(name, ":text", "", texts)]
        return [_Column(name, "", "", cells)]

    def _flattened(self, name: str, objects: list[dict[str, Any]], bare: Any, depth: int) -> list[_Column]:
        columns = self._columns(objects, bare, depth + 1)
        self._used.add("dots")
        for column in columns:
            column.path = f"{name}.{column.path}"
        return columns

    def _objects(self, name: str, values: list[Any], depth: int) -> _Column:
        """A column of objects that are missing or null here and there."""
        objects = [value for value in values if type(value) is dict]
        if not all(objects):
            raise _NotRows
        head, rows = self._rows(self._columns(objects, BARE_INSIDE, depth + 1), len(objects))
        self._used.add("{")
        written = iter(rows)
        return _Column(name, "{", head, [f"{{{next(written)}}}" if type(v) is dict else _plain(v) for v in values])

    def _lists(self, name: str, values: list[Any], depth: int) -> _Column:
        """A column of lists: all of objects, or all of plain values."""
        members = [member for value in values if type(value) is list for member in value]
        kinds = set(map(type, members))
        if not members or (kinds != {dict} and (dict in kinds or list in kinds)):
            raise _NotRows
        if kinds == {dict}:
            if not all(members):
                raise _NotRows
            head, rows = self._rows(self._columns(members, BARE_INSIDE, depth + 1), len(members))
            kind = "["
        else:
            head, rows, kind = "", [_cell(member, BARE_INSIDE) for member in members], "[]"
        self._used.add(kind)
        written = iter(rows)
        cells = [f"[{';'.join(islice(written, len(v)))}]" if type(v) is list else _plain(v) for v in values]
        return _Column(name, kind, head, cells)

    def _rows(self, columns: list[_Column], count: int) -> tuple[str, list[str]]:
        """The head and the rows of a table. Raises _NotRows: a row would be empty."""
        if count >= _FEWEST_FOR_COMMON:
            for column in columns:
                _find_common(column, count)
            if all(column.common for column in columns):
                columns[0].common = False
        dense = [column.cells for column in columns if not column.common]
        if any(None in cells for cells in dense):
            self._used.add("absent")
            dense = [["" if cell is None else cell for cell in cells] for cells in dense]
        rows: list[str] = list(map(",".join, zip(*dense, strict=True)))
        for column in columns:
            if column.common:
                self._used.add("rare" if column.value is None else "common")
                for place, cell in enumerate(column.cells):
                    if cell != column.value:
                        rows[place] += f",{column.path}={cell or ''}"
                        self._used.add("rare" if column.value is None else "other")
        if not all(rows):
            raise _NotRows
        return ",".join(map(_head, columns)), rows


def _order(shapes: dict[tuple[str, ...], None], objects: list[dict[str, Any]]) -> list[str]:
    """All names in an order that agrees with each object's. Raises _NotRows: there is none, or they differ too much."""
    if len(shapes) > _MOST_SHAPES:
        raise _NotRows
    order: list[str] = []
    for shape in shapes:
        if len(shape) > _MOST_COLUMNS:
            raise _NotRows
        at = 0
        for key in shape:
            if key in order:
                at = order.index(key) + 1
            else:
                order.insert(at, key)
                at += 1
    if len(order) * len(objects) > _SPARSEST * sum(map(len, objects)):
        raise _NotRows
    for shape in shapes:
        has = set(shape)
        if tuple(key for key in order if key in has) != shape:
            raise _NotRows
    return order


def _find_common(column: _Column, count: int) -> None:
    """Mark the column whose cells are nearly all the same, where that is shorter."""
    (value, times), *_ = Counter(column.cells).most_common(1)
    length = len(value or "") + 1
    if times >= _COMMON_SHARE * count and (times - 1) * length > (count - times) * (len(column.path) + 1):
        column.common, column.value = True, value


def _head(column: _Column) -> str:
    closing = {"[": "]", "{": "}"}.get(column.kind, "")
    default = "" if not column.common else "?" if column.value is None else f"={column.value}"
    return f"{column.path}{column.kind}{column.inner}{closing}{default}"


def _plain(value: Any) -> str | None:
    """The cell of what stands in the place of a list or object."""
    return None if value is _ABSENT else "null"


def _cell(value: Any, bare: Any) -> str:
    """A value as a cell."""
    if type(value) is str:
        return value if bare.fullmatch(value) and not SCALAR.fullmatch(value) else _dumped(value)
    return str(value) if type(value) is int else _dumped(value)


def _bare_or_json(text: str, bare: Any) -> str:
    """A string as a cell that can hold nothing but strings."""
    return text if bare.fullmatch(text) else _dumped(text)


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()
