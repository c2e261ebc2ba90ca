"""What strategies cost at equal measured quality, over answers that real variants have given. Pure.

Rules of this file: a setting is chosen on the first half of each task's texts and scored on the second; where nothing
reaches the wanted quality there, the full model serves. `choose` is the proxy's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from farthing.policies.choose import Standing, choose
from farthing.policies.routes import Conditions, Route
from farthing.policies.variant import Needs, Variant

__all__ = ["Asked", "Way", "cascade", "cheapest", "chosen", "fixed", "kept"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's answer by one variant. `cost`: in any unit. `same`: whether it says what the full model says."""

    cost: float
    sure: float
    same: bool


Task = Mapping[str, Sequence[Asked]]  # by variant's name; `full` is among them


@dataclass(frozen=True, slots=True)
class Way:
    """A strategy's share of the full model's cost, and of its answers. `setting`: what was chosen, in words."""

    cost: float
    quality: float
    escalated: float = 0.0
    setting: str = ""


def kept(full: Sequence[Asked], lesser: Sequence[Asked], at_least: float) -> Way:
    """A cascade that keeps answers of at least that confidence. Above 1: none is kept, and the lesser isn't asked."""
    if at_least > 1:
        return Way(1.0, 1.0, 1.0)
    cost, good, escalated = 0.0, 0, 0
    for one, other in zip(full, lesser, strict=True):
        cost += other.cost
        if other.sure >= at_least:
            good += other.same
        else:
            cost, good, escalated = cost + one.cost, good + 1, escalated + 1
    return Way(cost / sum(one.cost for one in full), good / len(full), escalated / len(full))


def chosen(full: Sequence[Asked], lesser: Sequence[Asked], wanted: float) -> float:
    """The confidence at which the cascade is cheapest with at least the wanted quality; above 1 where none is."""
    levels = sorted({0.0, *(one.sure for one in lesser), 2.0})
    found = [(kept(full, lesser, level), level) for level in levels]
    return min((way.cost, level) for way, level in found if way.quality >= wanted)[1]


def fixed(tasks: Mapping[str, Task], wanted: float) -> Way:
    """One variant for the whole workload: the cheapest that is good enough over all of it."""
    halves = {name: _halves(task) for name, task in tasks.items()}
    names = list(next(iter(tasks.values())))
    firsts = {name: [one for first, _ in halves.values() for one in first[name]] for name in names}
    name = _cheapest(names, firsts, wanted)
    return replace(_together([(late["full"], late[name]) for _, late in halves.values()]), setting=name)


def cheapest(tasks: Mapping[str, Task], wanted: float) -> Way:
    """A route for each task, strategy `cheapest` with `min_quality`: the cheapest that is good enough at that task."""
    picked = {}
    for task, asked in tasks.items():
        first, late = _halves(asked)
        picked[task] = (_cheapest(list(asked), first, wanted), late)
    way = _together([(late["full"], late[name]) for name, late in picked.values()])
    return replace(way, setting=", ".join(f"{task}: {name}" for task, (name, _) in picked.items()))


def cascade(tasks: Mapping[str, Task], wanted: float) -> Way:
    """A route for each task, strategy `cascade`: the lesser variant and confidence that are cheapest together."""
    ways, settings = [], []
    for task, asked in tasks.items():
        first, late = _halves(asked)
        tried = []
        for name in (name for name in asked if name != "full"):
            level = chosen(first["full"], first[name], wanted)
            tried.append((kept(first["full"], first[name], level).cost, name, level))
        _, name, level = min(tried)
        ways.append((sum(one.cost for one in late["full"]), len(late["full"]), kept(late["full"], late[name], level)))
        settings.append(f"{task}: " + ("full alone" if level > 1 else f"{name} at {level:.2f}, full"))
    total, count = sum(cost for cost, _, _ in ways), sum(number for _, number, _ in ways)
    return Way(
        sum(cost * way.cost for cost, _, way in ways) / total,
        sum(number * way.quality for _, number, way in ways) / count,
        sum(number * way.escalated for _, number, way in ways) / count,
        ", ".join(settings),
    )


def _cheapest(names: Sequence[str], first: Mapping[str, Sequence[Asked]], wanted: float) -> str:
    variants = [Variant(name, name, quality=sum(one.same for one in first[name]) / len(first[name])) for name in names]
    mean = {name: sum(one.cost for one in first[name]) / len(first[name]) for name in names}
    route = Route("task", Conditions(), "cheapest", tuple(variants), min_quality=wanted)
    choice = choose(route, Needs(), lambda variant: Standing(usd=mean[variant.name]), 0.0, 0.0)
    return choice.order[0].name  # the full one is as good as itself, so there is always one


def _halves(task: Task) -> tuple[dict[str, Sequence[Asked]], dict[str, Sequence[Asked]]]:
    half = len(task["full"]) // 2
    return {name: told[:half] for name, told in task.items()}, {name: told[half:] for name, told in task.items()}


def _together(pairs: Sequence[tuple[Sequence[Asked], Sequence[Asked]]]) -> Way:
    full = [one for each, _ in pairs for one in each]
    mine = [one for _, each in pairs for one in each]
    return Way(sum(one.cost for one in mine) / sum(one.cost for one in full), sum(one.same for one in mine) / len(mine))
