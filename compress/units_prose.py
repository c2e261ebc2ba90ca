"""Prose in units: sentences, list items and table rows, in passages with their titles. Pure.

A passage is what stands between empty lines; its title is its own first line, or the last heading before it. Fenced
code, indented code and diffs inside prose are one unit each. No sentence ends inside a quotation.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from farthing.compress.protected import Span, code_blocks, quotations
from farthing.compress.units import Role, Unit, Units

__all__ = ["prose_units"]

_TITLE_CHARS, _WHOLE_ITEM_CHARS, _SENTENCE_CHARS = 150, 400, 800
_GAP = re.compile(r"\n(?:[ \t\r]*+\n)++")
_TITLED = re.compile(
    r"#{1,6}\s|[\[<(]|={2,}|\*\*|(?:document|doc|passage|source|title|chunk|section|page|article|chapter|file|result)\b",
    re.IGNORECASE,
)
_SENTENCE_CLOSED = re.compile(r"[.!?。！？…,;]['\")\]”’»」]*\s*\Z")
_ITEM = re.compile(r"\s{0,12}(?:[-*+•‣◦–]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_END = re.compile(
    r"[.!?…]['\")\]”’»]{0,3}+\s+(?=['\"(\[“‘«„]{0,3}[^\Wa-z_])|[。！？]['\"」』”）]{0,3}+\s*|\n(?=[^\W_].{0,60}:\s)"
)
_SHORTENED = re.compile(
    r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|St|Sts|vs|v|No|Nos|Inc|Ltd|Co|Corp|Jr|Sr|Prof|Gen|Col|Capt|Sgt|Lt|Rev|Hon|Gov|Sen|Rep"
    r"|Mt|Ft|Fig|Vol|pp|p|ca|c|approx|cf|al|e\.g|i\.e|[A-Z]\.[A-Z]|[ap]\.m|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec))\.\Z"
)
_LEANS = re.compile(
    r"(?:He|She|It|They|We|This|That|These|Those|His|Her|Hers|Its|Their|Such|Both|Neither|Either|There|Then|Also|But|And|So"
    r"|However|Therefore|Thus|Hence|Instead|Otherwise|Moreover|Furthermore|Additionally|Similarly|Later|Afterwards?|Here"
    r"|Consequently|Nevertheless|Still|Yet|Finally|One of (?:them|these|those)|The (?:latter|former|same))\b"
)


@dataclass(slots=True)
class _Draft:
    """The units so far, and what the next ones may hang from."""

    text: str
    units: list[Unit] = field(default_factory=list)
    passage: int = -1
    title: int | None = None
    own_title: bool = False

    def add(
        self, start: int, end: int, role: Role = "item", *, needs: int | None = None, wants: int | None = None
    ) -> int:
        piece = self.text[start:end]
        if self.units and piece.isspace():
            self.units[-1] = self.units[-1]._replace(text=self.units[-1].text + piece)
            return len(self.units) - 1
        held = tuple(i for i in (self.title, needs) if i is not None) if role == "item" else ()
        wish = () if wants is None else (wants,)
        self.units.append(Unit(piece, role, max(self.passage, 0), tuple(sorted(set(held))), wish))
        return len(self.units) - 1


def prose_units(text: str) -> Units:
    """The units of any text, read as prose."""
    draft = _Draft(text)
    for start, end, is_code in _blocks(text):
        if is_code:
            draft.passage += 1
            draft.add(start, end)
        else:
            _block(draft, start, end)
    return Units("prose", "sentences", tuple(draft.units))


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is code) of the passages with the empty lines after them; they tile the text."""
    at = 0
    for code in [*code_blocks(text), Span(len(text), len(text), "code")]:
        for gap in _GAP.finditer(text, at, code.start):
            yield at, gap.end(), False
            at = gap.end()
        if at < code.start:
            yield at, code.start, False
        if code.start < code.end:
            yield code.start, code.end, True
        at = code.end


def _block(draft: _Draft, start: int, end: int) -> None:
    """One passage: its title, then lists, tables and sentences in their order."""
    text = draft.text
    lines = text[start:end].splitlines(keepends=True)
    full = [line for line in lines if line.strip()]
    draft.passage += 1
    if full and _is_title(full):
        first = next(i for i, line in enumerate(lines) if line.strip())
        length = sum(map(len, lines[: first + 1]))
        alone = len(full) == 1
        at = end if alone else start + length
        role: Role = "fixed" if not draft.units and alone else "head"
        draft.title = draft.add(start, at, role)
        draft.own_title = not alone
        start, lines = at, [] if alone else lines[first + 1 :]
    elif draft.own_title:
        draft.title, draft.own_title = None, False
    _lines(draft, start, lines)


def _is_title(full: list[str]) -> bool:
    """Whether the first line of a passage is its title rather than its first sentence."""
    first = full[0].strip()
    if len(first) > _TITLE_CHARS or _SENTENCE_CLOSED.search(first) or _ITEM.match(full[0]) or first.startswith("|"):
        return False
    if any(not _shortened(first, end) for end in _END.finditer(first)):
        return False
    if _TITLED.match(first) or first.endswith((":", "]")) or len(full) == 1:
        return True
    return len(first) <= 80 and len(full[1].strip()) > 120


def _lines(draft: _Draft, start: int, lines: list[str]) -> None:
    lead: int | None = None  # the line that leads into a list, or the head of a table
    previous: int | None = None
    at, i = start, 0
    while i < len(lines):
        line = lines[i]
        if line.lstrip().startswith("|"):
            held = lead if i and lines[i - 1].lstrip().startswith("|") else None
            this = draft.add(at, at + len(line), needs=held)
            lead = this if held is None else held
            at, i = at + len(line), i + 1
            continue
        if _ITEM.match(line):
            end = i + 1
            while end < len(lines) and not _ITEM.match(lines[end]) and lines[end].strip() and lines[end][0] in " \t":
                end += 1
            until = at + sum(map(len, lines[i:end]))
            if until - at <= _WHOLE_ITEM_CHARS:
                draft.add(at, until, needs=lead)
            else:
                _sentences(draft, at, until, lead, None)
            at, i, previous = until, end, None
            continue
        end = i + 1
        while end < len(lines) and not _ITEM.match(lines[end]) and not lines[end].lstrip().startswith("|"):
            end += 1
        until = at + sum(map(len, lines[i:end]))
        previous = _sentences(draft, at, until, None, previous)
        tail = draft.text[at:until].rstrip()
        lead = previous if tail.endswith(":") and end < len(lines) else None
        at, i = until, end


def _sentences(draft: _Draft, start: int, end: int, needs: int | None, previous: int | None) -> int | None:
    """Adds the sentences between two places; the index of the last."""
    text = draft.text
    quoted = quotations(text, start, end)
    starts = [span[0] for span in quoted]
    at = start
    cuts = [m.end() for m in _END.finditer(text, start, end) if not _refused(text, m, quoted, starts)]
    for cut in _in_lines(text, start, [*cuts, end]):
        if cut <= at:
            continue
        leans = previous is not None and _LEANS.match(text[at : at + 40].lstrip(" \t\r\n\"'(“"))
        previous = draft.add(at, cut, needs=needs, wants=previous if leans else None)
        at = cut
    return previous


def _in_lines(text: str, start: int, cuts: list[int]) -> Iterator[int]:
    """The cuts, and the ends of lines in sentences too long to be any."""
    for cut in cuts:
        if cut - start > _SENTENCE_CHARS:
            at = text.find("\n", start, cut)
            while at >= 0:
                yield at + 1
                at = text.find("\n", at + 1, cut)
        yield cut
        start = cut


def _refused(text: str, match: re.Match[str], quoted: list[tuple[int, int]], starts: list[int]) -> bool:
    """Whether a sentence doesn't end here: after an abbreviation, or inside a quotation."""
    at = bisect_right(starts, match.start()) - 1
    return _shortened(text, match) or (at >= 0 and quoted[at][1] > match.end())


def _shortened(text: str, match: re.Match[str]) -> bool:
    """Whether the full stop is an abbreviation's."""
    place = match.start()
    return text[place] == "." and bool(_SHORTENED.search(text[max(0, place - 8) : place + 1]))
