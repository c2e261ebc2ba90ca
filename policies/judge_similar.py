"""Does an answer mean what the reference means, by an embedding, and name the same numbers and names? Pure.

An embedding hardly sees a changed number, name or 'not', so what it can't see is compared by itself and decides first.
Sentence by sentence and both ways, as BERTScore does with tokens (Zhang et al., ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from farthing.policies.agree_prose import sentences
from farthing.policies.judges import BAD, GOOD, JudgeCase, Score
from farthing.policies.opinion import Embed
from farthing.proxy.errors import ConfigFault
from farthing.proxy.text import READ_CHARS, Signals, signals, stem

__all__ = ["Similar"]

_FACTS = ("numbers", "quantities", "dates", "times")
_MOST_SENTENCES = 120
# Of all-MiniLM-L6-v2, chosen on the choosing half of bench.answers.
_AT_LEAST = 0.8


@dataclass(frozen=True, slots=True)
class Similar:
    """Mean cosine of each sentence with its like on the other side, both ways; 0 where a fact differs.

    `at_least`: from here on an answer is good (1), below it is bad (0); 0 gives the cosine itself. `facts`: numbers,
    quantities, dates, times, names and negation must agree. `embed`: the embedder, rows of length 1.
    """

    at_least: float = _AT_LEAST
    facts: bool = True
    embed: Embed | None = None
    name: ClassVar[str] = "similar"
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.at_least <= 1:
            raise ConfigFault("judge similar: at_least must be between 0 and 1")

    def judge(self, case: JudgeCase) -> Score:
        """None without an embedder, without words, or for more than 120 sentences."""
        if case.reference is None:
            return Score(None, "no reference")
        if self.embed is None:
            return Score(None, "no embedder")
        ours, theirs = sentences(case.answer.text), sentences(case.reference.text)
        if not theirs:
            return Score(None, "the reference has no words")
        if not ours:
            return Score(BAD, "no words")
        if max(len(ours), len(theirs)) > _MOST_SENTENCES or max(map(len, (*ours, *theirs))) > READ_CHARS:
            return Score(None, "too long to compare")
        if self.facts and (apart := _apart([signals(one) for one in ours], [signals(one) for one in theirs])):
            return Score(BAD, apart)
        try:
            vectors = self.embed([*ours, *theirs])
        except ValueError:
            return Score(None, "a sentence beyond the embedder's window")
        cosines = vectors[: len(ours)] @ vectors[len(ours) :].T
        mean = float((cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2)
        value = min(1.0, max(0.0, mean))
        reason = f"similarity {value:.2f}"
        return Score(value if self.at_least == 0 else GOOD if value >= self.at_least else BAD, reason)


def _apart(ours: Sequence[Signals], theirs: Sequence[Signals]) -> str:
    """The first kind of fact that only one side has; '' where they agree."""
    for name in _FACTS:
        mine, other = ({fact for one in texts for fact in getattr(one, name)} for texts in (ours, theirs))
        if mine != other:
            return f"{name} differ"
    if _names(ours) - _words(theirs) or _names(theirs) - _words(ours):
        return "names differ"
    if sum(one.negations for one in ours) % 2 != sum(one.negations for one in theirs) % 2:
        return "negation differs"
    return ""


def _names(texts: Sequence[Signals]) -> set[str]:
    return {stem(name) for one in texts for name in one.names}


def _words(texts: Sequence[Signals]) -> set[str]:
    return {stem(word) for one in texts for word in one.words}
