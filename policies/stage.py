"""The policies' places in the pipeline: `EligibleStage`, `SpendStage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from farthing.policies.eligibility import Rules, eligible
from farthing.policies.spend import DayTotal, refuse_beyond
from farthing.proxy.clock import Clock
from farthing.proxy.exchange import GO_ON, CacheStatus, Exchange, Quiet, Verdict

__all__ = ["EligibleStage", "SpendStage"]


@dataclass(slots=True)
class EligibleStage(Quiet):
    """May this be cached, reused, joined? With the reason, for the ledger."""

    rules: Rules
    name: str = field(default="eligible", init=False)
    hard: bool = field(default=False, init=False)

    def on_request(self, ex: Exchange) -> Verdict:
        """Write the verdict into the exchange."""
        if not ex.optimise:
            ex.cache_reason = ex.cache_reason or "optimisation is off"
            return GO_ON
        verdict = eligible(ex.endpoint, ex.payload, ex.controls, self.rules, plain=ex.plain)
        if verdict.store and ex.exact is None:
            return GO_ON  # the body has no canonical form; parse gave the reason
        ex.may_store, ex.may_read, ex.may_join = verdict.store, verdict.read, verdict.join
        ex.may_semantic = verdict.semantic
        ex.cache_reason = ex.cache_reason or verdict.reason
        ex.cache = CacheStatus.MISS if verdict.store else CacheStatus.BYPASS
        return GO_ON


@dataclass(slots=True)
class SpendStage(Quiet):
    """The hard daily limit, budgets and rates of tokens; settled by the account stage once the bill is known.

    `reserve`: of proxy.budgets.Spending; None where nothing is configured that it could reserve.
    """

    limit_pico: int | None
    total: DayTotal
    clock: Clock
    reserve: Callable[[Exchange], Verdict | Awaitable[Verdict]] | None = None
    name: str = field(default="spend", init=False)
    hard: bool = field(default=True, init=False)

    @property
    def idle(self) -> bool:
        """See Stage: there is no limit."""
        return self.limit_pico is None and self.reserve is None

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Raise ClientFault beyond a limit: 402, 429; 503 where a hard budget can't be looked up."""
        if self.limit_pico is not None:
            now_s = self.clock.now_s()
            refuse_beyond(self.limit_pico, self.total.read(now_s), now_s)
        return GO_ON if self.reserve is None else self.reserve(ex)
