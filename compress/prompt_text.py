"""A prompt cut into its sentences, and what is said in each that nobody may leave out. Pure.

Rules of this file:
1. Only what surely is a sentence is one: code, tables, headings, examples and half lines are no pieces or not `free`.
2. In doubt a sentence is guarded: a sentence too many costs tokens, a rule too few costs answers.
The words are English; a sentence in another language is guarded for its letters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from farthing.compress.protected import code_blocks
from farthing.proxy.text import READ_CHARS, Signals, signals

__all__ = ["BOLD", "BULLET", "PLACEHOLDER", "Guard", "Piece", "formats", "guard", "obliges", "pieces"]

Guard = str  # '', or what a sentence holds that must not go: one word for a person

PLACEHOLDER = re.compile(
    r"\{\{[^{}\n]{1,80}\}\}|\{[#/^]?\w[\w.\-:!]{0,60}\}|<<?/?[A-Za-z_][\w.\- ]{0,60}>?>|\$\{?[A-Za-z_]\w{0,60}\}?"
    r"|\[[A-Z][A-Z0-9_ ]{1,60}\]|%\(\w{1,60}\)[sd]|%[sd]\b|\{\}"
)
BOLD = re.compile(r"(?<![\w*\\])\*\*(?=[^\s*])([^*\n`]{1,200})(?<=[^\s*])\*\*(?![\w*])")
BULLET = re.compile(r"[ \t]*(?:[-*+•>]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+")
_HEADING = re.compile(r"[ ]{0,3}#{1,6}[ \t]|\*\*[^*\n]{1,80}\*\*:?\s*$|[ \t]*</?[A-Za-z][\w\- ]{0,40}>[ \t]*$")
_TABLE = re.compile(r"[ \t]*\|")
_END = re.compile(r"[.!?:;…](?:[*_)\"'’”\]]{0,3})$")
_NEXT = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]{0,3}(?P<gap>\s+)(?=[\"'“(\[*_]{0,3}[A-Z0-9À-ÖØ-Þ])")
# 'e.g. Paris' is no end of a sentence.
_SHORT = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|nr|mr|mrs|ms|dr|st|fig|sec|art|[a-z])\.)$", re.I)
_EXAMPLES = re.compile(
    r"\b(?:examples?|few-shot|samples?|transcripts?|conversations?|dialogues?|demonstrations?)\b", re.I
)
_LABEL = re.compile(
    r"[*_]{0,2}(?:examples?|input|output|user|assistant|system|human|ai|customer|agent|bot|q|a|question|answer|query|"
    r"response|reply|text|label|sample|category|thought|action|observation|result|reasoning)\s?#?\d{0,3}[*_]{0,2}:",
    re.I,
)
_OBLIGES = re.compile(
    r"\b(?:must|shall|never|always|only|required?|mandatory|forbidden|prohibited|refuse|ensure|except|unless|without|"
    r"avoid|at most|at least|no more than|before|after|if|when|whenever|in case|instead|first|exactly)\b",
    re.I,
)
_DENIES = re.compile(r"\b(?:not|no|none|nor|neither|nothing|nobody|cannot|without|\w+n['’]t)\b", re.I)
_FORMATS = re.compile(
    r"\b(?:json|ya?ml|xml|html|csv|markdown|latex|sql|regex|schema|format(?:ted)?|tables?|bullets?|headings?|"
    r"(?:single|one) (?:word|line|sentence)|word count|characters?|tokens?|(?:lower|upper)[ -]?case|output|"
    r"(?:respond|reply|answer|return) (?:in|with|as|using)|language|keys?|fields?|columns?)\b",
    re.I,
)
_FOREIGN = re.compile(r"[^\W\d_a-zA-ZÀ-ɏ]")


class Piece(NamedTuple):
    """A sentence, or a list item's, at [start, end) of the prompt; `line` counts from 1.

    `section`: the number of headings before it. `free`: it is a whole sentence outside of examples.
    """

    start: int
    end: int
    line: int
    section: int
    item: bool
    free: bool
    text: str


def pieces(text: str) -> list[Piece]:
    """The sentences of a prompt in their order. Cost: linear."""
    found: list[Piece] = []
    section, example, complete = 0, "", True
    for number, start, line in _lines(text):
        bare = line.strip()
        if not bare or not line:
            example, complete = ("" if example == "label" else example), True
            continue
        if _HEADING.match(line):
            section += 1
            closing = bare.startswith("</")
            example = "section" if _EXAMPLES.search(bare) and not closing else ""
            complete = True
            continue
        if _TABLE.match(line):
            complete = True
            continue
        bullet = BULLET.match(line)
        inner = bullet.end() if bullet else 0
        if _LABEL.match(line[inner:].lstrip()) and not example:
            example = "label"
        found += _sentences(line, start, inner, number, section, free=(complete or bool(bullet)) and not example)
        complete = _END.search(bare) is not None
    return found


def guard(sentence: str) -> Guard:
    """What keeps a sentence from being left out; '' where nothing does."""
    if PLACEHOLDER.search(sentence):
        return "placeholder"
    if len(sentence) > READ_CHARS:
        return "too long to read"
    said = signals(sentence)
    if said.numbers or said.quantities or said.dates or said.times or said.units:
        return "number"
    if said.code or said.symbols:
        return "code"
    if said.quotes or "`" in sentence or '"' in said.text:
        return "quotation"
    if said.names:
        return "name"
    if _FOREIGN.search(sentence) or said.language not in ("", "en"):
        return "other language"
    if formats(sentence):
        return "format"
    if denies(said, sentence):
        return "negation"
    return "rule" if _OBLIGES.search(sentence) else ""


def formats(sentence: str) -> bool:
    """Whether it may speak of the answer's form."""
    return _FORMATS.search(sentence) is not None


def obliges(sentence: str) -> tuple[bool, bool]:
    """Whether a sentence denies something, and whether it binds: must, never, only, if."""
    return denies(signals(sentence), sentence), _OBLIGES.search(sentence) is not None


def denies(said: Signals, sentence: str) -> bool:
    """Whether there is a negation in it."""
    return said.negations > 0 or _DENIES.search(sentence) is not None


def _lines(text: str) -> list[tuple[int, int, str]]:
    """(line number, start, characters) of lines outside of code; wrapped lines that go on in lower case are one.

    A block of code counts as an empty line.
    """
    blocks = [(span.start, span.end) for span in code_blocks(text)]
    found: list[tuple[int, int, str]] = []
    at, block = 0, 0
    joined = False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        while block < len(blocks) and blocks[block][1] <= at:
            block += 1
        inside = block < len(blocks) and blocks[block][0] <= at
        body = line.rstrip()
        goes_on = (
            joined
            and bool(body)
            and not inside
            and body.lstrip()[:1].islower()
            and not BULLET.match(line)
            and not _TABLE.match(line)
        )
        if goes_on:
            first, start, before = found[-1]
            found[-1] = (first, start, text[start : at + len(body)])
            body = before + body
        else:
            found.append((number, at, "" if inside else text[at : at + len(body)]))
        joined = bool(body) and not inside and not _END.search(body) and not _HEADING.match(body)
        at += len(line)
    return found


def _sentences(line: str, offset: int, inner: int, number: int, section: int, *, free: bool) -> list[Piece]:
    """The pieces of one line, of which the first `inner` characters are its bullet."""
    cuts, begin = [], inner + len(line[inner:]) - len(line[inner:].lstrip())
    for match in _NEXT.finditer(line, begin):
        if not _SHORT.search(line[begin : match.start()]):
            cuts.append((begin, match.start("gap")))
            begin = match.end()
    cuts.append((begin, len(line)))
    return [
        Piece(
            offset + start,
            offset + end,
            number + line.count("\n", 0, start),
            section,
            inner > 0,
            (free or at > 0) and (_END.search(line[start:end]) is not None or inner > 0),
            line[start:end],
        )
        for at, (start, end) in enumerate(cuts)
        if end > start
    ]
