"""Which sentences of retrieved passages answer a question, those two steps away included. Pure.

1. Passages are scored by BM25 with their titles. The words of the best that others share widen the question.
   Source: RM3, Abdul-Jaleel et al., "UMass at TREC 2004", here with BM25's own weights.
2. A passage that names another's title passes on part of its score, and the other way round: the second step of a
   question such as 'where was the director of X born?'.
3. A sentence has its own score and its passage's; the first of a good passage has some more, since it says what the
   passage is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from farthing.compress.bm25 import rarity, scores
from farthing.compress.question import Question
from farthing.compress.units import Unit

__all__ = ["passage_scores"]

# Chosen on the training part of docs/compression-squeeze.md; all are flat within a factor of two.
_FEEDBACK_TERMS, _FEEDBACK_WEIGHT = 20, 0.8
_LINK, _LINK_BACK = 0.7, 0.35
_LEAD, _NUMERIC = 0.4, 0.15
_MOST_LINKED = 400  # passages; beyond, titles aren't looked for


def passage_scores(units: Sequence[Unit], bags: Sequence[Sequence[str]], question: Question) -> list[float]:
    """A score for each unit, 0 to about 2.5; 0 for those that aren't items. `bags`: the units' terms."""
    passages = sorted({unit.passage for unit in units})
    place = {passage: i for i, passage in enumerate(passages)}
    whole: list[list[str]] = [[] for _ in passages]
    titles: list[set[str]] = [set() for _ in passages]
    for unit, bag in zip(units, bags, strict=True):
        whole[place[unit.passage]].extend(bag)
        if unit.role == "head":
            titles[place[unit.passage]] |= {term for term in bag if not term.isdigit()}
    wanted = dict.fromkeys(question.terms, 1.0)
    first = scores(whole, wanted)
    wanted |= _feedback(whole, first, wanted)
    second = scores(whole, wanted)
    for i, gain in enumerate(_links(whole, titles, first)):
        second[i] += gain
    most = max(second, default=0.0) or 1.0
    sentences = scores(bags, wanted, b=0.5)
    items = [i for i, unit in enumerate(units) if unit.role == "item"]
    best = max((sentences[i] for i in items), default=0.0) or 1.0
    found = [0.0] * len(units)
    seen: set[int] = set()
    for i in items:
        unit = units[i]
        standing = second[place[unit.passage]] / most
        found[i] = standing + sentences[i] / best
        if unit.passage not in seen:
            seen.add(unit.passage)
            found[i] += _LEAD * standing
        if question.numeric and any(map(str.isdigit, unit.text)):
            found[i] += _NUMERIC
    return found


def _feedback(
    whole: Sequence[Sequence[str]], standing: Sequence[float], wanted: Mapping[str, float]
) -> dict[str, float]:
    """Terms of the best passage that another has too, weighted up to _FEEDBACK_WEIGHT."""
    best = max(range(len(whole)), key=lambda i: standing[i], default=0)
    if not any(standing):
        return {}
    holders = Counter(term for bag in whole for term in set(bag))
    gains = {
        term: count * rarity(len(whole), holders[term])
        for term, count in Counter(whole[best]).items()
        if term not in wanted and holders[term] > 1
    }
    top = sorted(gains.items(), key=lambda item: -item[1])[:_FEEDBACK_TERMS]
    return {term: _FEEDBACK_WEIGHT * gain / top[0][1] for term, gain in top}


def _links(whole: Sequence[Sequence[str]], titles: Sequence[set[str]], standing: Sequence[float]) -> list[float]:
    """What each passage gains from those that name its title, and from those whose title it names."""
    gains = [0.0] * len(whole)
    common = Counter(term for title in titles for term in title)
    bare = [{term for term in title if common[term] <= 0.5 * len(titles)} for title in titles]
    if len(whole) > _MOST_LINKED:
        return gains
    for i, bag in enumerate(map(set, whole)):
        for j, title in enumerate(bare):
            if i != j and title and title <= bag:
                gains[j] = max(gains[j], _LINK * standing[i])
                gains[i] = max(gains[i], _LINK_BACK * standing[j])
    return gains
