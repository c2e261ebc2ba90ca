"""How an answer was had, in other gateways' headers: for apps that read them. Pure.

Rules of this file: only what is the same each time that an answer is repeated (no ids, no times), and nothing that
isn't known. Bifrost says it in the body, which farthing doesn't change. Sources: those of proxy/aliases.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from multidict import CIMultiDict

from farthing.proxy.exchange import CacheMode, CacheStatus, Exchange

__all__ = ["ANSWERED", "answered", "without_theirs"]

_HITS = (CacheStatus.HIT_EXACT, CacheStatus.HIT_SEMANTIC)


def _portkey(ex: Exchange, own: Mapping[str, str]) -> str | None:
    match ex.cache:
        case CacheStatus.HIT_EXACT:
            return "HIT"
        case CacheStatus.HIT_SEMANTIC:
            return "SEMANTIC HIT"
        case CacheStatus.BYPASS:
            return "DISABLED"
    if ex.controls.no_cache:
        return "REFRESH"
    return "SEMANTIC MISS" if ex.controls.cache is CacheMode.SEMANTIC else "MISS"


def _hit_or_miss(ex: Exchange, own: Mapping[str, str]) -> str | None:
    return None if ex.cache is CacheStatus.BYPASS else "HIT" if ex.cache in _HITS else "MISS"


def _key(ex: Exchange, own: Mapping[str, str]) -> str | None:
    return ex.key if ex.cache in _HITS else None


ANSWERED: Mapping[str, tuple[tuple[str, str, Callable[[Exchange, Mapping[str, str]], str | None]], ...]] = {
    "litellm": (
        ("x-litellm-cache-key", "on hits, the answer's key", _key),
        ("x-litellm-semantic-similarity", "on semantic hits", lambda ex, own: own.get("x-farthing-similarity")),
        ("x-litellm-response-cost", "dollars, on whole answers", lambda ex, own: own.get("x-farthing-cost-usd")),
    ),
    "helicone": (("Helicone-Cache", "`HIT` or `MISS`; none where the cache was passed by", _hit_or_miss),),
    "portkey": (
        (
            "x-portkey-cache-status",
            "`HIT`, `SEMANTIC HIT`, `MISS`, `SEMANTIC MISS`, `REFRESH`, `DISABLED`",
            _portkey,
        ),
    ),
    "cloudflare": (("cf-aig-cache-status", "`HIT` or `MISS`; none where the cache was passed by", _hit_or_miss),),
    "bifrost": (),
}
"""For each product: header, what it says, and where that comes from (the exchange, farthing's own headers)."""

_THEIRS = {product: frozenset(name.lower() for name, *_ in lines) for product, lines in ANSWERED.items()}


def answered(products: tuple[str, ...], ex: Exchange, own: Mapping[str, str]) -> dict[str, str]:
    """The headers of these products. `own`: farthing's, worked out already."""
    told = {name: value(ex, own) for product in products for name, _, value in ANSWERED[product]}
    return {name: text for name, text in told.items() if text is not None}


def without_theirs(headers: Mapping[str, str], products: tuple[str, ...]) -> CIMultiDict[str]:
    """The upstream's headers without those that farthing says itself: the upstream may be such a gateway."""
    theirs = frozenset().union(*(_THEIRS[product] for product in products))
    return CIMultiDict(pair for pair in headers.items() if pair[0].lower() not in theirs)
