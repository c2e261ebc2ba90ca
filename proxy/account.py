"""What a request cost and saved, told to the client in headers and to the ledger in a row.

Rules of this file: nothing here delays an answer. What must be counted because the upstream didn't is counted off
the event loop, after the client has its answer. A row is written for every exchange, whatever became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farthing.policies.free import surely_free
from farthing.policies.spend import DayTotal
from farthing.proxy.attribute import (
    UNKNOWN,
    Money,
    as_asked,
    attribute_failure,
    attribute_hit,
    attribute_joined,
    attribute_upstream,
)
from farthing.proxy.budgets import Spending
from farthing.proxy.capture import Capture
from farthing.proxy.capture_record import Said
from farthing.proxy.clock import Clock
from farthing.proxy.compress_counts import CompressCounts
from farthing.proxy.counterfactual import Counterfactual
from farthing.proxy.counting import Counting, changed, must_count_prompt, needs_counting
from farthing.proxy.drift_sample import DriftSample
from farthing.proxy.exchange import CacheStatus, Endpoint, Exchange, Outcome, Quiet
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_waiting import WaitingRows
from farthing.proxy.prices import RateCard
from farthing.proxy.provider_reads import ProviderReads
from farthing.proxy.row import LONGEST_NAME, Row
from farthing.proxy.row_texts import attempts_text, decisions_text, stage_times, tags_text
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource, total
from farthing.proxy.watching import Watching
from farthing.proxy.would import AS_BILLED, Would

if TYPE_CHECKING:
    from farthing.proxy.otlp_contents import Contents

__all__ = ["Account", "AccountStage", "cache_status", "dollars"]

_OFF_LOOP_BYTES = 262_144

_CACHE_STATUS = {  # RFC 9211
    CacheStatus.HIT_EXACT: "farthing; hit",
    CacheStatus.HIT_SEMANTIC: "farthing; hit; detail=semantic",
    CacheStatus.JOINED: "farthing; fwd=miss; collapsed",
    CacheStatus.MISS: "farthing; fwd=miss",
    CacheStatus.BYPASS: "farthing; fwd=bypass",
}


def cache_status(cache: CacheStatus, ttl_s: float | None) -> str:
    """The value of `Cache-Status` (RFC 9211). `ttl_s`: how long a stored answer stays fresh."""
    said = _CACHE_STATUS[cache]
    return said if ttl_s is None else f"{said}; ttl={max(0, int(ttl_s))}"


def dollars(pico: int) -> str:
    """Pico-dollars as a plain decimal number of dollars, no digits lost, no exponent."""
    if not pico:
        return "0"
    sign, amount = ("-", -pico) if pico < 0 else ("", pico)
    whole, rest = divmod(amount, 10**12)
    return f"{sign}{whole}.{rest:012d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


@dataclass(slots=True)
class Account:
    """Prices exchanges, and keeps the books. `patience_s`: how long a row waits for a look-up that goes on."""

    rates: RateCard
    ledger: Ledger | None
    tokenizer: Tokenizer
    total: DayTotal
    clock: Clock
    patience_s: float = 0.05
    counterfactual: Counterfactual = field(default_factory=lambda: Counterfactual(ProviderReads()))
    capture: Capture | None = None
    contents: Contents | None = None
    compressed: CompressCounts = field(default_factory=CompressCounts)
    counting: Counting = field(init=False)
    drift: DriftSample | None = None
    spending: Spending | None = None
    watch: Watching | None = None
    waiting: WaitingRows | None = None

    def __post_init__(self) -> None:
        self.counting = Counting(self.tokenizer)

    # -- headers

    def headers_at_head(self, ex: Exchange) -> dict[str, str]:
        """What is known before an answer's first byte."""
        served = ex.served
        status = cache_status(ex.cache, None if served is None else served.expires_s - self.clock.now_s())
        headers = {"x-farthing-id": ex.id, "x-farthing-cache": ex.cache._value_, "Cache-Status": status}
        if ex.policy:
            headers["x-farthing-policy"] = ex.policy
        if ex.cache is CacheStatus.HIT_SEMANTIC:
            headers["x-farthing-similarity"] = f"{ex.similarity or 0:.4f}"
        if ex.variant is not None and ex.variant.model.isascii() and ex.variant.model.isprintable():
            headers["x-farthing-model"] = ex.variant.model
        if served is not None and served.reuse:
            proved = served.bound is not None and served.reuse == "proved"
            headers["x-farthing-bound"] = f"{served.bound:.4f}" if proved else "unproven"
        return headers

    def headers_at_end(self, ex: Exchange) -> dict[str, str]:
        """The same, and what is known once the whole answer is there."""
        headers = self.headers_at_head(ex)
        usage = self.usage(ex)
        model = served_model(ex)
        if model and model.isascii() and model.isprintable():
            headers["x-farthing-model"] = model
        if usage is not None and not changed(ex):  # else it must be counted first
            sent = 0 if costs_nothing(ex) else usage.tokens_in
            headers["x-farthing-tokens-in"] = f"{usage.tokens_in + known_tokens(ex)};{sent}"
            ex.money = money = self.money(ex, usage)
            if money.cost is not None and money.baseline is not None:
                headers["x-farthing-cost-usd"] = dollars(money.cost)
                headers["x-farthing-saved-usd"] = dollars(money.baseline - money.cost)
        headers["x-farthing-overhead-ms"] = f"{self.overhead_ms(ex, self.clock.tick_s()):.3f}"
        return headers

    # -- figures

    def overhead_ms(self, ex: Exchange, now_tick: float) -> float:
        """Time that is farthing's own: all of it, but what went into waiting for the upstream or for a flight."""
        total = now_tick - ex.received_tick
        call = ex.call
        if call is None or call.started_tick is None:
            return total * 1000
        begun = call.started_tick if ex.joined_tick is None else max(call.started_tick, ex.joined_tick)
        ended = min(call.ended_tick if call.ended_tick is not None else now_tick, now_tick)
        return max(0.0, total - max(0.0, ended - begun)) * 1000

    def usage(self, ex: Exchange) -> Usage | None:
        """What its answer used; of an answer that cost nothing, what the client's own prompt would have."""
        served = ex.served
        if served is not None:
            known = served.usage
            return self.counting.of_stored(served) if known is None else as_asked(known, served.tokens_saved)
        call = ex.call
        if call is None or ex.leads or call.usage is None:
            return call.usage if call is not None else None
        usage = as_asked(call.usage, call.tokens_saved)
        return usage if call.known is None or usage is None else total([usage, call.known])  # who joined got it whole

    def money(self, ex: Exchange, usage: Usage | None) -> Money:
        """The exchange's money; every field None where no price is known."""
        at_s = ex.received_s
        call = ex.call
        served = ex.served
        if served is not None:
            would = self._would(ex, usage)
            return attribute_hit(
                self.rates,
                ex.model,
                usage,
                semantic=bool(served.reuse),
                at_s=at_s,
                model_served=served.model_served,
                would_read=would.read,
                charges_writes=would.charges_writes,
                would_write=would.writes,
                shortened=bool(served.tokens_saved),
            )
        if ex.endpoint is Endpoint.OTHER and call is not None and not surely_free(ex.original.method, ex.original.path):
            asked = call.attempts and call.status < 400
            return UNKNOWN if asked else attribute_failure(self.rates, "", at_s)
        silent = call is not None and call.silent and ex.leads and usage is not None
        if call is None or not (200 <= call.status < 300 or silent) or ex.endpoint is Endpoint.OTHER:
            if call is None or not ex.leads:
                return attribute_failure(self.rates, ex.model, at_s)
            return attribute_failure(self.rates, ex.model, at_s, call.earlier, call.others)
        would = self._would(ex, usage)
        if not ex.leads:
            return attribute_joined(
                self.rates,
                ex.model,
                usage,
                at_s=at_s,
                model_served=call.model_served,
                would_read=would.read,
                charges_writes=would.charges_writes,
                would_write=would.writes,
                shortened=bool(call.tokens_saved),
            )
        return attribute_upstream(
            self.rates,
            model_requested=ex.model,
            model_served=call.model_served or ex.model,
            usage=usage,
            tokens_saved=ex.tokens_saved,
            saved_before=ex.saved_before,
            tokens_before=ex.tokens_before,
            at_s=at_s,
            would_read=would.read,
            would_read_whole=would.read_whole,
            charges_writes=would.charges_writes,
            would_write=would.writes,
            for_an_hour=would.hour,
            other_attempts=call.others,
            retrieved=call.earlier,
            upstream=call.upstream,
            known=call.known,
        )

    def _would(self, ex: Exchange, usage: Usage | None) -> Would:
        return AS_BILLED if usage is None else self.counterfactual.of(ex, usage, free=costs_nothing(ex))

    # -- the row

    def must_wait(self, ex: Exchange) -> bool:
        """Whether there is something to wait for: a look-up under way, tokens to be counted off the event loop."""
        return (
            (ex.looking is not None and not ex.looking.done())
            or self._must_count(ex)
            or self._must_walk(ex)
            or (self.drift is not None and self.drift.wants(ex))
        )

    def _must_count(self, ex: Exchange) -> bool:
        return must_count_prompt(ex) or needs_counting(ex, self.usage(ex))

    def _must_walk(self, ex: Exchange) -> bool:
        """Whether another prompt was sent, and what the provider's cache would have done with both takes long."""
        long = ex.body_out is not None and len(ex.body or b"") > _OFF_LOOP_BYTES
        return long and ex.would is None and not costs_nothing(ex)

    async def settle(self, ex: Exchange) -> None:
        """Count what has to be counted, and append the row."""
        if ex.looking is not None and not ex.looking.done():
            await asyncio.wait([ex.looking], timeout=self.patience_s)
            if not ex.looking.done():
                ex.decide("semantic", "late", "the look-up outlived the request")
        if self._must_count(ex) or self._must_walk(ex):
            self._hold(ex)
            usage = await self.usage_of(ex)
            if usage is not None and self._must_walk(ex):
                await asyncio.to_thread(self.counterfactual.walk, ex, usage)
            if self.waiting is not None:
                self.waiting.release(ex.id)
            self.book(ex, usage, self.money(ex, usage))
        else:
            self.book_known(ex)
        if self.drift is not None and self.drift.wants(ex):
            await self.drift.compare(ex)

    def _hold(self, ex: Exchange) -> None:
        """Keep what is known of the row, where the tokenizer's ranks have to be loaded before it can be counted."""
        if self.waiting is None or self.ledger is None or self.tokenizer.ready(ex.model):
            return
        if self.usage(ex) is None:
            self.waiting.hold(self.row(ex, None, self.money(ex, None)))

    def book_known(self, ex: Exchange) -> None:
        """Append the row of an exchange that has nothing to wait for."""
        usage = self.usage(ex)
        self.book(ex, usage, ex.money if ex.money is not None else self.money(ex, usage))

    def book(self, ex: Exchange, usage: Usage | None, money: Money) -> None:
        """Append the row, add its cost to the day's and its budgets', and count what it was sent without."""
        if ex.hold is not None:
            self.end_hold(ex, money.cost, usage)
        if money.cost and ex.leads:
            self.total.add(money.cost, self.clock.now_s())
        if ex.compress and usage is not None and not costs_nothing(ex):
            self.compressed.sent(ex.uses, ex.tidied, ex.tokens_saved)
        if self.ledger is None and self.capture is None:
            return
        if self.watch is not None and self.watch.wants(ex):
            self.watch.take(ex)
        row = self.row(ex, usage, money)
        if self.contents is not None:
            self.contents.take(ex, row)
        if self.ledger is not None:
            self.ledger.append(row)
        if self.capture is not None:
            self.capture.take(ex, row)

    def said_in(self, ex: Exchange) -> Said | None:
        """What may be kept or told of its texts: None where nothing may, or nobody wants it."""
        keeper = self.capture or self.contents  # both go by the same settings
        return None if keeper is None else keeper.said_in(ex)

    def end_hold(self, ex: Exchange, pico: int | None, usage: Usage | None = None) -> None:
        """Settle what the exchange reserved, once. `pico`: what it cost; None: nobody knows."""
        if self.spending is not None:
            self.spending.settle(ex, pico, usage)

    async def usage_of(self, ex: Exchange) -> Usage | None:
        """What was used; counted off the event loop where the upstream hasn't said."""
        usage = self.usage(ex)
        if not self._must_count(ex):
            return usage
        await self.counting.answer(ex, usage)
        return self.usage(ex) if usage is None else usage

    def row_of_hit(self, ex: Exchange) -> Row:
        """The row of an exchange that was answered from the cache."""
        usage = self.usage(ex)
        return self.row(ex, usage, self.money(ex, usage))

    def row(self, ex: Exchange, usage: Usage | None, money: Money) -> Row:
        """The ledger's row."""
        call, controls = ex.call, ex.controls
        ended = ex.ended_tick if ex.ended_tick is not None else self.clock.tick_s()
        free = costs_nothing(ex)
        begun, first = ex.received_tick, ex.first_byte_tick
        error, upstream_ms, attempts, attempts_detail = ex.error, None, 0, "[]"
        if call is not None:
            if not error and ex.outcome is not Outcome.COMPLETED:
                error = call.error
            if ex.leads:
                attempts, attempts_detail = len(call.attempts), attempts_text(call.attempts, call.usage, call.earlier)
                if call.started_tick is not None:
                    upstream_ms = ((call.ended_tick or ended) - call.started_tick) * 1000
        billed = _with_earlier(ex, usage)
        if billed is None:
            original = sent = cached = written = tokens_out = reasoning = None
            usage_source = ""
        else:
            sent = billed.tokens_in
            original = sent if usage is billed or usage is None else usage.tokens_in
            cached, written, usage_source = billed.tokens_read, billed.tokens_written, billed.source._value_
            if billed.source is UsageSource.CONTRADICTED:
                usage_source = UsageSource.UPSTREAM.value
                ex.decide("usage", "total below its parts")
            tokens_out, reasoning = billed.tokens_out, billed.reasoning
            if free:
                sent = cached = written = 0
            else:
                original = max(
                    0, original + ex.tokens_saved + known_tokens(ex)
                )  # two counts may disagree by more than there is
        return Row(  # by place, in the order of the columns: fifty names would cost as much as the row
            ex.id,
            call.id if call is not None else "",
            ex.received_s,
            ex.endpoint._value_,
            ex.status,
            (ex.outcome or Outcome.FAILED)._value_,
            error,
            int(ex.stream),
            ex.tenant,
            ex.key,
            controls.user,
            tags_text(controls.tags),
            ex.model[:LONGEST_NAME],
            served_model(ex),
            call.upstream if call is not None else "",
            attempts,
            ex.cache._value_,
            ex.cache_reason,
            ex.similarity,
            ex.p_wrong,
            ex.compress,
            original,
            sent,
            cached,
            written,
            tokens_out,
            reasoning,
            usage_source,
            money.baseline,
            money.cost,
            money.overhead,
            money.saved_exact,
            money.saved_semantic,
            money.saved_compress,
            money.saved_route,
            money.saved_prompt_cache,
            money.price_source,
            int(money.modelled),
            (ended - begun) * 1000,
            None if first is None else (first - begun) * 1000,
            upstream_ms,
            self.overhead_ms(ex, ended),
            stage_times(ex.stage_ms),
            decisions_text(ex.decisions),
            attempts_detail,
            ex.policy,
            ex.experiment,
            ex.arm,
            ex.config_id,
        )


def known_tokens(ex: Exchange) -> int:
    """Tokens of the part of a request that was known and so not sent, where the rest of it was."""
    return ex.call.known.tokens_in if ex.leads and ex.call is not None and ex.call.known is not None else 0


def _with_earlier(ex: Exchange, usage: Usage | None) -> Usage | None:
    """An upstream answer's usage with that of those before it, where the model asked for what had been left out."""
    earlier = ex.call.earlier if ex.call is not None and ex.served is None else []
    return total([*earlier, *([usage] if usage is not None else [])]) if earlier else usage


def costs_nothing(ex: Exchange) -> bool:
    """Whether nothing was sent upstream for this client's request itself."""
    return ex.served is not None or ex.cache is CacheStatus.JOINED or ex.call is None


def served_model(ex: Exchange) -> str:
    """The model that wrote the answer, in at most LONGEST_NAME characters."""
    if ex.served is not None:
        return ex.served.model_served[:LONGEST_NAME]
    return ex.call.model_served[:LONGEST_NAME] if ex.call is not None else ""


@dataclass(slots=True)
class AccountStage(Quiet):
    """First in the list, so that its end comes last: then everything about the exchange is known."""

    account: Account
    name: str = field(default="account", init=False)
    hard: bool = field(default=True, init=False)

    def on_end(self, ex: Exchange) -> Awaitable[None] | None:
        """Write the row; a deferred request's comes with its answer."""
        if ex.deferred:
            return None
        if not ex.ready and self.account.must_wait(ex):
            return self._settle(ex)
        try:
            self.account.book_known(ex)
        finally:
            self._end_hold(ex)
        return None

    async def _settle(self, ex: Exchange) -> None:
        try:
            await self.account.settle(ex)
        finally:
            self._end_hold(ex)

    def _end_hold(self, ex: Exchange) -> None:
        """No reservation outlives its request, whatever became of its row."""
        if ex.hold is not None:
            self.account.end_hold(ex, None)
