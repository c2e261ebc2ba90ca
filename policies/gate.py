"""May a policy ship? Declared rules over an evaluation's results, each with a verdict that says what it rests on. Pure.

Rules of this file:
1. A rule is met only where it is shown to be met at the level: the end of the interval counts, never the estimate.
2. What is shown to be violated blocks; what is neither is inconclusive, with about how many cases would decide it.
3. The whole ships only where every rule is met.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

from farthing.policies.compare import FEWEST_IN_A_SLICE, ArmResult, CaseResult, Comparison, compare
from farthing.policies.estimate import Interval, cases_needed, mean, not_worse, quantile, ratio
from farthing.policies.nearest import did_you_mean
from farthing.proxy.errors import ConfigFault

__all__ = ["Gate", "Rule", "RuleVerdict", "Word", "decide", "gate_of"]

Word = Literal["ship", "block", "inconclusive"]
_SIDES = ("at_least", "at_most")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `kind`: accuracy, not_worse, must, must_not, overhead_ms, latency_ms, cost, traps or slices.

    `where`: (slice, value) pairs that its cases must have. `judge`: of its own, for accuracy; None: the gate's.
    """

    kind: str
    at_least: float | None = None
    at_most: float | None = None
    margin: float | None = None
    percentile: float = 0.99
    pattern: str = ""
    where: tuple[tuple[str, str], ...] = ()
    judge: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """In words, for screens and for JUnit."""
        place = " and ".join(f"{name}={value}" for name, value in self.where)
        told = {
            "accuracy": f"good answers at least {_percent(self.at_least)}",
            "not_worse": f"not worse than the baseline by {_percent(self.margin)}",
            "must": f"every answer holds /{self.pattern}/",
            "must_not": f"no answer holds /{self.pattern}/",
            "overhead_ms": f"own overhead at p{self.percentile * 100:g} at most {self.at_most:g} ms"
            if self.at_most
            else "",
            "latency_ms": f"latency at p{self.percentile * 100:g} at most {self.at_most:g} ms" if self.at_most else "",
            "cost": f"cost down by at least {_percent(self.at_least)}",
            "traps": f"traps reused wrongly at most {self.at_most or 0:g}",
            "slices": f"slices that got worse at most {self.at_most or 0:g}",
        }[self.kind]
        return f"{told}, where {place}" if place else told

    @property
    def check(self) -> Mapping[str, Any] | None:
        """The judge that must look at the candidate's answers for this rule alone; None: none."""
        if self.kind in ("must", "must_not"):
            return {"judge": "format", "min_chars": 0, "complete": False, self.kind: [self.pattern]}
        return self.judge


@dataclass(frozen=True, slots=True)
class Gate:
    """`dataset`, `candidate`, `baseline`: files beside the suite; `candidate` '' for the configuration in force,
    `baseline` '' for every optimisation off."""

    name: str
    dataset: str
    rules: tuple[Rule, ...]
    candidate: str = ""
    baseline: str = ""
    judge: Mapping[str, Any] = None  # type: ignore[assignment]
    level: float = 0.05
    margin: float = 0.02


class RuleVerdict(NamedTuple):
    """`needed`: cases in all that would decide it, about; 0: it is decided; None: more cases wouldn't."""

    rule: Rule
    word: Word
    why: str
    needed: int | None = 0


def gate_of(value: Any) -> Gate:
    """The gate that a suite's file declares. Raises ConfigFault with the path of the key that is wrong."""
    if not isinstance(value, dict):
        raise ConfigFault("a gate's suite is a table with dataset and rules")
    _known(value, [field.name for field in fields(Gate)], "")
    if not isinstance(value.get("dataset"), str) or not value["dataset"]:
        raise ConfigFault("dataset: the file with the cases is missing")
    rules = value.get("rules")
    if not isinstance(rules, list) or not rules:
        raise ConfigFault("rules: a list of at least one rule is missing")
    judge = value.get("judge", "agree")
    for name in ("name", "candidate", "baseline"):
        if not isinstance(value.get(name, ""), str):
            raise ConfigFault(f"{name}: must be a text")
    return Gate(
        str(value.get("name") or value["dataset"]),
        value["dataset"],
        tuple(_rule(one, f"rules[{at}]") for at, one in enumerate(rules)),
        value.get("candidate", ""),
        value.get("baseline", ""),
        judge if isinstance(judge, dict) else {"judge": str(judge)},
        _number(value, "level", "", 0.05, 0.0001, 0.5),
        _number(value, "margin", "", 0.02, 0.0001, 0.9999),
    )


_KINDS: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("at_least", "where", "judge"),
    "not_worse": ("margin", "where"),
    "must": ("pattern", "where"),
    "must_not": ("pattern", "where"),
    "overhead_ms": ("at_most", "percentile", "where"),
    "latency_ms": ("at_most", "percentile", "where"),
    "cost": ("at_least", "where"),
    "traps": ("at_most",),
    "slices": ("at_most",),
}
_NEEDED = {
    "accuracy": "at_least", "not_worse": "margin", "must": "pattern", "must_not": "pattern", "overhead_ms": "at_most",
    "latency_ms": "at_most", "cost": "at_least",
}  # fmt: skip


_BOUNDS = {"at_least": (0.0, 1.0), "margin": (0.0, 1.0), "percentile": (0.01, 0.9999)}


def _rule(value: Any, path: str) -> Rule:
    """`{kind: {...}}`, or `{kind: {...}}` with the one number that it needs in its place: `{accuracy: 0.95}`."""
    if not isinstance(value, dict) or len(value) != 1:
        raise ConfigFault(f"{path}: a rule is one kind with its table, as accuracy: {{at_least: 0.95}}")
    ((kind, given),) = value.items()
    _known({kind: 1}, list(_KINDS), path)
    main = _NEEDED.get(kind, "at_most")
    table = dict(given) if isinstance(given, dict) else {main: given}
    where = f"{path}.{kind}"
    _known(table, _KINDS[kind], where)
    if kind in _NEEDED and main not in table:
        raise ConfigFault(f"{where}.{main}: is missing")
    found: dict[str, Any] = {}
    for name in ("at_least", "at_most", "margin", "percentile"):
        if name in table:
            least, most = _BOUNDS.get(name, (0.0, math.inf))
            found[name] = _number(table, name, where, 0.0, least, most)
    if "pattern" in table:
        if not isinstance(table["pattern"], str) or not table["pattern"]:
            raise ConfigFault(f"{where}.pattern: must be a regular expression")
        found["pattern"] = table["pattern"]
    if "judge" in table:
        found["judge"] = table["judge"] if isinstance(table["judge"], dict) else {"judge": str(table["judge"])}
    places = table.get("where", {})
    if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
        raise ConfigFault(f'{where}.where: a table of slices, as {{"tag:team": search}}')
    return Rule(kind, where=tuple(places.items()), **found)


def decide(
    gate: Gate, results: Sequence[CaseResult], rng: np.random.Generator
) -> tuple[Word, tuple[RuleVerdict, ...], Comparison]:
    """The verdict, each rule's, and the comparison behind them. ValueError: no case of traffic among the results."""
    whole = compare(results, rng, gate.margin, gate.level)
    found = tuple(_decide(gate, rule, at, results, whole, rng) for at, rule in enumerate(gate.rules))
    if whole.unpaid:  # what was refused for want of the run's own money says nothing of either arm
        why = f"the run's money was used up: {whole.unpaid:,} cases weren't asked of both arms; raise --max-usd"
        found = tuple(RuleVerdict(one.rule, "inconclusive", why, None) for one in found)
    words = {one.word for one in found}
    word: Word = "block" if "block" in words else "inconclusive" if "inconclusive" in words else "ship"
    return word, found, whole


def _decide(
    gate: Gate, rule: Rule, at: int, results: Sequence[CaseResult], whole: Comparison, rng: np.random.Generator
) -> RuleVerdict:
    if rule.kind == "traps":
        if not whole.traps:
            return RuleVerdict(rule, "inconclusive", "the dataset has no traps", 1)
        reused = sum(trap.reused for trap in whole.traps)
        return _counted(rule, reused, f"{reused} of {sum(trap.cases for trap in whole.traps)} traps")
    if rule.kind == "slices":
        if not whole.slices:
            return RuleVerdict(
                rule, "inconclusive", f"no slice of {FEWEST_IN_A_SLICE} cases that isn't all of them", None
            )
        worse = [one for one in whole.slices if one.word == "worse"]
        named = ", ".join(f"{one.name}={one.value}" for one in worse[:5])
        return _counted(rule, len(worse), named or "none got surely worse")
    mine = [one for one in results if all(one.slices.get(name) == value for name, value in rule.where)]
    if rule.kind in ("must", "must_not"):
        return _held(rule, mine, str(at))
    mine = [one for one in mine if not one.source.startswith("generated:")]
    if not mine:
        return RuleVerdict(rule, "inconclusive", "no case of traffic belongs to it", 1)
    weights = [one.weight for one in mine]
    if rule.kind == "accuracy":
        scores = [one.candidate.counted if rule.judge is None else one.checks.get(str(at)) or 0.0 for one in mine]
        return _above(
            rule, mean(scores, rng, weights, 2 * gate.level, (0.0, 1.0)), rule.at_least or 0.0, scores, gate.level
        )
    if rule.kind == "not_worse":
        told = [one for one in mine if one.answered]
        ones, others = [one.candidate.counted for one in told], [one.baseline.counted for one in told]
        found = not_worse(ones, others, rule.margin or 0.0, rng, [one.weight for one in told], gate.level)
        if not told:
            return RuleVerdict(rule, "inconclusive", "neither arm answered any of it", None)
        word: Word = {"not worse": "ship", "worse": "block"}.get(found.word, "inconclusive")  # type: ignore[assignment]
        apart = found.difference
        return RuleVerdict(rule, word, f"{apart.value:+.1%} ({apart.low:+.1%} to {apart.high:+.1%})", found.needed)
    if rule.kind == "cost":
        return _cost(rule, mine, weights, rng, gate.level)
    values = [_waited_ms(one.candidate, rule.kind) for one in mine]
    return _below(rule, quantile(values, rule.percentile, 2 * gate.level), rule.at_most or 0.0, gate.level)


def _held(rule: Rule, mine: Sequence[CaseResult], check: str) -> RuleVerdict:
    """Of a pattern. What never came breaks no rule and keeps none."""
    if not mine:
        return RuleVerdict(rule, "inconclusive", "no case belongs to it", 1)
    came = [one for one in mine if one.candidate.status == 200]
    bad = [one for one in came if one.checks.get(check) != 1.0]
    told = f"{len(bad):,} of {len(came):,} answers break it" + (f": {bad[0].id}" if bad else "")
    if bad or len(came) == len(mine):
        return RuleVerdict(rule, "block" if bad else "ship", told)
    return RuleVerdict(rule, "inconclusive", f"{told}; {len(mine) - len(came):,} never came", None)


def _waited_ms(one: ArmResult, kind: str) -> float:
    """An answer that never came is waited for in vain: a quick failure is no quick answer."""
    if one.status != 200:
        return math.inf
    return one.overhead_ms if kind == "overhead_ms" else one.latency_ms


def _cost_of(one: CaseResult) -> int | None:
    """The candidate's cost of a case; what failed saves nothing."""
    mine, theirs = one.candidate.cost_pico, one.baseline.cost_pico
    return mine if one.candidate.status == 200 or mine is None or theirs is None else max(mine, theirs)


def _counted(rule: Rule, count: int, told: str) -> RuleVerdict:
    return RuleVerdict(rule, "ship" if count <= (rule.at_most or 0) else "block", f"{count}: {told}")


def _above(rule: Rule, found: Interval, floor: float, scores: Sequence[float], level: float) -> RuleVerdict:
    told = f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%}) of {len(scores):,}"
    if found.low >= floor:
        return RuleVerdict(rule, "ship", told)
    if found.high < floor:
        return RuleVerdict(rule, "block", told)
    room = found.value - floor
    if room <= 0:
        return RuleVerdict(rule, "inconclusive", told, None)
    spread = max(float(np.std(scores)), math.sqrt(max(floor * (1 - floor), 1e-6)))
    return RuleVerdict(rule, "inconclusive", told, max(len(scores) + 1, cases_needed(spread, room, level, sides=1)))


def _below(rule: Rule, found: Interval, ceiling: float, level: float) -> RuleVerdict:
    high = f"{found.high:,.1f}" if math.isfinite(found.high) else "unknown"
    told = f"{found.value:,.1f} ms ({found.low:,.1f} to {high})"
    if found.high <= ceiling:
        return RuleVerdict(rule, "ship", told)
    if found.low > ceiling:
        return RuleVerdict(rule, "block", told)
    # The least sample whose largest value bounds the percentile: share^n <= level.
    least = math.ceil(math.log(level) / math.log(rule.percentile))
    return RuleVerdict(rule, "inconclusive", told, least if found.value <= ceiling else None)


def _cost(
    rule: Rule, mine: Sequence[CaseResult], weights: Sequence[float], rng: np.random.Generator, level: float
) -> RuleVerdict:
    pairs = [(_cost_of(one), one.baseline.cost_pico) for one in mine]
    if any(cost is None for pair in pairs for cost in pair):
        return RuleVerdict(rule, "inconclusive", "a price is unknown", None)
    if not any(theirs for _, theirs in pairs):
        return RuleVerdict(rule, "inconclusive", "the baseline cost nothing", None)
    found = ratio(
        [float(pair[0] or 0) for pair in pairs], [float(pair[1] or 0) for pair in pairs], rng, weights, 2 * level
    )
    down = Interval(1 - found.value, 1 - found.high, 1 - found.low)
    low = f"{down.low:.1%}" if math.isfinite(down.low) else "unknown"
    wanted, told = rule.at_least or 0.0, f"{down.value:.1%} down ({low} to {down.high:.1%})"
    if down.low >= wanted:
        return RuleVerdict(rule, "ship", told)
    if down.high < wanted:
        return RuleVerdict(rule, "block", told)
    return RuleVerdict(rule, "inconclusive", told, None if down.value < wanted else max(20, 4 * len(mine)))


def _known(table: Mapping[str, Any], names: Sequence[str], path: str) -> None:
    for key in table:
        if key not in names:
            raise ConfigFault(f"{path}{'.' if path else ''}{key}: unknown key" + did_you_mean(str(key), names))


def _number(table: Mapping[str, Any], name: str, path: str, default: float, least: float, most: float) -> float:
    value = table.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        bounds = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of at least {least:g}"
        raise ConfigFault(f"{path}{'.' if path else ''}{name}: must be a number {bounds}")
    return float(value)


def _percent(share: float | None) -> str:
    return f"{share or 0:.4g}" if share is None else f"{100 * share:g} %"
