"""The semantic cache, as the configuration has it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from farthing.cache.entry import Entry
from farthing.cache.semantic_thread import SemanticThread
from farthing.policies.freshness import Freshness, Rule
from farthing.proxy.clock import Clock
from farthing.proxy.config import Cache as CacheConfig
from farthing.proxy.config import Config
from farthing.proxy.config import Semantic as SemanticConfig
from farthing.proxy.errand import Errands
from farthing.proxy.every import Every
from farthing.proxy.held import State
from farthing.proxy.judge import Judge
from farthing.proxy.prices import RateCard
from farthing.proxy.sealing import sealer
from farthing.proxy.second_stage import CrossEncoderStage, SecondStage

if TYPE_CHECKING:
    from farthing.cache.index_pg import PgVectors
    from farthing.cache.semantic import SemanticCache
    from farthing.cache.shared_index import SharedIndex

__all__ = ["a_hits_worth_usd", "freshness", "near_until_s", "open_second", "open_semantic", "same_thread"]

log = structlog.get_logger("farthing")

_FOLLOW_EVERY_S = 0.25


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


def same_thread(old: Config, new: Config, *, beside: bool = False) -> bool:
    """Whether the semantic cache's thread may serve on: its model, its priority and its bounds stay.

    `beside`: for both at once; then its priority stays the old one's, since a second index would hold everything twice.
    """
    kept = ["model", "unproven", "max_entries", "max_bytes", "shared", "index", "index_url"]
    return all(getattr(old.semantic, name) == getattr(new.semantic, name) for name in kept + ["mode"] * (not beside))


def open_semantic(config: Config, held: State, stack: AsyncExitStack) -> SemanticThread:
    """The semantic cache's thread, loading in the background; a missing model turns the stage off with one line. What
    it shares with workers or replicas is followed until `stack` closes."""
    shared: SharedIndex | None = None
    seal = sealer(config.store, held.randomness)
    url = config.store.url.get_secret_value()
    if url and config.semantic.shared:
        from farthing.cache.shared_index import SharedIndex

        shared = SharedIndex(url, clock=held.clock, randomness=held.randomness, seal=seal)
        stack.push_async_callback(shared.close)

    def load() -> SemanticCache:
        from farthing.cache.embedder import open_embedder
        from farthing.cache.scorer import GuardScorer, VerifierScorer
        from farthing.cache.semantic import SemanticCache
        from farthing.cache.unmatchable import get_ready
        from farthing.cache.verifier import Verifier

        get_ready()
        embedder = open_embedder(config.semantic.model)
        path = config.state_dir / "semantic.db"
        scorer = GuardScorer() if config.semantic.unproven else VerifierScorer(Verifier.open())
        limits = config.semantic
        return SemanticCache.open(
            path,
            embedder,
            max_entries=limits.max_entries,
            max_bytes=limits.max_bytes,
            scorer=scorer,
            writer="" if held.crew is None else held.randomness.token(8),
            replicas=None if shared is None else shared.open(embedder),
            elsewhere=_elsewhere(limits, held.clock, embedder.name, embedder.dim),
            seal=seal,
        )

    thread = SemanticThread(load, patient=config.semantic.mode == "observe", shared=shared)

    async def open_it() -> None:
        try:
            await thread.open()
        except Exception as error:  # noqa: BLE001 - whatever is missing, the proxy serves without this stage
            log.warning("semantic cache is off", reason=str(error) or type(error).__name__)
            return

    held.tasks.spawn(open_it(), "load semantic")
    stack.push_async_callback(thread.close)
    if shared is not None or held.crew is not None:
        stack.callback(_follow(thread, held).stop)
    return thread


def _elsewhere(semantic: SemanticConfig, clock: Clock, model: str, dim: int) -> PgVectors | None:
    """Where the configuration keeps vectors; None: in memory. Raises ConfigFault: its library isn't installed."""
    if semantic.index == "memory":
        return None
    from farthing.cache.index_pg import PgVectors

    url, deadline_s = semantic.index_url.get_secret_value(), semantic.deadline_ms / 1000
    return PgVectors(url, model=model, dim=dim, deadline_s=deadline_s, clock=clock)


def _follow(thread: SemanticThread, held: State) -> Every:
    """Take over what other workers or replicas change, until it is stopped."""

    async def look() -> None:
        if thread.shared is not None:
            await thread.shared.look(thread)
        elif thread.loaded:
            await thread.run(lambda cache: cache.follow())

    return Every(_FOLLOW_EVERY_S, held.tasks, look, "follow semantic")


def open_second(
    config: Config, held: State, audits: Errands, stack: AsyncExitStack, loaded: tuple[str, SecondStage | None]
) -> SecondStage | None:
    """The second stage that the configuration names. `loaded`: the name of the one so far, and itself: a cross-encoder
    that is loaded already serves on."""
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
    if loaded[1] is not None and loaded[0] == config.semantic.second_stage:
        return loaded[1]
    stage = CrossEncoderStage(model)
    stack.callback(stage.close)
    held.tasks.spawn(stage.open(), "load cross-encoder")
    return stage
