"""Puts the house together: builds what a process needs from a configuration, and runs it.

`Services` is the process's state: frozen, built here, closed here in reverse order. Two apps with different
configurations can run in one process without touching each other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog
from aiohttp import web

from farthing.cache.entry import Entry
from farthing.cache.flight import Flights
from farthing.cache.places import Places
from farthing.cache.second_opinion import Band
from farthing.cache.semantic import SemanticCache
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.stage_exact import ExactStage, KeepStage, Renderer
from farthing.cache.stage_flight import FlightStage
from farthing.cache.store import Store
from farthing.cache.template import Templates
from farthing.compress.stage import TidyStage
from farthing.policies.eligibility import Rules
from farthing.policies.freshness import Freshness, Rule
from farthing.policies.retry import RetryRules
from farthing.policies.spend import DayTotal
from farthing.policies.stage import EligibleStage, SpendStage
from farthing.proxy import state
from farthing.proxy.account import Account, AccountStage
from farthing.proxy.admin import Admin
from farthing.proxy.audit import Auditor
from farthing.proxy.clock import Clock, Randomness, SystemClock, SystemRandomness
from farthing.proxy.config import Cache as CacheConfig
from farthing.proxy.config import Config, Semantic
from farthing.proxy.connections import Connections
from farthing.proxy.deadlines import Deadlines
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Stage
from farthing.proxy.front import FrontServer
from farthing.proxy.judge import Judge, Verdicts
from farthing.proxy.lately import Lately
from farthing.proxy.learnt import Learnt
from farthing.proxy.ledger import Ledger
from farthing.proxy.metrics import Metrics
from farthing.proxy.pipeline import Pipeline
from farthing.proxy.prices import RateCard
from farthing.proxy.refused import Refused
from farthing.proxy.repeat import Repeats
from farthing.proxy.reuse_state import REUSE
from farthing.proxy.second_stage import CrossEncoderStage, SecondStage
from farthing.proxy.server import Relay
from farthing.proxy.stage_semantic import Case, SemanticStage
from farthing.proxy.stage_upstream import UpstreamStage
from farthing.proxy.stages import AdmitStage, AssignStage, ParseStage, RouteStage, Tenants
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.tokens import Tokenizer

__all__ = ["Running", "Services", "State", "open_store", "running"]

log = structlog.get_logger("farthing")


@dataclass(frozen=True, slots=True)
class State:
    """What outlives a change of configuration: stores, books, counters, switches."""

    clock: Clock
    randomness: Randomness
    secret: bytes
    switch: state.Switch
    store: Store
    ledger: Ledger | None
    metrics: Metrics
    total: DayTotal
    tasks: TaskGroup
    renderer: Renderer
    tokenizer: Tokenizer
    barred: Refused
    learnt: Learnt[Semantic]
    audited: DayTotal
    judged: DayTotal
    verdicts: Verdicts
    served_cases: OrderedDict[str, Case]
    places: Places
    lately: Lately


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that one configuration made: what answers requests now."""

    config: Config
    state: State
    thread: SemanticThread | None
    connections: Connections
    semantic: SemanticStage
    pipeline: Pipeline
    admit: AdmitStage
    relay: Relay


class Running:
    """A proxy that listens. `url`: where, without a path. `services`: what answers now."""

    def __init__(self, services: Services, stack: AsyncExitStack) -> None:
        self.url = ""
        self.services = services
        self._stack = stack

    async def reload(self, config: Config) -> tuple[str, ...]:
        """Let `config` answer from the next request on; those under way end as they began.

        Returns the sections that only a restart can change; they stay as they are.
        """
        old = self.services
        kept = tuple(name for name in _FIXED if getattr(config, name) != getattr(old.config, name))
        config = config.model_copy(update={name: getattr(old.config, name) for name in _FIXED})
        self.services = await build(config, old.state, self._stack, old)
        if old.thread is not None and old.thread is not self.services.thread:
            await old.thread.close()
        before = old.semantic.second
        if isinstance(before, CrossEncoderStage) and before is not self.services.semantic.second:
            before.close()
        return kept


_FIXED = ("state_dir", "server", "store", "ledger", "log")


@asynccontextmanager
async def running(
    config: Config, *, clock: Clock | None = None, randomness: Randomness | None = None
) -> AsyncIterator[Running]:
    """Build, listen, and on leaving drain and close.

    Raises ConfigFault: the state directory is in use or unusable; OSError: the address can't be bound.
    """
    async with AsyncExitStack() as stack:
        held = await open_state(config, clock or SystemClock(), randomness or SystemRandomness(), stack)
        proxy = Running(await build(config, held, stack), stack)
        admin = Admin(proxy)

        async def own_or_relayed(request: web.BaseRequest) -> web.StreamResponse:
            own = await admin.handle(request)
            return own if own is not None else await proxy.services.relay.handle(request)

        def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            relayed = request.raw_path.startswith("/v1/")
            return proxy.services.relay.handle(request) if relayed else own_or_relayed(request)

        server = FrontServer(
            handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=config.server.keepalive_s,
            max_line_size=65_536,
            max_field_size=65_536,
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=config.server.drain_s)
        await runner.setup()
        stack.push_async_callback(drain, held.tasks, config.server.drain_s)
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, config.server.host, config.server.port, backlog=1024, reuse_address=True)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        yield proxy


async def open_state(config: Config, clock: Clock, randomness: Randomness, stack: AsyncExitStack) -> State:
    """Open what lasts; it is pushed on `stack`, so that it closes in reverse order."""
    stack.callback(state.claim(config.state_dir).close)
    metrics = Metrics()
    total, audited, judged = DayTotal(), DayTotal(), DayTotal()
    ledger = None
    if config.ledger.enabled:
        ledger = Ledger(
            config.state_dir / "ledger.db",
            flush_ms=config.ledger.flush_ms,
            buffer_rows=config.ledger.buffer_rows,
            jsonl=config.ledger.jsonl,
            on_rows=metrics.observe,
        )
        stack.callback(ledger.close)
        midnight_s = clock.now_s() // 86_400 * 86_400
        audited.add(ledger.spent_since(midnight_s, overhead_of="audit"), clock.now_s())
        judged.add(ledger.spent_since(midnight_s, overhead_of="judge"), clock.now_s())
        total.add(ledger.spent_since(midnight_s) + audited.spent_pico + judged.spent_pico, clock.now_s())
    store = await open_store(config, clock)
    stack.push_async_callback(store.close)
    barred = Refused(config.state_dir / "refused")
    stack.callback(barred.close)
    tasks = TaskGroup()
    learnt = Learnt(config.state_dir, tasks.spawn, REUSE)
    stack.push_async_callback(learnt.close)
    return State(
        clock=clock,
        randomness=randomness,
        secret=state.local_secret(config.state_dir, randomness),
        switch=state.Switch(config.state_dir, clock),
        store=store,
        ledger=ledger,
        metrics=metrics,
        total=total,
        tasks=tasks,
        renderer=Renderer(),
        tokenizer=Tokenizer(),
        barred=barred,
        learnt=learnt,
        audited=audited,
        judged=judged,
        verdicts=Verdicts(),
        served_cases=OrderedDict(),
        places=Places(Templates()),
        lately=Lately(),
    )


async def build(config: Config, held: State, stack: AsyncExitStack, old: Services | None = None) -> Services:
    """What answers requests under `config`; connections and models of `old` are used on where they still fit."""
    connections = old.connections if old is not None and old.config.upstream == config.upstream else None
    if connections is None:
        connections = Connections(
            config.upstream.url,
            connect_timeout_s=config.upstream.connect_timeout_s,
            limit=config.upstream.max_connections,
            spawn=held.tasks.spawn,
            clock=held.clock,
        )
        stack.callback(connections.close)
    thread = old.thread if old is not None and same_thread(old.config, config) else None
    if config.semantic.mode == "off" or config.cache.mode == "off":
        thread = None
    elif thread is None:
        thread = open_semantic(config, held.tasks)
        stack.push_async_callback(thread.close)
    rates = RateCard(config.prices.models, config.upstream.provider, config.upstream.url)
    semantic = SemanticStage(
        thread=thread,
        store=held.store,
        upstream_url=config.upstream.url,
        reuse=await held.learnt.use(config.semantic),
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
    )
    # The price table takes a tenth of a second to load: not while a request waits for it.
    held.tasks.spawn(asyncio.to_thread(rates.rates, "gpt-4o-mini", held.clock.now_s()), "load prices")
    account = Account(
        rates, held.ledger, held.tokenizer, held.total, held.clock, patience_s=config.semantic.deadline_ms / 1000
    )
    pipeline, admit, on_the_way = lay_out(config, held, semantic, connections, account)
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
    if thread is not None:
        semantic.second = open_second(config, held, audits, stack, old)
    repeats = Repeats(
        held.store,
        held.renderer,
        account,
        held.barred,
        lambda: not (config.all_off or held.switch() or admit.full or pipeline.breaker.open_until),
        held.clock,
        held.randomness,
        config.limits.repeat_bytes,
    )
    relay = Relay(pipeline, account, repeats, held.tasks, config.limits, config.upstream, held.clock, held.randomness)
    return Services(config, held, thread, connections, semantic, pipeline, admit, relay)


def a_hits_worth_usd(rates: RateCard, entry: Entry) -> float | None:
    """What a hit on the entry saves, at the rates of when it was stored; None where usage or rates are unknown."""
    price = rates.price(entry.model_requested, entry.usage, entry.stored_s) if entry.usage is not None else None
    return float(price.usd) if price is not None else None


def freshness(cache: CacheConfig) -> Freshness:
    """The configuration's rules."""
    return Freshness(cache.ttl_s, [Rule(**rule.model_dump()) for rule in cache.freshness])


def near_until_s(fresh: Freshness, entry: Entry) -> float:
    """Until when near-duplicates may be answered with the entry: never longer than it is kept."""
    about = ((entry.model_requested, entry.model_served), entry.endpoint, entry.tags, entry.body)
    ttl_s = fresh.of(*about).semantic_ttl_s
    return entry.expires_s if ttl_s is None else min(entry.expires_s, entry.stored_s + ttl_s)


def same_thread(old: Config, new: Config) -> bool:
    """Whether the semantic cache's thread may serve on: its model, its priority and its bounds stay."""
    kept = ("model", "mode", "unproven", "max_entries", "max_bytes")
    return all(getattr(old.semantic, name) == getattr(new.semantic, name) for name in kept)


def lay_out(
    config: Config, held: State, semantic: SemanticStage, connections: Connections, account: Account
) -> tuple[Pipeline, AdmitStage, tuple[Stage, ...]]:
    """The stages, in the order of pipeline.FRONT and pipeline.BACK."""
    cache, upstream, clock, randomness = config.cache, config.upstream, held.clock, held.randomness
    admit = AdmitStage(Tenants(held.secret, config.auth), config.limits)
    flight = FlightStage(Flights(), cache.join, config.limits.buffer_bytes, clock, randomness)
    fresh = freshness(cache)
    limit = config.spend.daily_usd
    front = (
        AccountStage(account),
        admit,
        ParseStage(config.limits.parse_bytes),
        AssignStage("default", config.id, lambda: config.all_off or held.switch()),
        EligibleStage(Rules(cache.mode == "exact", cache.sampled, cache.remote_urls, cache.responses_never_chained)),
        ExactStage(held.store, config.upstream.url, cache.variants, held.barred, clock, randomness, held.renderer),
        flight,
    )
    carrier = UpstreamStage(
        connections,
        Deadlines(),
        upstream,
        config.limits,
        clock,
        randomness,
        RetryRules(upstream.retries, upstream.retry_base_s, upstream.retry_max_s, upstream.retry_after_send),
        passive=config.all_off,
    )
    back = (
        KeepStage(
            held.store,
            lambda *about: fresh.of(*about).ttl_s,
            cache.max_entry_bytes,
            held.barred,
            clock,
            semantic.learn,
        ),
        semantic,
        TidyStage(config.compress.tidy),
        RouteStage(),
        SpendStage(None if limit is None else int(limit * 10**12), held.total, clock),
        carrier,
    )
    return Pipeline(front, back, flight, held.tasks, clock), admit, (back[2], back[3], carrier)


async def open_store(config: Config, clock: Clock) -> Store:
    """The store that the configuration names, ready."""
    url = config.store.url.get_secret_value()
    if url:
        from farthing.cache.store_redis import RedisStore

        return RedisStore(url, deadline_ms=config.store.deadline_ms, clock=clock)
    from farthing.cache.store_local import LocalStore

    store = LocalStore(
        config.state_dir / "answers.db",
        clock=clock,
        memory_bytes=config.store.memory_bytes,
        max_bytes=config.store.max_bytes,
        max_entries=config.store.max_entries,
    )
    await store.open()
    return store


def open_semantic(config: Config, tasks: TaskGroup) -> SemanticThread:
    """The semantic cache's thread, loading in the background; a missing model turns the stage off with one line."""

    def load() -> SemanticCache:
        from farthing.cache.embedder import open_embedder
        from farthing.cache.scorer import GuardScorer, VerifierScorer
        from farthing.cache.verifier import Verifier

        embedder = open_embedder(config.semantic.model)
        path = config.state_dir / "semantic.db"
        scorer = GuardScorer() if config.semantic.unproven else VerifierScorer(Verifier.open())
        limits = config.semantic
        return SemanticCache.open(
            path, embedder, max_entries=limits.max_entries, max_bytes=limits.max_bytes, scorer=scorer
        )

    thread = SemanticThread(load, patient=config.semantic.mode == "observe")

    async def open_it() -> None:
        try:
            await thread.open()
        except Exception as error:  # noqa: BLE001 - whatever is missing, the proxy serves without this stage
            log.warning("semantic cache is off", reason=str(error) or type(error).__name__)

    tasks.spawn(open_it(), "load semantic")
    return thread


def open_second(
    config: Config, held: State, audits: Errands, stack: AsyncExitStack, old: Services | None
) -> SecondStage | None:
    """The second stage that the configuration names; a cross-encoder that is loaded already serves on."""
    kind, _, model = config.semantic.second_stage.partition(":")
    if kind == "off":
        return None
    if kind == "judge":
        calls = replace(
            audits,
            kind="judge",
            stages=audits.stages[-1:],  # to the upstream, and past what concerns the client's request
            limit_pico=int(config.semantic.judge_daily_usd * 10**12),
            barred=None,
            spent=held.judged,
        )
        return Judge(
            model, calls, lambda coro: held.tasks.spawn(coro, "judge"), config.semantic.judge_at_once, held.verdicts
        )
    if old is not None and old.semantic.second and old.config.semantic.second_stage == config.semantic.second_stage:
        return old.semantic.second
    stage = CrossEncoderStage(model)
    stack.callback(stage.close)
    held.tasks.spawn(stage.open(), "load cross-encoder")
    return stage


async def drain(tasks: TaskGroup, timeout_s: float) -> None:
    """Let what is under way end; say so where it had to be cut."""
    cut = await tasks.drain(timeout_s)
    if cut:
        log.warning("drained", cut=cut)
    await asyncio.sleep(0)
