"""Which rows or lines matter to a question: what it names, what went wrong, what stands out from the others. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from farthing.compress.bm25 import Words, scores
from farthing.compress.outliers import error_lines, extremes, make_of, odd_lines, odd_rows
from farthing.compress.question import Question
from farthing.compress.units import Kind, Unit

__all__ = ["asked_extremes", "holders", "named_rows", "record_scores"]

_ERROR, _ERROR_AGAIN, _NEAR_ERROR = 2.0, 0.5, 0.2  # against 1 for the best match by words
_ASKED_FOR = 1.0  # more for errors and outliers where the question is about trouble
_ODD, _EXTREME, _EXTREME_UNASKED = 1.0, 8.0, 0.1
_NEAR = 2  # lines before and after an error
_NAMED, _ODD_BESIDE_NAMED = 3.0, 0.3  # where the question names a row, what stands out is rarely what it asks for
_FEW, _MOST_LITERALS, _LONGEST_CELL = 3, 32, 200
_STAMPS = re.compile(
    r"[\s\[(<]{0,3}(?:\d{4}[-/]\d\d[-/]\d\d)?[T\s]?(?:\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)?[\])>]?\s?"
)


def record_scores(kind: Kind, units: Sequence[Unit], bags: Sequence[Sequence[str]], question: Question) -> list[float]:
    """A score for each unit, 0 to about 15. `bags`: the units' terms."""
    found = scores(bags, dict.fromkeys(question.terms, 1.0))
    best = max(found, default=0.0) or 1.0
    found = [score / best for score in found]
    more = _ASKED_FOR if question.trouble else 0.0
    texts = [unit.text for unit in units]
    if kind == "lines":
        makes = [make_of(_unstamped(text)) for text in texts]
        _errors(found, texts, makes, more)
        for i, oddness in odd_lines(makes, [_unstamped(text) for text in texts]):
            found[i] += _ODD * min(oddness, 2.0) * (1 + more)
        return found
    named = named_rows(units, question)
    odd = _ODD_BESIDE_NAMED if named and not question.trouble else _ODD
    for i in named:
        found[i] += _NAMED
    for rows in _groups(units):
        fields = [units[i].fields or {} for i in rows]
        for place, oddness in odd_rows(fields):
            found[rows[place]] += odd * min(oddness, 2.0) * (1 + more)
        for one in extremes(fields):
            for place in one.rows:
                found[rows[place]] += _EXTREME_UNASKED * odd
    for i in asked_extremes(units, question):
        found[i] += _EXTREME
    for i, gravity in error_lines(texts):
        found[i] += 0.5 * gravity * (1 + more)
    return found


def holders(units: Sequence[Unit], literals: Sequence[str]) -> list[int]:
    """The units that hold what the question names, unless so many do that it doesn't tell them apart."""
    found: set[int] = set()
    folded = [unit.text.casefold() for unit in units]
    most = max(_FEW, len(units) // 20)
    for literal in literals[:_MOST_LITERALS]:
        whole = re.compile(rf"(?<!\w){re.escape(literal)}(?!\w)")
        held = [i for i, text in enumerate(folded) if literal in text and whole.search(text)]
        if len(held) <= most:
            found |= {*held}
    return sorted(found)


def asked_extremes(units: Sequence[Unit], question: Question) -> list[int]:
    """The units with the least and the greatest of a column that the question names, or of any dates it asks for."""
    if not question.extreme:
        return []
    words = Words()
    found: set[int] = set()
    for rows in _groups(units):
        for one in extremes([units[i].fields or {} for i in rows]):
            if (one.dated and question.timely) or not set(words.terms(one.column)).isdisjoint(question.terms):
                found |= {rows[place] for place in one.rows}
    return sorted(found)


def named_rows(units: Sequence[Unit], question: Question) -> list[int]:
    """The units of which a cell's whole text stands in the question, unless many have that cell."""
    found: set[int] = set()
    for rows in _groups(units):
        held: dict[str, set[int]] = {}
        for i in rows:
            for value in (units[i].fields or {}).values():
                if isinstance(value, str) and 2 < len(value) <= _LONGEST_CELL:
                    held.setdefault(value.casefold(), set()).add(i)
        for value, places in held.items():
            few = len(places) <= max(_FEW, len(rows) // 20)
            if few and value in question.folded and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", question.folded):
                found |= places
    return sorted(found)


def _errors(found: list[float], texts: Sequence[str], makes: Sequence[str], more: float) -> None:
    """The first and the last error of each make count in full, the others less; their neighbours a little."""
    errors = error_lines(texts)
    last = {makes[i]: i for i, _ in errors}
    seen: set[str] = set()
    for i, gravity in errors:
        fresh = makes[i] not in seen or last[makes[i]] == i
        seen.add(makes[i])
        found[i] += (_ERROR if fresh else _ERROR_AGAIN) * (1 + 0.5 * (gravity - 1)) * (1 + more)
        if fresh:
            for j in range(max(0, i - _NEAR), min(len(texts), i + _NEAR + 1)):
                found[j] += _NEAR_ERROR


def _groups(units: Sequence[Unit]) -> list[list[int]]:
    """The indices of the rows of each array or table."""
    groups: dict[int, list[int]] = {}
    for i, unit in enumerate(units):
        if unit.fields is not None:
            groups.setdefault(unit.passage, []).append(i)
    return list(groups.values())


def _unstamped(line: str) -> str:
    """The line without the time at its beginning, whose numbers say nothing."""
    return _STAMPS.sub("", line, count=1)
