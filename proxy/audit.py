"""Asking the upstream again, in the background, what a near-duplicate had answered: the audit of a served hit."""

from __future__ import annotations

from dataclasses import dataclass

from farthing.proxy.branch import CARRIED
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Call, Exchange

__all__ = ["Auditor"]


@dataclass(frozen=True, slots=True)
class Auditor:
    """Makes audit calls through the stages that a miss goes through."""

    errands: Errands

    async def ask(self, ex: Exchange) -> Call:
        """Ask the upstream what `ex` asked, and write the audit's row. Never raises for the upstream's sake."""
        shadow = self.errands.begin(ex.original)
        for name in CARRIED:
            setattr(shadow, name, getattr(ex, name))
        return await self.errands.run(shadow, f"audit of {ex.id}")
