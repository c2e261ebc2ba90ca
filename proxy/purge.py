"""What a purge asks for, from a caller's words: the admin call and the command line say it alike."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from farthing.cache.items import MANIFEST, keys_in
from farthing.cache.store import Selector, Store
from farthing.compress.decided import tenant_tag
from farthing.proxy import kept
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Config
from farthing.proxy.errors import ClientFault
from farthing.proxy.figures import farthing_since
from farthing.proxy.storing import open_store

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["near_purged", "purge", "purge_alone", "selector_of", "texts_purged"]

_AT_ONCE = 256
_MOST_VARIANTS = 16  # config: cache.variants
_TEXTS = ("key", "model", "tenant", "scope", "source", "older_than")


async def purge(services: Services, asked: dict[str, Any]) -> dict[str, int]:
    """Remove what `asked` names: how many answers, and how many of them near-duplicates could find.

    Raises ClientFault (see `selector_of`), StoreFault.
    """
    now_s = services.state.clock.now_s()
    selector = selector_of(asked, now_s)
    keys = await purged(services.state.store, selector, now_s)
    near_duplicates = await near_purged(services, keys, everything=selector == Selector())
    if selector == Selector():
        services.semantic.lately.clear()
    if _is_whole_tenant(selector):
        await texts_purged(services, selector.scope)
    return {"purged": len(keys), "near_duplicates": near_duplicates}


async def purge_alone(config: Config, asked: Mapping[str, Any], clock: Clock, randomness: Randomness) -> dict[str, int]:
    """`purge` while no farthing runs here. Replicas elsewhere that share the store follow. Raises as it does, and
    ConfigFault."""
    selector = selector_of(asked, clock.now_s())
    store = await open_store(config, clock, randomness)
    try:
        keys = await purged(store, selector, clock.now_s())
        gone = await kept.forget_near(config, store, randomness, keys, everything=selector == Selector())
        if _is_whole_tenant(selector):
            await kept.forget_texts(config, store, clock, _tag_of(selector.scope))
    finally:
        await store.close()
    return {"purged": len(keys), "near_duplicates": gone}


async def near_purged(services: Services, keys: Sequence[str], *, everything: bool = False) -> int:
    """Forget what near-duplicates could find of these answers, or all that they could: how many. Where replicas share
    them it is gone from their log when this returns, what this one's index hasn't read yet included. Raises StoreFault.
    """
    thread, held, kept_gone = services.semantic.thread, services.state, 0
    loaded = thread if thread is not None and thread.loaded else None
    shared = loaded.shared if loaded is not None else None
    if loaded is not None and shared is not None and (keys or everything):
        await shared.look(loaded)  # what waits here to be sent would come into the log behind what is removed there
    if loaded is None or shared is not None:
        kept_gone = await kept.forget_near(services.config, held.store, held.randomness, keys, everything=everything)
    gone = await services.semantic.forget(keys)
    if loaded is not None and everything:
        gone += await loaded.run(lambda cache: cache.forget_all())
    return max(gone, kept_gone)  # of one that is in both the index and the log, one is counted


async def purged(store: Store, selector: Selector, now_s: float) -> tuple[str, ...]:
    """The keys of the answers that were removed, with the items that they were put together from. Raises StoreFault."""
    items = await items_of(store, selector.key, now_s) if selector.key else ()
    keys = await store.purge(selector)
    for start in range(0, len(items), _AT_ONCE):
        some = items[start : start + _AT_ONCE]
        gone = await asyncio.gather(*(store.purge(replace(selector, key=item)) for item in some))
        keys += tuple(key for each in gone for key in each)
    return keys


def _is_whole_tenant(selector: Selector) -> bool:
    """Whether what compression keeps goes too: all of a tenant's is meant, or everything."""
    return selector in (Selector(), Selector(scope=selector.scope))


async def items_of(store: Store, key: str, now_s: float) -> tuple[str, ...]:
    """The items that the answers under this key were put together from. Raises StoreFault."""
    names = [f"{key}.{MANIFEST}", *(f"{key}.{variant}.{MANIFEST}" for variant in range(_MOST_VARIANTS))]
    found = [entry for entry in await store.get_many(names, now_s) if entry is not None]
    return tuple(dict.fromkeys(item for entry in found for item in keys_in(entry)))


async def texts_purged(services: Services, tenant: str) -> None:
    """Remove what compression keeps of prompts, of a tenant or ('') of all: without it old messages are tidied, and
    what was left out of them can't be had again. Raises StoreFault."""
    held = services.state
    open_ones = {"decided": held.decisions, "removed": held.removed}
    if held.decisions is not None:
        await held.decisions.forget(_tag_of(tenant))
    if held.removed is not None:
        await held.removed.forget(tenant)
    shut = [name for name, store in open_ones.items() if store is None]
    await kept.forget_texts(services.config, held.store, held.clock, _tag_of(tenant), shut)


def _tag_of(tenant: str) -> bytes:
    return tenant_tag(tenant) if tenant else b""


def selector_of(asked: Mapping[str, Any], now_s: float) -> Selector:
    """`{"key", "model", "tenant", "scope", "tags": ["doc=kb-17"], "source", "older_than": "7d"}`, all of them optional;
    all that are there must be met, and {} is everything. `scope`: what requests said in `x-farthing-scope`. `source` is
    short for the tag of that name. `older_than`: a span of time, or a date.

    Raises ClientFault: another field, an empty one (which would purge more than was meant), a tag without a name.
    """
    if unknown := sorted(set(asked) - {*_TEXTS, "tags"}):
        raise _fault(f"a purge knows {', '.join(_TEXTS)} and tags, not {unknown[0][:40]!r}", unknown[0][:40])
    for name in _TEXTS:
        if name in asked and not (isinstance(asked[name], str) and asked[name].strip()):
            raise _fault(f"{name} must be a text that is not empty", name)
    given = asked.get("tags", [])
    if not isinstance(given, list) or ("tags" in asked and not given):
        raise _fault("tags must be a list of NAME=VALUE that is not empty", "tags")
    tags = [_tag(one) for one in given]
    if "source" in asked:
        tags.append(("source", asked["source"].strip()))
    before_s = None
    if "older_than" in asked:
        try:
            before_s = farthing_since(asked["older_than"], now_s)
        except ValueError as error:
            raise _fault(str(error), "older_than") from None
    return Selector(
        key=asked.get("key", ""),
        model=asked.get("model", ""),
        scope=asked.get("tenant", ""),
        namespace=asked.get("scope", "").strip(),
        tags=tuple(tags),
        stored_before_s=before_s,
    )


def _tag(text: object) -> tuple[str, str]:
    name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not (name.strip() and equals and value.strip()):
        raise _fault(f"a tag looks like doc=kb-17, not {str(text)[:40]!r}", "tags")
    return name.strip(), value.strip()


def _fault(message: str, param: str) -> ClientFault:
    return ClientFault(message, code="invalid_selector", param=param)
