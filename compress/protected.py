"""What nothing lossy may cut or alter in a text: code, diffs, quotations, numbers, addresses, names of things. Pure.

Rules of this file:
1. Time is linear in the text: every repeat is possessive or bounded; nothing looks back further than a character.
2. Nothing raises on any str, lone surrogates and NUL included.
3. When in doubt it is protected: a word too many costs a token, a number cut in two costs an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

__all__ = ["Kind", "Span", "code_blocks", "protected", "quotations"]

Kind = Literal["code", "diff", "inline", "quote", "word"]


class Span(NamedTuple):
    """Half-open, in characters of the text. `kind`: of the first thing in it, where several touch."""

    start: int
    end: int
    kind: Kind


# Quotations and inline code on one line, and words: what stands between white space, or between characters of scripts
# that write without it.
_QUOTED = r"""
    (?P<inline>`[^`\n]{1,500}+`)
  | (?P<quote>"[^"\n]{1,500}+"|“[^“”]{1,500}+”|«[^«»]{1,500}+»|„[^„“”]{1,500}+[“”]|「[^「」]{1,500}+」
      |(?<!\w)'[^'\n]{1,200}+'(?!\w))
"""
_QUOTATION = re.compile(_QUOTED, re.VERBOSE)
_CANDIDATE = re.compile(
    _QUOTED
    + r"""
  | (?P<word>[^\s"`“”«»„「」\u3001-\u9fff\uac00-\ud7af]++)
    """,
    re.VERBOSE,
)
# A word that isn't only language: a digit or a sign of code in it, capitals where none are due, letters joined by
# points or colons, an option, a call.
_SPECIAL = re.compile(
    r"[\d_/\\@#$€£¥%&=<>≤≥{}\[\]|~^*+°‰×±]|[^\W\d_][.:][^\W\d_]|::|->|\(\)|[a-zß-öø-ÿ][A-ZÀ-ÖØ-Þ]|[A-ZÀ-ÖØ-Þ]{2}|^--?\w"
)
_SENTENCE_END = ".,;:!?)('\"…"
_FENCE = re.compile(r"[ ]{0,3}(?P<mark>`{3,}|~{3,})")
_HUNK = re.compile(r"diff --git |@@ -\d|--- (?:a/|/dev/null|\S+\t)|\+\+\+ (?:b/|/dev/null|\S+\t)|Index: \S")
_DIFF_LINE = re.compile(r"[-+ @\\]|index [0-9a-f]|new file|deleted file|similarity|rename |old mode|new mode|=====")


def code_blocks(text: str) -> list[Span]:
    """Whole lines that are code (fenced, or indented after an empty line) or a diff, in order, without overlap."""
    found: list[Span] = []
    at, fence, start, open_kind, blank = 0, "", 0, "", True
    for line in text.splitlines(keepends=True):
        end = at + len(line)
        bare = line.strip()
        if fence:
            mark = _FENCE.match(line)
            if mark and mark["mark"].startswith(fence) and bare == mark["mark"]:
                found.append(Span(start, end, "code"))
                fence = ""
        else:
            if open_kind and not (_goes_on(open_kind, line) or (open_kind == "code" and not bare)):
                found.append(Span(start, at, "code" if open_kind == "code" else "diff"))
                open_kind = ""
            if not open_kind:
                mark = _FENCE.match(line)
                if mark:
                    fence, start = mark["mark"], at
                elif _HUNK.match(line):
                    open_kind, start = "diff", at
                elif bare and blank and line.startswith(("    ", "\t")):
                    open_kind, start = "code", at
        blank = not bare
        at = end
    if fence or open_kind:
        found.append(Span(start, at, "diff" if open_kind == "diff" else "code"))
    return found


def protected(text: str) -> list[Span]:
    """The spans that must come out as they went in: sorted, disjoint, never empty.

    Neighbours with one space between them are one span, so that '12 %', '3 500' and 'ABC 123' stay together. Cost:
    linear, about 0.2 µs a character.
    """
    spans: list[Span] = []
    at = 0
    for block in [*code_blocks(text), Span(len(text), len(text), "code")]:
        for start, end, kind in _inside(text, at, block.start):
            last = spans[-1] if spans else None
            if last and last.end >= at and text[last.end : start] in ("", " "):
                spans[-1] = Span(last.start, end, last.kind)
            else:
                spans.append(Span(start, end, kind))
        if block.start < block.end:
            spans.append(block)
        at = block.end
    return spans


def _inside(text: str, start: int, end: int) -> Iterator[Span]:
    """Protected words and quotations between two blocks."""
    for match in _CANDIDATE.finditer(text, start, end):
        if match.lastgroup != "word":
            yield Span(match.start(), match.end(), "inline" if match.lastgroup == "inline" else "quote")
            continue
        word = match.group()
        if word.isalpha() and word[1:].islower():
            continue  # an ordinary word, decided without the pattern
        bare = word.rstrip(_SENTENCE_END)
        if word[len(bare) :].startswith("()"):
            bare += "()"
        if _SPECIAL.search(bare):
            begin = len(bare) - len(bare.lstrip("('"))
            yield Span(match.start() + begin, match.start() + len(bare), "word")


def quotations(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The spans of quotations and inline code between two places, in order."""
    return [match.span() for match in _QUOTATION.finditer(text, start, end)]


def _goes_on(kind: str, line: str) -> bool:
    """Whether a block of this kind holds the line too."""
    if kind == "diff":
        return bool(_DIFF_LINE.match(line) or _HUNK.match(line))
    return line.startswith(("    ", "\t"))
