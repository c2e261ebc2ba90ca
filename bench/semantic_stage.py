"""What one look-up of the semantic cache costs, by part and by size; what an entry holds; the start with a full file.

Each measurement runs in a process of its own, so that one's freed memory doesn't hide another's. Rules of this file:
1. Entries are real prompts typed otherwise (`varied`), each with its own text; vectors of the first 3,000 are real, the
   rest are these moved by chance (as in bench/index.py): embedding 100,000 texts would take a quarter of an hour.
2. Queries are fresh: none was embedded or read before. Parts are processor time of the one thread that does them, so
   that what else runs on the machine doesn't count; the whole look-up is also given by the clock.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.hit_traffic import varied
from bench.index import moved
from bench.machine import rss_bytes
from farthing.cache.embedder import MiniLmOnnx
from farthing.cache.scorer import VerifierScorer
from farthing.cache.semantic import SemanticCache, best
from farthing.cache.semantic_disk import Row, SemanticDisk
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.unmatchable import unmatchable
from farthing.cache.verifier import Verifier
from farthing.policies.reuse import Bound, Candidate, Label, RouteKey
from farthing.policies.verified import Settings, Verified
from farthing.proxy.text import normalise

__all__ = [
    "NOW_S",
    "PARTS",
    "ROUTE",
    "Stage",
    "Times",
    "at_percent",
    "by_part",
    "distinct",
    "measured",
    "opened",
    "started",
]

PARTS = (
    *("embed", "search", "score", "score, warm", "score, read anew"),
    *("decide", "learn", "whole", "whole, by the clock"),
)
NOW_S, LATER_S = 1_800_000_000.0, 1_900_000_000.0
ROUTE = "route"
_SMALL_SCOPE = 20
_ROOM = 2 * 2**30
_ENTRY_COSINE = 0.8

Times = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One size. `times_ms`: p50 and p99 of each part. `rss_bytes`, `own_bytes`: of an entry, measured and estimated."""

    entries: int
    scopes: int
    kind: str
    tokens: float
    times_ms: dict[str, tuple[float, float]]
    rss_bytes: float
    own_bytes: float


def distinct(texts: Sequence[str], count: int, chance: Random) -> list[str]:
    """So many different texts that may be matched, each one of `texts` typed otherwise."""
    found: dict[str, None] = {}
    while len(found) < count:
        text = normalise(varied(chance.choice(texts), chance))
        if not unmatchable(text):
            found[text] = None
    return list(found)


def measured(texts: Sequence[str], vectors: NDArray[np.float32], size: int, one_scope: bool, asked: int) -> Stage:
    """The stage with `size` entries, after as many queries as `asked` for the parts and as many for the whole."""
    chance = Random(size)
    rows = _rows(texts, vectors, size, one_scope, chance)
    queries = distinct(texts, 2 * asked, Random(size + 1))
    scopes = sorted({row.scope for row in rows})
    cache = opened()
    cache.embed(queries[:1])
    before = rss_bytes(os.getpid())
    _fill(cache, rows)
    memory = rss_bytes(os.getpid()) - before
    own = cache.bytes
    kind = next(iter(cache._scopes.values())).kind
    times: Times = {part: [] for part in PARTS}
    policy = Verified(Settings(Bound(), mode="serve"))
    lengths = [cache._embedder.count(query) for query in queries]
    for query in queries[:asked]:
        by_part(cache, policy, chance.choice(scopes), query, times, chance)
    asyncio.run(_whole(cache, scopes, queries[asked:], times, chance))
    parts = {part: (at_percent(took, 50), at_percent(took, 99)) for part, took in times.items()}
    return Stage(size, len(scopes), kind, float(np.mean(lengths)), parts, memory / size, own / size)


def started(texts: Sequence[str], vectors: NDArray[np.float32], size: int, folder: Path) -> dict[str, float]:
    """A start with `size` entries of one scope in the file.

    `served_s`: by the clock until look-ups are answered; `flat_p50_ms`: a look-up then; `lists_s`: processor seconds
    until the lists stand.
    """
    disk = SemanticDisk(folder / "semantic.db", embedder=MiniLmOnnx.name, dim=MiniLmOnnx.dim)
    disk.load()
    for row in _rows(texts, vectors, size, True, Random(size)):
        disk.put(row)
    disk.close()
    embedder, verifier = MiniLmOnnx(), Verifier.open()
    began = time.perf_counter()
    cache = SemanticCache.open(
        folder / "semantic.db", embedder, max_entries=size, max_bytes=_ROOM, scorer=VerifierScorer(verifier)
    )
    served_s = time.perf_counter() - began
    asked = distinct(texts, 60, Random(7))
    flat = [_took(lambda query=query: cache.lookup("scope 0", ROUTE, query, NOW_S))[1] for query in asked]
    began = time.thread_time()
    while cache.tend():
        pass
    return {"served_s": served_s, "flat_p50_ms": at_percent(flat, 50), "lists_s": time.thread_time() - began}


def _rows(texts: Sequence[str], vectors: NDArray[np.float32], size: int, one_scope: bool, chance: Random) -> list[Row]:
    noise = np.random.default_rng(size)
    parts = [vectors, *(moved(vectors, _ENTRY_COSINE, noise) for _ in range(-(-size // len(vectors)) - 1))]
    held = np.concatenate(parts)[:size]
    scopes = 1 if one_scope else max(1, size // _SMALL_SCOPE)
    return [
        Row(f"scope {number % scopes}", f"entry {number}", text, LATER_S, held[number].copy(), 0.001)
        for number, text in enumerate(distinct(texts, size, chance))
    ]


def opened() -> SemanticCache:
    """An empty cache with the real model and verifier."""
    return SemanticCache.open(
        None, MiniLmOnnx(), max_entries=10**9, max_bytes=_ROOM, scorer=VerifierScorer(Verifier.open())
    )


def _fill(cache: SemanticCache, rows: list[Row]) -> None:
    """As `add` does, with vectors that are there already; every entry read."""
    words = cache._words_of(ROUTE)
    for row in rows:
        reading = cache._scorer.read(row.scope, row.text)
        cache._scorer.learn(reading, words)
        cache._insert(row, reading)
    while cache.tend():
        pass


def by_part(cache: SemanticCache, policy: Verified, scope: str, query: str, times: Times, chance: Random) -> None:
    """One look-up and what follows on a miss, part by part; then its candidates read anew, as if nothing were kept."""
    vector, embed = _took(lambda: cache._vectors.of(scope, query))
    assert vector is not None
    _, search = _took(lambda: cache._scopes[scope].search(vector, 8))
    near = cache.near(scope, query, NOW_S)
    assert not isinstance(near, str)
    scores, score = _took(lambda: cache._scores(scope, query, near, ROUTE))
    _, warm = _took(lambda: cache._scores(scope, query, near, ROUTE))
    found = best(near, scores)
    assert found.entry_key is not None and found.similarity is not None
    candidate, route = Candidate(found.entry_key, found.score, found.similarity), RouteKey("tenant", ROUTE)
    verdict, decide = _took(lambda: policy.decide(route, candidate, chance.random()))
    label = Label(float(chance.random() < 0.3))

    def learn() -> None:
        policy.learn(route, candidate, verdict, label)
        cache._scorer.learn(cache._scorer.read(scope, query), cache._words_of(ROUTE))

    _, learned = _took(learn)
    texts = [query, *(one.text for one in near)]
    _forget(cache, scope, [one.entry_key for one in near], texts)
    _, anew = _took(lambda: cache._scores(scope, query, near, ROUTE))
    for part, took in zip(PARTS, (embed, search, score, warm, anew, decide, learned), strict=False):
        times[part].append(took)


def _forget(cache: SemanticCache, scope: str, keys: Sequence[str], texts: Sequence[str]) -> None:
    """Drop what was read of these in a scope."""
    for key in keys:
        cache._items[cache._by_key[key]].reading = None
    readings = cache._scorer._verifier._readings  # type: ignore[attr-defined]
    for text in texts:
        readings.pop((scope, text), None)


async def _whole(
    cache: SemanticCache, scopes: Sequence[str], queries: Sequence[str], times: Times, chance: Random
) -> None:
    """SemanticThread.lookup, one at a time, as the stage calls it."""
    thread = SemanticThread(lambda: cache)
    await thread.open()
    for query in queries:
        scope = chance.choice(scopes)
        clock, processor = time.perf_counter_ns(), time.process_time_ns()
        await thread.lookup(scope, ROUTE, query, NOW_S)
        times["whole"].append((time.process_time_ns() - processor) / 1e6)
        times["whole, by the clock"].append((time.perf_counter_ns() - clock) / 1e6)
    await thread.close()


def _took(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and its milliseconds of processor time."""
    began = time.thread_time_ns()
    given = work()
    return given, (time.thread_time_ns() - began) / 1e6


def at_percent(values: list[float], percent: float) -> float:
    """The percentile."""
    return float(np.percentile(values, percent))
