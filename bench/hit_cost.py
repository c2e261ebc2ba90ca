"""What the verifier and the decision cost on a miss: eight candidates read, compared and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

import numpy as np

from bench.hit_traffic import Asked, varied
from bench.report import Report
from farthing.cache.rarity import RouteWords
from farthing.cache.verifier import Verifier
from farthing.policies.reuse import Bound, Candidate, Label
from farthing.policies.verified import Settings, Verified

__all__ = ["cost"]

SIZES = (1_000, 10_000, 100_000)
ASKED = 1_500
NEIGHBOURS = 8


def cost(sources: Sequence[Asked]) -> Report:
    """p50 and p99 over requests whose eight candidates are any of so many entries: the worst case for what is kept."""
    report = Report("hit_cost", "Verifier, decision and learning on a miss, eight candidates, one thread",
                    ["entries", "verifier p50 ms", "p99 ms", "decide and learn p50 ms", "p99 ms"])  # fmt: skip
    for size in SIZES:
        chance = Random(size)
        texts = [varied(chance.choice(sources).text, chance) for _ in range(size)]
        verifier, words = Verifier.open(), RouteWords()
        policy = Verified(Settings(Bound(), mode="serve"))
        for text in texts[-4_096:]:
            verifier.learn(text, words)
        scored, decided = [], []
        for _ in range(ASKED):
            asked = varied(chance.choice(sources).text, chance)
            near = chance.sample(texts, NEIGHBOURS)
            cosines = sorted((chance.uniform(0.4, 0.95) for _ in near), reverse=True)
            began = time.perf_counter()
            scores = verifier.scores(asked, near, cosines, words)
            middle = time.perf_counter()
            candidate = Candidate("entry", max(scores), cosines[0])
            verdict = policy.decide(sources[0].route, candidate, chance.random())
            policy.learn(sources[0].route, candidate, verdict, Label(float(chance.random() < 0.3)))
            decided.append(time.perf_counter() - middle)
            scored.append(middle - began)
        cells = [1000 * float(np.percentile(times, q)) for times in (scored, decided) for q in (50, 99)]
        report.rows.append([f"{size:,}", *(f"{cell:.2f}" for cell in cells)])
    report.notes.append(
        "Candidates drawn at random from all entries; the verifier keeps what it has read of 4,096 texts, so that in a "
        "large, evenly used cache nearly all eight are read anew. Embedding and search are not in these figures."
    )
    return report
