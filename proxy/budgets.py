"""Money and rates on a request's way: taken at admit, reserved before the upstream is asked, settled when it is known.

Rules of this file:
1. What is shared lives in `Accounts`: in this process (budgets_local), or in Redis for all replicas (budgets_redis).
2. A hard budget that can't be asked refuses; a soft one, and a rate limit, lets pass and says so in a decision.
3. Every reservation ends: with what was billed; with what was reserved where something was billed that has no price.
4. Nothing that is answered from a cache comes here. Farthing's own calls do (errand.py).
5. Whatever is asked beyond a request's first attempt (a cascade's legs, fallbacks, hedges, rounds) is reserved before,
   by what all of its attempts together may cost; and so are its tokens taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from farthing.policies.bucket import Rate, Take, over_rate
from farthing.policies.budget import Budget, Moved, Want, crossed, refusal, wanted
from farthing.policies.free import surely_free
from farthing.policies.reserve import Learned, estimate
from farthing.proxy.budgets_asked import asked_of, largest_said, takes_of, who_asks, with_params
from farthing.proxy.budgets_hold import Hold, Share, counted, shares, tokens_of, used
from farthing.proxy.clock import Clock
from farthing.proxy.errors import ClientFault, StoreFault
from farthing.proxy.exchange import GO_ON, Continue, Endpoint, Exchange, LocalReply, Outcome, Verdict
from farthing.proxy.prices import RateCard
from farthing.proxy.usage import Usage

__all__ = ["Accounts", "Hold", "Reserved", "Spending", "Standing"]


class Reserved(NamedTuple):
    """What became of a reservation. `refused`: the place of the account without room, or -1; `spent`, `held`: of it."""

    refused: int = -1
    spent: int = 0
    held: int = 0


class Standing(NamedTuple):
    """An account for a screen. Pico-dollars."""

    account: str
    spent: int
    held: int


class Accounts(Protocol):
    """Where sums are kept. What has to be waited for is given as something to await; it may raise StoreFault."""

    def reserve(self, hold: str, wants: Sequence[Want], pico: int, now_s: float) -> Reserved | Awaitable[Reserved]:
        """Reserve in all accounts or in none (policies.budget.Books.reserve)."""
        ...

    def settle(
        self, hold: str, wants: Sequence[Want], pico: int, told: Callable[[Sequence[Moved]], None], *, reserved: bool
    ) -> None:
        """End a reservation with what was spent, once, in the background where it takes long. Never raises.

        `told`: is given what it changed. `reserved`: False where there is no reservation, and the sum is just added.
        """
        ...

    def take(self, takes: Sequence[Take], now_s: float) -> tuple[int, float] | Awaitable[tuple[int, float]]:
        """Take from all buckets or from none: -1 and 0, or the place of the one to wait for, and how many seconds."""
        ...

    def give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        """Put an amount back into each, in the background where it takes long. Never raises."""
        ...

    async def standing(self, now_s: float) -> list[Standing]:
        """Every account of a window that isn't over. Raises StoreFault."""
        ...

    def seen(self) -> dict[str, tuple[int, int]]:
        """What this process knows without asking: spent and held, by account."""
        ...

    async def close(self) -> None:
        """Write what is pending and let go; idempotent."""
        ...


@dataclass(slots=True)
class Spending:
    """Budgets and rates of one configuration. `alert`: told of thresholds: the account, the share, what is spent.

    `refusals`: by budget or rate limit, since the start. `key_alerts`: the thresholds of keys' own budgets.
    """

    budgets: tuple[Budget, ...]
    rates: tuple[Rate, ...]
    accounts: Accounts
    card: RateCard
    clock: Clock
    learned: Learned
    unpriced: Literal["pass", "refuse"] = "pass"
    alert: Callable[[Want, float, int], None] | None = None
    refusals: dict[str, int] = field(default_factory=dict)
    key_alerts: tuple[float, ...] = ()
    at_admit: tuple[Rate, ...] = field(init=False)
    at_spend: tuple[Rate, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Which rates are looked at where: before the body is read, its model and its length aren't known."""
        self.at_admit = tuple(rate for rate in self.rates if rate.unit == "requests" and rate.subject.of != "model")
        self.at_spend = tuple(rate for rate in self.rates if rate not in self.at_admit)

    # -- at admit

    def admit(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Take the request out of the buckets that count requests. Raises ClientFault 429."""
        takes = takes_of(self.at_admit, who_asks(ex), 0)
        if not takes:
            return GO_ON
        taken = self.accounts.take(takes, self.clock.now_s())
        return self._taken(takes, taken) if isinstance(taken, tuple) else self._wait_taken(ex, takes, taken)

    async def _wait_taken(self, ex: Exchange, takes: Sequence[Take], taken: Awaitable[tuple[int, float]]) -> Verdict:
        try:
            return self._taken(takes, await taken)
        except StoreFault as fault:
            ex.decide("admit", "unlimited", f"rate limits can't be looked up: {fault}")
            return GO_ON

    def _taken(self, takes: Sequence[Take], answer: tuple[int, float]) -> Verdict:
        place, wait_s = answer
        if place >= 0:
            self._count(takes[place].rate.name)
            raise over_rate(takes[place], wait_s)
        return GO_ON

    # -- at spend

    def reserve(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Reserve what the request may cost, and take its tokens. Raises ClientFault: 402, 429, 503."""
        who, now_s = who_asks(ex), self.clock.now_s()
        key = ex.caller.key if ex.caller is not None else None
        budgets = self.budgets if key is None or not key.budgets else (*self.budgets, *key.own_budgets(self.key_alerts))
        if not who.model and not surely_free(ex.original.method, ex.original.path):
            self._may_be_any_models(budgets)
        wants = wanted(budgets, who, now_s)
        takes: tuple[Take, ...] = ()
        if not wants and not self.at_spend:
            return GO_ON
        usage = self._estimate(ex, who.model)
        tokens = 0 if usage is None else tokens_of(usage)
        if self.at_spend:
            takes = takes_of(self.at_spend, who, tokens)
        pico = self._first_price(ex, usage, wants) if wants else 0
        return self._hold(ex, Hold(ex.id, wants, pico, False, takes, tokens, who.model), now_s)

    def _may_be_any_models(self, budgets: Sequence[Budget]) -> None:
        """Raises ClientFault: 402, 400. What names no model may be a request for any, and so one that has no room."""
        for one in budgets:
            if one.hard and one.subject.of == "model" and self.unpriced == "refuse":
                raise self._unknown(one.name, "")
        for rate in self.rates:
            if rate.subject.of == "model":
                self._count(rate.name)
                raise ClientFault(
                    f"the rate limit {rate.name!r} is for each model, and the request names none that can be read",
                    status=400,
                    code="model_unknown",
                    param="model",
                )

    def _hold(self, ex: Exchange, hold: Hold, now_s: float) -> Verdict | Awaitable[Verdict]:
        """Take its tokens, then reserve its money. `hold`: the request's, or a piece of it for one attempt more."""
        if hold.takes:
            taken = self.accounts.take(hold.takes, now_s)
            if not isinstance(taken, tuple):
                return self._wait(ex, hold, now_s, taken)
            self._took(ex, hold, taken)
        return self._reserved(ex, hold, now_s)

    async def _wait(self, ex: Exchange, hold: Hold, now_s: float, taken: Awaitable[tuple[int, float]]) -> Verdict:
        try:
            self._took(ex, hold, await taken)
        except StoreFault as fault:
            ex.decide("spend", "unlimited", f"rate limits can't be looked up: {fault}")
            if ex.hold is not None:
                ex.hold.tokens -= hold.tokens
            hold.takes, hold.tokens = (), 0
        verdict = self._reserved(ex, hold, now_s)
        return verdict if isinstance(verdict, Continue | LocalReply) else await verdict

    def _took(self, ex: Exchange, hold: Hold, answer: tuple[int, float]) -> None:
        try:
            self._taken(hold.takes, answer)
        except ClientFault:
            if ex.hold is not None:
                self._forgo(ex, hold, took=False)
            raise

    def _reserved(self, ex: Exchange, hold: Hold, now_s: float) -> Verdict | Awaitable[Verdict]:
        if ex.hold is None:
            ex.hold = hold
        if not hold.wants or (ex.hold is not hold and not hold.pico):
            return GO_ON
        found = self.accounts.reserve(hold.name, hold.wants, hold.pico, now_s)
        return self._found(ex, hold, found, now_s) if isinstance(found, Reserved) else self._wait_found(ex, hold, found)

    async def _wait_found(self, ex: Exchange, hold: Hold, found: Awaitable[Reserved]) -> Verdict:
        try:
            return self._found(ex, hold, await found, self.clock.now_s())
        except StoreFault as fault:
            hard = next((want.budget for want in hold.wants if want.budget.hard), None)
            if hard is None:
                ex.decide("spend", "unchecked", f"budgets can't be looked up: {fault}")
                return GO_ON
            self._count(hard.name)
            # It may have been reserved all the same, if it was the answer that got lost.
            self.accounts.settle(hold.name, hold.wants, 0, _nobody, reserved=True)
            self._forgo(ex, hold)
            raise ClientFault(
                f"the hard budget {hard.name!r} can't be looked up: the store that holds it is away",
                status=503,
                code="budget_unavailable",
                kind="server_error",
                param=f"budgets.{hard.name}",
                retry_after_s=1.0,
            ) from None

    def _found(self, ex: Exchange, hold: Hold, found: Reserved, now_s: float) -> Verdict:
        if found.refused >= 0:
            want = hold.wants[found.refused]
            self._count(want.budget.name)
            self._forgo(ex, hold)
            raise refusal(want, found.spent, found.held, hold.pico, now_s)
        hold.reserved = True
        return GO_ON

    def another(
        self,
        ex: Exchange,
        asks: Mapping[str, Any] | None = None,
        share: Share | None = None,
        *,
        beside_first: bool = False,
    ) -> Verdict | Awaitable[Verdict]:
        """Hold for one attempt more, of `ex.variant`, what isn't held yet. Raises ClientFault: 402, 429, 503.

        `asks`: another question than the client's. `share`: is told what the attempt may cost, for `unbilled`.
        `beside_first`: the first attempt was not announced here.
        """
        hold: Hold | None = ex.hold
        payload = asks if asks is not None else largest_said(ex)
        if hold is None or hold.settled or payload is None:
            return GO_ON
        buckets = counted(hold)
        if not hold.wants and not buckets:
            return GO_ON
        if beside_first:
            hold.begin_first()
        model, card, body = ex.model, self.card, ex.body_out if ex.body_out is not None else ex.body
        if ex.variant is not None:
            model, card = ex.variant.model, self.card.at(ex.variant.upstream)
            payload = with_params(ex.variant, payload)
        writes = "" if ex.marker is None or asks is not None else ex.marker.writes
        asked = hold.asked or ex.model
        usage = estimate(ex.endpoint, payload, body or b"", asked, self.learned, writes=writes, served=model)
        share = Share() if share is None else share
        share.pico = self._price(ex, card, model, usage, hold.wants) if hold.wants else 0
        share.tokens = tokens_of(usage)
        lack = hold.begin(share)
        takes = tuple(take._replace(amount=lack.tokens) for take in buckets) if lack.tokens else ()
        if not lack.pico and not takes:
            return GO_ON
        hold.tries += 1
        tokens = lack.tokens if takes else 0
        piece = Hold(f"{hold.name}+{hold.tries}", hold.wants, lack.pico, False, takes, tokens, attempts=share)
        hold.tokens += tokens  # at once: another attempt may be announced while this one waits
        if lack.pico:
            hold.more.append(piece)
        return self._hold(ex, piece, self.clock.now_s())

    def unbilled(self, ex: Exchange, share: Share) -> None:
        """That attempt wasn't billed: what is held for it is the next one's. `share`: as `another` told it."""
        if ex.hold is not None:
            ex.hold.take_back(share)

    def _forgo(self, ex: Exchange, hold: Hold, *, took: bool = True) -> None:
        """The attempt isn't made, and what it took comes back; where it is the first one, the request doesn't go on."""
        whole: Hold | None = ex.hold
        if whole is not None and whole is not hold:
            if hold in whole.more:
                whole.more.remove(hold)
            whole.take_back(hold.attempts)
            whole.tokens -= hold.tokens
        else:
            ex.hold = None
        if took:
            self._give(hold, hold.tokens)

    def _estimate(self, ex: Exchange, model: str) -> Usage | None:
        body, payload = ex.body_out if ex.body_out is not None else ex.body, largest_said(ex)
        if payload is None or body is None or ex.endpoint is Endpoint.OTHER:
            return None
        asked = asked_of(ex)
        writes, served = "" if ex.marker is None else ex.marker.writes, ""
        if asked is not None:
            payload, served = with_params(asked, payload), asked.model
        return estimate(ex.endpoint, payload, body, model, self.learned, writes=writes, served=served)

    def _first_price(self, ex: Exchange, usage: Usage | None, wants: Sequence[Want]) -> int:
        """What it may cost at whoever is known to be asked. What another attempt may cost beyond that, that one
        reserves."""
        asked = asked_of(ex)
        if asked is None:
            return self._price(ex, self.card, ex.model, usage, wants)
        return self._price(ex, self.card.at(asked.upstream), asked.model, usage, wants)

    def _price(self, ex: Exchange, card: RateCard, model: str, usage: Usage | None, wants: Sequence[Want]) -> int:
        """What the request may cost; 0 where no price is known, if that may pass. Raises ClientFault 402."""
        price = None
        if usage is not None:
            rates = card.rates(model, self.clock.now_s())
            price = None if rates is None else (rates.covering(usage) or rates).pico(usage)
        elif surely_free(ex.original.method, ex.original.path):
            price = 0
        if price is not None:
            return price
        hard = next((want.budget.name for want in wants if want.budget.hard), "")
        if hard and self.unpriced == "refuse":
            raise self._unknown(hard, model)
        ex.decide("spend", "unpriced", f"no price for {model!r}: no budget knows of it" if model else "names no model")
        return 0

    def _unknown(self, budget: str, model: str) -> ClientFault:
        self._count(budget)
        return ClientFault(
            f"the budget {budget!r} is hard and nobody knows what this request costs: "
            + (
                f"there is no price for {model!r}; give it one (prices.models)"
                if model
                else "it names no model that can be read; name one that has a price"
            )
            + ', or let such requests pass uncounted (spend.unpriced = "pass")',
            status=402,
            code="price_unknown",
            kind="insufficient_quota",
            param="model",
        )

    # -- on the way back

    def settle(self, ex: Exchange, pico: int | None, usage: Usage | None) -> None:
        """End what the exchange reserved. `pico`: what it cost; None: nobody knows, and it cost what was reserved.
        `usage`: of the answer that serves; what others were billed with stands in the call."""
        hold: Hold | None = ex.hold
        if hold is None or hold.settled:
            return
        hold.settled = True
        billed = ex.call is not None and (200 <= ex.call.status < 300 or ex.call.silent)
        if usage is not None and billed and ex.outcome is Outcome.COMPLETED:
            self.learned.learn(hold.asked or ex.model, usage.tokens_out)
        if hold.takes:
            self._give(hold, hold.tokens - used(ex, hold, usage, billed=billed))
        if hold.wants:
            by_account = {want.account: want for want in hold.wants}
            for one, share in shares(hold, pico):
                self.accounts.settle(
                    one.name, one.wants, share, lambda moved: self._tell(by_account, moved), reserved=one.reserved
                )

    def _tell(self, wants: dict[str, Want], moved: Sequence[Moved]) -> None:
        if self.alert is None:
            return
        for one in moved:
            want = wants[one.account]
            for share in crossed(want.budget.alerts, want.budget.limit, one.before, one.after):
                self.alert(want, share, one.after)

    def _give(self, hold: Hold, tokens: int) -> None:
        buckets = counted(hold)
        if buckets and tokens:
            self.accounts.give(buckets, tokens, self.clock.now_s())

    def _count(self, name: str) -> None:
        self.refusals[name] = self.refusals.get(name, 0) + 1


def _nobody(moved: Sequence[Moved]) -> None:
    """Nobody is told."""
