"""Does a shorter form pay for one request? What compress/pay.py has to know, from the books and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from farthing.compress.decided import first_new
from farthing.compress.last_answers import LastAnswers
from farthing.compress.later_turns import LaterTurns, depth
from farthing.compress.pay import Pay, PayFacts, pays
from farthing.compress.places import turns_of
from farthing.compress.provider_cache import provider_cache
from farthing.proxy.clock import Clock
from farthing.proxy.exchange import Exchange
from farthing.proxy.prices import RateCard

__all__ = ["Worth"]


@dataclass(slots=True)
class Worth:
    """`usd_per_second`: what a second of waiting is worth. `provider`: whose prompt cache is behind the upstream."""

    rates: RateCard
    clock: Clock
    usd_per_second: Decimal
    provider: str = "auto"
    later: LaterTurns = field(default_factory=LaterTurns)
    last: LastAnswers = field(default_factory=LastAnswers)

    def of(
        self,
        ex: Exchange,
        keys: Sequence[bytes],
        tokens_prompt: int,
        saved: int,
        saved_before: int,
        spent_s: float,
        tool_tokens: int = 0,
    ) -> Pay:
        """Whether to save so many tokens in new turns. `keys`: of the turns; `tokens_prompt`: without that;
        `saved_before`: what earlier decisions save; `spent_s`: our own time for it; `tool_tokens`: of the retrieval
        tool, where it is offered."""
        now_s = self.clock.now_s()
        turns = turns_of(ex.endpoint, ex.payload or {})
        return pays(
            PayFacts(
                rates=self.rates.rates(ex.model, now_s),
                cache=provider_cache(ex.model, self.provider),
                tokens_prompt=tokens_prompt,
                tokens_saved=saved,
                tokens_saved_before=saved_before,
                later_turns=self.later.expected(ex.tenant, ex.model, depth(ex.endpoint, turns)),
                marked=b'"cache_control"' in (ex.body or b""),
                seen=self.last.seen(keys, first_new(ex.endpoint, turns), now_s),
                overhead_ms=spent_s * 1000,
                usd_per_second=self.usd_per_second,
                tool_tokens=tool_tokens,
            )
        )

    def learn(self, ex: Exchange, keys: Sequence[bytes]) -> None:
        """An answer is there: what was read from the provider's cache, and how deep its conversation is."""
        self.later.observe(ex.tenant, ex.model, depth(ex.endpoint, turns_of(ex.endpoint, ex.payload or {})))
        usage = ex.call.usage if ex.call is not None else None
        if usage is not None:
            self.last.note(keys, usage.tokens_in, usage.tokens_read, self.clock.now_s())
