"""Rows on the leaf pages of a SQLite file whose inner pages are damaged: its format, read without SQLite. No IO.

Rules of this file: a page is read by itself, whatever stands above it. Nothing is guessed: a row counts only where
every byte of it is accounted for, its columns have their types, its texts are UTF-8 and its JSON is JSON. A page that
is known to be free is passed by, or what was erased would come back. Source: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

import orjson

from farthing.proxy.row import COLUMNS, Row

__all__ = ["Free", "Head", "Pages", "fits", "free_pages", "head_of", "rows_on"]

Pages = Callable[[int], bytes]
"""The bytes of a page, by its number from 1; fewer than a page's where the file ends."""
Value = int | float | str | None

MAGIC = b"SQLite format 3\0"
_LEAF, _FREE, _KINDS = 0x0D, 2, frozenset(range(1, 6))
_JSON = frozenset(COLUMNS.index(name) for name in ("tags", "stage_ms", "decisions", "attempts_detail"))
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)


class Head(NamedTuple):
    """What a file says of itself on its first page; SQLite's defaults where that page is damaged.

    `usable`: bytes of a page without those that are reserved. `first_free`, `free`: where the list of free pages begins
    and how many there are; None where it isn't known.
    """

    page_bytes: int = 4096
    usable: int = 4096
    first_free: int | None = None
    free: int | None = None
    autovacuum: bool = True


class Free(NamedTuple):
    """Pages that hold nothing in use. `known`: these are all of them."""

    pages: frozenset[int]
    known: bool


def head_of(first: bytes) -> Head:
    """What the first 100 bytes say."""
    if len(first) < 100 or not first.startswith(MAGIC):
        return Head()
    size = int.from_bytes(first[16:18], "big")
    size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1) or first[20] > size // 8:
        return Head()
    first_free, free = struct.unpack_from(">II", first, 32)
    return Head(size, size - first[20], first_free, free, first[52:56] != b"\0\0\0\0")


def free_pages(pages: Pages, head: Head, count: int) -> Free:
    """The free pages among `count`: from the list that the file keeps, and where that breaks off what the map says."""
    found: set[int] = set()
    trunk = head.first_free or 0
    whole = head.free is not None
    while trunk:
        page = pages(trunk) if 1 < trunk <= count and trunk not in found else b""
        if len(page) < head.page_bytes:
            whole = False
            break
        after, leaves = struct.unpack_from(">II", page)
        if leaves > head.usable // 4 - 2:
            whole = False
            break
        listed = struct.unpack_from(f">{leaves}I", page, 8)
        if not all(1 < each <= count and each not in found for each in listed):
            whole = False
            break
        found |= {trunk, *listed}
        trunk = after
    if whole and len(found) == head.free:
        return Free(frozenset(found), known=True)
    told, known = _mapped_free(pages, head, count) if head.autovacuum else (set(), False)
    return Free(frozenset(found | told), known)


def _mapped_free(pages: Pages, head: Head, count: int) -> tuple[set[int], bool]:
    """Pages that the pointer map calls free, and whether all of the map could be read."""
    found: set[int] = set()
    whole = True
    per_map = head.usable // 5
    for at in range(2, count + 1, per_map + 1):
        here = range(at + 1, min(at + per_map, count) + 1)
        kinds = pages(at)[: 5 * len(here) : 5]
        if len(kinds) == len(here) and _KINDS.issuperset(kinds):
            found |= {page for page, kind in zip(here, kinds, strict=True) if kind == _FREE}
        else:
            whole = False
    return found, whole


def rows_on(
    number: int, pages: Pages, head: Head, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """The `wanted` rows of the ledger on one page, with their row numbers; nothing where it is no leaf, or damaged."""
    page, start = pages(number), 100 if number == 1 else 0
    if len(page) < head.page_bytes or page[start] != _LEAF:
        return
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    first = start + 8 + 2 * cells
    if first > head.usable:
        return
    for at in struct.unpack_from(f">{cells}H", page, start + 8):
        if not first <= at < head.usable:
            continue
        try:
            row_number, payload = _cell(page, at, pages, head, wanted)
            values = None if payload is None else _as_row(_record(payload))
        except (IndexError, ValueError, struct.error):  # what it says doesn't add up
            continue
        if values is not None and fits(values):
            yield row_number, values


def _cell(page: bytes, at: int, pages: Pages, head: Head, wanted: Callable[[int], bool]) -> tuple[int, bytes | None]:
    """Row number and record, gathered from its overflow pages; None where it isn't wanted. Raises ValueError."""
    size, at = _varint(page, at)
    row_number, at = _varint(page, at)
    if row_number >= 2**63 or not wanted(row_number):
        return row_number, None
    room = head.usable - 35
    here = size
    if size > room:
        least = (head.usable - 12) * 32 // 255 - 23
        here = least + (size - least) % (head.usable - 4)
        here = here if here <= room else least
    if at + here + (4 if here < size else 0) > head.usable:
        raise ValueError("beyond the page")
    parts = [page[at : at + here]]
    left, after = size - here, int.from_bytes(page[at + here : at + here + 4], "big") if here < size else 0
    while left > 0:
        more = pages(after) if after > 1 else b""
        if len(more) < head.page_bytes:
            raise ValueError("no such page")
        after = int.from_bytes(more[:4], "big")
        parts.append(more[4 : 4 + min(left, head.usable - 4)])
        left -= len(parts[-1])
    if after:
        raise ValueError("a chain that goes on")
    return row_number, b"".join(parts)


def _record(payload: bytes) -> tuple[Any, ...]:
    """The values of a record; texts as texts. Raises ValueError, IndexError."""
    end, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
        if len(kinds) > len(COLUMNS):
            raise ValueError("another table's")
    values: list[Any] = []
    for kind in kinds:
        size = _INTEGER_BYTES[kind] if kind < 7 else 8 if kind == 7 else 0 if kind < 10 else (kind - 12) // 2
        part = payload[at : at + size]
        if len(part) != size or kind in (10, 11):
            raise ValueError("beyond the record")
        at += size
        values.append(_value(kind, part))
    if at != len(payload):
        raise ValueError("bytes too many")
    return tuple(values)


def _value(kind: int, part: bytes) -> Any:
    if kind == 0:
        return None
    if kind < 7:
        return int.from_bytes(part, "big", signed=True)
    if kind == 7:
        return struct.unpack(">d", part)[0]
    if kind < 10:
        return kind - 8
    return part.decode("utf-8") if kind % 2 else part


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """A big-endian number of at most nine bytes, and where it ends. Raises IndexError."""
    found = 0
    for more in range(8):
        byte = page[at + more]
        found = found << 7 | byte & 0x7F
        if byte < 0x80:
            return found, at + more + 1
    return found << 8 | page[at + 8], at + 9


def _kinds() -> tuple[tuple[type, bool], ...]:
    """Of each column its type, and whether it may be unknown."""
    kinds = []
    for hint in get_type_hints(Row).values():
        kind, *optional = get_args(hint) or (hint,)
        kinds.append((kind, bool(optional)))
    return tuple(kinds)


_TYPES = _kinds()


def _as_row(values: Sequence[Any]) -> tuple[Value, ...] | None:
    """Whole numbers in columns of fractions are stored as integers: as the column has them. None: another table's."""
    if len(values) != len(COLUMNS):
        return None
    pairs = zip(values, _TYPES, strict=True)
    return tuple(float(value) if kind is float and isinstance(value, int) else value for value, (kind, _) in pairs)


def fits(values: Sequence[Any]) -> bool:
    """Whether each column holds what the ledger would have written there."""
    for at, (value, (kind, optional)) in enumerate(zip(values, _TYPES, strict=True)):
        if isinstance(value, str) and ("\0" in value or (at in _JSON and not _is_json(value))):
            return False
        if not optional if value is None else not isinstance(value, kind):
            return False
    return True


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
