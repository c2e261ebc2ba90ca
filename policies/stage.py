"""The policies' places in the pipeline: `EligibleStage`, `SpendStage`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from farthing.policies.eligibility import Eligibility, Rules, eligible
from farthing.policies.spend import DayTotal, refuse_beyond
from farthing.proxy.clock import Clock
from farthing.proxy.exchange import GO_ON, CacheStatus, Controls, Endpoint, Exchange, Quiet, Verdict

__all__ = ["EligibleStage", "SpendStage"]

_NOTHING_ASKED = Controls()
_REMEMBERED_BODIES = 1000
_REMEMBERED_BODY_BYTES = 16_384


@dataclass(slots=True)
class EligibleStage(Quiet):
    """May this be cached, reused, joined? With the reason, for the ledger."""

    rules: Rules
    known: OrderedDict[tuple[Endpoint, bytes | None], Eligibility] = field(default_factory=OrderedDict)
    name: str = field(default="eligible", init=False)
    hard: bool = field(default=False, init=False)

    async def on_request(self, ex: Exchange) -> Verdict:
        """Write the verdict into the exchange."""
        if not ex.optimise:
            ex.cache_reason = ex.cache_reason or "optimisation is off"
            return GO_ON
        verdict = self._verdict(ex)
        if verdict.store and ex.exact is None:
            return GO_ON  # the body has no canonical form; parse gave the reason
        ex.may_store, ex.may_read, ex.may_join = verdict.store, verdict.read, verdict.join
        ex.may_semantic = verdict.semantic
        ex.cache_reason = ex.cache_reason or verdict.reason
        ex.cache = CacheStatus.MISS if verdict.store else CacheStatus.BYPASS
        return GO_ON

    def _verdict(self, ex: Exchange) -> Eligibility:
        """The verdict. One on a body that came before, byte for byte, is remembered where no header asked otherwise."""
        place = (ex.endpoint, ex.body)
        usual = ex.controls is _NOTHING_ASKED or ex.controls == _NOTHING_ASKED
        if usual and (known := self.known.get(place)) is not None:
            return known
        verdict = eligible(ex.endpoint, ex.payload, ex.controls, self.rules)
        if usual and ex.body is not None and len(ex.body) <= _REMEMBERED_BODY_BYTES:
            self.known[place] = verdict
            if len(self.known) > _REMEMBERED_BODIES:
                self.known.popitem(last=False)
        return verdict


@dataclass(slots=True)
class SpendStage(Quiet):
    """The hard daily limit; settled by the account stage once the bill is known."""

    limit_pico: int | None
    total: DayTotal
    clock: Clock
    name: str = field(default="spend", init=False)
    hard: bool = field(default=True, init=False)

    async def on_request(self, ex: Exchange) -> Verdict:
        """Raise ClientFault 402 beyond the limit."""
        now_s = self.clock.now_s()
        refuse_beyond(self.limit_pico, self.total.read(now_s), now_s)
        return GO_ON
