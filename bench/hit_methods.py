"""The methods that are compared, and the sums that are kept of their replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.hit_pool import Pool
from bench.hit_replay import MISS, WRONG, Outcome, policy_on, static_on
from bench.hit_traffic import orders
from farthing.policies.reuse import Bound
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified
from farthing.proxy.reuse_state import PRIOR

__all__ = ["BOUNDS", "METHODS", "Method", "Sums", "run"]

BOUNDS = (0.005, 0.01, 0.02, 0.05)
CHECKPOINTS = (2_000, 5_000, 10_000, 20_000)
_FIXED_SHARE = 0.1
# Thresholds, in hundredths, that long traffic is replayed with.
_COARSE = (80, 85, 90, 92, 94, 95, 97, 98, 99)


@dataclass(frozen=True, slots=True)
class Method:
    """`family`: 'cosine' (static), 'score' (the verifier's at a fixed threshold, unproven), 'vcache' or 'ours'."""

    family: str
    setting: float
    replay: Callable[[Pool, Sequence[int], int], Outcome]
    share: float = 1.0

    @property
    def name(self) -> str:
        """For tables."""
        if self.family in ("cosine", "score"):
            return f"{self.family} ≥ {self.setting:.2f}"
        return f"{self.family} {self.setting:.1%}"


def _static(threshold: float) -> Method:
    return Method("cosine", threshold, lambda pool, order, _: static_on(pool, order, threshold))


def _score(threshold: float) -> Method:
    def replay(pool: Pool, order: Sequence[int], seed: int) -> Outcome:
        policy = Static(threshold, on="score", bound=Bound(), mode="serve", audit_share=0.0)
        return policy_on(pool, order, policy, seed)

    return Method("score", threshold, replay, _FIXED_SHARE)


def _vcache(delta: float) -> Method:
    bound = Bound(delta, per="request")
    return Method("vcache", delta, lambda pool, order, seed: policy_on(pool, order, VCache(bound, mode="serve"), seed))


def _ours(bound: float) -> Method:
    settings = Settings(Bound(bound), mode="serve", prior=PRIOR)
    return Method("ours", bound, lambda pool, order, seed: policy_on(pool, order, Verified(settings), seed))


METHODS = (
    *(_static(round(0.80 + step / 100, 2)) for step in range(20)),
    *(_score(threshold) for threshold in (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85)),
    *(_vcache(delta) for delta in BOUNDS),
    *(_ours(bound) for bound in BOUNDS),
)


@dataclass(slots=True)
class Sums:
    """One method on one traffic. [shuffles]: `requests`, `hits`, `wrong`, `first` (-1: no hit), `labels`.

    `until` [shuffles, checkpoints]: hits and wrong ones of the first so many requests. By class and by slice over all
    shuffles: requests, hits, wrong ones. `crossed`: wrong hits from behind a wall, by wall.
    """

    requests: list[int] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    until: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    by_class: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 0), np.int64))
    by_slice: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 0), np.int64))
    crossed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WALLS, 0))

    @property
    def hit_rate(self) -> float:
        """Hits of all requests."""
        return sum(self.hits) / max(1, sum(self.requests))


WALLS = ("tenant", "system prompt", "conversation")


def run(pool: Pool, shuffles: int, methods: Sequence[Method] = METHODS) -> Iterator[tuple[Method, Sums]]:
    """Each method over the same orders, one method after another. `shuffles`: before any share is taken of it."""
    classes = _numbered([one.answer for one in pool.asked])
    slices = _numbered([one.slice for one in pool.asked])
    whole = max(1, round(shuffles * pool.traffic.share))
    for method in methods:
        if method.family == "cosine" and pool.traffic.length is not None and round(100 * method.setting) not in _COARSE:
            continue
        sums = Sums(
            by_class=np.zeros((3, classes.max() + 1), np.int64), by_slice=np.zeros((3, slices.max() + 1), np.int64)
        )
        count = whole if method.share == 1.0 else max(2, round(whole * method.share))
        for seed, order in enumerate(orders(pool.traffic, count)):
            _add(sums, pool, np.array(order), method.replay(pool, order, seed), classes, slices)
        yield method, sums


def _add(
    sums: Sums,
    pool: Pool,
    order: NDArray[np.int64],
    out: Outcome,
    classes: NDArray[np.int64],
    slices: NDArray[np.int64],
) -> None:
    counted = pool.traffic.first
    what, asked = out.what[counted:], order[counted:]
    hit, wrong = what != MISS, what == WRONG
    sums.requests.append(len(what))
    sums.hits.append(int(hit.sum()))
    sums.wrong.append(int(wrong.sum()))
    sums.first.append(-1 if out.first is None else out.first)
    sums.labels.append(out.labels)
    for stop in CHECKPOINTS:
        if stop <= len(what):
            sums.until.setdefault(stop, []).append((int(hit[:stop].sum()), int(wrong[:stop].sum())))
    for table, group in ((sums.by_class, classes[asked]), (sums.by_slice, slices[asked])):
        for row, chosen in enumerate((group, group[hit], group[wrong])):
            table[row] += np.bincount(chosen, minlength=table.shape[1])
    for number, entry in out.served_by:
        walls = zip(WALLS, pool.asked[number].walls, pool.asked[entry].walls, strict=True)
        for wall, one, other in walls:
            sums.crossed[wall] += one != other


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Each name's place among the sorted different ones."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
