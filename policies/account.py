"""How many of the answers served so far were wrong, at most, whatever has changed meanwhile? Pure.

A proof says what a rate was while it was proved. This says what was done: a count, of answers that were served. It
needs nothing to stay as it was; only the coin that draws audits has to be thrown after the answer was chosen.

Rules of this file:
1. Nothing is assumed of the answers: each may be wrong or right by any rule, chosen knowing all before but the coin.
2. What nobody might have audited is not covered, and not counted.

Source: Ville's inequality for a product with one factor a served answer; docs/reuse-bound.md, (9).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Account"]

# Factors for a wrong answer that an audit found, and the shares of the capital on them.
_FACTORS = (0.02, 0.3, 0.6, 0.85)
_SHARES = (0.25, 0.25, 0.25, 0.25)
# So many audits that find a wrong answer at once are within what is borne; fewer would stop routes that are good.
_BORNE = 3.0
_GRID = 1e4
# The count is rounded up by a thousandth at most.
_NEAR = 1e-3


@dataclass(slots=True)
class Account:
    """`hits`: answers served of which each had a chance of an audit, `least` the smallest of these chances.

    `found`: wrong ones that audits found.
    """

    hits: int = 0
    found: float = 0.0
    least: float = 1.0

    def serve(self, chance: float) -> None:
        """One answer was served, which is going to be audited with this probability, in (0, 1]."""
        self.hits += 1
        self.least = min(self.least, chance)

    def wrong(self, outcome: float) -> None:
        """An audit's outcome in [0, 1]; 1: the answer was wrong."""
        self.found += outcome

    def at_most(self, level: float, seen: float = 1.0) -> float:
        """No more of the hits were wrong, at any time whatever, but with probability `level`.

        `seen`: the least probability that an audit of a wrong answer finds it wrong.
        """
        return min(float(self.hits), _unseen(self.found, self._chance(seen), level) + self.found)

    def allowed(self, rate: float, level: float, seen: float = 1.0) -> float:
        """`rate` of the hits, and what can't be known sooner at this share of audits, some 11 / share."""
        return rate * self.hits + _unseen(_BORNE, self._chance(seen), level) + _BORNE

    def overdrawn(self, rate: float, level: float, seen: float = 1.0) -> bool:
        """Whether more may have been wrong than is allowed."""
        return self.at_most(level, seen) > self.allowed(rate, level, seen)

    def _chance(self, seen: float) -> float:
        """Rounded down: the same few values come again and again."""
        return math.floor(self.least * seen * _GRID) / _GRID


@lru_cache(maxsize=4_096)
def _unseen(found: float, chance: float, level: float) -> float:
    """The largest number of wrong answers that audits passed by, with which the product is still below 1 / level.

    Each factor g for a wrong answer found makes x = (1 - chance g) / (1 - chance) for one passed by: 1 on average.
    """
    if chance <= 0.0:
        return math.inf
    if chance >= 1.0:
        return 0.0
    terms = [
        (share * g**found, (1.0 - chance * g) / (1.0 - chance)) for g, share in zip(_FACTORS, _SHARES, strict=True)
    ]
    low, high = 0.0, min((math.log(1.0 / level) - math.log(start)) / math.log(x) for start, x in terms)
    while high - low > _NEAR * high:
        middle = (low + high) / 2
        if sum(start * x**middle for start, x in terms) < 1.0 / level:
            low = middle
        else:
            high = middle
    return high
