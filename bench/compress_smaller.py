"""The compression data for a small model: what is expected in an answer, and smaller items where they don't fit.

An item that is too long is made smaller by whole units: records of a JSON list, rows of a table, log lines (a
traceback stays with its line), documents. What it needs stays; of the others a run of neighbours that leaves the first
needed unit as far from the beginning, in proportion, as it was: a position in the middle would decide against whoever
cuts there. Pure.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compress_data import Item, Messages, kept, load, texts, with_texts

__all__ = ["Asked", "Units", "asked", "expected", "holds", "smaller", "units_of"]

_FEWEST_UNITS = 3  # less is no choice
_STAMPED = re.compile(r"\d{4}-\d\d-\d\dT")
_DOCUMENTS = re.compile(r"\n\n(?=Document \[|### Passage )")


@dataclass(frozen=True)
class Asked:
    """An item with the strings of which an answer must hold every one. `needs`: what must stand in the prompt.
    `made`: units left and units before, where it was made smaller."""

    item: Item
    expected: tuple[str, ...]
    needs: tuple[str, ...]
    made: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """A text as units that may be left out, and the way back."""

    units: tuple[Any, ...]
    joined: Callable[[tuple[Any, ...]], str]


def asked(folder: Path, name: str) -> Iterator[Asked]:
    """The test half of a slice, in its file's order, without what a short answer can't hold."""
    lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    told = {row["id"]: row for row in map(json.loads, lines)}
    for item in load(folder, (name,)):
        wanted = expected(item, told[item.id].get("answer", ""))
        if item.part == "test" and item.kind != "aggregate" and wanted:
            yield Asked(item, wanted, (*item.must_keep, *told[item.id].get("support", ())))


def expected(item: Item, answer: str) -> tuple[str, ...]:
    """The answer; where the question names it, the needed strings that the question doesn't name; none: not to be
    scored, as whoever repeats the question would be right."""
    wanted = (answer,) if answer and not holds(item.question, (answer,)) else item.must_keep
    return tuple(one for one in wanted if not holds(item.question, (one,)))


def holds(text: str, wanted: tuple[str, ...]) -> bool:
    """Whether every string stands in the text as whole words, white space and case aside."""
    told = " ".join(text.casefold().split())
    return all(
        re.search(rf"(?<!\w){re.escape(' '.join(one.casefold().split()))}(?!\w)", told) is not None for one in wanted
    )


def smaller(one: Asked, fits: Callable[[Messages], bool]) -> Asked | None:
    """The item as it is, where it fits; else with as many units as fit. None: it can't be made so."""
    if fits(one.item.messages):
        return one
    place, text = max(texts(one.item).items(), key=lambda entry: len(entry[1]))
    split = units_of(text, one.item.slice)
    if split is None:
        return None
    needed = _needed([split.joined((unit,)) for unit in split.units], one.needs)
    if not needed:
        return None
    total = len(split.units)

    def chosen(size: int) -> list[int]:
        start = round(needed[0] * (total - size) / max(1, total - 1))
        return sorted({*range(start, start + size), *needed})

    def made(size: int) -> Item:
        short = split.joined(tuple(split.units[i] for i in chosen(size)))
        return dataclasses.replace(one.item, messages=with_texts(one.item, {place: short}))

    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(made(middle).messages) else (low, middle)
    item, left = made(low), len(chosen(low))
    if left < _FEWEST_UNITS or not fits(item.messages) or not kept(item, item.messages):
        return None
    return Asked(item, one.expected, one.needs, (left, total))


def units_of(text: str, name: str) -> Units | None:
    """The units of a slice's text; None where joining all of them doesn't give the text back."""
    make = {"json_tool_output": _records, "tables_csv": _rows, "logs_and_stacktraces": _lines}.get(name, _documents)
    found = make(text)
    return found if found is not None and found.joined(found.units) == text else None


def _needed(told: list[str], needs: tuple[str, ...]) -> list[int]:
    """The first unit that holds all; else for each string the first that holds it. Empty: one stands in none."""
    for i, unit in enumerate(told):
        if holds(unit, needs):
            return [i]
    found: set[int] = set()
    for need in needs:
        place = next((i for i, unit in enumerate(told) if holds(unit, (need,))), None)
        if place is None:
            return []
        found.add(place)
    return sorted(found)


def _records(text: str) -> Units | None:
    """A list, or an object with the list `data`, whose `total` then says how many there are."""
    value = json.loads(text)
    indent = next((n for n in (None, 2) if json.dumps(value, indent=n, ensure_ascii=False) == text), -1)
    if indent == -1:
        return None

    def joined(units: tuple[Any, ...]) -> str:
        short: Any = list(units)
        if isinstance(value, dict):
            short = value | {"data": short} | ({"total": len(short)} if "total" in value else {})
        return json.dumps(short, indent=indent, ensure_ascii=False)

    records = value if isinstance(value, list) else value.get("data")
    return Units(tuple(records), joined) if isinstance(records, list) else None


def _rows(text: str) -> Units | None:
    title, blank, table = text.partition("\n\n")
    rows = table.split("\n")
    head = 2 if len(rows) > 1 and set(rows[1]) <= set("|-: ") else 1
    start = title + blank + "".join(row + "\n" for row in rows[:head])
    return Units(tuple(rows[head:]), lambda units: start + "\n".join(units))


def _lines(text: str) -> Units:
    units: list[str] = []
    for line in text.splitlines(keepends=True):
        if units and not _STAMPED.match(line):
            units[-1] += line
        else:
            units.append(line)
    return Units(tuple(units), "".join)


def _documents(text: str) -> Units:
    parts = _DOCUMENTS.split(text)
    head = () if parts[0].startswith("### Passage ") else (parts[0],)
    return Units(tuple(parts[len(head) :]), lambda units: "\n\n".join((*head, *units)))
