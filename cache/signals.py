"""What tells that two texts that look alike to an embedding ask for different things: numbers from 0. Pure.

`read` is done once for a text, `compare` for each pair. Rules of this file:
1. Every feature is symmetric in the two texts, finite, and bounded.
2. A feature's `direction` says what it may do to the score: -1 is a mismatch, and may only lower it.
3. Work is bounded: at most READ_CHARS and `_MOST_TERMS` terms of a text are looked at; a longer one is `cut`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import fsum
from operator import gt
from sys import intern

from farthing.cache.rarity import prior_of
from farthing.cache.thesaurus import NOTHING, Sense, Thesaurus
from farthing.proxy.lexicon import STOP
from farthing.proxy.text import READ_CHARS, Signals, signals, stem

__all__ = ["DIRECTIONS", "FEATURES", "Reading", "comparable", "compare", "read"]

FEATURES: dict[str, int] = {
    "cosine": 1,
    "terms_shared": 1,
    "letters_shared": 1,
    "function_words_shared": 1,
    "length_ratio": 1,
    "explained": 1,
    "rarest_replaced": -1,
    "rarest_unmatched": -1,
    "rarity_replaced": -1,
    "rarity_unmatched": -1,
    "terms_replaced": -1,
    "terms_unmatched": -1,
    "siblings": -1,
    "opposites": -1,
    "numbers_replaced": -1,
    "numbers_moved": -1,
    "quantities_replaced": -1,
    "dates_replaced": -1,
    "figures_one_sided": -1,
    "names_replaced": -1,
    "names_one_sided": -1,
    "names_moved": -1,
    "negation": -1,
    "bounds": -1,
    "code_replaced": -1,
    "code_one_sided": -1,
    "operators": -1,
    "quotes_replaced": -1,
    "quotes_one_sided": -1,
    "language": -1,
    "question": -1,
    "roles": -1,
    "moved": -1,
    "direction_words": -1,
    "third_persons": -1,
    "tense": -1,
    "one_place": -1,
    # How many of the signals that seldom lie speak: what is learned from the frequent ones holds for the rare ones too.
    "hard": -1,
}
DIRECTIONS: tuple[int, ...] = tuple(FEATURES.values())

_MOST_TERMS = 256
# Unmatched words are compared each with each: so many on either side at most.
_MOST_COMPARED = 6
# Up to so many figures a list is quicker than counting.
_FEW = 24
_TOKEN = re.compile(r"\w++")
_OPERATOR = re.compile(r"[<>!=]=|=>|->|&&|\|\||[<>=]|(?<=\s)[-+*/%&|^](?=\s)")
_DIRECTION_WORDS = frozenset(
    {"to", "from", "into", "on", "onto", "off", "in", "out", "up", "down", "over", "under"}
) | (
    {"by", "with", "without", "before", "after", "until", "since", "between", "within", "inside", "outside", "still"}
    | {"all", "some", "any", "only", "every", "each", "both", "first", "last", "next", "again", "already"}
)
_THIRD = frozenset({"his", "her", "their", "theirs", "he", "she", "they", "him", "them"})
_PAST = frozenset({"was", "were", "did", "had"})
_PRESENT = frozenset({"is", "are", "am", "do", "does", "has", "have"})
_OPEN_QUESTIONS = frozenset({"", "what", "which", "how", "yes/no"})
# The word behind the opening fence of a block of code.
_FENCE = re.compile(r"```\w{1,12}+\n")


@dataclass(frozen=True, slots=True)
class Reading:
    """One text, ready to be compared. Some 9 kB for 12 words.

    `terms`: what it says (stems of content words, numbers, dates, words of code), each with its rarity in the language
    (see rarity.prior_of); the n-th 'word' is 'word#n', so that a question about a passage stays visible beside it.
    `senses`: of those that the thesaurus knows. `order`: the terms' places. `stems`: of
    all words in order, '' for function words.
    """

    signals: Signals
    terms: dict[str, float]
    senses: dict[str, Sense]
    order: dict[str, int]
    stems: tuple[str, ...]
    lower: tuple[str, ...]
    words: frozenset[str]
    function_words: frozenset[str]
    direction_words: frozenset[str]
    third_persons: frozenset[str]
    past: bool
    letters: frozenset[str]
    names: frozenset[str]
    code: tuple[str, ...]
    operators: tuple[str, ...]
    quotes: tuple[str, ...]
    quantities: tuple[str, ...]
    dates: tuple[str, ...]
    flat: str
    folded: str
    cut: bool


def read(text: str, thesaurus: Thesaurus) -> Reading:
    """Read `text`, any str. O(len(text)) up to a bound; never raises; some 0.4 ms for 20 words."""
    said = signals(_FENCE.sub("```\n", text[: READ_CHARS + 1]))
    stems = tuple("" if word in STOP else stem(word) for word in said.words)
    content = [(word, root) for word, root in zip(said.words, stems, strict=True) if root][:_MOST_TERMS]
    figures = (*said.numbers, *said.dates, *said.times, *(part for code in said.code for part in _TOKEN.findall(code)))
    terms: dict[str, float] = {}
    senses: dict[str, Sense] = {}
    order: dict[str, int] = {}
    counts: dict[str, int] = {}
    for place, (word, term) in enumerate((*content, *((figure, figure) for figure in figures[:_MOST_TERMS]))):
        count = counts[term] = counts.get(term, 0) + 1
        key = term if count == 1 else f"{term}#{count}"
        sense = thesaurus.sense(word)
        terms[key] = prior_of(sense.rank) / count
        if place < len(content):
            order[key] = place
            if sense is not NOTHING:
                senses[key] = sense
    lower = tuple(word.lower() for word in said.words)
    words = frozenset(lower)
    folded = said.text.casefold()
    return Reading(
        signals=said,
        terms=terms,
        senses=senses,
        order=order,
        stems=stems,
        lower=lower,
        words=words,
        function_words=words & STOP,
        direction_words=words & _DIRECTION_WORDS,
        third_persons=words & _THIRD,
        past=not words.isdisjoint(_PAST) and words.isdisjoint(_PRESENT),
        letters=frozenset(intern(folded[at : at + 2]) for at in range(len(folded) - 1)),
        names=frozenset(name.lower() for name in said.names),
        code=said.code,
        operators=tuple(_OPERATOR.findall(said.text)),
        quotes=tuple(quote.casefold().rstrip(".!?") for quote in said.quotes),
        quantities=said.quantities + said.units,
        dates=said.dates + said.times + said.relative,
        flat=" ".join(said.text.split()),
        folded=folded,
        cut=said.cut or len(said.words) > 2 * _MOST_TERMS,
    )


def comparable(a: Reading, b: Reading) -> str:
    """Why the features say nothing about this pair, '' where they do: nothing may be concluded then."""
    if a.cut or b.cut:
        return "too long to compare"
    one, other = a.signals, b.signals
    if one.mixed != other.mixed:
        return "words of mixed scripts differ"
    if one.foreign != other.foreign:
        return "words in another script differ"
    uncovered = {one.language, other.language} - {"", "en"} or one.foreign
    if uncovered and (a.terms.keys() != b.terms.keys() or one.words != other.words):
        return "language not covered"
    return ""


def compare(a: Reading, b: Reading, cosine: float, rarity: Callable[[str, float], float]) -> list[float]:
    """The features of a pair, in the order of FEATURES. Some 20 µs. `rarity`: see RouteWords."""
    one, other = a.signals, b.signals
    mine = {term: rarity(term, prior) for term, prior in a.terms.items() if term not in b.terms}
    theirs = {term: rarity(term, prior) for term, prior in b.terms.items() if term not in a.terms}
    count_mine, count_theirs = len(a.terms), len(b.terms)
    union = count_mine + len(theirs)
    sum_mine, sum_theirs = fsum(mine.values()), fsum(theirs.values())
    loose = sum_mine + sum_theirs
    siblings = opposites = 0
    explained = 0.0
    if mine and theirs:
        before = len(mine)
        siblings, opposites = _related(a, b, mine, theirs)
        if len(mine) < before:
            sum_mine, sum_theirs = fsum(mine.values()), fsum(theirs.values())
            explained = 1.0 - (sum_mine + sum_theirs) / loose
    most_mine, most_theirs = max(mine.values(), default=0.0), max(theirs.values(), default=0.0)
    numbers, numbers_alone = _replaced(one.numbers, other.numbers)
    numbers_moved = one.numbers != other.numbers and not numbers and not numbers_alone
    quantities, quantities_alone = _replaced(a.quantities, b.quantities)
    dates, dates_alone = _replaced(a.dates, b.dates)
    names, names_alone = _missing(a.names, b.words, b.names, a.words)
    names_moved = bool(a.names or b.names) and _names_moved(a, b)
    code, code_alone = _absent(a.code, b.flat, b.code, a.flat)
    quotes, quotes_alone = _absent(a.quotes, b.folded, b.quotes, a.folded)
    negation = abs(one.negations - other.negations)
    bounds = one.bounds != other.bounds
    operators = (a.operators != b.operators) + (one.symbols != other.symbols)
    language = (one.scripts != other.scripts) + bool(one.language and other.language and one.language != other.language)
    roles = one.pairs != other.pairs and _turned(one.pairs, other.pairs)
    opposites += one.poles != other.poles and _opposed(one.poles, other.poles)
    functions = len(a.function_words | b.function_words)
    hard = (
        (numbers > 0) + (quantities > 0) + (dates > 0) + (names > 0) + (code > 0) + (quotes > 0) + (negation > 0)
        + (opposites > 0) + (operators > 0) + (language > 0) + numbers_moved + names_moved + bounds + roles
    )  # fmt: skip
    return [
        cosine,
        (count_mine - len(mine)) / union if union else 1.0,
        2.0 * len(a.letters & b.letters) / ((len(a.letters) + len(b.letters)) or 1),
        len(a.function_words & b.function_words) / functions if functions else 1.0,
        min(count_mine, count_theirs) / max(count_mine, count_theirs, 1) if union else 1.0,
        explained,
        min(most_mine, most_theirs),
        max(most_mine, most_theirs),
        min(sum_mine, sum_theirs, 60.0),
        min(max(sum_mine, sum_theirs), 60.0),
        min(len(mine), len(theirs), 8),
        min(max(len(mine), len(theirs)), 8),
        min(siblings, 3),
        min(opposites, 3),
        numbers,
        numbers_moved,
        quantities,
        dates,
        numbers_alone + quantities_alone + dates_alone,
        names,
        names_alone,
        names_moved,
        min(negation, 2),
        bounds,
        code,
        code_alone,
        operators,
        quotes,
        quotes_alone,
        language,
        0.0 if one.question == other.question else _questions(one.question, other.question),
        roles,
        _moved(a.order, b.order),
        _told(a.direction_words, b.direction_words),
        a.third_persons != b.third_persons,
        a.past != b.past,
        0.0 if one.words == other.words else _one_place(one.words, other.words, a.stems, b.stems),
        hard,
    ]


def _missing(
    one: frozenset[str], there: frozenset[str], other: frozenset[str], here: frozenset[str]
) -> tuple[int, int]:
    """How many names stand against others, and how many alone; a word that the other text has is no loss."""
    if one == other:
        return 0, 0
    mine, theirs = len(one - there), len(other - here)
    return min(mine, theirs, 3), min(abs(mine - theirs), 3)


def _absent(one: tuple[str, ...], there: str, other: tuple[str, ...], here: str) -> tuple[int, int]:
    """The same for pieces of text."""
    if one == other:
        return 0, 0
    mine = sum([piece not in there for piece in one[:_MOST_TERMS]])
    theirs = sum([piece not in here for piece in other[:_MOST_TERMS]])
    return min(mine, theirs, 3), min(abs(mine - theirs), 3)


def _replaced(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, int]:
    """How many figures stand against others, and how many stand alone; at most 3 each."""
    if one == other:
        return 0, 0
    if len(one) + len(other) > _FEW:
        mine, theirs = Counter(one), Counter(other)
        left, right = (mine - theirs).total(), (theirs - mine).total()
    else:
        rest = list(other)
        left = 0
        for figure in one:
            if figure in rest:
                rest.remove(figure)
            else:
                left += 1
        right = len(rest)
    return min(left, right, 3), min(abs(left - right), 3)


def _related(a: Reading, b: Reading, mine: dict[str, float], theirs: dict[str, float]) -> tuple[int, int]:
    """Take out of both what means the same or is spelt nearly the same; count those of one kind, and opposites."""
    siblings = opposites = 0
    same_mine: set[str] = set()
    same_theirs: set[str] = set()
    others = [(term, term[:4], b.senses.get(term)) for term, _ in zip(theirs, range(_MOST_COMPARED), strict=False)]
    for term, _ in zip(mine, range(_MOST_COMPARED), strict=False):
        sense, start = a.senses.get(term), term[:4]
        for their_term, their_start, their_sense in others:
            same = start == their_start and _spelt_alike(term, their_term)
            if not same and sense is not None and their_sense is not None:
                if term in their_sense.opposites or their_term in sense.opposites:
                    opposites += 1
                    continue
                same = not (
                    sense.meanings.isdisjoint(their_sense.meanings)
                    and sense.meanings.isdisjoint(their_sense.kinds)
                    and sense.kinds.isdisjoint(their_sense.meanings)
                )
                siblings += not same and not sense.kinds.isdisjoint(their_sense.kinds)
            if same:
                same_mine.add(term)
                same_theirs.add(their_term)
    for term in same_mine:
        del mine[term]
    for term in same_theirs:
        del theirs[term]
    return siblings, opposites


def _spelt_alike(one: str, other: str) -> bool:
    """'cancel' and 'cancell', 'transfer' and 'transferr'; not words with digits, and not 'Iran' and 'Iraq'."""
    least = min(len(one), len(other))
    if least < 4 or one[:4] != other[:4] or not (one.isalpha() and other.isalpha()):
        return False
    same = next((at for at in range(4, least) if one[at] != other[at]), least)
    return same >= 0.75 * max(len(one), len(other)) or (same == least and least >= 5)


def _opposed(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    turned = {("-" if pole[0] == "+" else "+") + pole[1:] for pole in other}
    return set(one) != set(other) and not turned.isdisjoint(one)


def _names_moved(a: Reading, b: Reading) -> bool:
    names = a.names | b.names
    if len(names) < 2:
        return False
    mine = [word for word in a.lower if word in names]
    theirs = [word for word in b.lower if word in names]
    return mine != theirs and sorted(mine) == sorted(theirs)


def _questions(one: str, other: str) -> float:
    """1: different questions; 0.5: one of them is not seen to be a question; 0.25: 'can I' against 'how do I'."""
    if one in _OPEN_QUESTIONS and other in _OPEN_QUESTIONS:
        return 0.25 if "yes/no" in (one, other) and (one and other) else 0.0
    return 1.0 if one and other else 0.5


def _turned(one: frozenset[tuple[str, str]], other: frozenset[tuple[str, str]]) -> bool:
    """Whether a pair of one text stands only the other way round in the other."""
    if one == other:
        return False
    return any((pair in one) != (pair in other) and pair[::-1] in one | other for pair in one ^ other)


def _moved(one: dict[str, int], other: dict[str, int]) -> float:
    """The share of shared terms before which one must step back in the other's order; the lesser of both ways."""
    if one == other:
        return 0.0
    theirs = [other[term] for term in one if term in other]
    if len(theirs) < 2:
        return 0.0
    back = [*map(gt, theirs, theirs[1:])].count(True)
    if not back:
        return 0.0
    mine = [one[term] for term in other if term in one]
    return min(back, [*map(gt, mine, mine[1:])].count(True)) / (len(theirs) - 1)


def _told(one: frozenset[str], other: frozenset[str]) -> int:
    return 0 if one == other else min(len(one - other), len(other - one), 2)


def _one_place(one: tuple[str, ...], other: tuple[str, ...], mine: tuple[str, ...], theirs: tuple[str, ...]) -> float:
    """The share of words outside the one place where the texts differ, if both have something there that says much;
    0 where they don't differ in one place. `mine`, `theirs`: their stems."""
    least = min(len(one), len(other))
    front = 0
    while front < least and one[front] == other[front]:
        front += 1
    left = least - front
    back = 0
    while back < left and one[-1 - back] == other[-1 - back]:
        back += 1
    here, there = mine[front : len(one) - back], theirs[front : len(other) - back]
    if not here or not there:
        return 0.0
    same = {*here, ""} == {*there, ""}
    return 0.0 if same else (front + back) / max(len(one), len(other))
