"""Recode, rule "table": tables in a text as a head and rows of bare cells. Decodes to the equal tables. Pure.

    table  = "Table, " number " rows" words ["; aligned " 1*side] LF head 1*(LF group / LF row)
    side   = "l" / "r" / "c" / "-"                                      ; one a column, "-" where nothing is said
    head   = column *("," column)
    column = name / "#" name / name "=" cell
    group  = "#" cell *("," cell)
    row    = cell *("," cell) *("," name "=" cell)
    name, cell = bare string, or JSON string

Rules of this file:
1. Equal means: the same head, the same cells in the same order, the same alignment of Markdown columns; the text around
   the tables byte for byte. What a table is, and what of it is only looks: `table_blocks`.
2. A column with "=" has that value in each row that says no other at its end. A column with "#" has the value of the
   last group line above the row.
3. No cell is written in parts: what a question may ask for stands in the text as it did.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from farthing.compress.rows import LEGEND, LEGEND_LINES
from farthing.compress.table_blocks import Table, find_tables

__all__ = ["Tables", "decode_tables"]

_LEGEND = "Table, "
_COMMON_SHARE = 0.8
_MOST_GROUPS = 3
_SHORTEST_RUNS = 3  # rows that a group line must serve on average
_BARE = re.compile(r'(?!["#])[^,\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*+')
_BARE_NAME = re.compile(r'(?!["#\s])[^,=\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]++')
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(?!")[^,=\n]*+')
_START = re.compile(rf"(?:\A|(?<=\n)){_LEGEND}([0-9]{{1,9}}) rows(?:; [^\n]*?)??(?:; aligned ([lrc-]++))?\n")
_PADDING = re.compile(" {3,}+")
_AS_LONG_AS_PADDING = "   "  # however wide it is, it takes two tokens or so

_COMMON_WORDS = "; name=value in the head: so in each row"
_OTHER_WORDS = " that says no other at its end"
_GROUP_WORDS = "; a line after #: {} of the rows below it"


class Tables:
    """The tables of a text, each where that makes it shorter."""

    name = "table"
    loss = ""

    def encode(self, text: str) -> str | None:
        """The text with its tables as rows; None: it has none, or none that gets shorter."""
        if (_LEGEND in text and _START.search(text)) or LEGEND in text or LEGEND_LINES in text:
            return None
        parts: list[str] = []
        at = 0
        for start, end, table in find_tables(text):
            short = _written(table)
            if len(short) < len(_PADDING.sub(_AS_LONG_AS_PADDING, text[start:end])):
                parts += (text[at:start], short)
                at = end
        return "".join([*parts, text[at:]]) if parts else None

    def restores(self, text: str, short: str) -> bool:
        """Whether `short` decodes to the text with equal tables; see rule 1 of this file."""
        try:
            parts = decode_tables(short)
        except ValueError:
            return False
        tables = {start: (end, table) for start, end, table in find_tables(text)}
        at = 0
        for part in parts:
            if isinstance(part, str):
                if not text.startswith(part, at):
                    return False
                at += len(part)
            else:
                at, table = tables.get(at, (0, None))
                if table != part:
                    return False
        return at == len(text)


def decode_tables(text: str) -> list[str | Table]:
    """The text's parts: what stands around tables, and the tables. Raises ValueError: a table that can't be read."""
    parts: list[str | Table] = []
    at = 0
    while (start := _START.search(text, at)) is not None:
        parts.append(text[at : start.start()])
        table, at = _read(text, start.end(), int(start[1]), start[2] or "")
        parts.append(table)
    return [*parts, text[at:]]


def _written(table: Table) -> str:
    """The table as rows."""
    count = len(table.rows)
    columns = [[_text(cell) for cell in cells] for cells in zip(*table.rows, strict=True)]
    names = [name if _BARE_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in table.head]
    common: dict[int, str] = {}
    for place, cells in enumerate(columns[1:], 1):
        value = _common(cells, names[place])
        if value is not None and (names.count(names[place]) == 1 or cells.count(value) == count):
            common[place] = value
    groups = _groups(columns, [place for place in range(len(columns)) if place not in common])
    dense = [place for place in range(len(columns)) if place not in common and place not in groups]
    rows = list(map(",".join, zip(*(columns[place] for place in dense), strict=True)))
    exceptions = [(row, place) for place in common for row in range(count) if columns[place][row] != common[place]]
    for row, place in exceptions:
        rows[row] += f",{names[place]}={columns[place][row]}"
    lines: list[str] = []
    last = ""
    for row, line in enumerate(rows):
        if groups and (group := "#" + ",".join([columns[place][row] for place in groups])) != last:
            lines.append(group)
            last = group
        lines.append(line)
    legend = f"{_LEGEND}{count} rows"
    if common:
        legend += _COMMON_WORDS + (_OTHER_WORDS if exceptions else "")
    if groups:
        legend += _GROUP_WORDS.format(",".join(names[place] for place in groups).replace("; aligned ", "; "))
    if table.aligned:
        legend += "; aligned " + "".join(side or "-" for side in table.aligned)
    head = [
        f"{name}={common[place]}" if place in common else f"#{name}" if place in groups else name
        for place, name in enumerate(names)
    ]
    return "\n".join([legend, ",".join(head), *lines])


def _text(cell: str) -> str:
    return cell if _BARE.fullmatch(cell) else json.dumps(cell, ensure_ascii=False)


def _common(cells: Sequence[str], name: str) -> str | None:
    """The value that nearly all cells have, where saying it once is shorter."""
    value, times = Counter(cells).most_common(1)[0]
    saved = (times - 1) * (len(value) + 1) - (len(cells) - times) * (len(name) + 1)
    return value if times >= _COMMON_SHARE * len(cells) and saved > 0 else None


def _groups(columns: list[list[str]], free: list[int]) -> list[int]:
    """The columns whose values stay the same for several rows on end, those that save most."""
    count = len(columns[0])
    starts = {
        place: {row for row in range(1, count) if columns[place][row] != columns[place][row - 1]} for place in free
    }
    chosen: list[int] = []
    changes: set[int] = set()
    best = 0
    while len(chosen) < min(_MOST_GROUPS, len(free) - 1):
        found = None
        for place in free:
            if place in chosen:
                continue
            together = changes | starts[place]
            if (len(together) + 1) * _SHORTEST_RUNS > count:
                continue
            saved = _saved(columns, [*chosen, place], together)
            if saved > best:
                best, found = saved, place
        if found is None:
            break
        chosen.append(found)
        changes |= starts[found]
    return sorted(chosen)


def _saved(columns: list[list[str]], chosen: list[int], changes: set[int]) -> int:
    """Characters that group lines save: the chosen cells and their commas, less the lines."""
    rows = [0, *changes]
    lines = sum(len(columns[place][row]) + 1 for place in chosen for row in rows) + len(rows)
    return sum(len(cell) + 1 for place in chosen for cell in columns[place]) - lines - len(_GROUP_WORDS)


def _read(text: str, at: int, count: int, aligned: str) -> tuple[Table, int]:
    """The table whose head begins at `at`, and where its last row ends."""
    end = _line_end(text, at)
    names: list[str] = []
    values: list[str] = []
    dense: list[int] = []
    groups: list[int] = []
    while True:
        grouped = text.startswith("#", at)
        name, at = _token(text, at + grouped)
        if text.startswith("=", at):
            value, at = _cell(text, at + 1)
            values.append(value)
        else:
            (groups if grouped else dense).append(len(names))
            values.append("")
        names.append(name)
        if at >= end or text[at] != ",":
            break
        at += 1
    if at != end:
        raise ValueError(f"no column at {text[at : at + 80]!r}")
    places = {name: place for place, name in enumerate(names)}
    rows: list[tuple[str, ...]] = []
    while len(rows) < count:
        if end >= len(text):
            raise ValueError("fewer rows than were told")
        at, end = end + 1, _line_end(text, end + 1)
        line = text[at:end]
        if line.startswith("#"):
            for place, (_, cell) in zip(groups, _cells(line[1:]), strict=True):
                values[place] = cell
            continue
        row = values.copy()
        cells = _cells(line, len(dense))
        if len(cells) < len(dense):
            raise ValueError(f"too few cells: {line[:80]!r}")
        for place, (_, cell) in zip(dense, cells, strict=False):
            row[place] = cell
        for name, cell in cells[len(dense) :]:
            if name not in places:
                raise ValueError(f"no column {name[:80]!r}")
            row[places[name]] = cell
        rows.append(tuple(row))
    sides = tuple("" if side == "-" else side for side in aligned)
    return Table(tuple(names), tuple(rows), sides), end


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _cells(line: str, plain: int = 1 << 30) -> list[tuple[str, str]]:
    """The cells of a row: `plain` without a name, then those with one."""
    if '"' not in line:
        cells = line.split(",")
        return [("", cell) for cell in cells[:plain]] + [_named(cell) for cell in cells[plain:]]
    found: list[tuple[str, str]] = []
    at = 0
    while True:
        name = ""
        if len(found) >= plain:
            name, at = _token(line, at)
            if not line.startswith("=", at):
                raise ValueError(f"no name at {line[at : at + 80]!r}")
            at += 1
        cell, at = _cell(line, at)
        found.append((name, cell))
        if at >= len(line):
            return found
        if line[at] != ",":
            raise ValueError(f"no cell at {line[at : at + 80]!r}")
        at += 1


def _named(cell: str) -> tuple[str, str]:
    name, _, value = cell.partition("=")
    return name, value


def _cell(text: str, at: int) -> tuple[str, int]:
    if text.startswith('"', at):
        return _token(text, at)
    ends = [end for end in (text.find(",", at), text.find("\n", at)) if end >= 0]
    end = min(ends, default=len(text))
    return text[at:end], end


def _token(text: str, at: int) -> tuple[str, int]:
    """A name: JSON string, or bare up to a comma or an equals sign."""
    found = _TOKEN.match(text, at)
    if found is None:
        raise ValueError(f"a string that doesn't end: {text[at : at + 80]!r}")
    return (str(json.loads(found[0])) if found[0].startswith('"') else found[0]), found.end()
