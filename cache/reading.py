"""A text as the verifier compares it: what `signals` finds and the terms it is about, in few bytes. Pure.

Rules of this file:
1. A reading is kept with every entry that was ever a candidate: tuples, shared strings, nothing that can be had again
   from the rest. What is quick to compare with is made for the one text that is asked about (see signals.Asked).
2. Work is bounded: at most READ_CHARS and `MOST_TERMS` terms of a text are looked at; a longer one is `cut`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from sys import intern

from farthing.cache.thesaurus import Sense, Thesaurus
from farthing.proxy.lexicon import STOP
from farthing.proxy.text import READ_CHARS, signals, stem

__all__ = ["MOST_TERMS", "Reading", "read"]

MOST_TERMS = 256
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
# The word behind the opening fence of a block of code.
_FENCE = re.compile(r"```\w{1,12}+\n")


@dataclass(frozen=True, slots=True)
class Reading:
    """One text, ready to be compared. See Signals for what has its names there.

    `text`: normalised. `terms`: what it says (stems of content words, then numbers, dates, words of code), distinct;
    the n-th 'word' is 'word#n', so that a question about a passage stays visible beside it. `weights`: each term's
    rarity in the language (see rarity.prior_of). `senses`: of the terms that are content words, in their order.
    `lower`: all words in lower case. `stems`: of all words, '' for function words. `functions`, `directions`, `thirds`,
    `names`: distinct words, sorted. `letters`: distinct pairs of neighbouring characters.
    """

    text: str
    terms: tuple[str, ...]
    weights: tuple[float, ...]
    senses: tuple[Sense, ...]
    words: tuple[str, ...]
    lower: tuple[str, ...]
    stems: tuple[str, ...]
    functions: tuple[str, ...]
    directions: tuple[str, ...]
    thirds: tuple[str, ...]
    past: bool
    letters: tuple[str, ...]
    names: tuple[str, ...]
    numbers: tuple[str, ...]
    quantities: tuple[str, ...]
    dates: tuple[str, ...]
    bounds: tuple[str, ...]
    negations: int
    poles: tuple[str, ...]
    pairs: frozenset[tuple[str, str]]
    code: tuple[str, ...]
    operators: tuple[str, ...]
    quotes: tuple[str, ...]
    symbols: tuple[str, ...]
    foreign: tuple[str, ...]
    mixed: tuple[str, ...]
    scripts: frozenset[str]
    language: str
    question: str
    cut: bool


def read(text: str, thesaurus: Thesaurus) -> Reading:
    """Read `text`, any str. O(len(text)) up to a bound; never raises; some 0.1 ms for 10 words."""
    said = signals(_FENCE.sub("```\n", text[: READ_CHARS + 1]))
    stems = tuple(["" if word in STOP else intern(stem(word)) for word in said.words])
    content = [(word, root) for word, root in zip(said.words, stems, strict=True) if root][:MOST_TERMS]
    figures = (*said.numbers, *said.dates, *said.times, *(part for code in said.code for part in _TOKEN.findall(code)))
    terms: list[str] = []
    weights: list[float] = []
    senses: list[Sense] = []
    counts: dict[str, int] = {}
    for word, term in (*content, *((figure, figure) for figure in figures[:MOST_TERMS])):
        count = counts[term] = counts.get(term, 0) + 1
        sense = thesaurus.sense(word)
        terms.append(term if count == 1 else f"{term}#{count}")
        weights.append(sense.prior if count == 1 else sense.prior / count)
        if len(senses) < len(content):
            senses.append(sense)
    words = said.words
    lower = tuple([intern(word.lower()) for word in words])
    distinct = frozenset(lower)
    folded = said.text.casefold()
    return Reading(
        text=text if text == said.text else said.text,
        terms=tuple(terms),
        weights=tuple(weights),
        senses=tuple(senses),
        words=lower if words == lower else words,
        lower=lower,
        stems=stems,
        functions=tuple(sorted(distinct & STOP)),
        directions=tuple(sorted(distinct & _DIRECTION_WORDS)),
        thirds=tuple(sorted(distinct & _THIRD)),
        past=not distinct.isdisjoint(_PAST) and distinct.isdisjoint(_PRESENT),
        letters=tuple(set(map(intern, map(str.__add__, folded, folded[1:])))),
        names=tuple(sorted({name.lower() for name in said.names})),
        numbers=said.numbers,
        quantities=said.quantities + said.units,
        dates=said.dates + said.times + said.relative,
        bounds=said.bounds,
        negations=said.negations,
        poles=said.poles,
        pairs=said.pairs,
        code=said.code,
        operators=tuple(_OPERATOR.findall(said.text)),
        quotes=tuple(quote.casefold().rstrip(".!?") for quote in said.quotes),
        symbols=said.symbols,
        foreign=said.foreign,
        mixed=said.mixed,
        scripts=said.scripts,
        language=said.language,
        question=said.question,
        cut=said.cut or len(said.words) > 2 * MOST_TERMS,
    )
