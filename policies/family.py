"""A tenant's thresholds, and what is known of all its routes together. Pure.

Rules of this file:
1. Nothing crosses tenants.
2. Who is worse than the claim leaves the pool. A pool with no proof yet starts anew then, on a smaller level, since
   taking out labels that one has seen would be cheating.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from farthing.policies.ladder import Book, Ladder
from farthing.policies.standing import Place, Rules, new_book

__all__ = ["Family"]


@dataclass(slots=True)
class Family:
    """A tenant's ladder and pool. Until `ladder` is there, `pilot` gathers (score, outcome) of all its routes."""

    rules: Rules
    pilot: list[tuple[float, float]] = field(default_factory=list)
    ladder: Ladder | None = None
    book: Book | None = None
    restarts: int = 0
    routes: int = 0
    place: Place | None = None

    def start(self, ladder: Ladder) -> None:
        """From now on there is a ladder, and evidence counts."""
        self.ladder, self.book, self.pilot = ladder, new_book(ladder, self.rules), []

    def weigh(self) -> None:
        """After new evidence: what the pool's proves now."""
        self.place = None
        if self.book is not None and self.rules.pooled:
            found = self.book.proved(self.rules.pool_level(self.restarts))
            self.place = Place(*found, "pool") if found else None

    @property
    def common(self) -> int:
        """The rung at which members are held against the claim: the pool's proved one, else the pilot's guess."""
        return self.place.rung if self.place is not None else self.ladder.guess if self.ladder is not None else 0

    def left(self) -> None:
        """A route was found worse than the claim, and left. Proof for the average of all holds for the rest as well."""
        if self.ladder is not None and self.place is None:
            self.book = new_book(self.ladder, self.rules)
            self.restarts += 1
            self.weigh()

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "ladder": [list(self.ladder.thresholds), list(self.ladder.shares)] if self.ladder is not None else None,
            "book": self.book.dump() if self.book is not None else None,
            "pilot": [list(pair) for pair in self.pilot],
            "restarts": self.restarts,
        }

    @classmethod
    def load(cls, rules: Rules, dumped: dict[str, Any]) -> Family:
        """What `dump` gave. Raises ValueError, KeyError or TypeError where it is damaged."""
        found = cls(rules, [(float(score), float(outcome)) for score, outcome in dumped["pilot"]])
        if dumped["ladder"] is not None:
            thresholds, shares = dumped["ladder"]
            found.start(Ladder(tuple(map(float, thresholds)), tuple(map(float, shares))))
        if found.book is not None:
            found.book.load(dumped["book"])
        found.restarts = int(dumped["restarts"])
        if found.restarts < 0:
            raise ValueError("numbers out of range")
        found.weigh()
        return found
