"""Is the candidate as good, and what does it save? Paired results of an evaluation, overall and by slice. Pure.

Rules of this file:
1. Both arms were asked the same cases; a case that only one answered counts against whoever failed, and one that
   neither answered (an upstream that was down) says nothing of how they differ: it is in no comparison.
2. A score that a judge couldn't give counts as bad for the candidate, and is counted apart.
3. Slices are many: their p-values are adjusted together (Benjamini & Hochberg), and a slice is called worse or better
   only by the adjusted one.
4. Traps aren't traffic: they are a table of their own, and stand in no mean of production.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from farthing.policies.estimate import (
    Interval,
    NonInferiority,
    adjusted,
    detectable,
    difference,
    not_worse,
    permutation,
    quantile,
    ratio,
)

__all__ = ["UNPAID", "ArmResult", "CaseResult", "Comparison", "SliceResult", "Trap", "compare"]

FEWEST_IN_A_SLICE = 5
UNPAID = 402  # the run's own limit of money refuses a case with it
_PICO = 1e-12
_NO_CHECKS: Mapping[str, float | None] = MappingProxyType({})


class ArmResult(NamedTuple):
    """How one arm answered a case. `score`: None where the judge couldn't say, or nothing came (`status` isn't 200).

    `cost_pico`: all that it cost, its share of optimisers' own work included; None: unknown price.
    """

    status: int
    score: float | None
    cost_pico: int | None
    latency_ms: float
    overhead_ms: float = 0.0
    cache: str = ""
    reason: str = ""

    @property
    def counted(self) -> float:
        """The score as it counts: what isn't known to be good is bad."""
        return 0.0 if self.score is None else self.score


class CaseResult(NamedTuple):
    """One case under both arms. `noise`: the baseline's second answer, judged by its first; None where not asked.

    `checks`: what further judges said of the candidate's answer, by their name.
    """

    id: str
    slices: Mapping[str, str]
    weight: float
    baseline: ArmResult
    candidate: ArmResult
    source: str = "traffic"
    expect: str = ""
    noise: float | None = None
    checks: Mapping[str, float | None] = _NO_CHECKS

    @property
    def answered(self) -> bool:
        """Whether one of the arms did."""
        return 200 in (self.baseline.status, self.candidate.status)


class SliceResult(NamedTuple):
    """One value of one slice. `p`: adjusted. `word`: 'worse', 'better' or ''."""

    name: str
    value: str
    cases: int
    baseline: float
    candidate: float
    difference: Interval
    p: float
    word: str


class Trap(NamedTuple):
    """One kind of hard prompts. `reused`: answered by another prompt's answer although it had to be another one."""

    kind: str
    cases: int
    baseline: float
    candidate: float
    reused: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores are weighted means in [0, 1]. `cost`: the candidate's money over the baseline's; None where prices are
    unknown. `undecided`, `failed`: cases of the candidate without a score, without an answer. `noise`: how good the
    baseline's own second answers are; None where it wasn't asked twice. `detectable`: the least loss that this many
    cases would show. `unpaid`: cases that one arm was refused for want of money; where there are any the verdict is
    inconclusive, whatever the rest says. `lost`: cases that neither arm answered."""

    cases: int
    baseline: float
    candidate: float
    verdict: NonInferiority
    cost: Interval | None
    baseline_usd: float | None
    candidate_usd: float | None
    latency_ms: Mapping[str, tuple[Interval, Interval]]
    undecided: int
    failed: int
    noise: float | None
    detectable: float
    hits: Mapping[str, int]
    slices: tuple[SliceResult, ...]
    traps: tuple[Trap, ...]
    unpaid: int = 0
    lost: int = 0


def compare(
    results: Sequence[CaseResult], rng: np.random.Generator, margin: float = 0.02, level: float = 0.05
) -> Comparison:
    """All of it. ValueError: no case came from traffic."""
    real = [one for one in results if not one.source.startswith("generated:")]
    if not real:
        raise ValueError("no case of traffic among the results: there is nothing to compare")
    ones = np.array([one.candidate.counted for one in real])
    others = np.array([one.baseline.counted for one in real])
    weights = np.array([one.weight for one in real])
    deviation = float(np.std(ones - others, ddof=1)) if len(real) > 1 else 0.5
    again = [one.noise for one in real if one.noise is not None]
    hits: dict[str, int] = defaultdict(int)
    for one in real:
        hits[one.candidate.cache or "unknown"] += 1
    baseline_usd, candidate_usd = _usd(real, "baseline"), _usd(real, "candidate")
    unpaid = sum(UNPAID in (one.baseline.status, one.candidate.status) for one in real)
    told = np.array([one.answered for one in real])
    verdict = not_worse(ones[told], others[told], margin, rng, weights[told], level)
    if unpaid:
        verdict = replace(verdict, word="inconclusive", needed=None)
    return Comparison(
        cases=len(real),
        baseline=_mean(others, weights),
        candidate=_mean(ones, weights),
        verdict=verdict,
        cost=_cost(real, rng, level),
        baseline_usd=baseline_usd,
        candidate_usd=candidate_usd,
        latency_ms={
            name: (
                quantile([one.baseline.latency_ms for one in real], share, level),
                quantile([one.candidate.latency_ms for one in real], share, level),
            )
            for name, share in (("p50", 0.5), ("p99", 0.99))
        },
        undecided=sum(one.candidate.score is None and one.candidate.status == 200 for one in real),
        failed=sum(one.candidate.status != 200 for one in real),
        noise=float(np.mean(again)) if again else None,
        detectable=detectable(max(deviation, 1e-9), len(real), level, sides=1),
        hits=dict(sorted(hits.items())),
        slices=_slices([one for one in real if one.answered], rng, level),
        traps=_traps([one for one in results if one.source.startswith("generated:")]),
        unpaid=unpaid,
        lost=int((~told).sum()),
    )


def _slices(real: Sequence[CaseResult], rng: np.random.Generator, level: float) -> tuple[SliceResult, ...]:
    groups: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for one in real:
        for name, value in one.slices.items():
            groups[name, value].append(one)
    # A slice that holds all cases says nothing that the whole doesn't.
    told = sorted((key, group) for key, group in groups.items() if FEWEST_IN_A_SLICE <= len(group) < len(real))
    found = []
    for (name, value), group in told:
        ones = np.array([one.candidate.counted for one in group])
        others = np.array([one.baseline.counted for one in group])
        weights = np.array([one.weight for one in group])
        apart = difference(ones, others, rng, weights, level)
        p = permutation(ones, others, rng)
        means = _mean(others, weights), _mean(ones, weights)
        found.append(SliceResult(name, value, len(group), *means, apart, p, ""))
    ps = adjusted([one.p for one in found])
    return tuple(one._replace(p=p, word=_word(one, p, level)) for one, p in zip(found, ps, strict=True))


def _word(one: SliceResult, p: float, level: float) -> str:
    """By the test and by the interval, which for few cases that differ is the more careful one."""
    if p >= level or one.difference.low <= 0 <= one.difference.high:
        return ""
    return "worse" if one.difference.value < 0 else "better"


def _traps(made: Sequence[CaseResult]) -> tuple[Trap, ...]:
    groups: dict[str, list[CaseResult]] = defaultdict(list)
    for one in made:
        groups[one.source.partition(":")[2]].append(one)
    return tuple(
        Trap(
            kind,
            len(group),
            float(np.mean([one.baseline.counted for one in group])),
            float(np.mean([one.candidate.counted for one in group])),
            sum(one.expect == "other" and one.candidate.cache == "hit-semantic" for one in group),
        )
        for kind, group in sorted(groups.items())
    )


def _cost(real: Sequence[CaseResult], rng: np.random.Generator, level: float) -> Interval | None:
    priced = [one for one in real if one.baseline.cost_pico is not None and one.candidate.cost_pico is not None]
    if len(priced) < len(real) or not any(one.baseline.cost_pico for one in priced):
        return None
    columns = (
        [float(one.candidate.cost_pico or 0) for one in priced],
        [float(one.baseline.cost_pico or 0) for one in priced],
    )
    return ratio(*columns, rng, [one.weight for one in priced], level)


def _usd(real: Sequence[CaseResult], arm: str) -> float | None:
    costs = [getattr(one, arm).cost_pico for one in real]
    if any(cost is None for cost in costs):
        return None
    return math.fsum(cost * one.weight for cost, one in zip(costs, real, strict=True)) * _PICO


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / weights.sum())
