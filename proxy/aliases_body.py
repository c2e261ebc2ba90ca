"""What LiteLLM's and Portkey's users say in the body instead of a header: read, and taken out of what goes upstream.

Pure. Every other byte stays. Sources: docs.litellm.ai, "Cache Controls" and "Custom tags"; LiteLLM's caching code for
what `no-cache`, `no-store` and `s-maxage` really do (the first doesn't read, the second doesn't write but reads);
portkey.ai/docs, "Metadata" (`user` is copied).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

from farthing.proxy import aliases
from farthing.proxy.aliases import Said
from farthing.proxy.exchange import CacheMode, Decision
from farthing.proxy.jsontext import find, splice, without

__all__ = ["TakenOut", "take_out"]

_SAY_USER = frozenset({"litellm", "portkey"})


@dataclass(frozen=True, slots=True)
class TakenOut:
    """`body`: without what was farthing's; `fields`: the top level's fields that were removed from it, or replaced."""

    body: bytes
    fields: dict[str, Any]
    said: Said
    told: tuple[Decision, ...]

    def of(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload as `body` has it."""
        kept = {name: value for name, value in payload.items() if name not in self.fields}
        return kept | {name: value for name, value in self.fields.items() if value is not None}


def take_out(body: bytes, payload: dict[str, Any], products: Collection[str]) -> TakenOut | None:
    """What the body says in these products' words; None where it says nothing.

    LiteLLM's `cache` (an object), `tags` and `metadata.tags` (lists of texts) are taken out, `user` is only read. What
    has another form is somebody else's and stays.
    """
    said = Said()
    fields: dict[str, Any] = {}
    told: list[Decision] = []
    inner = payload.get("metadata")
    if "litellm" in products:
        if isinstance(cache := payload.get("cache"), dict):
            fields["cache"] = None
            for name, value in cache.items():
                if value is not None:
                    told += _noted(f"cache.{name[:40]}", partial(_control, said, name, value))
        if _texts(tags := payload.get("tags")):
            fields["tags"] = None
            for tag in tags:
                told += _noted("tags", partial(aliases.add_tag, said, "tag", tag))
        if isinstance(inner, dict) and _texts(tags := inner.get("tags")):
            fields["metadata"] = {name: value for name, value in inner.items() if name != "tags"} or None
            for tag in tags:
                told += _noted("metadata.tags", partial(aliases.add_tag, said, "tag", tag))
    if isinstance(user := payload.get("user"), str) and user and not _SAY_USER.isdisjoint(products):
        try:
            said.user = aliases.short(user)
        except ValueError as fault:
            told.append(Decision("aliases", "ignored", f"user: {fault}"))
    if not fields:
        return TakenOut(body, fields, said, tuple(told)) if said.user or told else None
    try:
        short = _cut(body, fields)
    except ValueError:
        return TakenOut(body, {}, Said(), (Decision("aliases", "ignored", "the body can't be taken apart"),))
    told.insert(0, Decision("aliases", "read", " ".join(f"body.{name}" for name in fields)))
    return TakenOut(short, fields, said, tuple(told))


def _cut(body: bytes, fields: dict[str, Any]) -> bytes:
    """The body without these fields; of one that is replaced, without its `tags`. Raises ValueError."""
    if fields.get("metadata") is not None:
        place = find(body, ("metadata",))
        if place is None:
            raise ValueError("no metadata")
        body = splice(body, [(*place, without(body[slice(*place)], {"tags"}))])
    return without(body, {name for name, value in fields.items() if value is None})


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _noted(where: str, read: Callable[[], None]) -> list[Decision]:
    try:
        read()
    except ValueError as fault:
        return [Decision("aliases", "ignored", f"{where}: {str(fault)[:120]}")]
    return []


def _control(said: Said, name: str, value: object) -> None:
    """Take note of one member of LiteLLM's `cache`. Raises ValueError: it can't be read."""
    match name:
        case "ttl":
            said.ttl_s = aliases.seconds(value)
        case "s-maxage" | "s-max-age":
            said.max_age_s = aliases.seconds(value)
        case "no-cache":
            said.no_cache = aliases.yes(value)
        case "no-store":
            said.no_write = aliases.yes(value)
        case "use-cache":
            said.cache = None if aliases.yes(value) else CacheMode.OFF
        case "namespace" if isinstance(value, str):
            said.scopes.append(aliases.namespace(value))
        case "namespace":
            raise ValueError("no text")
        case _:
            raise ValueError("not known")
