"""Other gateways' request headers, read as if they were farthing's own, so that moving over needs the base_url alone.

Rules of this file: pure, leaf. One line for each header, in `ALIASES`. What a namespace or a cache key of another
product says only narrows, inside the caller's own tenant: it never makes two callers share, and it never makes two
different requests one. A value that can't be read is left out and told, never refused: these apps were not written
for farthing.

Sources, read in November 2026: docs.litellm.ai (request headers, response headers, cache controls), docs.helicone.ai
(header directory, LLM caching), portkey.ai/docs (headers, cache, metadata, response schema), developers.cloudflare.com
(AI Gateway: caching, custom metadata, header glossary), docs.getbifrost.ai (request options, semantic caching).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import orjson

from farthing.proxy.exchange import CacheMode, Controls, Decision

__all__ = [
    "ALIASES",
    "PRODUCTS",
    "UNSUPPORTED",
    "Alias",
    "Product",
    "Said",
    "hear",
    "names_nobody",
    "prefixes_of",
    "under",
]

Product = Literal["litellm", "helicone", "portkey", "cloudflare", "bifrost"]
PRODUCTS: tuple[Product, ...] = get_args(Product)

_PREFIXES: dict[str, tuple[str, ...]] = {
    "litellm": ("x-litellm-",),
    "helicone": ("helicone-",),
    "portkey": ("x-portkey-",),
    "cloudflare": ("cf-aig-", "cf-skip-cache", "cf-cache-ttl"),
    "bifrost": ("x-bf-",),
}
_LONGEST = 256  # characters of a user, a namespace, a tag: as for farthing's own headers
_MOST_TAGS = 16
_MOST_SECONDS = 10**9 - 1


@dataclass(slots=True)
class Said:
    """What another product's words ask for. `no_write`: a stored answer may be given, a new one isn't kept."""

    no_cache: bool = False
    no_write: bool = False
    cache: CacheMode | None = None
    ttl_s: int | None = None
    max_age_s: int | None = None
    scopes: list[str] = field(default_factory=list)
    user: str = ""
    tags: list[tuple[str, str]] = field(default_factory=list)


class Alias(NamedTuple):
    """One header. `header`: lower case; with * at its end it begins so, and the rest is a name. `means`: in farthing's
    words. `read`: takes note of a value, given the rest of the header's name. Raises ValueError: it can't be read."""

    product: Product
    header: str
    means: str
    read: Callable[[Said, str, str], None]


# -- how a value is read


def _namespace(said: Said, _: str, value: str) -> None:
    said.scopes.append(namespace(value))


def _user(said: Said, _: str, value: str) -> None:
    said.user = said.user or short(value)


def _as_tag(said: Said, name: str, value: str, *, tag: str = "") -> None:
    add_tag(said, tag or name, value)


def _listed(said: Said, _: str, value: str) -> None:
    for one in value.split(","):
        if one.strip():
            add_tag(said, "tag", one.strip())


def _json_tags(said: Said, _: str, value: str, *, user: str = "") -> None:
    for name, one in _object(value).items():
        if name == user:
            said.user = said.user or short(str(one))
        elif isinstance(one, str | int | float):
            add_tag(said, name, plain(one))
        else:
            raise ValueError(f"{name[:40]!r} is no plain value")


def _fresh(said: Said, _: str, value: str) -> None:
    said.no_cache = said.no_cache or yes(value)


def _skip(said: Said, _: str, value: str) -> None:
    if yes(value):
        said.cache = CacheMode.OFF


def _enabled(said: Said, _: str, value: str) -> None:
    if not yes(value):
        said.cache = CacheMode.OFF


def _no_write(said: Said, _: str, value: str) -> None:
    said.no_write = said.no_write or yes(value)


def _seconds(said: Said, _: str, value: str) -> None:
    said.ttl_s = seconds(value)


def _duration(said: Said, _: str, value: str) -> None:
    said.ttl_s = duration_s(value)


def _direct_or_semantic(said: Said, _: str, value: str) -> None:
    modes = {"direct": CacheMode.EXACT, "semantic": CacheMode.SEMANTIC}
    if value.strip().lower() not in modes:
        raise ValueError("neither direct nor semantic")
    said.cache = said.cache or modes[value.strip().lower()]


def _portkey_config(said: Said, _: str, value: str) -> None:
    if not value.lstrip().startswith("{"):
        raise ValueError("a saved configuration can't be looked up from here")
    cache = _object(value).get("cache")
    cache = {"mode": cache} if isinstance(cache, str) else cache
    if cache is None:
        return
    if not isinstance(cache, dict):
        raise ValueError("its cache is neither a word nor an object")
    modes = {"simple": CacheMode.EXACT, "semantic": CacheMode.SEMANTIC}
    if (mode := cache.get("mode")) is not None:
        if mode not in modes:
            raise ValueError("cache.mode is neither simple nor semantic")
        said.cache = said.cache or modes[mode]
    if (age := cache.get("max_age")) is not None:
        said.ttl_s = seconds(age)


_session = partial(_as_tag, tag="session")

ALIASES: tuple[Alias, ...] = (
    Alias("litellm", "x-litellm-tags", "tags `tag=...`, one for each word", _listed),
    Alias("litellm", "x-litellm-end-user-id", "user", _user),
    Alias("litellm", "x-litellm-customer-id", "user", _user),
    Alias("litellm", "x-litellm-session-id", "tag `session`", _session),
    Alias("litellm", "x-litellm-spend-logs-metadata", "a tag for each member of the JSON object", _json_tags),
    Alias("helicone", "helicone-cache-enabled", "`false`: cache off; `true`: as configured", _enabled),
    Alias("helicone", "helicone-cache-seed", "scope", _namespace),
    Alias("helicone", "helicone-user-id", "user", _user),
    Alias("helicone", "helicone-session-id", "tag `session`", _session),
    Alias("helicone", "helicone-property-*", "a tag of that name", _as_tag),
    Alias("portkey", "x-portkey-config", "inline JSON: `cache.mode`, `cache.max_age` (seconds)", _portkey_config),
    Alias("portkey", "x-portkey-cache-force-refresh", "`true`: no-cache", _fresh),
    Alias("portkey", "x-portkey-cache-namespace", "scope", _namespace),
    Alias(
        "portkey", "x-portkey-metadata", "`_user`: user; every other member a tag", partial(_json_tags, user="_user")
    ),
    Alias("cloudflare", "cf-aig-skip-cache", "`true`: cache off", _skip),
    Alias("cloudflare", "cf-skip-cache", "`true`: cache off (the header's older name)", _skip),
    Alias("cloudflare", "cf-aig-cache-ttl", "ttl, in seconds", _seconds),
    Alias("cloudflare", "cf-aig-cache-key", "scope: it narrows, and is not the whole key", _namespace),
    Alias("cloudflare", "cf-aig-metadata", "a tag for each member of the JSON object", _json_tags),
    Alias("bifrost", "x-bf-cache-key", "scope", _namespace),
    Alias("bifrost", "x-bf-cache-ttl", "ttl: `30s`, `1h30m`, or seconds", _duration),
    Alias("bifrost", "x-bf-cache-type", "`direct`: exact; `semantic`: semantic", _direct_or_semantic),
    Alias("bifrost", "x-bf-cache-no-store", "`true`: a stored answer may be given, a new one isn't kept", _no_write),
    Alias("bifrost", "x-bf-session-id", "tag `session`", _session),
    Alias("bifrost", "x-bf-dim-*", "a tag of that name", _as_tag),
)

UNSUPPORTED: dict[str, str] = {
    "helicone-cache-bucket-max-size": "how many answers are kept is the operator's to say (cache.variants)",
    "helicone-cache-ignore-keys": "requests that differ are never taken for one",
    "x-bf-cache-threshold": "near-duplicates are served by a proved bound (semantic.max_wrong)",
    "cf-cache-ttl": "of unclear unit; its newer name is cf-aig-cache-ttl",
}
"""Headers that one might count on, and why they do nothing here."""

_EXACT = {alias.header: alias for alias in ALIASES if not alias.header.endswith("*")}
_OPEN = tuple((alias.header[:-1], alias) for alias in ALIASES if alias.header.endswith("*"))


# -- what callers use


def prefixes_of(products: Iterable[str]) -> tuple[str, ...]:
    """How the names (lower case) of these products' headers begin."""
    return tuple(prefix for product in products for prefix in _PREFIXES[product])


def names_nobody(header: str, products: Iterable[str]) -> bool:
    """Whether the header (lower case) is one of these products' that is understood here, and so no credential: else
    `cf-aig-cache-key` or a session's id would be taken for one by their names, and make a tenant of each value."""
    found = _find(header)
    return found is not None and found[0].product in products


def hear(pairs: Iterable[tuple[str, str]], products: Iterable[str]) -> tuple[Said, tuple[Decision, ...]]:
    """What these headers ask for in the words of `products`, and for the ledger what was read and what was not."""
    said, read, told = Said(), [], []
    chosen, prefixes = frozenset(products), prefixes_of(products)
    for header, value in pairs:
        name = header.lower()
        if not name.startswith(prefixes):
            continue
        if name in UNSUPPORTED:
            told.append(Decision("aliases", "ignored", f"{name}: {UNSUPPORTED[name]}"))
            continue
        found = _find(name)
        if found is None or found[0].product not in chosen:
            continue
        try:
            found[0].read(said, found[1], value)
        except ValueError as fault:
            told.append(Decision("aliases", "ignored", f"{name[:80]}: {str(fault)[:120]}"))
        else:
            read.append(name[:80])
    if read:
        told.insert(0, Decision("aliases", "read", " ".join(dict.fromkeys(read))))
    return said, tuple(told)


def under(own: Controls, said: Said) -> Controls:
    """Farthing's own words, completed by those of another product: wherever both speak, its own win."""
    names = {name for name, _ in own.tags}
    tags = [*own.tags, *(tag for tag in dict.fromkeys(said.tags) if tag[0] not in names)][:_MOST_TAGS]
    return replace(
        own,
        no_cache=own.no_cache or (said.no_cache and not own.only_if_cached),
        cache=own.cache or said.cache,
        ttl_s=own.ttl_s if own.ttl_s is not None else 0 if said.no_write else said.ttl_s,
        max_age_s=own.max_age_s if own.max_age_s is not None else said.max_age_s,
        scope=own.scope or namespace(" ".join(said.scopes)),
        user=own.user or said.user,
        tags=tuple(sorted(tags)),
    )


def _find(name: str) -> tuple[Alias, str] | None:
    """The line for a header (lower case), and the rest of its name."""
    exact = _EXACT.get(name)
    if exact is not None:
        return exact, ""
    return next(((alias, name[len(start) :]) for start, alias in _OPEN if name.startswith(start)), None)


# -- values, as aliases_body reads them too


def namespace(text: str) -> str:
    """A name that tells what `text` tells. A long or strange one becomes its digest: left out, it would widen."""
    if text.isprintable() and len(text) <= _LONGEST:
        return text
    return "sha256-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def short(text: str) -> str:
    """The text. Raises ValueError: longer than 256 characters, or no text."""
    if len(text) > _LONGEST or not text.isprintable():
        raise ValueError("longer than 256 characters, or no text")
    return text


def add_tag(said: Said, name: str, value: str) -> None:
    """Take note of a tag. Raises ValueError: no name, too long, no text, too many."""
    if not name or len(name) + len(value) > _LONGEST or not (name.isprintable() and value.isprintable()):
        raise ValueError("a tag needs a name, and at most 256 characters of text")
    if len(said.tags) >= _MOST_TAGS:
        raise ValueError(f"more than {_MOST_TAGS} tags")
    said.tags.append((name, value))


def plain(value: str | float) -> str:
    """A value as a tag has it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def yes(value: object) -> bool:
    """Whether it says true. Raises ValueError: neither true nor false."""
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError("neither true nor false")
    return text in ("true", "1")


def seconds(value: object) -> int:
    """Whole seconds. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a number of seconds")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("not a number of seconds") from None
    if not (math.isfinite(number) and 0 <= number <= _MOST_SECONDS):
        raise ValueError("not a number of seconds")
    return int(number)


_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_STEP = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?)(h|ms|m|s|us|µs|ns)")


def duration_s(value: str) -> int:
    """Seconds, or a duration as Go writes it (`1h30m`, `500ms`), rounded up. Raises ValueError."""
    text = value.strip()
    if not text or _STEP.sub("", text):
        return seconds(text)
    total_s = sum(float(number) * _UNITS_S[unit] for number, unit in _STEP.findall(text))
    return seconds(math.ceil(total_s))


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text.encode("utf-8", "surrogateescape"))
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
