"""Do two short answers say the same: a label, a name, a number, yes or no? Pure.

Each function gives None where the answers aren't of its kind. Thresholds are counts of words, named below; how often
each function errs is in `agree_measured`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Set
from dataclasses import dataclass

from farthing.policies.opinion import Opinion, different, same, unsure
from farthing.proxy.lexicon import STOP
from farthing.proxy.text import Signals, normalise, signals, stem

__all__ = ["compare_labels", "compare_numbers", "compare_polarity", "plain"]

SHORT_WORDS = 8
_BARE_WORDS = 3
_HEDGES = frozenset(
    {"but", "only", "unless", "except", "if", "depends", "however", "although", "though", "partly", "sometimes"}
    | {"usually", "until", "without", "not", "no"}
)
_YES = frozenset({"yes", "yeah", "yep", "yup", "correct", "true", "right", "indeed", "affirmative"})
_NO = frozenset({"no", "nope", "nah", "incorrect", "false", "wrong", "negative"})
_MARKUP = re.compile(r"\*\*|__|`|^[ \t]*(?:[#>]+|[-*+•](?=[ \t]))[ \t]*|\\\(|\\\)|\\\[|\\\]|\$\$", re.M)
_LEAD = re.compile(
    r"^(?:(?:so|therefore|thus|hence|sure|ok|okay|certainly|of course)[,:!.]?\s+)?"
    r"(?:(?:the\s+|my\s+)?(?:correct\s+|final\s+|right\s+|best\s+)?"
    r"(?:answer|label|category|class|intent|result|solution|sentiment|option|output)\s*(?:is|:|would be|=)\s*:?\s*)?",
    re.I,
)
_EMPHASIS = re.compile(r"\*\*|__|`|\$\$|\\[()\[\]]")
_ARTICLES = frozenset({"a", "an", "the"})
_EDGES = " \t\n.,;:!?\"'()[]{}<>*_`~=-"


def plain(text: str) -> str:
    """The text without markdown, lead-in ('The answer is'), outer punctuation and articles; case-folded, '_' and '-'
    as blanks between letters. For comparing short answers only."""
    bare = _LEAD.sub("", _unmarked(text).strip(_EDGES), count=1).strip(_EDGES)
    bare = re.sub(r"(?<=\w)[_-](?=[^\W\d])", " ", bare.casefold())
    words = [word.strip("\"'()[]{}.,;:!?") for word in bare.split()]
    kept = [word for word in words if word and word not in _ARTICLES]
    return " ".join(kept or words)


def _unmarked(text: str) -> str:
    return _MARKUP.sub("", normalise(text))


def compare_labels(a: str, b: str, labels: Set[str] = frozenset()) -> Opinion | None:
    """Two short answers of at most 8 words; None where one is longer. `labels`: the closed set, where one is known."""
    one, other = plain(a), plain(b)
    if not one or not other:
        return same("label", "both empty") if one == other and not a.strip() and not b.strip() else None
    mine, theirs = one.split(), other.split()
    if max(len(mine), len(theirs)) > SHORT_WORDS:
        return None
    if one == other:
        return same("label", "equal when normalised")
    known = {plain(label) for label in labels}
    if one in known and other in known:
        return different("label", "two labels of the set")
    if known:
        return unsure("label", "not a label of the set")
    if _slug(a) and _slug(b):
        return different("label", "two labels")
    left, right = signals(_unmarked(a)), signals(_unmarked(b))
    # Longer ones are sentences, and those are compared by their meaning.
    wordless = min(len(mine), len(theirs)) <= _BARE_WORDS
    if left.numbers and right.numbers and left.numbers != right.numbers:
        return different("label", "numbers differ")
    shared = {stem(word) for word in mine} & {stem(word) for word in theirs} - {stem(word) for word in STOP}
    if shared or _initials(mine) == "".join(theirs) or _initials(theirs) == "".join(mine):
        return unsure("label", "parts in common") if wordless else None
    return different("label", "no word in common") if wordless else None


def _slug(text: str) -> bool:
    """A name out of a program: 'card_arrival', 'REFUND'."""
    bare = text.strip(_EDGES)
    return len(bare.split()) == 1 and ("_" in bare or (bare.isupper() and len(bare) > 1))


def _initials(words: list[str]) -> str:
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def compare_polarity(a: str, b: str) -> Opinion | None:
    """Two answers to a question of yes or no; None where one doesn't begin with either."""
    one, other = _polarity(a), _polarity(b)
    if not one or not other:
        return None
    if one != other:
        return different("polarity", "yes against no")
    mine, theirs = plain(a).split()[1:], plain(b).split()[1:]
    if (mine and theirs) or _HEDGES & {word.strip(_EDGES) for word in (*mine, *theirs)}:
        return None if mine and theirs else unsure("polarity", "a condition beside it")
    return same("polarity", "the same, one with a reason")


def _polarity(text: str) -> str:
    words = plain(text).split()
    first = words[0].strip(_EDGES) if words else ""
    return "yes" if first in _YES else "no" if first in _NO else ""


@dataclass(frozen=True, slots=True)
class _Final:
    """The number that an answer arrives at. `sure`: it is marked as the answer, or is all that the answer says."""

    number: str
    unit: str
    noun: str
    sure: bool


_NUMBER = r"[-+]?[$€£¥]?[-+]?(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?+|\d++(?:\.\d++)?+|\.\d++)"
_MARKED = re.compile(
    r"####[ \t]*+([^\n]{1,80})|\\boxed\{([^{}\n]{1,80})\}|"
    r"\banswer\s*+(?:is|:|=)\s*+:?\s*+([^\n]{1,80})",
    re.I,
)
_EQUATION = re.compile(rf"=\s*+(?={_NUMBER})")
_STEPS = re.compile(rf"=\s*+{_NUMBER}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def compare_numbers(a: str, b: str) -> Opinion | None:
    """Two answers that arrive at a number: '#### 18', 'The answer is 18.', '… = 18 dollars'; None where one doesn't.

    A unit that only one names is taken to be the other's too.
    """
    one, other = _final(a), _final(b)
    if one is None or other is None:
        return None
    if one.number != other.number:
        return different("number", "final numbers differ") if one.sure or other.sure else None
    if one.unit and other.unit and one.unit != other.unit:
        return different("number", "units differ")
    if not (one.sure or other.sure):
        return None
    if one.noun and other.noun and one.noun != other.noun:
        return unsure("number", "the same number of other things")
    return same("number", "the same final number")


def _final(text: str) -> _Final | None:
    text = _EMPHASIS.sub("", normalise(text))
    marked = deque(_MARKED.finditer(text), maxlen=1)
    if marked:
        told = next(filter(None, marked[0].groups()), "")
        # The answer is what stands first after the mark; a reason that follows isn't it.
        return _read(re.split(r"[.;,](?:\s|$)|\b(?:because|since|as)\b", told)[0], sure=True)
    worked = _STEPS.search(text) is not None
    lines = [line for line in _SENTENCE.split(text) if line.strip()]
    last = lines[-1] if lines else ""
    if worked and (pieces := _EQUATION.split(last))[1:]:
        return _read(pieces[-1], sure=True)
    if worked or (len(lines) == 1 and len(last.split()) <= 2 * SHORT_WORDS):
        return _read(last, sure=worked or len(last.split()) <= _BARE_WORDS)
    return None


def _read(told: str, *, sure: bool) -> _Final | None:
    """The one number of `told`; None for none and for more than one."""
    found = signals(told.strip().rstrip(".!"))
    if len(found.numbers) != 1:
        return None
    return _Final(_canonical(found.numbers[0]), _unit(found), found.content[0] if found.content else "", sure)


def _unit(found: Signals) -> str:
    unit = found.quantities[0].split()[-1] if found.quantities else ""
    # '18 in the UK' isn't inches.
    return "" if unit == "in" and not found.text.endswith("in") else unit


def _canonical(number: str) -> str:
    """18, 18.0 and 18.00 are one number."""
    return number.rstrip("0").rstrip(".") if "." in number[:-1] and number[-1:] != "." else number
