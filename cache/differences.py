"""What tells two texts apart, for people: kinds of difference, which words they are, where they stand. Pure.

Made when somebody asks, never for a request. Rules of this file:
1. `KINDS` covers every feature of signals.FEATURES, so that nothing lowers a score without a word.
2. Texts are shown as they are compared, that is normalised; difference is by word, and letter case is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from farthing.cache.signals import DIRECTIONS, FEATURES
from farthing.proxy.lexicon import NEGATIONS, STOP
from farthing.proxy.text import Signals, signals, stem

__all__ = ["AS_A_WHOLE", "KINDS", "Difference", "Part", "diff", "differences", "without"]

# True of every pair, so that it is worth its word behind all others only.
AS_A_WHOLE = "less alike as a whole"
# A kind of difference, and the features that speak of it.
KINDS: dict[str, tuple[str, ...]] = {
    "numbers differ": ("numbers_replaced",),
    "numbers change places": ("numbers_moved",),
    "quantities differ": ("quantities_replaced",),
    "dates or times differ": ("dates_replaced",),
    "a figure on one side": ("figures_one_sided",),
    "names differ": ("names_replaced",),
    "a name on one side": ("names_one_sided",),
    "names change places": ("names_moved",),
    "negation on one side": ("negation",),
    "bounds differ": ("bounds",),
    "opposites": ("opposites",),
    "identifiers differ": ("code_replaced", "code_one_sided"),
    "operators or symbols differ": ("operators",),
    "quotations differ": ("quotes_replaced", "quotes_one_sided"),
    "languages differ": ("language",),
    "another kind of question": ("question",),
    "parts are swapped": ("roles",),
    "another order of words": ("moved",),
    "small words differ": ("direction_words", "third_persons"),
    "another tense": ("tense",),
    "words replaced": ("rarest_replaced", "rarity_replaced", "terms_replaced", "siblings", "one_place"),
    "words on one side": ("rarest_unmatched", "rarity_unmatched", "terms_unmatched"),
    AS_A_WHOLE: ("cosine", "terms_shared", "letters_shared", "function_words_shared", "length_ratio"),
}
# What signals.compare counts in 'hard'.
_HARD = frozenset(
    {"numbers_replaced", "numbers_moved", "quantities_replaced", "dates_replaced", "names_replaced", "names_moved"}
    | {"code_replaced", "quotes_replaced", "negation", "opposites", "operators", "language", "bounds", "roles"}
)
_PLACES = {name: at for at, name in enumerate(FEATURES)}

_Words = Callable[[Signals], Iterable[str]]


def _dates(of: Signals) -> Iterable[str]:
    # '-05-14' is a day without a year.
    return (*(date.removeprefix("-") for date in of.dates), *of.times, *of.relative)


def _figures(of: Signals) -> Iterable[str]:
    return (*of.numbers, *of.quantities, *_dates(of))


def _negating(of: Signals) -> Iterable[str]:
    return (word for word in of.words if word.lower() in NEGATIONS or word.lower().endswith("n't"))


def _content(of: Signals) -> Iterable[str]:
    return (word for word in of.words if word not in STOP)


# Which words a kind is about. The second half are the guard's reasons (cache/guard.py).
_WORDS: Mapping[str, _Words] = {
    "numbers differ": lambda of: of.numbers,
    "quantities differ": lambda of: (*of.quantities, *of.units),
    "dates or times differ": _dates,
    "a figure on one side": _figures,
    "names differ": lambda of: of.names,
    "a name on one side": lambda of: of.names,
    "negation on one side": _negating,
    "bounds differ": lambda of: of.bounds,
    "opposites": _content,
    "identifiers differ": lambda of: of.code,
    "operators or symbols differ": lambda of: of.symbols,
    "quotations differ": lambda of: of.quotes,
    "languages differ": lambda of: (of.language,) if of.language else (),
    "another kind of question": lambda of: (of.question,) if of.question else (),
    "small words differ": lambda of: (word for word in of.words if word in STOP),
    "words replaced": _content,
    "words on one side": _content,
    "dates differ": lambda of: of.dates,
    "times differ": lambda of: of.times,
    "relative dates differ": lambda of: of.relative,
    "units differ": lambda of: of.units,
    "symbols differ": lambda of: of.symbols,
    "negation differs": _negating,
    "questions differ": lambda of: (of.question,) if of.question else (),
    "one place differs": _content,
    "words in another script differ": lambda of: of.foreign,
    "words of mixed scripts differ": lambda of: of.mixed,
}
# These say nothing where no word can be named: the numbers beside them have been named already.
_ONLY_WITH_WORDS = frozenset({"words replaced", "words on one side", "small words differ"})
_BY_STEM = frozenset({_content})
_MOST_NAMED = 6
_MOST_CHARS = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """One kind, and the words of either side that the other lacks; both are empty where the kind has none."""

    kind: str
    asked: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()


def without(row: Sequence[float], names: Iterable[str]) -> list[float]:
    """The features of a pair as they would be if these told of no difference."""
    changed = list(row)
    for name in names:
        at = _PLACES[name]
        if name in _HARD and changed[at]:
            changed[_PLACES["hard"]] -= 1.0
        changed[at] = 1.0 if DIRECTIONS[at] > 0 else 0.0
    return changed


def differences(kinds: Iterable[str], asked: str, stored: str) -> list[Difference]:
    """These kinds, each with the words it is about, at most six a side; no two about the same words.

    O(length); some 0.5 ms for 20 words.
    """
    one, other = signals(asked), signals(stored)
    found: list[Difference] = []
    named: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    for kind in kinds:
        words = _WORDS.get(kind)
        sides = _apart(words, one, other) if words is not None else ((), ())
        if sides in named or (not any(sides) and kind in _ONLY_WITH_WORDS):
            continue
        if any(sides):
            named.add(sides)
        found.append(Difference(kind, *sides))
    return found


def _apart(words: _Words, one: Signals, other: Signals) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What each side has more of."""
    folded: Callable[[str], str] = stem if words in _BY_STEM else str
    mine, theirs = list(words(one)), list(words(other))
    return _more(mine, theirs, folded), _more(theirs, mine, folded)


def _more(these: list[str], those: list[str], folded: Callable[[str], str]) -> tuple[str, ...]:
    left = Counter(map(folded, those))
    found: list[str] = []
    for word in these:
        if left[folded(word)] > 0:
            left[folded(word)] -= 1
        elif len(found) < _MOST_NAMED:
            found.append(word[:_MOST_CHARS])
    return tuple(found)


Part = tuple[str, bool]
"""A piece of a text, and whether the other text lacks it."""

_PIECE = re.compile(r"\s++|\w++(?:['’.,:-]\w++)*+|[^\w\s]")
# What is longer, or repeats itself more, is one difference as a whole: matching word by word would take seconds.
_MOST_PIECES, _MOST_PAIRS = 800, 4_000
_KEPT_CHARS = 60


def diff(asked: str, stored: str, *, whole: bool = False) -> tuple[list[Part], list[Part]]:
    """Both texts in pieces, word by word. Joined they give the texts again, if `whole`.

    Else what both share is shortened in its middle, where it is long, to some 120 characters around an ellipsis.
    """
    mine, theirs = _PIECE.findall(asked), _PIECE.findall(stored)
    front = _common(mine, theirs)
    back = min(_common(mine[::-1], theirs[::-1]), min(len(mine), len(theirs)) - front)
    middle = mine[front : len(mine) - back], theirs[front : len(theirs) - back]
    left: list[Part] = [("".join(mine[:front]), False)]
    right: list[Part] = [("".join(theirs[:front]), False)]
    one, other = ([piece.casefold() for piece in side] for side in middle)
    if _matchable(one, other):
        matcher = SequenceMatcher(str.isspace, one, other, autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            left.append(("".join(middle[0][a:b]), tag != "equal"))
            right.append(("".join(middle[1][c:d]), tag != "equal"))
    else:
        left.append(("".join(middle[0]), True))
        right.append(("".join(middle[1]), True))
    left.append(("".join(mine[len(mine) - back :]), False))
    right.append(("".join(theirs[len(theirs) - back :]), False))
    return _tidied(left, whole), _tidied(right, whole)


def _matchable(one: list[str], other: list[str]) -> bool:
    """Whether matching is cheap: how many pairs of equal words there are decides what it costs."""
    mine, theirs = Counter(one), Counter(other)
    pairs = sum(count * theirs[piece] for piece, count in mine.items() if not piece.isspace())
    return max(len(one), len(other)) <= _MOST_PIECES and pairs <= _MOST_PAIRS


def _common(one: list[str], other: list[str]) -> int:
    """How many pieces both begin with."""
    least = min(len(one), len(other))
    return next((at for at in range(least) if one[at].casefold() != other[at].casefold()), least)


def _tidied(parts: list[Part], whole: bool) -> list[Part]:
    """Neighbours of one sort joined, with the blank between two differences; long common parts shortened."""
    joined: list[Part] = []
    for text, differs in parts:
        if not text:
            continue
        if joined and joined[-1][1] == differs:
            joined[-1] = (joined[-1][0] + text, differs)
        elif differs and len(joined) > 1 and not joined[-1][1] and joined[-1][0].isspace():
            blank, _ = joined.pop()
            joined[-1] = (joined[-1][0] + blank + text, True)
        else:
            joined.append((text, differs))
    bare = [piece for text, differs in joined for piece in (_bare(text) if differs else [(text, False)])]
    return bare if whole else [(text if differs else _shortened(text), differs) for text, differs in bare]


def _bare(text: str) -> list[Part]:
    """A difference without the blanks at its ends; nothing but blanks is none."""
    inner = text.strip()
    if not inner:
        return [(text, False)]
    before, _, after = text.partition(inner)
    return [(piece, differs) for piece, differs in ((before, False), (inner, True), (after, False)) if piece]


def _shortened(text: str) -> str:
    if len(text) <= 2 * _KEPT_CHARS + 20:
        return text
    # At a blank, where there is one; a text without any is cut where it is.
    front, back = text[:_KEPT_CHARS], text[-_KEPT_CHARS:]
    return f"{front.rpartition(' ')[0] or front} … {back.partition(' ')[2] or back}"
