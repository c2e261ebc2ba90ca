"""What tells that two texts that look alike to an embedding ask for different things: numbers from 0. Pure.

`read` is done once for a text, `compare` for each pair. Rules of this file:
1. Every feature is symmetric in the two texts, finite, and bounded.
2. A feature's `direction` says what it may do to the score: -1 is a mismatch, and may only lower it.
3. Work is bounded: at most READ_CHARS and `_MOST_TERMS` terms of a text are looked at; a longer one is `cut`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import fsum
from operator import gt

from farthing.cache.rarity import prior_of
from farthing.cache.thesaurus import NOTHING, Sense, Thesaurus
from farthing.proxy.lexicon import STOP
from farthing.proxy.text import Signals, signals, stem

__all__ = ["DIRECTIONS", "FEATURES", "Reading", "comparable", "compare", "read"]

FEATURES: dict[str, int] = {
    "cosine": 1,
    "contrast": 0,
    "terms_shared": 1,
    "rarity_shared": 1,
    "letters_shared": 1,
    "function_words_shared": 1,
    "length_ratio": 1,
    "length": 0,
    "rarest_replaced": -1,
    "rarest_unmatched": -1,
    "rarity_replaced": -1,
    "rarity_unmatched": -1,
    "terms_replaced": -1,
    "terms_unmatched": -1,
    "explained": 1,
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
    "script": -1,
    "question": -1,
    "roles": -1,
    "moved": -1,
    "direction_words": -1,
    "possessors": -1,
    "tense": -1,
    "one_place": -1,
}
DIRECTIONS: tuple[int, ...] = tuple(FEATURES.values())

_MOST_TERMS = 256
# Unmatched words are compared each with each: so many on either side at most.
_MOST_COMPARED = 8
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
_FUTURE = frozenset({"will", "would", "shall"})
_OPEN_QUESTIONS = frozenset({"", "what", "which", "how", "yes/no"})
_EMPTY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """One text, ready to be compared. About 4 kB for 20 words.

    `terms`: what it says (stems of content words, numbers, dates, parts of identifiers), each with its rarity in the
    language (see rarity.prior_of). `senses`: of those that the thesaurus knows. `order`: the terms' first places.
    """

    signals: Signals
    terms: dict[str, float]
    senses: dict[str, Sense]
    order: dict[str, int]
    tokens: frozenset[str]
    words: frozenset[str]
    function_words: frozenset[str]
    identifiers: frozenset[str]
    operators: tuple[str, ...]
    folded: str
    cut: bool


def read(text: str, thesaurus: Thesaurus) -> Reading:
    """Read `text`, any str. O(len(text)) up to a bound; never raises; some 0.4 ms for 20 words."""
    said = signals(text)
    forms = {stem(word): word for word in said.words[:_MOST_TERMS] if word not in STOP}
    senses = {term: sense for term, word in forms.items() if (sense := thesaurus.sense(word)) is not NOTHING}
    identifiers = frozenset(part for code in said.code[:_MOST_TERMS] for part in _TOKEN.findall(code))
    figures = (*said.numbers, *said.dates, *said.times)
    terms = {term: prior_of(senses.get(term, NOTHING).rank) for term in forms}
    for other in (*figures, *identifiers):
        terms.setdefault(other, prior_of(NOTHING.rank))
    words = frozenset(word.lower() for word in said.words)
    order: dict[str, int] = {}
    for place, word in enumerate(said.words[:_MOST_TERMS]):
        if word not in STOP:
            order.setdefault(stem(word), place)
    return Reading(
        signals=said,
        terms=terms,
        senses=senses,
        order=order,
        tokens=frozenset(_TOKEN.findall(said.text)),
        words=words,
        function_words=words & STOP,
        identifiers=identifiers,
        operators=tuple(_OPERATOR.findall(said.text)),
        folded=said.text.casefold(),
        cut=said.cut or len(said.words) > _MOST_TERMS,
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


def compare(
    a: Reading, b: Reading, cosine: float, contrast: float, rarity: Callable[[str, float], float]
) -> list[float]:
    """The features of a pair, in the order of FEATURES. Some 15 µs.

    `contrast`: how much nearer than the other candidates on average. `rarity`: see RouteWords.
    """
    one, other = a.signals, b.signals
    mine = [term for term in a.terms if term not in b.terms]
    theirs = [term for term in b.terms if term not in a.terms]
    shared = len(a.terms) - len(mine)
    rare_mine = {term: rarity(term, a.terms[term]) for term in mine}
    rare_theirs = {term: rarity(term, b.terms[term]) for term in theirs}
    common = fsum([rarity(term, prior) for term, prior in a.terms.items() if term not in rare_mine])
    loose = fsum([*rare_mine.values(), *rare_theirs.values()])
    siblings, opposites = _related(a, b, rare_mine, rare_theirs)
    left = fsum([*rare_mine.values(), *rare_theirs.values()])
    most_mine, most_theirs = max(rare_mine.values(), default=0.0), max(rare_theirs.values(), default=0.0)
    sum_mine, sum_theirs = fsum(rare_mine.values()), fsum(rare_theirs.values())
    longer, shorter = max(len(a.terms), len(b.terms)), min(len(a.terms), len(b.terms))
    letters = sum(map(len, a.terms)) + sum(map(len, b.terms))
    numbers = _replaced(one.numbers, other.numbers)
    quantities = _replaced(one.quantities + one.units, other.quantities + other.units)
    dates = _replaced(one.dates + one.times + one.relative, other.dates + other.times + other.relative)
    code_mine, code_theirs = a.identifiers - b.tokens, b.identifiers - a.tokens
    names_mine = {name for name in one.names if name.lower() not in b.words}
    names_theirs = {name for name in other.names if name.lower() not in a.words}
    quotes_mine = [quote for quote in one.quotes if quote.casefold() not in b.folded]
    quotes_theirs = [quote for quote in other.quotes if quote.casefold() not in a.folded]
    functions = len(a.function_words | b.function_words)
    return [
        cosine,
        contrast,
        shared / max(shared + len(mine) + len(theirs), 1) if shared or mine or theirs else 1.0,
        common / (common + loose) if loose else 1.0,
        1.0 - _letters(rare_mine, rare_theirs) / letters if letters else 1.0,
        len(a.function_words & b.function_words) / functions if functions else 1.0,
        shorter / longer if longer else 1.0,
        float(min(longer, 40)),
        min(most_mine, most_theirs),
        max(most_mine, most_theirs),
        min(sum_mine, sum_theirs, 60.0),
        min(max(sum_mine, sum_theirs), 60.0),
        float(min(len(rare_mine), len(rare_theirs), 8)),
        float(min(max(len(rare_mine), len(rare_theirs)), 8)),
        1.0 - left / loose if loose else 0.0,
        siblings,
        opposites + _opposed(one.poles, other.poles),
        float(numbers[0]),
        float(one.numbers != other.numbers and not numbers[0] and not numbers[1]),
        float(quantities[0]),
        float(dates[0]),
        float(numbers[1] + quantities[1] + dates[1]),
        float(min(len(names_mine), len(names_theirs), 3)),
        float(min(abs(len(names_mine) - len(names_theirs)), 3)),
        _names_moved(one, other),
        float(min(abs(one.negations - other.negations), 2)),
        float(one.bounds != other.bounds),
        float(min(len(code_mine), len(code_theirs), 3)),
        float(min(abs(len(code_mine) - len(code_theirs)), 3)),
        float(a.operators != b.operators) + float(one.symbols != other.symbols),
        float(min(len(quotes_mine), len(quotes_theirs), 2)),
        float(min(abs(len(quotes_mine) - len(quotes_theirs)), 2)),
        float(one.scripts != other.scripts) + float(one.language != other.language),
        _questions(one.question, other.question),
        float(bool(one.pairs or other.pairs) and _turned(one.pairs, other.pairs)),
        _moved(a.order, b.order),
        float(_told(a.function_words, b.function_words)),
        float(_possessor(a.function_words) != _possessor(b.function_words)),
        float(_tense(a.function_words) != _tense(b.function_words)),
        _one_place(one.words, other.words),
    ]  # fmt: skip


def _replaced(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, int]:
    """How many figures stand against others, and how many stand alone; at most 3 each."""
    if one == other:
        return 0, 0
    mine, theirs = Counter(one), Counter(other)
    left, right = (mine - theirs).total(), (theirs - mine).total()
    return min(left, right, 3), min(abs(left - right), 3)


def _related(a: Reading, b: Reading, mine: dict[str, float], theirs: dict[str, float]) -> tuple[float, float]:
    """Take out of both what means the same or is spelt nearly the same; count those of one kind, and opposites."""
    siblings = opposites = 0
    if not mine or not theirs:
        return 0.0, 0.0
    same_mine: set[str] = set()
    same_theirs: set[str] = set()
    others = [(term, b.senses.get(term, NOTHING)) for term in list(theirs)[:_MOST_COMPARED]]
    for term in list(mine)[:_MOST_COMPARED]:
        sense = a.senses.get(term, NOTHING)
        for their_term, theirs_sense in others:
            if _spelt_alike(term, their_term):
                same = True
            elif sense is NOTHING or theirs_sense is NOTHING:
                continue
            else:
                if term in theirs_sense.opposites or their_term in sense.opposites:
                    opposites += 1
                    continue
                same = not (
                    sense.meanings.isdisjoint(theirs_sense.meanings)
                    and sense.meanings.isdisjoint(theirs_sense.kinds)
                    and sense.kinds.isdisjoint(theirs_sense.meanings)
                )
                siblings += not same and not sense.kinds.isdisjoint(theirs_sense.kinds)
            if same:
                same_mine.add(term)
                same_theirs.add(their_term)
    for term in same_mine:
        del mine[term]
    for term in same_theirs:
        del theirs[term]
    return float(min(siblings, 3)), float(min(opposites, 3))


def _spelt_alike(one: str, other: str) -> bool:
    """'cancel' and 'cancell', 'transfer' and 'transferr'; not words with digits, and not 'Iran' and 'Iraq'."""
    least = min(len(one), len(other))
    if least < 4 or one[:4] != other[:4] or not (one.isalpha() and other.isalpha()):
        return False
    same = next((at for at in range(4, least) if one[at] != other[at]), least)
    return same >= 0.75 * max(len(one), len(other)) or (same == least and least >= 5)


def _letters(mine: Iterable[str], theirs: Iterable[str]) -> float:
    """How many letters of the unmatched words are in no pair of letters that both sides have."""
    one = Counter(term[at : at + 2] for term in mine for at in range(min(len(term), 40)))
    other = Counter(term[at : at + 2] for term in theirs for at in range(min(len(term), 40)))
    return float((one - other).total() + (other - one).total())


def _opposed(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    if one == other:
        return 0.0
    turned = {("-" if pole[0] == "+" else "+") + pole[1:] for pole in other}
    return float(set(one) != set(other) and not turned.isdisjoint(one))


def _names_moved(one: Signals, other: Signals) -> float:
    names = {*one.names, *other.names}
    if len(names) < 2:
        return 0.0
    mine = [word for word in one.words if word in names]
    theirs = [word for word in other.words if word in names]
    return float(mine != theirs and sorted(mine) == sorted(theirs))


def _questions(one: str, other: str) -> float:
    if one == other:
        return 0.0
    if one in _OPEN_QUESTIONS and other in _OPEN_QUESTIONS:
        return 0.0
    return 1.0 if one and other else 0.5


def _turned(one: frozenset[tuple[str, str]], other: frozenset[tuple[str, str]]) -> bool:
    """Whether a pair of one text stands only the other way round in the other."""
    if one == other:
        return False
    return any((pair in one) != (pair in other) and pair[::-1] in one | other for pair in one ^ other)


def _moved(one: dict[str, int], other: dict[str, int]) -> float:
    """The share of shared terms before which one must step back in the other's order; the lesser of both ways."""
    here = [(place, other[term]) for term, place in one.items() if term in other]
    if len(here) < 2:
        return 0.0
    there = [mine for _, mine in sorted([(theirs, mine) for mine, theirs in here])]
    theirs = [place for _, place in here]
    steps = min(sum(map(gt, theirs, theirs[1:])), sum(map(gt, there, there[1:])))
    return float(steps) / (len(here) - 1)


def _told(one: frozenset[str], other: frozenset[str]) -> int:
    mine = (one - other) & _DIRECTION_WORDS
    theirs = (other - one) & _DIRECTION_WORDS
    return min(len(mine), len(theirs), 2)


def _possessor(words: frozenset[str]) -> frozenset[str]:
    """Whose it is, where it is a third person's: 'my' and 'your' say who talks to whom, and are often left out."""
    return words & _THIRD


def _tense(words: frozenset[str]) -> str:
    past, present = not words.isdisjoint(_PAST), not words.isdisjoint(_PRESENT)
    return "past" if past and not present else ""


def _one_place(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """The share of words outside the one place where the texts differ, if both have something there that says much;
    0 where they don't differ in one place."""
    if one == other:
        return 0.0
    least = min(len(one), len(other))
    front = next((at for at in range(least) if one[at] != other[at]), least)
    left = least - front
    back = next((at for at in range(left) if one[-1 - at] != other[-1 - at]), left)
    mine, theirs = one[front : len(one) - back], other[front : len(other) - back]
    said = {stem(word) for word in mine if word not in STOP}
    if not mine or not theirs or said == {stem(word) for word in theirs if word not in STOP}:
        return 0.0
    return (front + back) / max(len(one), len(other))
