"""Log lines written short: what they share is said once, what repeats is counted. Decodes to the same characters. Pure.

The notation, and the decoder: `log_form`.

Rules of this file:
1. A form is a real line's beginning with holes (…): the reader sees a whole line and what changes in it.
2. A form holds for lines that stand together. A line that doesn't fit is written whole; an odd line stays in full view.
3. A form takes what comes before a message, and of the message at most a beginning that all lines share: what tells one
   line from another is still found by its own spelling.
4. A table with times in a column is no log, nor are lines of JSON: there a time is a value that is looked up.
5. Text with many escape sequences waits until the rule "ansi" has made it plain: colours hide what lines share.
6. Linear: a line's beginning is looked at up to 160 characters, and each line is compared with one earlier line.

Source: the idea of variable parts in constant templates is that of log parsers (Drain, He et al., ICWS 2017), used here
only for the beginning of a line; run lengths and references to the last like line are those of LZ77.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from farthing.compress.log_form import DIGITS, HEADER, HOLE, copied_line, decode_log, times_line

__all__ = ["LogRule", "encode_log"]

_ESCAPE, _ESCAPES_APART = "\x1b", 100
_HEAD_CHARS = 160
_HEAD_WORDS = 12
_MOST_LEFT = 0.95  # of the characters: a lesser gain isn't worth another way to read
_FEWEST_LINES = 4
_SAMPLE_LINES = 32
_LONGEST_PERIOD = 64
_FEWEST_SAME_LINES, _FEWEST_SAME_CHARS = 4, 120

_TIME = re.compile(
    r"(?<![0-9.])([0-9]{2}:)([0-9]{2}:)([0-9]{2}(?:[.,][0-9]{1,9})?)(?!:?[0-9])(Z|[+-][0-9]{2}:?[0-9]{2}(?![0-9]))?([\]),]*)"
)
_PLACE = re.compile(r"([^\s:]{3,150}:)(?=[0-9]{1,7}[:\-])")  # a search's hits: path:line:text
_SEPARATORS = [re.compile(separator) for separator in (r"\|", ",", ";", r"\t", r"\s{2,}")]
_WORD = re.compile(r"\S+|\s+")
_NUMBERED = re.compile(r"[^0-9]+(?=[0-9])")  # web-3, I0301: what a short line begins with must be a digit
_LEVEL = re.compile("TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|ALERT|FATAL|PANIC", re.IGNORECASE)


class LogRule:
    """Timestamps, common beginnings and repeated lines of logs."""

    name = "log"
    loss = ""

    def encode(self, text: str) -> str | None:
        """The short form, if the text has lines with a time or a place in common, or lines that repeat; else None."""
        return encode_log(text)

    def restores(self, text: str, short: str) -> bool:
        """Whether the short form decodes to the same characters."""
        return decode_log(short) == text


class _Form(NamedTuple):
    """Literals with a hole after each; the last hole takes the rest of the line."""

    literals: tuple[str, ...]

    def line(self) -> str:
        return f"@ {HOLE.join(self.literals)}{HOLE}"

    def short(self, line: str) -> str | None:
        """What is left of the line; None where it isn't of this form, or wouldn't begin with a digit."""
        first = self.literals[0]
        if not line.startswith(first):
            return None
        at = len(first)
        if line[at : at + 1] not in DIGITS:
            return None
        words = []
        for literal in self.literals[1:]:
            found = line.find(literal, at + 1, at + _HEAD_CHARS)
            if found < 0 or " " in (word := line[at:found]):
                return None
            words.append(word)
            at = found + len(literal)
        words.append(line[at:])
        return " ".join(words)


# Steps of the short text: a line's number, or a marker that says what is repeated.
_Step = int | str


def encode_log(text: str) -> str | None:
    """The short form of a text of lines; None where there is nothing to be had. Linear in the text."""
    if text.startswith(HEADER) or text.count("\n") < _FEWEST_LINES or text.count(_ESCAPE) * _ESCAPES_APART > len(text):
        return None
    lines = text.split("\n")
    steps = list(_repeats(lines))
    short = "\n".join([HEADER, *_written(lines, steps)])
    return short if len(short) <= _MOST_LEFT * len(text) else None


def _repeats(lines: Sequence[str]) -> Iterator[_Step]:
    """The lines' numbers in order, with markers in the place of lines that stand above already."""
    last: dict[str, int] = {}
    at, end = 0, len(lines)
    while at < end:
        line = lines[at]
        before = last.get(line, -1)
        last[line] = at
        period = at - before
        if before < 0 or (len(line) < 2 and period > 1):  # a blank line says nothing about what follows it
            yield at
            at += 1
            continue
        same = 0
        while at + same < end and lines[at + same] == lines[before + same] and (same < period or _short(period)):
            same += 1
        whole = same // period
        chars = sum(len(lines[i]) + 1 for i in range(at, at + min(same, period)))
        if whole and _short(period) and whole * chars >= _FEWEST_SAME_CHARS:
            yield times_line(period, whole)
            skipped = whole * period
        elif (same := min(same, period)) >= _FEWEST_SAME_LINES and chars >= _FEWEST_SAME_CHARS:
            yield at
            yield copied_line(same - 1)
            skipped = same
        else:
            yield at
            skipped = 1
        for i in range(at, at + skipped):
            last[lines[i]] = i
        at += skipped


def _short(period: int) -> bool:
    return period <= _LONGEST_PERIOD


class _Head(NamedTuple):
    """A line's beginning. `atoms`: parts of words and the white space between.

    `first`: the atom that a short line is to begin with or hold, since it differs and has digits: the seconds, or the
    line's number in a file. `time`: the number of atoms up to the time's end.
    """

    atoms: tuple[str, ...]
    first: int
    time: int


def _head(line: str) -> _Head | None:
    """The line's beginning; None for a line without a time or a place."""
    start = line[:_HEAD_CHARS]
    found = _TIME.search(start) or _PLACE.match(start)
    if found is None or start.startswith("{"):
        return None
    cuts = {cut for group in range(found.re.groups + 1) for cut in found.span(group) if cut >= 0}
    for word in islice(_WORD.finditer(start), 2 * _HEAD_WORDS):
        cuts.update(word.span())
        end = word.end()
        if end <= found.start() and (number := _NUMBERED.match(word[0])) is not None:
            cuts.add(word.start() + number.end())
    if end == _HEAD_CHARS:  # the last word may go on
        end = start.rfind(" ")
    at = sorted(cut for cut in cuts if cut <= end)
    first = found.start(3) if found.re is _TIME else found.end()
    return _Head(tuple(start[a:b] for a, b in pairwise(at)), bisect_left(at, first), bisect_right(at, found.end()) - 1)


def _sample(lines: Sequence[str]) -> list[_Head]:
    """Beginnings of lines from the start and the middle of the text; none where the lines are rows of a table."""
    middle = max(_SAMPLE_LINES, len(lines) // 2)
    taken = [*range(min(_SAMPLE_LINES, len(lines))), *range(middle, min(middle + _SAMPLE_LINES, len(lines)))]
    heads = {i: head for i in taken if (head := _head(lines[i])) is not None}
    if not heads or _table([lines[i] for i in heads], lines[max(0, min(heads) - 3) : min(heads)]):
        return []
    return list(heads.values())


def _table(rows: Sequence[str], above: Sequence[str]) -> bool:
    """Whether lines with times have as many fields each as a line above them, which then names the columns."""
    for separator in _SEPARATORS:
        fields = {len(separator.findall(row.strip())) for row in rows}
        if (
            len(fields) == 1
            and 0 not in fields
            and any(len(separator.findall(line.strip())) in fields for line in above)
        ):
            return True
    return False


def _sticky(heads: Sequence[_Head]) -> frozenset[int]:
    """The columns of atoms whose value is worth saying once for a run of lines.

    A column that changes costs a new form at each change, so what it saves in all lines must be more than that.
    Up to the time and to the level every column is asked for itself; after that only while all are worth it, so that
    the words of a message stay together.
    """
    wide = max((len(head.atoms) for head in heads), default=0)
    changes, filled, blank, level, weights = [0] * wide, [0] * wide, [0] * wide, [0] * wide, [0.0] * wide
    before: tuple[str, ...] = ()
    for atoms, _, _ in heads:
        for c, atom in enumerate(atoms):
            changes[c] += c >= len(before) or before[c] != atom
            weights[c] += _weight(atom)
            filled[c] += 1
            blank[c] += atom.isspace()
            level[c] += _LEVEL.fullmatch(atom.strip("[]()<>:|,")) is not None
        before = atoms
    words = [c for c in range(wide) if filled[c] * 2 >= len(heads) and blank[c] * 2 < filled[c]]
    form = 4 + sum(weights[c] / filled[c] for c in words if changes[c] * 4 < filled[c])
    firsts = {head.first for head in heads}
    worth = {c for c in words if weights[c] > changes[c] * form and c not in firsts}
    for first in firsts:  # minutes are said once only where hours are
        if first >= 2 and first - 2 not in worth:
            worth.discard(first - 1)
    time = max((head.time for head in heads), default=0)
    together = next((c for c in words if c >= time and c not in worth), wide)
    end = max([together] + [c + 1 for c in words if level[c] * 2 > filled[c]])
    return frozenset(c for c in worth if c < end)


def _weight(atom: str) -> float:
    """About the tokens of an atom: three digits, five letters, or one other sign to a token."""
    digits = sum(char in DIGITS for char in atom)
    letters = sum(char.isalpha() for char in atom)
    return -(-digits // 3) + -(-letters // 5) + (len(atom) - digits - letters) * 0.8


def _form(line: str, sticky: frozenset[int]) -> _Form | None:
    """The line's own form, with holes in all columns that aren't sticky; None where it has none."""
    head = _head(line)
    if head is None or len(head.atoms) <= max(sticky):
        return None
    atoms = head.atoms
    end = max(sticky) + 1
    end += atoms[end : end + 1] == (" ",)
    literals, in_hole = [""], False
    for c, atom in enumerate(atoms[:end]):
        if c in sticky or atom.isspace():
            if in_hole:
                literals.append("")
            literals[-1] += atom
            in_hole = False
        else:
            in_hole = True
    form = _Form(tuple(literals))
    return None if any(HOLE in literal for literal in literals) else form


def _written(lines: Sequence[str], steps: Sequence[_Step]) -> Iterator[str]:
    """The short text's lines."""
    kept = [lines[step] for step in steps if isinstance(step, int)]
    sample = _sample(kept)
    sticky = _sticky(sample) if len(sample) >= _FEWEST_LINES else frozenset()
    form: _Form | None = None
    at = 0  # in `kept`
    for step in steps:
        if isinstance(step, str):
            yield step
            continue
        line = kept[at]
        short = form.short(line) if form is not None else None
        if short is None and sticky and (new := _form(line, sticky)) is not None and new != form:
            ahead = kept[at : at + _FEWEST_LINES]
            if len(ahead) == _FEWEST_LINES and all(new.short(other) is not None for other in ahead):
                form, short = new, new.short(line)
                yield form.line()
        if short is not None:
            yield short
        elif line.startswith(("@ ", "| ")) or (form is not None and line[:1] in DIGITS):
            yield f"| {line}"
        else:
            yield line
        at += 1
