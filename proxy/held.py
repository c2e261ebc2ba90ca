"""What outlives a change of configuration: stores, books, counters, switches."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import structlog

from farthing.cache.lease import Leases
from farthing.cache.places import Places
from farthing.cache.stage_exact import Renderer
from farthing.cache.store import Store
from farthing.cache.template import Templates
from farthing.compress.decided_store import Decisions
from farthing.compress.removed import Removed
from farthing.policies.spend import DayTotal
from farthing.proxy import state
from farthing.proxy.budgets import Accounts
from farthing.proxy.capture import Capture
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.compress_counts import CompressCounts
from farthing.proxy.compress_state import RECODED, SQUEEZED
from farthing.proxy.config import Config, Semantic
from farthing.proxy.config_compress import Compress
from farthing.proxy.config_section import Section
from farthing.proxy.crew import day_totals
from farthing.proxy.crew_words import nearest_of, share_outcomes
from farthing.proxy.deferring import Desk
from farthing.proxy.implicit_rows import ImplicitRows
from farthing.proxy.incidents import Incidents
from farthing.proxy.judge import Verdicts
from farthing.proxy.keys import KeyRing
from farthing.proxy.lately import Lately
from farthing.proxy.learnt import Learnt, Recipe
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_file import LOCK_WAIT_S
from farthing.proxy.ledger_follow import LedgerFollower, place_of
from farthing.proxy.ledger_waiting import WaitingRows
from farthing.proxy.levels import Levels
from farthing.proxy.metrics import Metrics
from farthing.proxy.outcomes import FILE, Outcomes
from farthing.proxy.prompt_memory import PromptMemory
from farthing.proxy.provider_reads import ProviderReads
from farthing.proxy.refused import Refused
from farthing.proxy.reuse_state import REUSE
from farthing.proxy.route_standing import FILE as ROUTES_FILE
from farthing.proxy.route_standing import RouteStandings
from farthing.proxy.row import ERRANDS, Row
from farthing.proxy.sealing import key_ids
from farthing.proxy.stage_semantic import Case
from farthing.proxy.storing import open_leases, open_store
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.under_way import EVERYTHING, Counts, UnderWay
from farthing.proxy.usage_drift import Drift
from farthing.proxy.warming import warm
from farthing.proxy.watching import Watching

if TYPE_CHECKING:
    from farthing.cache.store_redis import RedisStore
    from farthing.proxy.agreement import Agreement
    from farthing.proxy.crew import Crew
    from farthing.proxy.otlp import Otlp
    from farthing.proxy.students import Embeds, Known

log = structlog.get_logger("farthing")

S = TypeVar("S", bound=Section)
_OTHERS_WAIT_S = 5.0  # for the other workers' locks, in threads that no request waits for

__all__ = ["State", "open_state"]


@dataclass(slots=True)
class State:
    """All of it. `decisions`, `removed`, `capture`, `accounts`, `ring`, `limits_server`: None until a configuration
    needs them; `otlp`: None where it is off; `leases`: where no other process has
    the store. `refusals`: by budget or rate limit; `note`: takes incidents (kind, what,
    why, evidence). `listeners`: told of every ledger row, in the ledger's thread; `rated`: told of ratings (a request's
    id, whether it is bad), while a policy is rolled out. `students`: by their hashes; `heirs`: by their names, those
    that were trained beside them; `embeds`: for students alone; `vouched`: the credentials that
    their teachers have answered; `crew`: None where farthing is one process; `counts`: of what is under way, here and
    at upstreams. `key_ids`: of the keys that texts are sealed with, the current one first."""

    clock: Clock
    randomness: Randomness
    secret: bytes
    switch: state.Switch
    store: Store
    leases: Leases | None
    ledger: Ledger | None
    otlp: Otlp | None
    metrics: Metrics
    total: DayTotal
    tasks: TaskGroup
    renderer: Renderer
    tokenizer: Tokenizer
    barred: Refused
    learnt: Learnt[Semantic]
    recoded: Learnt[Compress]
    squeezed: Learnt[Compress]
    audited: DayTotal
    judged: DayTotal
    shadowed: DayTotal
    warmed: DayTotal
    verdicts: Verdicts
    served_cases: OrderedDict[str, Case]
    places: Places
    lately: Lately
    compressed: CompressCounts
    drift: Drift
    provider_reads: ProviderReads
    incidents: Incidents
    listeners: list[Callable[[list[Row]], None]]
    outcomes: Outcomes
    implicit: ImplicitRows
    levels: Levels
    prompts: PromptMemory
    route_standings: RouteStandings
    counts: Counts
    key_ids: tuple[str, ...]
    waiting: WaitingRows | None = None
    rated: Callable[[str, bool], None] | None = None
    watch: Watching | None = None
    decisions: Decisions | None = None
    removed: Removed | None = None
    capture: Capture | None = None
    accounts: Accounts | None = None
    ring: KeyRing | None = None
    limits_server: RedisStore | None = None
    deferred: Desk | None = None
    refusals: dict[str, int] = field(default_factory=dict)
    students: dict[str, Known] = field(default_factory=dict)
    heirs: dict[str, Known] = field(default_factory=dict)
    embeds: Embeds | None = None
    vouched: OrderedDict[str, None] = field(default_factory=OrderedDict)
    crew: Crew | None = None
    agreement: Agreement | None = None

    @property
    def in_flight(self) -> UnderWay:
        """Requests under way, in all lanes together."""
        return self.counts.at(EVERYTHING)

    @property
    def keeper(self) -> bool:
        """Whether this process learns, sweeps and decides for all: always, where it is the only one."""
        return self.crew is None or self.crew.keeper

    def close_capture(self) -> None:
        """Write what waits, if there is such a store."""
        if self.capture is not None:
            self.capture.close()


async def open_state(
    config: Config, clock: Clock, randomness: Randomness, stack: AsyncExitStack, crew: Crew | None = None
) -> State:
    """Open what lasts; it is pushed on `stack`, so that it closes in reverse order."""
    if crew is None:  # else the supervisor holds it for all
        stack.callback(state.claim(config.state_dir).close)
    keeper = crew is None or crew.keeper
    metrics = Metrics()
    secret = state.local_secret(config.state_dir, randomness)
    otlp = open_otlp(config, clock, secret)
    if otlp is not None:
        stack.push_async_callback(asyncio.to_thread, otlp.close)  # after the ledger, whose last rows it takes
    outcomes = Outcomes(config.state_dir / FILE, config.ledger.keep_days)
    stack.callback(outcomes.close)
    implicit = ImplicitRows(outcomes, nearest_of(crew), clock)
    if crew is not None:
        share_outcomes(outcomes, crew)
    own: list[Callable[[list[Row]], None]] = [metrics.observe, *([] if otlp is None else [otlp.observe])]
    listeners: list[Callable[[list[Row]], None]] = [implicit.observe]
    watch = None
    if config.ledger.enabled and keeper:
        watch = Watching(config.state_dir / "watch.json", config.watch, clock, config.semantic.model)
        stack.callback(watch.close)  # after the ledger, whose last rows it takes
        listeners.append(watch.on_rows)
    totals = total, audited, judged, shadowed, warmed = day_totals(crew)
    ledger = waiting = None
    if config.ledger.enabled:
        ledger = Ledger(
            config.state_dir / "ledger.db",
            flush_ms=config.ledger.flush_ms,
            buffer_rows=config.ledger.buffer_rows,
            jsonl=config.ledger.jsonl,
            keep_days=config.ledger.keep_days,
            on_rows=told(own, listeners if crew is None else []),
            lock_wait_s=LOCK_WAIT_S if crew is None else _OTHERS_WAIT_S,
            upkeep=keeper,
        )
        begin_totals(totals, ledger, clock.now_s())
        if crew is None:
            place_of(ledger.path).unlink(missing_ok=True)  # the listeners hear of every row by themselves
        elif keeper:
            follower = LedgerFollower(ledger.path, told(listeners))
            stack.callback(follower.close)  # after the ledger, whose last rows it sees
        stack.callback(ledger.close)
        waiting = WaitingRows(config.state_dir, str(os.getpid()))
        for row in waiting.left():
            ledger.append(row)
        stack.callback(waiting.close)
    levels = Levels(config.state_dir, clock)
    stack.callback(levels.close)
    tasks = TaskGroup()
    store = await open_store(config, clock, randomness, tasks, shared=crew is not None)
    stack.push_async_callback(store.close)
    leases = open_leases(config, store, clock, randomness)
    if leases is not None:
        stack.push_async_callback(leases.close)
    barred = Refused(config.state_dir / "refused", None if crew is None else crew.peers)
    stack.callback(barred.close)
    agreement = open_agreement(config, clock, randomness, crew)
    if agreement is not None:
        stack.push_async_callback(agreement.close)
    learnt = open_learnt(config, tasks, REUSE, crew, agreement)
    recoded, squeezed = (open_learnt(config, tasks, recipe, crew, agreement) for recipe in (RECODED, SQUEEZED))
    for one in (learnt, recoded, squeezed):
        stack.push_async_callback(one.close)
    incidents = Incidents(
        config.state_dir / "incidents.jsonl",
        clock,
        lambda work: tasks.spawn(work, "incident"),
        shared=crew is not None,
    )
    route_standings = RouteStandings(
        config.state_dir / ROUTES_FILE,
        lambda work: tasks.spawn(work, "route"),
        incidents.note,
        crew,
    )
    stack.push_async_callback(route_standings.close)
    held = State(
        clock=clock,
        randomness=randomness,
        secret=secret,
        switch=state.Switch(config.state_dir, clock),
        store=store,
        leases=leases,
        ledger=ledger,
        otlp=otlp,
        metrics=metrics,
        total=total,
        tasks=tasks,
        renderer=Renderer(),
        tokenizer=Tokenizer(),
        barred=barred,
        learnt=learnt,
        recoded=recoded,
        squeezed=squeezed,
        audited=audited,
        judged=judged,
        shadowed=shadowed,
        warmed=warmed,
        verdicts=Verdicts(),
        served_cases=OrderedDict(),
        places=Places(Templates()),
        lately=Lately(),
        compressed=CompressCounts(),
        drift=Drift(),
        provider_reads=ProviderReads(),
        incidents=incidents,
        listeners=listeners,
        outcomes=outcomes,
        implicit=implicit,
        levels=levels,
        watch=watch,
        prompts=PromptMemory.of(config.prompt_cache.most_prefixes),
        route_standings=route_standings,
        crew=crew,
        agreement=agreement,
        counts=Counts(crew),
        waiting=waiting,
        key_ids=key_ids(config.store, randomness),
    )
    stack.callback(held.close_capture)
    if ledger is not None:
        tasks.spawn(asyncio.to_thread(warm, held.tokenizer, ledger.path), "load ranks")
    if crew is not None:
        crew.peers.when_told(state.SWITCH, lambda off: held.switch.say(off=bool(off)))
    return held


def open_agreement(config: Config, clock: Clock, randomness: Randomness, crew: Crew | None) -> Agreement | None:
    """The way by which this replica agrees with others; None where there are none, or the keeper does it."""
    url = config.store.url.get_secret_value()
    if not url or (crew is not None and not crew.keeper):
        return None
    from farthing.proxy.agreement import Agreement

    return Agreement(url, clock=clock, randomness=randomness, tasks=TaskGroup())  # of its own: nobody waits for its end


def open_learnt(
    config: Config, tasks: TaskGroup, recipe: Recipe[S], crew: Crew | None, agreement: Agreement | None = None
) -> Learnt[S]:
    """What is learnt by this recipe: here, or by the keeper from all workers; with other replicas, where there are."""
    sharing = None
    if agreement is not None:
        from farthing.proxy.learnt_agreed import SharedLearning

        sharing = SharedLearning(agreement)
    if crew is None:
        return Learnt(config.state_dir, tasks.spawn, recipe, sharing)
    from farthing.proxy.learnt_crew import Copied, Kept

    if crew.keeper:
        return Kept(config.state_dir, tasks.spawn, recipe, crew, sharing)
    return Copied(config.state_dir, tasks, recipe, crew)


def open_otlp(config: Config, clock: Clock, secret: bytes) -> Otlp | None:
    """What sends telemetry, running; None where it is off. Raises ConfigFault: its libraries aren't installed."""
    if not config.otlp.on:
        return None
    from farthing.proxy.otlp import Otlp, require
    from farthing.proxy.otlp_names import target_of

    require(config.otlp)
    target = target_of(config.upstream.url, config.upstream.provider)
    return Otlp(config.otlp, target, clock, config.capture, secret)


def begin_totals(totals: Sequence[DayTotal], ledger: Ledger, now_s: float) -> None:
    """What the ledger says was spent today, in the order of board.TOTALS; once for all workers."""
    midnight_s = now_s // 86_400 * 86_400
    errands = [ledger.spent_since(midnight_s, overhead_of=kind) for kind in ERRANDS]
    for total, pico in zip(totals, [ledger.spent_since(midnight_s) + sum(errands), *errands], strict=True):
        total.begin(pico, now_s)


def told(*lists: Sequence[Callable[[list[Row]], None]]) -> Callable[[list[Row]], None]:
    """One listener of the ledger that stands for several, in that order. One that fails costs the others nothing."""

    def tell(rows: list[Row]) -> None:
        for listener in [one for some in lists for one in some]:  # the event loop adds and removes some meanwhile
            try:
                listener(rows)
            except Exception:
                log.exception("ledger_listener_failed")

    return tell
