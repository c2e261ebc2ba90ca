"""Tables for docs/semantic-score.md: at a bound on wrong hits, how many requests could be answered.

For each request the candidate with the best score counts, and it is a hit where that score reaches a threshold; wrong
where the candidate's class is another. "At 1 %" is the largest hit rate at any threshold for which at most 1 % of the
hits are wrong, chosen in hindsight, for every method alike. Intervals: 95 %, bootstrap over answer classes (500 draws),
the threshold chosen anew in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.verifier_data import Pairs
from farthing.cache.guard import disagreement
from farthing.cache.verifier import Trees
from farthing.proxy.text import Signals, signals

__all__ = ["BOUNDS", "best_of", "guarded", "hit_rates", "report"]

BOUNDS = (0.005, 0.01, 0.02, 0.05)
DRAWS = 500
REFUSED = -1e9


class Source(Protocol):
    """What of a part the report looks at."""

    @property
    def name(self) -> str: ...
    @property
    def pairs(self) -> Pairs: ...


def settled(scores: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """Scores as the verifier gives them: equal texts first, those that can't be compared never."""
    return np.where(pairs.verbatim == 1, -REFUSED, np.where(pairs.verbatim == -1, REFUSED, scores))


def guarded(pairs: Pairs) -> NDArray[np.float64]:
    """The cosine where today's guard lets the pair pass."""
    known: dict[str, Signals] = {}

    def read(text: str) -> Signals:
        if text not in known:
            known[text] = signals(text)
        return known[text]

    cosines = pairs.features[:, 0]
    return np.array(
        [
            REFUSED if disagreement(read(a), read(b)) else cosine
            for (a, b), cosine in zip(pairs.texts, cosines, strict=True)
        ]
    )


def best_of(
    scores: NDArray[np.float64], pairs: Pairs
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int64]]:
    """For each request with candidates: the best score, whether that one is right, the request's number."""
    best: dict[int, int] = {}
    for at, number in enumerate(pairs.query.tolist()):
        if number not in best or scores[at] > scores[best[number]]:
            best[number] = at
    chosen = np.array([at for at in best.values() if scores[at] > REFUSED], np.int64)
    return scores[chosen], pairs.same[chosen], pairs.query[chosen]


def hit_rates(score: NDArray[np.float64], right: NDArray[np.int8], total: float,
              weight: NDArray[np.float64] | None = None) -> list[tuple[float, float]]:  # fmt: skip
    """For each of BOUNDS the largest hit rate within it, and the threshold (infinite: none)."""
    order = np.argsort(-score, kind="stable")
    score, right = score[order], right[order]
    counted = np.ones(len(score)) if weight is None else weight[order]
    hits, wrong = np.cumsum(counted), np.cumsum(counted * (1 - right))
    last = np.append(score[1:] < score[:-1], True) if len(score) else np.zeros(0, bool)
    found = []
    for bound in BOUNDS:
        fits = np.flatnonzero((wrong <= bound * hits + 1e-9) & last & (hits > 0))
        found.append((float(hits[fits[-1]] / total), float(score[fits[-1]])) if len(fits) else (0.0, float("inf")))
    return found


def intervals(scores: NDArray[np.float64], pairs: Pairs) -> list[tuple[float, float, float]]:
    """For each bound the hit rate with its interval."""
    score, right, number = best_of(scores, pairs)
    answers = {answer: at for at, answer in enumerate(dict.fromkeys(one.answer for one in pairs.requests))}
    cluster = np.array([answers[one.answer] for one in pairs.requests])
    chance = np.random.default_rng(7)
    drawn = []
    for _ in range(DRAWS):
        counts = chance.multinomial(len(answers), np.full(len(answers), 1 / len(answers))).astype(float)
        weight = counts[cluster]
        if weight.sum():
            drawn.append([rate for rate, _ in hit_rates(score, right, weight.sum(), weight[number])])
    low, high = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    exact = [rate for rate, _ in hit_rates(score, right, len(pairs.requests))]
    return [(rate, float(a), float(b)) for rate, a, b in zip(exact, low, high, strict=True)]


def _row(name: str, method: str, found: Sequence[tuple[float, float, float]]) -> str:
    return f"| {name} | {method} | " + " | ".join(f"{r:.3f} ({a:.3f}-{b:.3f})" for r, a, b in found) + " |"


def report(trees: Trees, learn: Sequence[Source], test: Sequence[Source], left_out: Mapping[str, NDArray[np.float64]],
           without: Mapping[str, Trees]) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Markdown, and the figures that go into the model file. Without a test part only what was cross-validated."""
    head = "| stream | score | wrong ≤ 0.5 % | ≤ 1 % | ≤ 2 % | ≤ 5 % |\n|---|---|---|---|---|---|"
    lines = ["Learned from, each group predicted without itself:", "", head]
    figures: dict[str, Any] = {"cross_validated": {}, "test": {}}
    thresholds: dict[str, list[float]] = {}
    for part in learn:
        scores = settled(left_out[part.name], part.pairs)
        found = intervals(scores, part.pairs)
        thresholds[part.name] = [t for _, t in hit_rates(*best_of(scores, part.pairs)[:2], len(part.pairs.requests))]
        lines += [_row(part.name, "cosine", intervals(part.pairs.features[:, 0], part.pairs)),
                  _row(part.name, "guard + cosine", intervals(guarded(part.pairs), part.pairs)),
                  _row(part.name, "verifier", found)]  # fmt: skip
        figures["cross_validated"][part.name] = [round(rate, 4) for rate, _, _ in found]
    if not test:
        return "\n".join(lines) + "\n", figures
    lines += ["", "Kept apart, scored once:", "", head]
    moved = ["", "Thresholds from the first table's 'verifier' rows, applied to the part kept apart (hits, wrong):", "",
             "| stream | 0.5 % | 1 % | 2 % | 5 % |", "|---|---|---|---|---|"]  # fmt: skip
    pooled: list[tuple[NDArray[np.float64], NDArray[np.int8]]] = []
    for part in test:
        scores = settled(trees.sums(part.pairs.features), part.pairs)
        found = intervals(scores, part.pairs)
        lines += [_row(part.name, "cosine", intervals(part.pairs.features[:, 0], part.pairs)),
                  _row(part.name, "guard + cosine", intervals(guarded(part.pairs), part.pairs)),
                  _row(part.name, "verifier", found)]  # fmt: skip
        if part.name in without:
            strange = settled(without[part.name].sums(part.pairs.features), part.pairs)
            lines.append(_row(part.name, "verifier, stream never seen", intervals(strange, part.pairs)))
        figures["test"][part.name] = [round(rate, 4) for rate, _, _ in found]
        score, right, _ = best_of(scores, part.pairs)
        cells = [f"{int((score >= t).sum())}, {int((1 - right[score >= t]).sum())}" for t in thresholds[part.name]]
        moved.append(f"| {part.name} | " + " | ".join(cells) + " |")
        probable = np.where(part.pairs.verbatim == 1, 1.0, trees.probabilities(part.pairs.features))
        pooled.append(best_of(np.where(part.pairs.verbatim == -1, REFUSED, probable), part.pairs)[:2])
    lines += [*moved, "", *_reliability([part.name for part in test], pooled), "", *_slices(trees, test)]
    return "\n".join(lines) + "\n", figures


def _reliability(names: Sequence[str], pooled: Sequence[tuple[NDArray[np.float64], NDArray[np.int8]]]) -> list[str]:
    edges = (0.0, 0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 1.01)
    lines = ["Reliability on the part kept apart (best candidates: how many, mean probability, share right):", "",
             "| stream | " + " | ".join(f"{a:g}-{min(b, 1):g}" for a, b in pairwise(edges)) + " |",
             "|---" * len(edges) + "|"]  # fmt: skip
    for name, (p, right) in zip(names, pooled, strict=True):
        cells = []
        for a, b in pairwise(edges):
            inside = (p >= a) & (p < b)
            cells.append(f"{inside.sum()}: {p[inside].mean():.2f}, {right[inside].mean():.2f}" if inside.any() else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _slices(trees: Trees, test: Sequence[Source]) -> list[str]:
    """Where it fails: of all requests of a slice, hits and wrong hits at the stream's own threshold for 2 %."""
    lines = [
        "By slice, each stream at its own threshold for 2 % (requests, hits, wrong):",
        "",
        "| slice | |",
        "|---|---|",
    ]
    for part in test:
        scores = settled(trees.sums(part.pairs.features), part.pairs)
        score, right, number = best_of(scores, part.pairs)
        threshold = hit_rates(score, right, 1.0)[2][1]
        slices = [one.slice for one in part.pairs.requests]
        for name in sorted(set(slices)):
            here = np.array([slices[at] == name for at in number], bool) & (score >= threshold)
            lines.append(f"| {name} | {slices.count(name)}, {int(here.sum())}, {int((1 - right[here]).sum())} |")
    return lines
