"""Which way a request takes: finds its route when it comes, chooses when it goes upstream, and knows how fast and how
dear variants are.

The mutable state is `speeds`, `allowances` and `stays`: of the latest answers of each variant, of each route, and of
conversations; never kept.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import orjson

from farthing.compress.provider_cache import Kind, provider_cache
from farthing.policies.cascade import Allowance
from farthing.policies.choose import FAILED_S, STICKY, Choice, Standing, choose, conversation, stickiness
from farthing.policies.routes import Facts, Route, RouteTable, facts_of
from farthing.policies.stays import Stay, Stays
from farthing.policies.variant import DEFAULT_UPSTREAM, Needs, Variant, put_in
from farthing.proxy.attribute import same_model
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config_routes import target_of
from farthing.proxy.exchange import Call, Endpoint, Exchange
from farthing.proxy.prices import HOLDS_S, RateCard, Rates
from farthing.proxy.route_standing import RouteStandings

__all__ = ["Plan", "Routing", "Speed"]

_LATEST = 32
_HOLDS_S = 120.0  # a speed that was seen longer ago isn't known any more
_TOKENS_OUT = 300  # of an answer, while none of the variant's has been seen
_SHARE_OF_NEW = 0.05
_ENGINE_S = 300.0  # a prompt is warm, where no provider says how long: an engine keeps it while it has room


@dataclass(slots=True)
class Speed:
    """A variant's latest answers. `p50_s`: median time to the first byte. Ticks are monotonic seconds."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))
    p50_s: float = 0.0
    seen_tick: float = float("-inf")
    failed_tick: float = float("-inf")
    tokens_out: float = _TOKENS_OUT

    def answered(self, seconds: float, now_tick: float) -> None:
        """One more answer, that began after so long."""
        if now_tick - self.seen_tick > _HOLDS_S:
            self.seconds.clear()
        self.seconds.append(seconds)
        self.p50_s, self.seen_tick = median(self.seconds), now_tick

    def said(self, tokens_out: int) -> None:
        """How long it was."""
        self.tokens_out += _SHARE_OF_NEW * (tokens_out - self.tokens_out)


@dataclass(slots=True)
class Plan:
    """The way of one request. `route` None: the client named the variant. `choice`: once it has been chosen.
    `conversation`: its number, where it is to be remembered where it was. `held_back`: the route as it would serve,
    where shadows say whether it may; `route` is then the same as one that observes."""

    facts: Facts
    route: Route | None = None
    named: Variant | None = None
    choice: Choice | None = None
    conversation: int | None = None
    held_back: Route | None = None

    @property
    def serves(self) -> bool:
        """Whether somebody else than the model that was asked for may answer; else it is only told."""
        return self.route is None or self.route.serves


@dataclass(slots=True)
class Routing:
    """The routes of one configuration. `never_chained`: see config.Cache. `providers`: whose cache is behind each
    upstream, where that is known. `standings`: of routes with a bound. `judges_told`: judges and why they can't judge,
    of which the log has been told."""

    variants: Mapping[str, Variant]
    routes: RouteTable
    aliases: Mapping[str, str]
    rates: RateCard
    clock: Clock
    randomness: Randomness
    never_chained: bool = False
    speeds: dict[str, Speed] = field(default_factory=dict)
    allowances: dict[str, Allowance] = field(default_factory=dict)
    stays: Stays = field(default_factory=Stays)
    providers: Mapping[str, str] = field(default_factory=dict)
    standings: RouteStandings | None = None
    judges_told: set[tuple[str, str]] = field(default_factory=set)
    _priced: dict[str, Rates | None] = field(default_factory=dict, init=False)  # variants, in that half hour
    _priced_at: float = field(default=-1.0, init=False)

    def find(self, ex: Exchange, *, names_only: bool = False) -> None:
        """Find the request's way. What of it can change the answer goes into `ex.lossy`, and so into the cache's key.

        `names_only`: only say what its model's name stands for, where that is an alias or a variant; no route, and no
        header of farthing's. Never raises: a request whose way can't be found goes where it was sent.
        """
        try:
            self._find(ex, "" if names_only else ex.controls.route, names_only=names_only)
        except Exception as error:  # noqa: BLE001 - whatever a client sends, routing must not fail it
            ex.plan = None
            ex.decide("route", "error", type(error).__name__)

    def _find(self, ex: Exchange, wanted: str, *, names_only: bool) -> None:
        if ex.payload is None or ex.endpoint is Endpoint.OTHER:
            return
        if ex.exact is None:  # its meaning isn't certain: it takes no route. But what its model's name stands for is
            if wanted:
                return  # refused: RouteStage
            names_only = True
        named = self.variants.get(target_of(self.aliases, wanted)) if wanted else None
        if ex.model in self.aliases:
            aliased = self._stands_for(ex)
            named = named or aliased
        elif named is None and not wanted:
            named = self.variants.get(ex.model)  # a variant's name is as good as a model's
            if named is not None:
                self._asked_of(ex, named)
        if named is None and (wanted or names_only):
            if wanted in self.aliases:
                ex.lossy = f"{ex.lossy}|alias {target_of(self.aliases, wanted)}"
            return
        facts = facts_of(ex.endpoint, ex.payload, ex.controls.tags, ex.tenant, never_chained=self.never_chained)
        if named is not None:
            ex.plan = Plan(facts, named=named)
            ex.lossy = f"{ex.lossy}|variant {hashlib.sha256(orjson.dumps(named.signature)).hexdigest()[:16]}"
            return
        route = self.routes.match(facts)
        if route is None:
            return
        if self.standings is not None and (said := self.standings.held_back(route)) is not None:
            ex.plan = Plan(facts, replace(route, serves=False), held_back=replace(route, serves=True))
            if said:
                ex.decide("route", "held back", f"{route.name}: {said}")
            return
        ex.plan = Plan(facts, route)
        if route.serves:
            ex.lossy = f"{ex.lossy}|route {route.signature}"

    def choose(self, ex: Exchange, plan: Plan) -> Choice:
        """Whom to ask."""
        if plan.named is not None:
            return Choice((plan.named,), "named by the request")
        route = plan.route
        assert route is not None
        assert ex.payload is not None
        sticky, stay = 0.0, None
        if route.strategy in STICKY:
            number = plan.conversation = conversation(ex.tenant, ex.payload, route.name)
            stay = self.stays.get(number, ex.received_s)
        elif route.strategy == "weighted":
            sticky = stickiness(ex.tenant, ex.payload, route.name)
        needs = plan.facts.needs
        return choose(route, needs, self.standing(needs, ex.received_s, stay), sticky, self.randomness.uniform())

    def standing(self, needs: Needs, at_s: float, stay: Stay | None = None) -> Callable[[Variant], Standing]:
        """What is known of each variant, for such a request at that moment. `stay`: where the conversation is warm."""
        now_tick, tokens_in, most_out = self.clock.tick_s(), needs.tokens_in, needs.tokens_out
        if at_s // HOLDS_S != self._priced_at:
            self._priced, self._priced_at = {}, at_s // HOLDS_S
        speeds, priced = self.speeds, self._priced
        warm_at, kept = (None, 0) if stay is None else (stay.variant, min(stay.tokens, tokens_in))

        def standing(variant: Variant) -> Standing:
            speed = speeds.get(variant.name)
            failed_s = p50_s = None
            expected: float = _TOKENS_OUT
            if speed is not None:
                failed_s, expected = now_tick - speed.failed_tick, speed.tokens_out
                p50_s = speed.p50_s if now_tick - speed.seen_tick <= _HOLDS_S else None
            warm = variant.name == warm_at and (failed_s is None or failed_s > FAILED_S)
            cached = kept if warm else 0
            try:
                rates = priced[variant.name]
            except KeyError:
                rates = priced[variant.name] = self.rates.at(variant.upstream).rates(variant.model, at_s)
            usd = None
            if rates is not None:
                output = int(most_out if 0 < most_out < expected else expected)
                usd = rates.pico_of_text(tokens_in - cached, cached, output) / 1e12
            return Standing(usd, p50_s, failed_s, warm)

        return standing

    def answered(self, plan: Plan, ex: Exchange) -> None:
        """The request was answered: its conversation is warm where it was, as long as that provider's cache lives."""
        call, variant = ex.call, ex.variant or self.plain(ex.model)
        if plan.conversation is None or variant is None or call is None or not 200 <= call.status < 300:
            return
        cache = provider_cache(variant.model, self.providers.get(variant.upstream, "auto"))
        tokens = 0
        if call.usage is not None:
            explicit = cache.kind is Kind.EXPLICIT  # then only what was marked is there
            tokens = call.usage.tokens_read + call.usage.tokens_written if explicit else call.usage.tokens_in
        if cache.kind is Kind.NONE or tokens < cache.minimum_tokens:
            tokens = 0
        until_s = self.clock.now_s() + (cache.kept_s or _ENGINE_S)
        self.stays.put(plan.conversation, Stay(variant.name, tokens, until_s))

    def elsewhere(self, model: str, call: Call | None) -> bool:
        """Whether another than that model, at the default upstream, gave the call's answer."""
        variant = self.variants.get(call.attempts[-1].variant) if call is not None and call.attempts else None
        return variant is not None and (variant.model, variant.upstream) != (model, DEFAULT_UPSTREAM)

    def bounds(self) -> dict[str, dict[str, Any]]:
        """What is known of the routes that have a bound, by their names; see RouteStandings.told."""
        told = {} if self.standings is None else {one.name: self.standings.told(one) for one in self.routes.routes}
        return {name: one for name, one in told.items() if one is not None}

    def plain(self, model: str) -> Variant | None:
        """The variant that is nothing but that model at the default upstream, where there is one."""
        return next((one for one in self.variants.values() if one.is_plainly(model)), None)

    def plain_of_routes(self) -> dict[str, dict[str, str]]:
        """By route: each model at the default upstream that a variant of its own is nothing but, and that variant."""
        return {
            route.name: {
                one.model: one.name
                for one in reversed((*route.variants, *route.fallbacks))
                if one.is_plainly(one.model)
            }
            for route in self.routes.routes
        }

    def speed(self, variant: Variant) -> Speed:
        """What is known of its answers; begun where nothing is."""
        return self.speeds.setdefault(variant.name, Speed())

    def allowance(self, route: Route) -> Allowance:
        """How many second calls the route may make."""
        return self.allowances.setdefault(route.name, Allowance(route.hedge_share))

    def priced_name(self, variant: Variant, served: str) -> str:
        """The name under which what `variant` said is booked: the upstream's own, unless only ours has a price."""
        card, now_s = self.rates.at(variant.upstream), self.clock.now_s()
        if not served or card.rates(served, now_s) is None:
            return variant.model
        ours = card.owns(variant.model) and not card.owns(served) and same_model(variant.model, served)
        return variant.model if ours else served

    def _stands_for(self, ex: Exchange) -> Variant | None:
        """Put in the request what its model's name stands for: a model, or a variant, which is then given."""
        target = target_of(self.aliases, ex.model)
        ex.decide("route", "alias", f"{ex.model} is {target}")
        variant = self.variants.get(target)
        self._asked_of(ex, variant or Variant(target, target))
        return variant

    @staticmethod
    def _asked_of(ex: Exchange, variant: Variant) -> None:
        """From here on it is that model that was asked for."""
        assert ex.body is not None
        assert ex.payload is not None
        ex.body_in = ex.body_in or ex.body
        ex.body = put_in(ex.body, Variant(variant.name, variant.model))
        ex.model = variant.model
        ex.payload = {**ex.payload, "model": variant.model}
        ex.exact = None if ex.exact is None else {**ex.exact, "model": variant.model}
