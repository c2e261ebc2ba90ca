"""What a hit saves that comes again and again: another amount each time, as the provider's own cache would have it.

Only of prompts that are long enough for a provider's cache; of all others the amount stays the same while prices do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farthing.proxy.account import dollars
from farthing.proxy.attribute import attribute_hit
from farthing.proxy.counterfactual import Counterfactual
from farthing.proxy.exchange import Exchange
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_trail import Trail
from farthing.proxy.provider_reads import World
from farthing.proxy.usage import Usage
from farthing.proxy.would import Would

__all__ = ["Again", "again_of"]

_BYTES_A_PREFIX = 80
_SAME_MOMENT_S = 1.0  # a provider's cache lives for minutes: hits as close as this would have read the same


@dataclass(slots=True)
class Again:
    """One hit's money, at the moment `at_s`, when it would have read `direct` tokens by the provider's rules.

    `usage`: of the prompt as it was asked (`Account.usage`); `shortened`: that is another than was sent.
    `columns`: the row's, from `baseline_usd` to `modelled`; `header`: the line that tells the client its saving, if
    that is known.
    """

    model: str
    model_served: str
    trail: Trail
    usage: Usage
    shortened: bool = False
    at_s: float = -1.0
    direct: int = 0
    would_read: int | None = None
    columns: tuple[Any, ...] = ()
    header: str = ""

    @property
    def size(self) -> int:
        """Bytes that are held for it, about."""
        return _BYTES_A_PREFIX * len(self.trail.keys)

    def reckon(self, rates: RateCard, counterfactual: Counterfactual, now_s: float) -> None:
        """It comes again: set `columns` and `header`. Cost: 0.1 microseconds for each 512 characters of the prompt, and
        next to nothing within the same second."""
        if not 0 <= now_s - self.at_s < _SAME_MOMENT_S:
            self.at_s = now_s
            (self.direct,) = counterfactual.reads.arrive(self.trail, self.usage, now_s, now_s, (World.DIRECT,))
        read = counterfactual.reads.worth(self.model, self.direct)
        if read == self.would_read:
            return
        money = attribute_hit(
            rates,
            self.model,
            self.usage,
            semantic=False,
            at_s=now_s,
            model_served=self.model_served,
            would_read=read,
            charges_writes=self.trail.cache.charges_writes,
            shortened=self.shortened,
        )
        self.would_read, self.columns = read, (*money[:-1], int(money.modelled))
        self.header = "" if money.baseline is None else f"x-farthing-saved-usd: {dollars(money.baseline)}\r\n"


def again_of(ex: Exchange, usage: Usage | None) -> Again | None:
    """What has to be kept of this hit; None where its amount won't change. `usage`: `Account.usage`."""
    served, would = ex.served, ex.would
    if served is None or usage is None or not isinstance(would, Would) or would.trail is None:
        return None
    return Again(ex.model, served.model_served, would.trail, usage, bool(served.tokens_saved))
