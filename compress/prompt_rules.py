"""A shorter prompt by rules: sentences said twice, phrases that say nothing, blanks, decoration. Pure.

The draft is for a person to read and for a trial to judge; nothing here is ever applied to a request.

Rules of this file:
1. The last copy of a sentence never goes, but for whole sentences of politeness (`_EMPTY`) that guard nothing.
2. A copy that holds a number, name, quotation, placeholder, format or code goes only within its own section, since the
   same words under another heading may bind something else. Copies of a bare rule (must, never, not) go anywhere.
3. Code, tables, examples and quotations stay as they are. What sounds alike is only flagged.
4. The draft is checked against the original (`prompt_kept.lost`): where anything is lost, there is no draft.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from farthing.compress.prompt_blanks import Cut, without_blanks, without_decoration
from farthing.compress.prompt_kept import lost
from farthing.compress.prompt_text import BULLET, Piece, guard, pieces
from farthing.compress.protected import protected
from farthing.proxy.text import READ_CHARS, signals

__all__ = ["FILLERS", "PREFACES", "Cut", "Draft", "Flag", "draft"]


class Flag(NamedTuple):
    """Two sentences that say nearly the same, for a person to look at: lines, counted from 1, and the later text."""

    line: int
    like_line: int
    text: str


class Draft(NamedTuple):
    """The shorter text, or the same one; what was cut, and what wasn't but might be. `gave_up`: why there is none."""

    text: str
    cuts: tuple[Cut, ...] = ()
    flags: tuple[Flag, ...] = ()
    gave_up: str = ""


# Pattern, what stands there instead, and why. Prefaces are taken off a sentence's beginning, one after the other; the
# others wherever they stand outside of quotations and code.
PREFACES: tuple[tuple[str, str], ...] = (
    (
        r"(?:be sure to |make sure to |remember to )?(?:note|be aware|be advised|keep in mind|bear in mind) that ",
        "preface",
    ),
    (
        r"(?:it is|it's) (?:very |extremely |really )?(?:important|worth|essential|crucial) "
        r"(?:to note|noting|to remember|to mention) that ",
        "preface",
    ),
    (
        r"as (?:has been |was |we have |already )*(?:mentioned|stated|said|noted)"
        r"(?: previously| before| earlier| already)?, ",
        "preface",
    ),
    (r"(?:please|kindly),? ", "politeness"),
)
FILLERS: tuple[tuple[str, str, str], ...] = (
    (r"in order to ", "to ", "wordy"),
    (r"due to the fact that ", "because ", "wordy"),
    (r"in the event that ", "if ", "wordy"),
    (r"in cases? where ", "if ", "wordy"),
    (r"for the purposes? of ", "for ", "wordy"),
    (r"with (?:regard|respect) to ", "about ", "wordy"),
    (r"at (?:this|the present) (?:point|moment) in time ", "now ", "wordy"),
    (r"(?:has|have) the ability to ", "can ", "wordy"),
    (r"(?:is|are) able to ", "can ", "wordy"),
    (r"each and every ", "each ", "wordy"),
    (r"first and foremost, ", "first, ", "wordy"),
    (r"(?<=, )please (?=[a-z])", "", "politeness"),
)
_PREFACES = tuple((re.compile(pattern, re.I), why) for pattern, why in PREFACES)
_FILLERS = tuple((re.compile(rf"(?<![\w'’-]){pattern}", re.I), into, why) for pattern, into, why in FILLERS)
# Sentences that only encourage or thank.
_EMPTY = re.compile(
    r"(?:thank you|thanks|many thanks)(?: (?:so|very) much)?(?: in advance)?(?: for [a-z ]{1,40})?[.!]"
    r"|good luck[.!]|let's (?:get started|begin)[.!]|you(?:'ve| have) got this[.!]"
    r"|i (?:know|believe) you can do (?:it|this)[.!]"
    r"|(?:take a deep breath|i hope (?:this|that) (?:helps|is clear|makes sense))[.!]",
    re.I,
)
# A sentence about what to say: its 'please' may be what is to be said.
_SPEECH = re.compile(
    r"\b(?:say|says|saying|write|phrases?|words?|wording|greet\w*|polite\w*|tone|begin|start|end|ask) \b", re.I
)
# What these begin with refers to the sentence before.
_REFERS = re.compile(
    r"(?:this|that|these|those|they|he|she|such|otherwise|then|also|however|therefore|thus|it(?! is\b))\b", re.I
)
_FACTS = frozenset(
    {"number", "name", "quotation", "placeholder", "format", "code", "other language", "too long to read"}
)
_FEWEST_WORDS = 5
_ALIKE = 0.8
_MOST_PIECES = 600


class _Edit(NamedTuple):
    start: int
    end: int
    cut: Cut


def draft(text: str) -> Draft:
    """A shorter form of a prompt by rules alone; the same text where they find nothing. Never longer."""
    found = pieces(text)
    edits = _duplicates(text, found)
    gone = {edit.start for edit in edits}
    edits += [edit for piece in found if piece.start not in gone and (edit := _filler(piece))]
    edits = _whole_lines(text, edits)
    short, cuts = without_decoration(_applied(text, edits), [edit.cut for edit in edits])
    short, cuts = without_blanks(short, cuts)
    flags = _near(found, {edit.cut.line for edit in edits if edit.cut.rule == "duplicate"})
    if len(short) >= len(text):
        return Draft(text, flags=flags)
    if losses := lost(text, short):
        return Draft(text, flags=flags, gave_up=f"it would have lost the {losses[0].kind} {losses[0].text!r}")
    return Draft(short, tuple(cuts), flags)


def _key(sentence: str) -> str:
    """What two copies have in common: all but bold marks, blanks, the first letter's case and the point at the end."""
    flat = " ".join(sentence.replace("**", "").split()).rstrip(".!;")
    return flat[:1].casefold() + flat[1:]


def _duplicates(text: str, found: list[Piece]) -> list[_Edit]:
    """Copies of earlier sentences, and sentences that say nothing."""
    first: dict[tuple[str, int | None], Piece] = {}
    edits = []
    for piece in found:
        if not piece.free:
            continue
        held = guard(piece.text)
        if not held and _EMPTY.fullmatch(piece.text.strip()):
            edits.append(_removed(text, piece, "filler", "says nothing that binds"))
            continue
        anywhere = held not in _FACTS and len(piece.text.split()) >= _FEWEST_WORDS and not _REFERS.match(piece.text)
        key = (_key(piece.text), None if anywhere else piece.section)
        if not key[0] or (not anywhere and _REFERS.match(piece.text)):
            continue
        earlier = first.setdefault(key, piece)
        if earlier is not piece:
            edits.append(_removed(text, piece, "duplicate", f"stands in line {earlier.line} already"))
    return edits


def _removed(text: str, piece: Piece, rule: str, why: str) -> _Edit:
    """Without the sentence and the blanks behind it."""
    end = piece.end
    while end < len(text) and text[end] in " \t":
        end += 1
    return _Edit(piece.start, end, Cut(rule, piece.line, piece.text, "", why))


def _filler(piece: Piece) -> _Edit | None:
    """The sentence without its phrases that say nothing."""
    if not piece.free or _SPEECH.search(piece.text):
        return None
    now, whys = piece.text, []
    while found := next(((match, why) for pattern, why in _PREFACES if (match := pattern.match(now))), None):
        now = now[found[0].end() :]
        whys.append(found[1])
    for pattern, into, why in _FILLERS:
        changed = _without(now, pattern, into)
        if changed != now:
            whys.append(why)
            now = changed
    if now == piece.text or not now.strip() or lost(piece.text, now):
        return None
    if piece.text[:1].isupper() and now[:1].islower():
        now = now[0].upper() + now[1:]
    return _Edit(piece.start, piece.end, Cut("filler", piece.line, piece.text, now, ", ".join(dict.fromkeys(whys))))


def _without(sentence: str, pattern: re.Pattern[str], into: str) -> str:
    spans = protected(sentence) if pattern.search(sentence) else []

    def swap(match: re.Match[str]) -> str:
        touches = any(span.start < match.end() and match.start() < span.end for span in spans)
        return match.group() if touches else into

    return pattern.sub(swap, sentence)


def _whole_lines(text: str, edits: list[_Edit]) -> list[_Edit]:
    """The edits in order; of a line of which nothing is left its bullet and its end go too."""
    edits = sorted(edits)
    out: list[_Edit] = []
    run = 0
    for at, edit in enumerate(edits):
        follows = at > 0 and edits[at - 1].end == edit.start and not edits[at - 1].cut.after and not edit.cut.after
        run = run if follows else at
        out.append(edit)
        if edit.cut.after or text[edit.end : edit.end + 1] not in ("", "\n", "\r"):
            continue
        start = text.rfind("\n", 0, edits[run].start) + 1
        before = text[start : edits[run].start]
        if not before.strip() or BULLET.fullmatch(before):
            end = edit.end + (2 if text[edit.end : edit.end + 2] == "\r\n" else 1)
            out[-1] = edit._replace(end=min(end, len(text)))
            out[run] = out[run]._replace(start=start)
    return out


def _applied(text: str, edits: list[_Edit]) -> str:
    at, out = 0, []
    for edit in edits:
        out += [text[at : edit.start], edit.cut.after]
        at = edit.end
    return "".join([*out, text[at:]])


def _near(found: list[Piece], removed: set[int]) -> tuple[Flag, ...]:
    """Sentences that share most of their words with an earlier one, and aren't copies of it."""
    words: list[tuple[Piece, frozenset[str], tuple[object, ...]]] = []
    flags = []
    for piece in found[:_MOST_PIECES]:
        if piece.line in removed or len(piece.text) > READ_CHARS:
            continue
        said = signals(piece.text)
        mine, facts = frozenset(said.content), (said.numbers, said.quantities, said.names, said.code)
        if len(mine) < _FEWEST_WORDS - 1:
            continue
        for other, theirs, stated in words:
            alike = facts == stated and len(mine & theirs) >= _ALIKE * len(mine | theirs)
            if alike and _key(piece.text) != _key(other.text):
                flags.append(Flag(piece.line, other.line, piece.text))
                break
        words.append((piece, mine, facts))
    return tuple(flags)
