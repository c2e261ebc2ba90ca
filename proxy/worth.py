"""Does a shorter form pay for one request? What compress/pay.py has to know, from the books and the answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from farthing.compress.later_turns import LaterTurns, depth
from farthing.compress.pay import Pay, PayFacts, Seen, pays
from farthing.compress.places import turns_of
from farthing.compress.provider_cache import provider_cache
from farthing.proxy.clock import Clock
from farthing.proxy.exchange import Exchange
from farthing.proxy.prices import RateCard

__all__ = ["Worth"]

_REMEMBERED = 10_000


class _Last(NamedTuple):
    tokens_in: int
    cached: int
    at_s: float


@dataclass(slots=True)
class Worth:
    """`usd_per_second`: what a second of waiting is worth. Remembers the latest 10,000 conversations' last answers."""

    rates: RateCard
    clock: Clock
    usd_per_second: Decimal
    later: LaterTurns = field(default_factory=LaterTurns)
    _last: OrderedDict[bytes, _Last] = field(default_factory=OrderedDict)

    def of(
        self, ex: Exchange, keys: Sequence[bytes], tokens_prompt: int, saved: int, saved_before: int, spent_s: float
    ) -> Pay:
        """Whether to save so many tokens in new turns. `keys`: of the turns; `tokens_prompt`: without that;
        `saved_before`: what earlier decisions save; `spent_s`: our own time for it."""
        now_s = self.clock.now_s()
        last = next((self._last[key] for key in reversed(keys) if key in self._last), None)
        assert ex.payload is not None
        return pays(
            PayFacts(
                rates=self.rates.rates(ex.model, now_s),
                cache=provider_cache(ex.model),
                tokens_prompt=tokens_prompt,
                tokens_saved=saved,
                tokens_saved_before=saved_before,
                later_turns=self.later.expected(ex.tenant, ex.model, self._depth(ex)),
                marked=b'"cache_control"' in (ex.body or b""),
                seen=None if last is None else Seen(last.tokens_in, last.cached, now_s - last.at_s),
                overhead_ms=spent_s * 1000,
                usd_per_second=self.usd_per_second,
            )
        )

    def learn(self, ex: Exchange, keys: Sequence[bytes]) -> None:
        """An answer is there: what was read from the provider's cache, and how deep its conversation is."""
        self.later.observe(ex.tenant, ex.model, self._depth(ex))
        usage = ex.call.usage if ex.call is not None else None
        if usage is None or not keys:
            return
        self._last[keys[-1]] = _Last(usage.tokens_in, usage.cached, self.clock.now_s())
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def _depth(self, ex: Exchange) -> int:
        return depth(ex.endpoint, turns_of(ex.endpoint, ex.payload or {}))
