"""What tells that two texts that look alike to an embedding ask for different things: numbers from 0. Pure.

`reading.read` is done once for a text, `Asked` once for a request, `compare` for each of its candidates. Rules:
1. Every feature is symmetric in the two texts, finite, and bounded.
2. A feature's `direction` says what it may do to the score: -1 is a mismatch, and may only lower it.
3. `compare` runs eight times a request: most pairs are equal in most signals, and that is seen first.
"""

from __future__ import annotations

from collections import Counter
from math import fsum
from operator import gt

from farthing.cache.rarity import RouteWords
from farthing.cache.reading import MOST_TERMS, Reading
from farthing.cache.thesaurus import NOTHING

__all__ = ["DIRECTIONS", "FEATURES", "Asked", "comparable", "compare"]

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

# Unmatched words are compared each with each: so many on either side at most.
_MOST_COMPARED = 6
# Up to so many figures a list is quicker than counting.
_FEW = 24
_OPEN_QUESTIONS = frozenset({"", "what", "which", "how", "yes/no"})


class Asked:
    """One text, ready to be compared with many: its reading with all that would be worked out for each of them.

    `words`: of the route. `rarity`: of each of its terms. `akin`: meanings and kinds of its terms.
    """

    __slots__ = (
        "akin",
        "functions",
        "letters",
        "opposites",
        "places",
        "rarity",
        "reading",
        "senses",
        "starts",
        "words",
    )

    def __init__(self, reading: Reading, words: RouteWords) -> None:
        self.reading = reading
        self.words = words
        terms = reading.terms
        self.rarity = words.rarities(zip(terms, reading.weights, strict=True))
        self.senses = dict(zip(terms, reading.senses, strict=False))
        self.places = {term: place for place, term in enumerate(self.senses)}
        self.functions = frozenset(reading.functions)
        self.letters = frozenset(reading.letters)
        self.starts = {term[:4] for term in terms}
        self.akin: set[int] = set()
        self.opposites: set[str] = set()
        for sense in reading.senses:
            self.akin |= sense.meanings
            self.akin |= sense.kinds
            self.opposites |= sense.opposites


def comparable(a: Reading, b: Reading) -> str:
    """Why the features say nothing about this pair, '' where they do: nothing may be concluded then."""
    if a.cut or b.cut:
        return "too long to compare"
    if a.mixed != b.mixed:
        return "words of mixed scripts differ"
    if a.foreign != b.foreign:
        return "words in another script differ"
    uncovered = a.language not in ("", "en") or b.language not in ("", "en") or a.foreign
    if uncovered and (a.words != b.words or set(a.terms) != set(b.terms)):
        return "language not covered"
    return ""


def compare(asked: Asked, b: Reading, cosine: float) -> list[float]:
    """The features of a pair, in the order of FEATURES. Some 10 µs."""
    a = asked.reading
    known, terms = asked.rarity, b.terms
    count_mine, count_theirs = len(known), len(terms)
    absent = [place for place, term in enumerate(terms) if term not in known]
    theirs = asked.words.rarities([(terms[place], b.weights[place]) for place in absent]) if absent else {}
    shared = count_theirs - len(absent)
    union = count_mine + len(absent)
    mine: dict[str, float] = {}
    if shared < count_mine:
        there = set(terms)
        mine = {term: rare for term, rare in known.items() if term not in there}
    sum_mine, sum_theirs = fsum(mine.values()), fsum(theirs.values())
    siblings = opposites = 0
    explained = 0.0
    if mine and theirs:
        loose = sum_mine + sum_theirs
        siblings, opposites = _related(asked, b, absent, mine, theirs)
        if len(mine) < count_mine - shared:
            sum_mine, sum_theirs = fsum(mine.values()), fsum(theirs.values())
            explained = 1.0 - (sum_mine + sum_theirs) / loose
    most_mine, most_theirs = max(mine.values()) if mine else 0.0, max(theirs.values()) if theirs else 0.0
    few, many = (len(mine), len(theirs)) if len(mine) < len(theirs) else (len(theirs), len(mine))
    numbers = numbers_alone = numbers_moved = quantities = quantities_alone = dates = dates_alone = 0
    if a.numbers != b.numbers:
        numbers, numbers_alone = _replaced(a.numbers, b.numbers)
        numbers_moved = not numbers and not numbers_alone
    if a.quantities != b.quantities:
        quantities, quantities_alone = _replaced(a.quantities, b.quantities)
    if a.dates != b.dates:
        dates, dates_alone = _replaced(a.dates, b.dates)
    names = names_alone = code = code_alone = quotes = quotes_alone = 0
    if a.names != b.names:
        names, names_alone = _missing(a.names, b.lower, b.names, a.lower)
    names_moved = bool(a.names or b.names) and a.lower != b.lower and _names_moved(a, b)
    if a.code != b.code:
        code, code_alone = _absent(a.code, _flat(b.text), b.code, _flat(a.text))
    if a.quotes != b.quotes:
        quotes, quotes_alone = _absent(a.quotes, b.text.casefold(), b.quotes, a.text.casefold())
    negation = abs(a.negations - b.negations)
    bounds = a.bounds != b.bounds
    operators = (a.operators != b.operators) + (a.symbols != b.symbols)
    language = (a.scripts != b.scripts) + bool(a.language and b.language and a.language != b.language)
    roles = a.pairs != b.pairs and _turned(a.pairs, b.pairs)
    opposites += a.poles != b.poles and _opposed(a.poles, b.poles)
    functions_shared = len(asked.functions.intersection(b.functions))
    functions = len(asked.functions) + len(b.functions) - functions_shared
    hard = (
        (numbers > 0) + (quantities > 0) + (dates > 0) + (names > 0) + (code > 0) + (quotes > 0) + (negation > 0)
        + (opposites > 0) + (operators > 0) + (language > 0) + numbers_moved + names_moved + bounds + roles
    )  # fmt: skip
    return [
        cosine,
        (count_mine - len(mine)) / union if union else 1.0,
        2.0 * len(asked.letters.intersection(b.letters)) / ((len(a.letters) + len(b.letters)) or 1),
        functions_shared / functions if functions else 1.0,
        min(count_mine, count_theirs) / max(count_mine, count_theirs, 1) if union else 1.0,
        explained,
        min(most_mine, most_theirs),
        max(most_mine, most_theirs),
        min(sum_mine, sum_theirs, 60.0),
        min(max(sum_mine, sum_theirs), 60.0),
        few if few < 8 else 8,
        many if many < 8 else 8,
        siblings if siblings < 3 else 3,
        opposites if opposites < 3 else 3,
        numbers,
        numbers_moved,
        quantities,
        dates,
        numbers_alone + quantities_alone + dates_alone,
        names,
        names_alone,
        names_moved,
        negation if negation < 2 else 2,
        bounds,
        code,
        code_alone,
        operators,
        quotes,
        quotes_alone,
        language,
        0.0 if a.question == b.question else _questions(a.question, b.question),
        roles,
        _moved(asked.places, b),
        _told(a.directions, b.directions),
        a.thirds != b.thirds,
        a.past != b.past,
        0.0 if a.words == b.words else _one_place(a.words, b.words, a.stems, b.stems),
        hard,
    ]


def _missing(
    one: tuple[str, ...], there: tuple[str, ...], other: tuple[str, ...], here: tuple[str, ...]
) -> tuple[int, int]:
    """How many names stand against others, and how many alone; a word that the other text has is no loss."""
    mine, theirs = len(set(one).difference(there)), len(set(other).difference(here))
    return min(mine, theirs, 3), min(abs(mine - theirs), 3)


def _absent(one: tuple[str, ...], there: str, other: tuple[str, ...], here: str) -> tuple[int, int]:
    """The same for pieces of text."""
    mine = sum([piece not in there for piece in one[:MOST_TERMS]])
    theirs = sum([piece not in here for piece in other[:MOST_TERMS]])
    return min(mine, theirs, 3), min(abs(mine - theirs), 3)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _replaced(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, int]:
    """How many figures stand against others, and how many stand alone; at most 3 each."""
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


def _related(
    asked: Asked, b: Reading, absent: list[int], mine: dict[str, float], theirs: dict[str, float]
) -> tuple[int, int]:
    """Take out of both what means the same or is spelt nearly the same; count those of one kind, and opposites.

    `absent`: the places of b's terms that are in `theirs`.
    """
    senses, akin, content = b.senses, asked.akin, len(b.senses)
    others = [
        (term, start, senses[place] if place < content else NOTHING)
        for place in absent[:_MOST_COMPARED]
        # Most are related to nothing at all in the other text; a figure has no sense.
        if (start := (term := b.terms[place])[:4]) in asked.starts
        or (
            place < content
            and (
                not (sense := senses[place]).meanings.isdisjoint(akin)
                or not sense.kinds.isdisjoint(akin)
                or term in asked.opposites
                or not sense.opposites.isdisjoint(mine)
            )
        )
    ]
    if not others:
        return 0, 0
    siblings = opposites = 0
    same_mine: set[str] = set()
    same_theirs: set[str] = set()
    for term, _ in zip(mine, range(_MOST_COMPARED), strict=False):
        sense, start = asked.senses.get(term, NOTHING), term[:4]
        for their_term, their_start, their_sense in others:
            same = start == their_start and _spelt_alike(term, their_term)
            if not same and sense is not NOTHING and their_sense is not NOTHING:
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
    names = {*a.names, *b.names}
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
    return any((pair in one) != (pair in other) and pair[::-1] in one | other for pair in one ^ other)


def _moved(places: dict[str, int], b: Reading) -> float:
    """The share of shared terms before which one must step back in the other's order; the lesser of both ways.

    `places`: of the content words of the one text.
    """
    order = b.terms[: len(b.senses)]
    mine = [places[term] for term in order if term in places]
    back = [*map(gt, mine, mine[1:])].count(True)
    if not back:
        return 0.0
    theirs = sorted(range(len(mine)), key=mine.__getitem__)
    return min(back, [*map(gt, theirs, theirs[1:])].count(True)) / (len(mine) - 1)


def _told(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    return 0 if one == other else min(len(set(one).difference(other)), len(set(other).difference(one)), 2)


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
