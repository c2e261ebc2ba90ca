"""Which of many short texts answer a question, by the words that they share. Pure.

Source: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, equation 3.15, with the
non-negative inverse document frequency that Lucene uses, ln(1 + (N - n + 0.5) / (n + 0.5)).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from farthing.proxy.lexicon import NEGATIONS, STOP
from farthing.proxy.text import stem

__all__ = ["Words", "rarity", "scores"]

_WORD = re.compile(r"[^\W_]++(?:[_'’][^\W_]++)*+")
_PART = re.compile(r"[A-Za-z]++|\d++")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
_SKIPPED = STOP - NEGATIONS
_LONGEST_WORD = 200


def rarity(texts: int, holders: int) -> float:
    """The inverse document frequency, in nats, of a term that so many of the texts hold."""
    return math.log(1 + (texts - holders + 0.5) / (holders + 0.5))


def scores(
    texts: Sequence[Sequence[str]], wanted: Mapping[str, float], *, k1: float = 1.2, b: float = 0.75
) -> list[float]:
    """One score for each text, 0 where it shares no term; `wanted`: the question's terms with their weights.

    Cost: linear in the terms; only those wanted are counted.
    """
    found = [Counter([term for term in text if term in wanted]) for text in texts]
    holders = Counter(term for counts in found for term in counts)
    gains = {term: wanted[term] * rarity(len(texts), n) * (k1 + 1) for term, n in holders.items()}
    mean = sum(map(len, texts)) / max(1, len(texts)) or 1.0
    return [
        sum(gains[term] * n / (n + k1 * (1 - b + b * len(text) / mean)) for term, n in counts.items())
        for text, counts in zip(texts, found, strict=True)
    ]


class Words:
    """Texts in terms. Remembers the words of one piece of work, most of which come again; made anew for the next."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}

    def terms(self, text: str) -> list[str]:
        """The text's words without stop words, case and common endings, in order; compound names also in their parts.

        Scripts that are written without spaces give pairs of characters.
        """
        known = self._known
        found: list[str] = []
        for word in _WORD.findall(text.casefold()):
            these = known.get(word)
            if these is None:
                these = known[word] = _terms_of(word)
            found += these
        return found


def _terms_of(word: str) -> tuple[str, ...]:
    if word in _SKIPPED or len(word) > _LONGEST_WORD:
        return ()
    if word.isascii() and not word.isalpha():
        parts = _PART.findall(word)
        return (word, *(_stemmed(part) for part in parts if part not in _SKIPPED)) if len(parts) > 1 else (word,)
    if _UNSPACED.search(word) and len(word) > 1:
        return tuple(map("".join, pairwise(word)))
    return (_stemmed(word),)


def _stemmed(word: str) -> str:
    return stem(word) if len(word) > 3 else word
