"""What may still be spent. Pure.

First form: one hard limit a UTC day, over everything that passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing.proxy.errors import ClientFault

__all__ = ["DAYS", "DayTotal", "refuse_beyond"]

_DAY_S = 86_400
DAYS = 4
"""So many days' totals are kept: a clock that was wrong and is right again comes back to one. The earliest one goes."""


@dataclass(slots=True)
class DayTotal:
    """Pico-dollars spent since midnight UTC. `others`: of other days, by their number."""

    day: int = 0
    spent_pico: int = 0
    others: dict[int, int] = field(default_factory=dict)

    def begin(self, pico: int, now_s: float) -> None:
        """What was spent before this process began."""
        self.add(pico, now_s)

    def add(self, pico: int, now_s: float) -> None:
        """Settle an amount."""
        self._turn(now_s)
        self.spent_pico += pico

    def read(self, now_s: float) -> int:
        """What has been spent today."""
        self._turn(now_s)
        return self.spent_pico

    def _turn(self, now_s: float) -> None:
        today = int(now_s // _DAY_S)
        if today != self.day:
            if self.spent_pico:
                self.others[self.day] = self.spent_pico
            self.day, self.spent_pico = today, self.others.pop(today, 0)
            if len(self.others) >= DAYS:
                del self.others[min(self.others)]


def refuse_beyond(limit_pico: int | None, spent_pico: int, now_s: float) -> None:
    """Raise ClientFault 402 where the day's limit is used up. It fails closed: the operator declared it hard."""
    if limit_pico is None or spent_pico < limit_pico:
        return
    left_s = _DAY_S - now_s % _DAY_S
    raise ClientFault(
        f"the daily budget of ${limit_pico / 1e12:.2f} is used up (spend.daily_usd); it begins anew at midnight UTC",
        status=402,
        code="budget_exceeded",
        kind="insufficient_quota",
        retry_after_s=left_s,
    )
