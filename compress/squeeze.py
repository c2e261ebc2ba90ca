"""Squeeze: what a question doesn't need is left out of a long text. Lossy by intent; pure.

What is kept, in this order: what can't be left out (heads of tables, the frame and the ends of arrays), what holds a
name or a number of the question, then the rest by score until the target is reached. Units stay whole and in their
order. Not touched are code, diffs, markup, short texts, and texts of which the question needs every part.

Near-duplicates don't fill the budget: a unit counts for less, the more of its word pairs are already there. Sources:
maximal marginal relevance, Carbonell & Goldstein 1998, in the coverage form of Lin & Bilmes 2011; chosen lazily, Minoux
1978.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from farthing.compress.bm25 import Words
from farthing.compress.evidence import can_choose
from farthing.compress.passages import passage_scores
from farthing.compress.question import Question, read_question
from farthing.compress.records import holders, record_scores
from farthing.compress.split import split
from farthing.compress.twins import twins
from farthing.compress.units import Unit, Units

__all__ = ["Squeezed", "Target", "squeeze"]

_LEAST_SHARE = 0.2  # of the tokens that the farthest step aims at
_NOTICE = re.compile(r"\[\d{1,9} of \d{1,9} [a-z]+ shown\]\n")
_NOTICE_TOKENS = 12
_NEWNESS_LOST = 0.25  # factor for a sentence that a newer version says with other numbers
_FIRST = 10.0  # what the question names, and a log's first and last line, go before all scores
_SAMENESS = 0.5  # lost by a unit whose words are all there already, against 1 for the best match
_WORTH = 0.95  # what leaves more than this of the tokens isn't worth a change


@dataclass(frozen=True, slots=True)
class Target:
    """How much may stay: a share of the tokens, a number of tokens, or how far to go; of several, the smallest counts.

    `far`: 0, only what stands twice is left out, to 1, a fifth of the tokens stays.
    """

    ratio: float = 1.0
    tokens: int | None = None
    far: float = 0.0

    def budget(self, tokens_before: int) -> int:
        """Tokens that may stay of so many."""
        share = min(self.ratio, 1 - (1 - _LEAST_SHARE) * self.far)
        most = round(max(0.0, share) * tokens_before)
        return most if self.tokens is None else min(most, max(0, self.tokens))


class Squeezed(NamedTuple):
    """`kept` of `units` rows, lines or sentences stayed. `removed`: the pieces left out, in order.

    `reason`: why `text` is as it was; '' where it is shorter. `notice`: what `text` then begins with; the rest is the
    units that stay, of the text's own kind. `noun`: what they are. Tokens are those of the given count.
    """

    text: str
    kept: int
    units: int
    removed: tuple[str, ...]
    tokens_before: int
    tokens_after: int
    reason: str
    notice: str = ""
    noun: str = ""


def squeeze(text: str, question: str, target: Target, count: Callable[[str], int]) -> Squeezed:
    """The text with the units that the question needs, within the target unless what is fixed in it is more.

    Without a question, only sentences that other passages repeat are left out. `count`: tokens of a text.
    Cost: linear in the text, but for links among up to 400 passages; `count` is called once for each unit.
    """
    before = count(text)
    units = split(text)
    blind = not question.strip()
    budget = math.inf if blind else target.budget(before)
    asked = read_question(question)
    # The ends of an array are fixed, but rows all the same.
    counted = [i for i, unit in enumerate(units.units) if unit.role == "item" or unit.fields is not None]
    reason = ""
    if _NOTICE.match(text):
        reason = "squeezed before"
    elif all(unit.role == "fixed" for unit in units.units):
        reason = f"{units.kind}: left alone"
    elif blind and units.kind != "prose":
        reason = "no question"
    elif asked.needs_all(units.kind):
        reason = "the question needs all of it"
    words = Words()
    bags = [] if reason else [words.terms(unit.text) for unit in units.units]
    if not (reason or blind or can_choose(asked, units, bags)):
        reason = "the question's words don't tell what to keep"
    if reason:
        return Squeezed(text, len(counted), len(counted), (), before, before, reason)
    kept = _kept(units, bags, asked, budget, count)
    shown = sum(1 for i in counted if i in kept)
    notice = f"[{shown} of {len(counted)} {units.noun} shown]\n"
    short = notice + "".join(unit.text for i, unit in enumerate(units.units) if i in kept)
    after = count(short)
    if not shown or after > _WORTH * before:
        reason = "nothing to be gained" if shown else "the target is too small for any of it"
        return Squeezed(text, len(counted), len(counted), (), before, before, reason)
    removed = tuple(unit.text for i, unit in enumerate(units.units) if i not in kept)
    return Squeezed(short, shown, len(counted), removed, before, after, "", notice, units.noun)


def _kept(
    found: Units, bags: Sequence[Sequence[str]], asked: Question, budget: float, count: Callable[[str], int]
) -> set[int]:
    """The indices of the units that stay. `bags`: the units' terms."""
    units = found.units
    items = [i for i, unit in enumerate(units) if unit.role == "item"]
    repeats: frozenset[int] = frozenset()
    first: list[int] = []
    if found.is_prose:
        repeats, superseded = twins(units)
        scores = passage_scores(units, bags, asked)
        for i in superseded:
            scores[i] *= _NEWNESS_LOST
        first += holders(units, asked.literals)
    else:
        scores = record_scores(found.kind, units, bags, asked)
        first += holders(units, (*asked.literals, *asked.names))
        if found.kind == "lines":
            first += (items[0], items[-1])
    for i in first:
        scores[i] += _FIRST
    choice = _Choice(units, bags, [count(unit.text) for unit in units], budget - _NOTICE_TOKENS, repeats)
    for i, unit in enumerate(units):
        if unit.role == "fixed":
            choice.take(i)
    items = [i for i in items if i not in repeats]
    choice.fill(items, scores)
    # Tokens of the units add up to more than those of the units joined, so there is some room left.
    choice.left = budget - _NOTICE_TOKENS - count("".join(units[i].text for i in sorted(choice.kept)))
    choice.fill(items, scores)
    return choice.kept


class _Choice:
    """The units taken so far, what they cost, and which word pairs they have."""

    def __init__(
        self,
        units: Sequence[Unit],
        bags: Sequence[Sequence[str]],
        costs: Sequence[int],
        budget: float,
        unwanted: frozenset[int],
    ) -> None:
        self.kept: set[int] = set()
        self.left = budget
        self._units, self._bags, self._costs, self._unwanted = units, bags, costs, unwanted
        self._pairs: list[set[tuple[str, str]] | None] = [None] * len(units)
        self._covered: set[tuple[str, str]] = set()

    def take(self, i: int) -> None:
        """Keep a unit and what it needs, whatever they cost."""
        for j in self._missing(i):
            self.kept.add(j)
            self.left -= self._costs[j]
            if self._units[j].role == "item":
                self._covered |= self._pairs_of(j)

    def fill(self, items: Sequence[int], scores: Sequence[float]) -> None:
        """Take the best by score and novelty, as long as they fit."""
        queue = [(-scores[i], i) for i in items if i not in self.kept]
        heapq.heapify(queue)
        while queue and self.left > 0:
            rank, i = heapq.heappop(queue)
            if i in self.kept:
                continue
            pairs = self._pairs_of(i)
            same = len(pairs & self._covered) / len(pairs) if pairs else 1.0
            now = -(scores[i] - _SAMENESS * same)
            if now > rank + 1e-9 and queue and now > queue[0][0]:
                heapq.heappush(queue, (now, i))
                continue
            if self._cost(i) <= self.left:
                self.take(i)
                for j in self._units[i].wants:
                    if j not in self.kept and j not in self._unwanted and self._cost(j) <= self.left:
                        self.take(j)

    def _missing(self, i: int) -> list[int]:
        """The unit and what it needs, directly or not, without what is there."""
        found, stack = [], [i]
        while stack:
            j = stack.pop()
            if j not in self.kept and j not in found:
                found.append(j)
                stack.extend(self._units[j].needs)
        return found

    def _cost(self, i: int) -> int:
        return sum(self._costs[j] for j in self._missing(i))

    def _pairs_of(self, i: int) -> set[tuple[str, str]]:
        pairs = self._pairs[i]
        if pairs is None:
            words = self._bags[i]
            pairs = self._pairs[i] = {*pairwise(words)}
        return pairs
