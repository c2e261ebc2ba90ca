"""A prompt without white space and marks that say nothing: blanks, rules between paragraphs, bold. Pure.

Code, tables, quotations and sentences about the answer's form stay as they are.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from farthing.compress.prompt_text import BOLD, formats
from farthing.compress.protected import code_blocks, protected

__all__ = ["Cut", "without_blanks", "without_decoration"]

_RULE_LINE = re.compile(r"[ ]{0,3}(?:(?:-[ ]?){3,}|(?:\*[ ]?){3,}|(?:_[ ]?){3,}|={3,})[ \t]*")
_CLOSED_HEADING = re.compile(r"([ ]{0,3}#{1,6}[ \t].*?)[ \t]+#+[ \t]*")


class Cut(NamedTuple):
    """One thing that was taken out. `rule`: duplicate, filler, blanks or decoration; `after`: what stands there now."""

    rule: str
    line: int
    before: str
    after: str
    why: str


def _outside_code(text: str) -> list[tuple[bool, str]]:
    """Lines with their ends, and whether each may be tidied."""
    blocks = code_blocks(text)
    out, at, block = [], 0, 0
    for line in text.splitlines(keepends=True):
        while block < len(blocks) and blocks[block].end <= at:
            block += 1
        inside = block < len(blocks) and blocks[block].start <= at
        out.append((not inside and not line.lstrip().startswith("|"), line))
        at += len(line)
    return out


def without_decoration(text: str, cuts: list[Cut]) -> tuple[str, list[Cut]]:
    """Without rules between paragraphs, bold marks and closing hashes; the words stay."""
    lines = _outside_code(text)
    named = re.search(r"[-=*_]{3}", re.sub(r"(?m)^[ ]{0,3}[-*_= ]{3,}$", "", text)) is not None
    out: list[str] = []
    made, blank = list(cuts), True
    for number, (may, line) in enumerate(lines, 1):
        body = line.rstrip("\r\n")
        now = body
        if may and not named and blank and _RULE_LINE.fullmatch(body) and out:
            made.append(Cut("decoration", number, body, "", "a rule between paragraphs"))
            continue
        if may and not formats(body):
            closed = _CLOSED_HEADING.fullmatch(now)
            now = closed[1] if closed else now
            now = BOLD.sub(r"\1", now)
        if now != body:
            made.append(Cut("decoration", number, body, now, "markdown marks"))
        out.append(now + line[len(body) :])
        blank = not body.strip()
    return "".join(out), made


def without_blanks(text: str, cuts: list[Cut]) -> tuple[str, list[Cut]]:
    """Without blanks at line ends, runs of spaces and of empty lines."""
    out: list[str] = []
    for may, line in _outside_code(text):
        body = line.rstrip("\r\n")
        if may:
            begin = len(body) - len(body.lstrip(" \t"))
            body = (body[:begin] + _single(body[begin:])).rstrip(" \t")
        if may and not body and (not out or not out[-1].strip()):
            continue
        out.append(body + (line[len(line.rstrip("\r\n")) :]))
    short = "".join(out).rstrip() if text.rstrip() else text
    saved = len(text) - len(short)
    return short, [*cuts, Cut("blanks", 0, "", "", f"{saved:,} characters of white space")] if saved else cuts


def _single(body: str) -> str:
    """Runs of spaces as one, outside of quotations."""
    spans = [span for span in protected(body) if span.kind in ("quote", "inline")] if "  " in body else []
    bounds = [0, *(edge for span in spans for edge in (span.start, span.end)), len(body)]
    parts = [body[start:end] for start, end in pairwise(bounds)]
    return "".join(part if at % 2 else re.sub(r" {2,}", " ", part) for at, part in enumerate(parts))
