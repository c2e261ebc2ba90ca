"""How rare a word is on a route: its own counts, on top of the language's. Pure, bounded.

On a route where all prompts are of a few forms, the forms' words become common and what fills their slots stays rare;
a rare word that only one of two texts has is what makes them ask for different things.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["RAREST", "RouteWords", "prior_of"]

# The language's word counts as much as these many texts of the route.
_PRIOR_TEXTS = 50.0
_MOST_WORDS = 4_096
_MOST_TEXTS = 100_000
RAREST = 12.0


def prior_of(rank: int) -> float:
    """The share of texts of about twenty words that contain the word of this rank, times the prior's weight.

    Source: Zipf's law with Mandelbrot's offset.
    """
    return _PRIOR_TEXTS * min(0.5, 2.0 / (rank + 3.0))


class RouteWords:
    """In how many of a route's texts each word occurs. At most 4,096 words: when there are more, all counts are halved
    and what comes to nothing is forgotten, so that old traffic fades."""

    __slots__ = ("_counts", "_most", "texts")

    def __init__(self, most_words: int = _MOST_WORDS) -> None:
        self._counts: dict[str, int] = {}
        self._most = most_words
        self.texts = 0

    def __len__(self) -> int:
        return len(self._counts)

    def learn(self, terms: Iterable[str]) -> None:
        """One more text, with these distinct words."""
        self.texts += 1
        counts = self._counts
        for term in terms:
            counts[term] = counts.get(term, 0) + 1
        while len(self._counts) > self._most or self.texts > _MOST_TEXTS:
            self.texts //= 2
            self._counts = {term: count // 2 for term, count in self._counts.items() if count > 1}

    def rarities(self, terms: Iterable[tuple[str, float]]) -> dict[str, float]:
        """For each term and its prior: minus the logarithm (nats) of the share of texts that have it; 0 to 12."""
        count, log, total = self._counts.get, math.log, self.texts + _PRIOR_TEXTS
        return {
            term: (rare if (rare := -log(share)) < RAREST else RAREST) if share < 1.0 else 0.0
            for term, prior in terms
            for share in ((count(term, 0) + prior) / total,)
        }

    def rarity(self, term: str, prior: float) -> float:
        """The same for one."""
        return self.rarities([(term, prior)])[term]
