"""In which order a route's variants are asked. Pure, and total: whatever comes in, an order comes out.

Rules of this file:
1. A variant that a request doesn't fit isn't asked. Where none fits, the model that was asked for serves.
2. What isn't known isn't chosen for its sake: without a price nothing is cheap, without a measured quality nothing is
   good enough.
3. Chance comes in as a number.
4. A conversation stays where its prompt is warm, and moves where another costs less even though it has to read all of
   the prompt anew, or is faster by far. Nobody is tried out with it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from farthing.policies.routes import Route
from farthing.policies.variant import Needs, Variant, unfit

__all__ = ["FAILED_S", "STICKY", "Choice", "Standing", "choose", "conversation", "stickiness"]

_EXPLORED = 0.05  # of a fastest route's requests, while a variant's speed isn't known
FAILED_S = 10.0
"""For how long a variant that failed is left out, and no conversation stays with it."""
STICKY = frozenset({"cheapest", "fastest", "balanced"})
"""Strategies that choose anew each time, and so must know where a conversation is."""
_SLOWER = 2.0  # than the fastest: what a prompt that must be read anew may well cost in time
_NOISE = 1.1  # speeds are measured: a conversation doesn't move for less


class Standing(NamedTuple):
    """What is known of a variant now. `usd`: what this request would cost there. `p50_s`: its latest answers' time to
    the first byte. `failed_s`: seconds since its last failure. None: unknown, or never. `warm`: this conversation's
    prompt is in its cache, and `usd` reckons with that."""

    usd: float | None = None
    p50_s: float | None = None
    failed_s: float | None = None
    warm: bool = False


class Choice(NamedTuple):
    """`order`: whom to ask, the first one first; the rest are what a cascade escalates to. `why`: for the ledger."""

    order: tuple[Variant, ...]
    why: str


def choose(route: Route, needs: Needs, standing: Callable[[Variant], Standing], sticky: float, chance: float) -> Choice:
    """Whom to ask. `sticky`: in [0, 1), the same for all of a conversation; `chance`: in [0, 1), anew each time."""
    left: list[str] = []
    fitting = []
    for variant in route.variants:
        reason = unfit(variant, needs)
        if not reason and route.min_quality and (variant.quality is None or variant.quality < route.min_quality):
            reason = "not good enough"
        if reason:
            left.append(f"{variant.name} {reason}")
        else:
            fitting.append(variant)
    if not fitting:
        return Choice((), "; ".join(left))
    order, why = _ordered(route, fitting, standing, sticky, chance)
    return Choice(order, "; ".join([why, *left]) if left else why)


def _ordered(
    route: Route, fitting: Sequence[Variant], standing: Callable[[Variant], Standing], sticky: float, chance: float
) -> tuple[tuple[Variant, ...], str]:
    if route.strategy == "fixed":
        return (fitting[0],), "fixed"
    if route.strategy == "cascade":
        return tuple(fitting), "cascade"
    if route.strategy == "weighted":
        weight_of = dict(zip((variant.name for variant in route.variants), route.weights, strict=False))
        return (_weighted(fitting, [weight_of.get(variant.name, 1.0) for variant in fitting], sticky),), "weighted"
    known = [(variant, standing(variant)) for variant in fitting]
    if route.strategy == "cheapest":
        priced = [(found.usd, not found.warm, at) for at, (_, found) in enumerate(known) if found.usd is not None]
        if not priced:
            return (), "no price is known"
        usd, cold, place = min(priced)
        return (fitting[place],), f"cheapest at ${usd:.6f}{'' if cold else ', warm'}"
    well = [
        (variant, found) for variant, found in known if found.failed_s is None or found.failed_s > FAILED_S
    ] or known
    stays = next((one for one in well if one[1].warm), None)
    unknown = [variant for variant, found in well if found.p50_s is None]
    if stays is None and unknown and (len(unknown) == len(well) or chance < _EXPLORED):
        return (unknown[int(chance / _EXPLORED * len(unknown)) % len(unknown)],), "its speed isn't known yet"
    timed = [(variant, found, found.p50_s) for variant, found in well if found.p50_s is not None]
    if route.strategy == "balanced":
        worth = [
            (found.usd + route.usd_per_s * p50_s, place)
            for place, (_, found, p50_s) in enumerate(timed)
            if found.usd is not None
        ]
        least = min(worth, default=None)
        if stays is not None and _balances(route, stays[1], None if least is None else least[0]):
            return (stays[0],), "its prompt is warm"
        return ((), "no price is known") if least is None else ((timed[least[1]][0],), "least of price and time")
    if stays is not None and _fast(stays[1], [p50_s for _, _, p50_s in timed]):
        return (stays[0],), "its prompt is warm"
    p50_s, place = min((p50_s, place) for place, (_, _, p50_s) in enumerate(timed))
    return (timed[place][0],), f"fastest at {p50_s * 1000:.0f} ms"


def _balances(route: Route, warm: Standing, least: float | None) -> bool:
    """Whether what is warm is worth about the least of price and time, as far as is known."""
    if warm.usd is None:
        return False
    if warm.p50_s is None or least is None:
        return True
    return warm.usd + route.usd_per_s * warm.p50_s <= least * _NOISE


def _fast(warm: Standing, p50s_s: Sequence[float]) -> bool:
    """Whether what is warm is fast enough, as far as is known."""
    return warm.p50_s is None or warm.p50_s <= _SLOWER * min(p50s_s)


def _weighted(variants: Sequence[Variant], weights: Sequence[float], sticky: float) -> Variant:
    sums = list(accumulate(weights))
    if sums[-1] <= 0:
        return variants[0]
    return variants[min(bisect(sums, sticky * sums[-1]), len(variants) - 1)]


def conversation(tenant: str, payload: dict[str, Any], route: str) -> int:
    """A number that is the same for all of a tenant's conversation, by how it begins; within this process only."""
    begins = _begins(payload)
    if type(begins) is list:
        return hash((tenant, route, *map(_words, begins)))
    return hash((tenant, route, str(begins)))


def stickiness(tenant: str, payload: dict[str, Any], route: str) -> float:
    """A number in [0, 1) that is the same for all of a tenant's conversation, in every process: by how it begins."""
    begins = _begins(payload)
    seed = f"{tenant}\0{route}\0{begins}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(seed, digest_size=6).digest()) / 2**48


def _begins(payload: dict[str, Any]) -> Any:
    """The turns up to the first that the user says; what was sent, where that are no turns."""
    turns = payload.get("messages", payload.get("input", payload.get("prompt")))
    if type(turns) is not list:
        return turns
    for place, turn in enumerate(turns):
        if type(turn) is dict and turn.get("role") == "user":
            return turns[: place + 1]
    return turns[:1]


def _words(turn: Any) -> str:
    """What a turn says, as it came where that is a text: no copy of a long prompt is made."""
    content = turn.get("content") if type(turn) is dict else turn
    return content if type(content) is str else str(turn)
