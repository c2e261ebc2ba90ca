"""Everything that answers requests under one configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from farthing.cache.flight import Flights
from farthing.cache.places import Places
from farthing.cache.second_opinion import Band
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.stage_exact import ExactStage, KeepStage
from farthing.cache.stage_flight import FlightStage
from farthing.cache.stage_items import ItemCache
from farthing.cache.stage_lease import LeaseStage
from farthing.compress.plan import ASKED, lossy
from farthing.policies.eligibility import Rules
from farthing.policies.stage import EligibleStage, SpendStage
from farthing.proxy.account import Account, AccountStage
from farthing.proxy.afresh import open_afresh
from farthing.proxy.alerts import Webhook
from farthing.proxy.audit import Auditor
from farthing.proxy.budgets import Spending
from farthing.proxy.build_compress import open_beyond, shadows_of
from farthing.proxy.build_defer import open_desk, open_stage
from farthing.proxy.build_prompt_cache import on_their_keys, open_marker, open_warmer
from farthing.proxy.build_routes import Opened, Ways, open_routing, open_upstream
from farthing.proxy.build_semantic import (
    a_hits_worth_usd,
    freshness,
    near_until_s,
    open_second,
    open_semantic,
    same_thread,
)
from farthing.proxy.build_spend import open_ring, open_spending
from farthing.proxy.build_watch import keep_audit, open_watch, tell_when_taken_back
from farthing.proxy.capture_admin import in_force
from farthing.proxy.config import Config
from farthing.proxy.counterfactual import Counterfactual
from farthing.proxy.defer_shelf import Works
from farthing.proxy.drift_sample import DriftSample
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Stage
from farthing.proxy.filling import FillingStage
from farthing.proxy.held import State
from farthing.proxy.needed import load
from farthing.proxy.pipeline import Pipeline
from farthing.proxy.pool import Pool
from farthing.proxy.pool_open import Probes
from farthing.proxy.prompt_marking import cache_behind
from farthing.proxy.rate_cards import card_of
from farthing.proxy.repeat import Repeats
from farthing.proxy.retrieving import RetrievingStage
from farthing.proxy.server import Relay
from farthing.proxy.stage_compress import CompressStage
from farthing.proxy.stage_prompt_cache import PromptCacheStage
from farthing.proxy.stage_route import RouteStage, RoutingStage
from farthing.proxy.stage_semantic import SemanticStage
from farthing.proxy.stages import AdmitStage, AssignStage, ParseStage
from farthing.proxy.tenants import Tenants
from farthing.proxy.versions import policy_version

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing
    from farthing.proxy.students import Students

__all__ = ["Services", "build"]


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that one configuration made: what answers requests now."""

    config: Config
    state: State
    thread: SemanticThread | None
    pool: Pool
    probes: Probes
    others: Mapping[str, Opened]
    routing: Routing | None
    semantic: SemanticStage
    compress: CompressStage
    pipeline: Pipeline
    admit: AdmitStage
    relay: Relay
    assign: AssignStage
    spending: Spending | None = None
    students: Students | None = None
    deferring: Works | None = None

    @property
    def default(self) -> Opened:
        """The default upstream."""
        return Opened(self.pool, self.probes)

    @property
    def upstreams(self) -> tuple[Opened, ...]:
        """All upstreams, the default one first."""
        return (self.default, *self.others.values())


async def build(
    config: Config, held: State, stack: AsyncExitStack, old: Services | None = None, *, beside: bool = False
) -> Services:
    """What answers requests under `config`; connections and models of `old` are used on where they still fit.

    `beside`: `old` goes on answering too, for another share of the traffic.
    """
    await asyncio.to_thread(load, config)
    first, *more = on_their_keys(config)
    pool, probes = open_upstream(first, held, stack, None if old is None else old.default)
    before = {} if old is None else old.others
    others = {one.name: open_upstream(one, held, stack, before.get(one.name)) for one in more}
    thread = old.thread if old is not None and same_thread(old.config, config, beside=beside) else None
    if config.semantic.mode == "off" or config.cache.mode == "off":
        thread = None
    elif thread is None:
        thread = open_semantic(config, held, stack)
    if held.otlp is not None:
        from farthing.proxy.otlp_names import target_of

        held.otlp.target = target_of(config.upstream.url, config.upstream.provider)
    traces = None if held.otlp is None or not config.otlp.spans else held.otlp.traces
    contents = None if held.otlp is None else held.otlp.contents
    if contents is not None:
        contents.chosen = config.capture
    rates = card_of(config)
    semantic = SemanticStage(
        thread=thread,
        store=held.store,
        upstream_url=config.upstream.identity,
        reuse=await (held.learnt.beside if beside else held.learnt.use)(config.semantic),
        unproven=config.semantic.unproven,
        deadline_s=config.semantic.deadline_ms / 1000,
        band=Band(*config.semantic.judge_band),
        judge_deadline_s=config.semantic.judge_deadline_ms / 1000,
        spawn=lambda coro: held.tasks.spawn(coro, "semantic"),
        clock=held.clock,
        randomness=held.randomness,
        renderer=held.renderer,
        places=held.places if config.semantic.templates else Places(None),
        worth_usd=partial(a_hits_worth_usd, rates),
        semantic_until_s=partial(near_until_s, freshness(config.cache)),
        served_cases=held.served_cases,
        lately=held.lately,
        watch=held.watch,
        audited=partial(keep_audit, held),
        nearest=held.implicit.nearest,
    )
    held.implicit.on, held.implicit.detector.within_s = config.feedback.implicit, config.feedback.reask_within_s
    # The price table takes some tenths of a second to load: in a thread, and before any request comes, since the first
    # answer would wait for it on the event loop.
    await asyncio.to_thread(rates.rates, "gpt-4o-mini", held.clock.now_s())
    if not beside:
        webhook = Webhook(config.alerts, held.clock, lambda call: held.tasks.spawn(call, "alert"), config.upstream.name)
        held.incidents.tell = webhook.send
    account = Account(
        rates,
        held.ledger,
        held.tokenizer,
        held.total,
        held.clock,
        patience_s=config.semantic.deadline_ms / 1000,
        counterfactual=Counterfactual(
            held.provider_reads,
            cache_behind(config.upstream, config.compress.provider_cache),
            one_account=bool(config.upstream.keys),
            others={one.name: cache_behind(one, "auto") for one in config.upstreams},
        ),
        compressed=held.compressed,
        waiting=held.waiting,
        capture=in_force(config, held),
        contents=contents,
        spending=open_spending(config, held, rates, stack),
        watch=held.watch,
    )
    if config.ledger.drift_sample:
        slow = account.counting.slow
        account.drift = DriftSample(held.drift, config.ledger.drift_sample, held.tokenizer, slow, held.clock)
    compress = CompressStage(config.compress.tidy, config.compress.squeeze, count=account.counting.prompt)
    tenants = Tenants(held.secret, config.auth, await open_ring(config, held, stack))
    students, hashes = await students_of(config, held, thread, stack)
    routing = open_routing(config, held, rates, tenants, None if old is None else old.routing, hashes)
    ways = Ways(config, held, pool, others, account.spending)
    await open_desk(config, held, stack)
    prompt_cache = PromptCacheStage(open_marker(config, held, rates))
    pipeline, admit, assign, on_the_way, deferring = lay_out(
        config, held, semantic, compress, ways, account, tenants, routing, prompt_cache, students
    )
    audits = Errands(
        "audit",
        on_the_way,
        account,
        limit_pico=int(config.semantic.audit_daily_usd * 10**12),
        hard_limit_pico=None if config.spend.daily_usd is None else int(config.spend.daily_usd * 10**12),
        buffer_bytes=config.limits.buffer_bytes,
        clock=held.clock,
        randomness=held.randomness,
        barred=held.barred,
        spent=held.audited,
    )
    semantic.auditor = Auditor(audits)
    if students is not None:
        students.errands = audits
    prompt_cache.warmer = open_warmer(config, held, rates, audits, stack)
    if thread is not None:
        loaded = ("", None) if old is None else (old.config.semantic.second_stage, old.semantic.second)
        semantic.second = open_second(config, held, audits, stack, loaded)
    # A lane without near-duplicates compares answers as the others do, or its own would only be in more doubt.
    compares = old.thread if beside and thread is None and old is not None else thread
    compress.beyond = await open_beyond(config, held, rates, audits, compares, stack, beside=beside)
    on_the_way_route = on_the_way[1]
    if config.shadow.share and isinstance(on_the_way_route, RoutingStage):
        from farthing.proxy.route_shadow import RouteShadow

        shadows = shadows_of(config.shadow.daily_usd, held, audits, compares)
        on_the_way_route.shadow = RouteShadow(
            shadows, config.shadow.share, on_the_way_route.routing, held.outcomes, held.clock, held.randomness,
            lambda call: held.tasks.spawn(call, "shadow"), held.watch,
        )  # fmt: skip
    if beside and old is not None:
        afresh = old.relay.afresh  # all arms are measured by one instrument
    else:
        afresh = open_afresh(config, held, shadows_of(config.shadow.daily_usd, held, audits, thread))
    if not beside:
        open_watch(config, held)
    recoded, squeezed = [
        await (one.beside if beside else one.use)(config.compress) for one in (held.recoded, held.squeezed)
    ]
    tell_when_taken_back(held, {"semantic": semantic.reuse, "recode": recoded, "squeeze": squeezed})
    repeats = Repeats(
        held.store,
        held.renderer,
        account,
        held.barred,
        lambda credential: (
            admit.repeats(credential) and not (config.all_off or held.switch() or pipeline.breaker.open_until)
        ),
        held.clock,
        held.randomness,
        config.limits.repeat_bytes,
        config.compat.aliases,
        traces,
    )
    relay = Relay(
        pipeline,
        account,
        repeats,
        held.tasks,
        config.limits,
        config.upstream,
        held.clock,
        held.randomness,
        config.compat.aliases,
        traces,
        afresh,
    )
    return Services(
        config,
        held,
        thread,
        pool,
        probes,
        others,
        routing,
        semantic,
        compress,
        pipeline,
        admit,
        relay,
        assign,
        account.spending,
        students,
        deferring,
    )


async def students_of(
    config: Config, held: State, thread: SemanticThread | None, stack: AsyncExitStack
) -> tuple[Students | None, Mapping[str, str]]:
    """Those that variants name and that are there, and their hashes."""
    if not any(one.student for one in config.variants):
        return None, {}
    from farthing.proxy.build_students import found, hashes, open_students

    taught = await asyncio.to_thread(found, config)
    return await open_students(config, held, taught, thread, stack), hashes(taught)


def lay_out(
    config: Config,
    held: State,
    semantic: SemanticStage,
    compress: CompressStage,
    ways: Ways,
    account: Account,
    tenants: Tenants,
    routing: Routing | None,
    prompt_cache: PromptCacheStage,
    students: Students | None,
) -> tuple[Pipeline, AdmitStage, AssignStage, tuple[Stage, ...], Works | None]:
    """The stages, in the order of pipeline.FRONT and pipeline.BACK."""
    cache, clock, randomness = config.cache, held.clock, held.randomness
    spending = account.spending
    counts = spending is not None and bool(spending.at_admit)
    admit = AdmitStage(
        tenants, config.limits, spending.admit if spending is not None and counts else None, held.in_flight
    )
    flight = FlightStage(Flights(), cache.join, config.limits.buffer_bytes, clock, randomness)
    fresh = freshness(cache)
    modes = {"recode": config.compress.recode, "squeeze": config.compress.squeeze}
    changes = {asked: lossy(**modes, asked=asked) for asked in ASKED}
    limit = config.spend.daily_usd
    assign = AssignStage(policy_version(config), config.id, config.all_off, held.switch, changes, routing)
    items = ItemCache(held.store, clock, held.renderer.remember, held.tokenizer) if cache.embedding_items else None
    keep = KeepStage(
        held.store,
        fresh.ttl_s,
        cache.max_entry_bytes,
        held.barred,
        clock,
        semantic.learn,
        items,
        held.leases,
    )
    lease = LeaseStage(
        held.leases if cache.join else None,
        cache.join_across,
        cache.join_wait_s,
        clock,
        randomness,
        held.renderer,
        lambda work: held.tasks.spawn(work, "lease"),
        fresh.ttl_s,
    )
    spend = SpendStage(
        None if limit is None else int(limit * 10**12),
        held.total,
        clock,
        None if spending is None else spending.reserve,
    )
    defer = open_stage(config, held, account, ways, routing, keep, spend)
    front = (
        AccountStage(account),
        admit,
        ParseStage(config.limits.parse_bytes, config.compat.aliases),
        assign,
        EligibleStage(Rules(cache.mode == "exact", cache.sampled, cache.remote_urls, cache.responses_never_chained)),
        ExactStage(
            held.store, config.upstream.identity, cache.variants, held.barred, clock, randomness, held.renderer, items
        ),
        defer,
        flight,
    )
    carrier = ways.default()
    retrieving = partial(
        RetrievingStage, tokenizer=held.tokenizer, limit_bytes=config.limits.buffer_bytes, spending=spending
    )
    route = RouteStage() if routing is None else RoutingStage(routing, students)
    back = (
        lease,
        keep,
        semantic,
        compress,
        route,
        prompt_cache,
        spend,
        FillingStage(
            ways.routed(retrieving(carrier), routing, retrieving, students) or retrieving(carrier),
            held.tokenizer,
            8 * config.limits.buffer_bytes,
        ),
    )
    return (
        Pipeline(front, back, flight, held.tasks, clock),
        admit,
        assign,
        (CompressStage(config.compress.tidy), route, ways.routed(carrier, routing, lambda own: own) or carrier),
        defer.works,
    )
