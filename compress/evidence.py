"""Whether a question gives anything to choose by, so that no answer is left out by chance. Pure.

A question may be put in other words than the text's, or in another language. Then scores by words are noise, and the
text is better left alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from farthing.compress.bm25 import rarity
from farthing.compress.question import Question
from farthing.compress.records import asked_extremes, holders, named_rows
from farthing.compress.units import Units

__all__ = ["can_choose"]

_TELLING_SHARE = 0.5  # of the units: a word in more of them, such as a column's name, tells nothing
# Of the rarity of the question's telling words, one row must have so much where the question names no row.
_COVERED = 0.5


def can_choose(asked: Question, found: Units, bags: Sequence[Sequence[str]]) -> bool:
    """`bags`: the units' terms. Cost: linear in the text.

    Of a log's lines most are alike and what isn't is kept, so a vague question ('what happened?') will do. For prose,
    one telling word must be there. For rows, the question must ask for what went wrong, or for the most or the least
    of a column that it names (the largest sum of price times quantity stands in none), or name a row, or have half of
    its telling words in one row.
    """
    if found.kind == "lines" or (not found.is_prose and (asked.trouble or asked_extremes(found.units, asked))):
        return True
    sets = [set(asked.terms).intersection(bag) for bag in bags]
    held = Counter(term for terms in sets for term in terms)
    weights = {term: rarity(len(bags), held[term]) for term in asked.terms if held[term] <= _TELLING_SHARE * len(bags)}
    if found.is_prose:
        return any(held[term] for term in weights)
    if holders(found.units, (*asked.literals, *asked.names)) or any(named_rows(found.units, asked)):
        return True
    best = max((math.fsum(weights.get(term, 0.0) for term in terms) for terms in sets), default=0.0)  # in any order
    return best > 0 and best >= _COVERED * math.fsum(weights.values())
