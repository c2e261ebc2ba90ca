"""Tables that stand in a text: Markdown and grids of pipes, columns padded with spaces, CSV and TSV. Pure.

Rules of this file:
1. A table is a head and at least three rows with a cell for each of its columns, on consecutive lines. What is ragged,
   has no head, or might be code, is text. (A padded table may lack cells where the columns stand apart all the way.)
2. The value of a table is its cells, in order, without padding; its head; and how a Markdown table aligns columns.
   Ruled lines, padding, the kind of separator, quotes and line ends within a table are how it looks.
3. Linear in the text: each line belongs to one block at most, and a block that is no table isn't looked at again.

Sources: GitHub Flavored Markdown, section 4.10; RFC 4180.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Table", "find_tables"]

_FEWEST_ROWS = 3
_MOST_COLUMNS = 256
_RULE = re.compile(r"[ |+]*+:?-[-=:|+ ]*+")
_BORDER = re.compile(r"\+[-=]++(?:\+[-=]++)*+\+")
_PIPE = re.compile(r"(?<!\\)\|")
_GAP = re.compile(" {2,}+")
_NOT_A_NAME = re.compile(r"[={};<>\"]|\A[\d#/*(\[-]|\A\Z|\s\Z|\([^)]*+\Z|\A[^(]*+\)")


@dataclass(frozen=True, slots=True)
class Table:
    """A table's value. `aligned`: for each column "", "l", "r" or "c"; empty where nothing is said."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    aligned: tuple[str, ...] = ()


def find_tables(text: str) -> Iterator[tuple[int, int, Table]]:
    """The tables of a text in order: where each starts, where its last line ends, its value."""
    lines = text.split("\n")
    at = place = 0
    while place < len(lines):
        found = _table(lines, place)
        if found is None:
            at += len(lines[place]) + 1
            place += 1
            continue
        end, table = found
        length = sum(map(len, lines[place:end])) + end - place - 1
        if table is not None:
            yield at, at + length, table
        at += length + 1
        place = end


def _table(lines: list[str], start: int) -> tuple[int, Table | None] | None:
    """The block of lines that begins at `start`: where it ends, and the table that it is; None: no block at all."""
    line = lines[start]
    following = lines[start + 1] if start + 1 < len(lines) else ""
    if "|" in line and "-" in following and _RULE.fullmatch(following.strip()):
        return _pipes(lines, start, start)
    if line.startswith("+") and "|" in following and _BORDER.fullmatch(line.strip()):
        return _pipes(lines, start, start + 1)
    if "  " in line and "  " in following and _has_gap(line):
        end = _block(lines, start, lambda other: _has_gap(other) or _is_rule(other))
        return end, _padded([line.rstrip("\r") for line in lines[start:end]])
    for separator in "\t;,":
        if separator in line and separator in following:
            end = _block(lines, start, lambda other: separator in other)  # noqa: B023
            return end, _separated([line.rstrip("\r") for line in lines[start:end]], separator)
    return None


def _block(lines: list[str], start: int, belongs: Callable[[str], bool]) -> int:
    end = start + 1
    while end < len(lines) and belongs(lines[end]):
        end += 1
    return end


def _has_gap(line: str) -> bool:
    return "  " in line and "  " in line.strip()


def _is_rule(line: str) -> bool:
    return line[:1] in ("-", "=") and not line.strip("-= \r")


def _pipes(lines: list[str], start: int, head: int) -> tuple[int, Table | None]:
    """A table of pipes: Markdown, psql, or a grid with borders."""
    if head + 1 >= len(lines):
        return head + 1, None
    end = _block(lines, head + 1, lambda line: "|" in line or _BORDER.fullmatch(line.strip()) is not None)
    rule = lines[head + 1].strip()
    inner = lines[head + 2 : end]
    if inner and _BORDER.fullmatch(inner[-1].strip()):
        inner = inner[:-1]
    if _RULE.fullmatch(rule) is None or any(_BORDER.fullmatch(line.strip()) for line in inner):
        return end, None
    names, *rows = [_piped(line) for line in [lines[head], *inner]]
    marks = _piped(rule) if "|" in rule else []
    aligned = tuple(_alignment(mark) for mark in marks)
    if marks and len(marks) != len(names):
        return end, None
    return end, _checked(names, rows, aligned if any(aligned) else (), names_free=True)


def _piped(line: str) -> list[str]:
    bare = line.strip()
    cells = _PIPE.split(bare)
    if bare.startswith("|"):
        cells = cells[1:]
    if len(cells) > 1 and not cells[-1].strip():
        cells = cells[:-1]
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _alignment(mark: str) -> str:
    return {(True, False): "l", (False, True): "r", (True, True): "c"}.get((mark[:1] == ":", mark[-1:] == ":"), "")


def _padded(lines: list[str]) -> Table | None:
    """Columns that at least two spaces keep apart; of a pandas print, the first column has no name."""
    if len(lines) > 1 and _is_rule(lines[1]):
        lines = [lines[0], *lines[2:]]
    if "\t" in "".join(lines) or any(map(_is_rule, lines)):
        return None
    names = _GAP.split(lines[0].strip(" "))
    if not _are_names(names):
        return None
    rows = [_GAP.split(line.strip(" ")) for line in lines[1:]]
    widths = set(map(len, rows))
    if widths == {len(names) + 1} and lines[0][:1] == " ":
        names = ["", *names]
    elif widths != {len(names)}:
        rows = _by_place(lines, names)
    return _checked(names, rows, ())


def _by_place(lines: list[str], names: list[str]) -> list[list[str]]:
    """The rows cut where every line has a space; none where that doesn't give the head's cells."""
    used = 0
    for line in lines:
        used |= int("".join("0" if char == " " else "1" for char in line)[::-1] or "0", 2)
    spans = [run.span() for run in re.finditer("1+", bin(used)[:1:-1])]
    head, *rows = [[line[start:end] for start, end in spans] for line in lines]
    rows = [[cell.strip(" ") for cell in row] for row in rows]
    return rows if [name.strip(" ") for name in head] == names else []


def _separated(lines: list[str], separator: str) -> Table | None:
    """CSV, or the like with another separator."""
    if not _are_names(lines[0].replace('"', "").split(separator)):
        return None
    if any('"' in line for line in lines):
        try:
            names, *rows = [next(csv.reader([line], delimiter=separator, strict=True)) for line in lines]
        except (csv.Error, StopIteration):
            return None
    else:
        names, *rows = [line.split(separator) for line in lines]
    return _checked(names, rows, ())


def _are_names(cells: list[str]) -> bool:
    """Whether a first line's cells could be a head: all different, none that looks like data or code."""
    return len(set(cells)) == len(cells) and not any(map(_NOT_A_NAME.search, cells if cells[0] else cells[1:]))


def _checked(
    names: list[str], rows: list[list[str]], aligned: tuple[str, ...], *, names_free: bool = False
) -> Table | None:
    """The table, where it is one. `names_free`: its rule has shown which line is the head."""
    width = len(names)
    if not 2 <= width <= _MOST_COLUMNS or len(rows) < _FEWEST_ROWS or any(len(row) != width for row in rows):
        return None
    if not names_free and not _are_names(names):
        return None
    return Table(tuple(names), tuple(map(tuple, rows)), aligned)
