"""Puts the house together: builds what a process needs from a configuration, and runs it.

`Services` is the process's state: frozen, built here, closed here in reverse order. Two apps with different
configurations can run in one process without touching each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import web

from farthing.cache.flight import Flights
from farthing.cache.semantic import SemanticCache
from farthing.cache.stage_exact import ExactStage, KeepStage, Renderer
from farthing.cache.stage_flight import FlightStage
from farthing.cache.stage_semantic import SemanticStage, SemanticThread
from farthing.cache.store import Store
from farthing.compress.stage import TidyStage
from farthing.policies.eligibility import Rules
from farthing.policies.spend import DayTotal
from farthing.policies.stage import EligibleStage, SpendStage
from farthing.proxy import state
from farthing.proxy.account import Account, AccountStage
from farthing.proxy.admin import Admin
from farthing.proxy.clock import Clock, Randomness, SystemClock, SystemRandomness
from farthing.proxy.config import Config
from farthing.proxy.ledger import Ledger
from farthing.proxy.metrics import Metrics
from farthing.proxy.pipeline import Pipeline
from farthing.proxy.prices import RateCard
from farthing.proxy.server import Relay
from farthing.proxy.stage_upstream import UpstreamStage, open_session
from farthing.proxy.stages import AdmitStage, AssignStage, ParseStage, RouteStage, Tenants
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.tokens import Tokenizer

__all__ = ["Running", "Services", "running"]

log = structlog.get_logger("farthing")


@dataclass(frozen=True, slots=True)
class Services:
    """Everything one process holds."""

    config: Config
    clock: Clock
    switch: state.Switch
    store: Store
    semantic: SemanticStage
    ledger: Ledger | None
    metrics: Metrics
    pipeline: Pipeline
    admit: AdmitStage
    tasks: TaskGroup
    relay: Relay
    rates: RateCard


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that listens. `url`: where, without a path."""

    url: str
    services: Services


@asynccontextmanager
async def running(
    config: Config, *, clock: Clock | None = None, randomness: Randomness | None = None
) -> AsyncIterator[Running]:
    """Build, listen, and on leaving drain and close.

    Raises ConfigFault: the state directory is in use or unusable; OSError: the address can't be bound.
    """
    clock = clock or SystemClock()
    randomness = randomness or SystemRandomness()
    async with AsyncExitStack() as stack:
        services = await build(config, clock, randomness, stack)
        admin = Admin(services)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            own = await admin.handle(request)
            return own if own is not None else await services.relay.handle(request)

        server = web.Server(
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
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, config.server.host, config.server.port, backlog=1024, reuse_address=True)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield Running(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", services)


async def build(config: Config, clock: Clock, randomness: Randomness, stack: AsyncExitStack) -> Services:
    """The services; what they hold open is pushed on `stack`, so that it closes in reverse order."""
    stack.callback(state.claim(config.state_dir).close)
    secret = state.local_secret(config.state_dir, randomness)
    switch = state.Switch(config.state_dir, clock)
    rates = RateCard(config.prices.models, config.upstream.provider, config.upstream.url)
    metrics = Metrics()
    total = DayTotal()
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
        total.add(ledger.spent_since(clock.now_s() // 86_400 * 86_400), clock.now_s())
    store = await open_store(config, clock)
    stack.push_async_callback(store.close)
    tasks = TaskGroup()
    # The price table takes a tenth of a second to load: not while a request waits for it.
    tasks.spawn(asyncio.to_thread(rates.rates, "gpt-4o-mini", clock.now_s()), "load prices")
    renderer = Renderer()
    thread = await open_semantic(config, tasks)
    if thread is not None:
        stack.push_async_callback(thread.close)
    semantic = SemanticStage(
        thread=thread,
        store=store,
        upstream_url=config.upstream.url,
        serve=config.semantic.mode == "serve" and config.semantic.unproven,
        threshold=config.semantic.threshold,
        deadline_s=config.semantic.deadline_ms / 1000,
        spawn=lambda coro: tasks.spawn(coro, "semantic"),
        clock=clock,
        randomness=randomness,
        renderer=renderer,
    )
    session = open_session(config.upstream)
    stack.push_async_callback(session.close)
    account = Account(rates=rates, ledger=ledger, tokenizer=Tokenizer(), total=total, clock=clock, config=config)
    pipeline, admit = lay_out(
        config, clock, randomness, secret, switch, store, semantic, session, renderer, account, tasks, total
    )
    relay = Relay(pipeline, account, tasks, config.limits, config.upstream, clock, randomness)
    stack.push_async_callback(drain, tasks, config.server.drain_s)
    return Services(config, clock, switch, store, semantic, ledger, metrics, pipeline, admit, tasks, relay, rates)


def lay_out(
    config: Config,
    clock: Clock,
    randomness: Randomness,
    secret: bytes,
    switch: state.Switch,
    store: Store,
    semantic: SemanticStage,
    session: aiohttp.ClientSession,
    renderer: Renderer,
    account: Account,
    tasks: TaskGroup,
    total: DayTotal,
) -> tuple[Pipeline, AdmitStage]:
    """The stages, in the order of pipeline.FRONT and pipeline.BACK."""
    cache = config.cache
    barred: set[str] = set()
    admit = AdmitStage(Tenants(secret, config.auth), config.limits)
    flight = FlightStage(Flights(), cache.join, config.limits.buffer_bytes, clock, randomness)
    limit = config.spend.daily_usd
    front = (
        AccountStage(account),
        admit,
        ParseStage(config.limits.parse_bytes),
        AssignStage("default", config.id, lambda: config.all_off or switch()),
        EligibleStage(Rules(cache.mode == "exact", cache.sampled, cache.remote_urls, cache.responses_never_chained)),
        ExactStage(store, config.upstream.url, cache.variants, barred, clock, randomness, renderer),
        flight,
    )
    back = (
        KeepStage(store, cache.ttl_s, cache.max_entry_bytes, barred, clock, semantic.learn),
        semantic,
        TidyStage(config.compress.tidy),
        RouteStage(),
        SpendStage(None if limit is None else int(limit * 10**12), total, clock),
        UpstreamStage(session, config.upstream, config.limits, clock, randomness, passive=config.all_off),
    )
    return Pipeline(front, back, flight, tasks, clock), admit


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


async def open_semantic(config: Config, tasks: TaskGroup) -> SemanticThread | None:
    """The semantic cache's thread, loading in the background; a missing model turns the stage off with one line."""
    if config.semantic.mode == "off" or config.cache.mode == "off":
        return None

    def load() -> SemanticCache:
        from farthing.cache.embedder import open_embedder

        embedder = open_embedder(config.semantic.model)
        path = config.state_dir / "semantic.db"
        return SemanticCache.open(path, embedder, max_entries=config.semantic.max_entries)

    thread = SemanticThread(load)

    async def open_it() -> None:
        try:
            await thread.open()
        except Exception as error:  # noqa: BLE001 - whatever is missing, the proxy serves without this stage
            log.warning("semantic cache is off", reason=str(error) or type(error).__name__)

    tasks.spawn(open_it(), "load semantic")
    return thread


async def drain(tasks: TaskGroup, timeout_s: float) -> None:
    """Let what is under way end; say so where it had to be cut."""
    cut = await tasks.drain(timeout_s)
    if cut:
        log.warning("drained", cut=cut)
    await asyncio.sleep(0)
