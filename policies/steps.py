"""From gentle to bold, one step at a time: how far may a lossy optimisation go on a route? Pure.

Each step has evidence of its own, gathered while nothing bolder is served. A step serves only while every gentler one
does: so the tests are a fixed sequence, each at the operator's whole level, and with probability 1 - level no step
serves whose rate is at or above the claim (Maurer, Hothorn & Lehmacher 1995; Wiens 2003, without the fallback).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from farthing.policies.reuse import Candidate, Label, Policy, RouteKey, RouteState, Verdict

__all__ = ["Chain", "Step"]


class Step(NamedTuple):
    """One way of optimising, and the policy that keeps its evidence; several steps may share a policy."""

    name: str
    policy: Policy


class Chain:
    """Steps in the order in which they have to be proved."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)

    def proved(self, route: RouteKey) -> int:
        """How many steps may serve: the first so many."""
        for count, step in enumerate(self.steps):
            if not step.policy.serves(key(route, step)):
                return count
        return len(self.steps)

    def decide(self, route: RouteKey, at: int, chance: float, *, may_audit: bool) -> Verdict:
        """What to do at step `at` with one request that it changes. `chance`: as of reuse.Policy."""
        step = self.steps[at]
        return step.policy.decide(key(route, step), WHOLE, chance, may_audit=may_audit)

    def learn(self, route: RouteKey, at: int, verdict: Verdict, label: Label) -> None:
        """What came of a verdict at step `at`."""
        step = self.steps[at]
        step.policy.learn(key(route, step), WHOLE, verdict, label)

    def version(self, route: RouteKey) -> str:
        """Another one whenever some step of the route was taken back: what was decided before counts no more.

        A step that starts its evidence anew before it has ever served changes nothing: nothing was decided under it.
        """
        known = [step.policy.state_of(key(route, step)) for step in self.steps]
        return ".".join([str(one.taken_back) if one is not None else "0" for one in known])

    def states(self, route: RouteKey) -> list[tuple[str, RouteState | None]]:
        """What is known of each step, for a screen; None: no request has been compared there."""
        return [(step.name, step.policy.state_of(key(route, step))) for step in self.steps]

    def routes(self, most: int) -> list[RouteKey]:
        """Those of which something is known, `most` of them, the latest used first. Where steps have several policies
        theirs are taken in turn: each knows the order of its own, and none knows the time."""
        names = {step.name for step in self.steps}
        policies = {id(step.policy): step.policy for step in self.steps}.values()
        orders = [[_of(state.route, names) for state in policy.state(most * len(names))] for policy in policies]
        found = dict.fromkeys(route for turn in zip_longest(*orders) for route in turn if route is not None)
        return list(found)[:most]


def key(route: RouteKey, step: Step) -> RouteKey:
    """Where a step's evidence on a route is kept. Steps are different worlds: they share no pool."""
    return RouteKey(f"{route.tenant}#{step.name}", route.name)


WHOLE = Candidate("", 1.0, 1.0)
"""Nothing is scored here: what a step changes is served, or it isn't."""


def _of(kept: RouteKey, names: set[str]) -> RouteKey | None:
    """The route whose evidence at one of these steps is kept there."""
    tenant, _, name = kept.tenant.rpartition("#")
    return RouteKey(tenant, kept.name) if name in names else None
