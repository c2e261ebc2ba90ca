"""Recode and squeeze, as the configuration has them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal

from farthing.cache.semantic_thread import SemanticThread
from farthing.compress.decided_store import Decisions
from farthing.compress.forms import VERSION, Form, described, forms_of, rules_with
from farthing.compress.places import Marks
from farthing.compress.removed import Removed
from farthing.compress.rule import Rule
from farthing.policies.opinion import Opinion
from farthing.policies.reuse import Policy
from farthing.policies.steps import Chain, Step
from farthing.proxy.compressing import Compressing, Track
from farthing.proxy.config import Config
from farthing.proxy.config_compress import Compress
from farthing.proxy.errand import Errands
from farthing.proxy.errors import ConfigFault
from farthing.proxy.held import State
from farthing.proxy.keeping import Keeping
from farthing.proxy.noted import Noted
from farthing.proxy.opinions import opinion_on
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_marking import cache_behind
from farthing.proxy.sealing import sealer
from farthing.proxy.shadow import Shadows
from farthing.proxy.worth import Worth

__all__ = ["TEXT_STORES", "marks_of", "open_beyond", "prefix_of", "rules_of", "shadows_of", "tracks_of"]

TEXT_STORES = ("decided", "removed")
"""Stores of parts of prompts, by the names of their files under the state directory."""

_DECIDED_BYTES = 256 * 2**20
_REMOVED_BYTES = 512 * 2**20
_MEMORY_BYTES = 32 * 2**20


async def open_beyond(
    config: Config,
    held: State,
    rates: RateCard,
    audits: Errands,
    thread: SemanticThread | None,
    stack: AsyncExitStack,
    *,
    beside: bool = False,
) -> Compressing | None:
    """What goes beyond tidy; None where nothing does. `thread`: has the embedder by which answers are compared."""
    compress = config.compress
    words = await asyncio.to_thread(words_of, compress, held)
    recoded, squeezed = [
        await (one.beside(compress) if beside else one.use(compress)) for one in (held.recoded, held.squeezed)
    ]
    tracks = tracks_of(compress, recoded, squeezed, words)
    if not tracks or config.all_off:
        return None
    if held.decisions is None and any(track.serves for track in tracks):
        held.decisions = await open_decisions(config, held, stack)
    if held.removed is None and held.decisions is not None and compress.retrieval:
        held.removed = await open_removed(config, held, stack)
    if any(track.serves for track in tracks):
        # The ranks take a second and 80 MiB to load: not while a request waits for its tokens to be counted.
        held.tasks.spawn(asyncio.to_thread(held.tokenizer.count, "farthing", "gpt-4o-mini"), "load ranks")
    marks = marks_of(compress)
    provider = cache_behind(config.upstream, compress.provider_cache)
    return Compressing(
        tracks=tracks,
        decisions=held.decisions,
        version=repr((VERSION, [described(form) for form in tracks[0].forms], marks)),
        marks=marks,
        tidy=compress.tidy,
        tokenizer=held.tokenizer,
        worth=Worth(rates, held.clock, compress.latency_usd_per_s, provider),
        clock=held.clock,
        spawn=lambda coro: held.tasks.spawn(coro, "compress"),
        randomness=held.randomness,
        noted=Noted(held.clock, alone=not config.store.url.get_secret_value()),
        shadow_share=compress.shadow_share,
        counts=held.compressed,
        shadows=_shadows(compress, held, audits, thread),
        keeping=_keeping(compress, held),
    )


def rules_of(compress: Compress) -> tuple[Rule, ...]:
    """The recodings that may be tried. Raises ConfigFault: what one of them needs is not installed."""
    try:
        return rules_with(html=compress.reduce_html)
    except ImportError:
        raise ConfigFault("compress.reduce_html needs lxml: pip install 'farthing[html]'") from None


def marks_of(compress: Compress) -> tuple[Marks, ...]:
    """What the operator says was retrieved."""
    return tuple(Marks(mark.begin, mark.end, mark.roles) for mark in compress.retrieved)


def _keeping(compress: Compress, held: State) -> Keeping | None:
    if not compress.retrieval or held.removed is None or held.decisions is None:
        return None
    return Keeping(held.removed, held.decisions, held.secret, lambda coro: held.tasks.spawn(coro, "keep"))


def _shadows(compress: Compress, held: State, audits: Errands, thread: SemanticThread | None) -> Shadows | None:
    return shadows_of(compress.shadow_daily_usd, held, audits, thread) if compress.shadow_daily_usd else None


def shadows_of(daily_usd: Decimal, held: State, audits: Errands, thread: SemanticThread | None) -> Shadows:
    """Requests sent once more, until all shadows of the day have cost so much. `thread`: see `open_beyond`."""
    calls = replace(
        audits,
        kind="shadow",
        stages=audits.stages[1:],  # its form is given
        limit_pico=int(daily_usd * 10**12),
        spent=held.shadowed,
    )

    async def compare(a: bytes, b: bytes) -> Opinion:
        if thread is None or not thread.loaded:
            return await asyncio.to_thread(opinion_on, a, b)
        return await thread.run(lambda cache: opinion_on(a, b, cache.embed))  # in its turn: nobody waits for it

    return Shadows(calls, compare, lambda: thread is None or not thread.loading)


async def open_decisions(config: Config, held: State, stack: AsyncExitStack) -> Decisions:
    """Where the forms of messages are kept: in Redis where the answers are, else in a file."""
    store, _ = await _open_store(config, held, stack, "decided", config.compress.decided_ttl_s, _DECIDED_BYTES)
    return store


async def open_removed(config: Config, held: State, stack: AsyncExitStack) -> Removed:
    """Where what was left out is kept: the same, apart from it."""
    return Removed(*await _open_store(config, held, stack, "removed", config.compress.retrieval_ttl_s, _REMOVED_BYTES))


def prefix_of(name: str) -> str:
    """What the keys of a store of TEXT_STORES begin with in Redis."""
    return "farthing" if name == "decided" else f"farthing:{name}"


async def _open_store(
    config: Config, held: State, stack: AsyncExitStack, name: str, ttl_s: float, max_bytes: int
) -> tuple[Decisions, Callable[[], Awaitable[None]] | None]:
    """A store, and what waits until all is written where putting doesn't."""
    seal = sealer(config.store, held.randomness)
    if config.store.url.get_secret_value():
        from farthing.cache.store_near import server_of
        from farthing.compress.decided_redis import RedisDecisions

        server = server_of(held.store)
        return RedisDecisions(
            server, clock=held.clock, ttl_s=ttl_s, memory_bytes=_MEMORY_BYTES, prefix=prefix_of(name), seal=seal
        ), None
    from farthing.compress.decided_disk import FileDecisions

    store = FileDecisions(
        config.state_dir / f"{name}.db",
        clock=held.clock,
        ttl_s=ttl_s,
        max_bytes=max_bytes,
        memory_bytes=_MEMORY_BYTES,
        seal=seal,
    )
    await store.open()
    stack.push_async_callback(store.close)
    return store, store.flush


def words_of(compress: Compress, held: State) -> Callable[[str, float], str] | None:
    """What leaves out single words, one text at a time; blocks while the model loads. Raises ConfigFault."""
    if compress.words_model is None or compress.squeeze == "off":
        return None
    from farthing.compress.token_level import TokenLevel, TokenLevelMissing

    try:
        model = TokenLevel(compress.words_model, held.tokenizer.of(None).count)
    except TokenLevelMissing as error:
        raise ConfigFault(f"compress.words_model: {error}") from None
    alone = threading.Lock()

    def words(text: str, share: float) -> str:
        with alone:
            return model.shorten(text, share)

    return words


def tracks_of(
    compress: Compress, recoded: Policy, squeezed: Policy, words: Callable[[str, float], str] | None = None
) -> tuple[Track, ...]:
    """The chains of steps. Squeezed texts are recoded too where recoding serves, and then that is proved first."""
    recode, squeeze = compress.recode, compress.squeeze
    rules = rules_of(compress)
    forms = forms_of(
        recode=recode == "serve",
        squeeze_to=compress.squeeze_to if squeeze != "off" else None,
        least_tokens=compress.squeeze_keeps_tokens,
        rules=rules,
        words=words,
    )
    steps = [(form, recoded if form.keep is None else squeezed) for form in forms]
    serves = "serve" in (recode, squeeze)
    found = [_track(steps, serves=serves)] if steps else []
    if recode == "observe":
        watched = forms_of(recode=True, squeeze_to=None, rules=rules)
        found.append(_track([(form, recoded) for form in watched], serves=False))
    return tuple(found)


def _track(steps: list[tuple[Form, Policy]], *, serves: bool) -> Track:
    return Track(Chain([Step(form.name, policy) for form, policy in steps]), tuple(form for form, _ in steps), serves)
