"""A policy that decides here, and what is learnt somewhere else: what is told of it, and how that is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from farthing.policies.reuse import Action, Candidate, Label, Policy, RouteKey, RouteState, Slice, Source, Verdict

__all__ = ["AWAY", "Deciding", "decided", "forgotten", "labelled", "take"]

AWAY = Verdict(Action.OBSERVE, "the other replicas can't be told", weight=0.0, pool_weight=0.0)
"""Where nobody can be told what comes of it: it proves nothing."""


def decided(route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool) -> list[Any]:
    """What is told of `decide`."""
    return ["decide", list(route), asdict(candidate), chance, may_audit]


def labelled(route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> list[Any]:
    """What is told of `learn`."""
    return ["learn", list(route), asdict(candidate), asdict(verdict), [label.outcome, label.source.value]]


def forgotten(route: RouteKey) -> list[Any]:
    """What is told of `forget`."""
    return ["forget", list(route)]


def take(policy: Policy, said: list[Any]) -> None:
    """Do with this policy what was done with another one. Raises ValueError, TypeError or KeyError: it isn't such a
    word."""
    what, route, *rest = said
    place = RouteKey(*route)
    match what, rest:
        case "decide", [candidate, chance, may_audit]:
            policy.decide(place, Candidate(**candidate), chance, may_audit=may_audit)
        case "learn", [candidate, verdict, [outcome, source]]:
            taken = Verdict(**verdict | {"action": Action(verdict["action"])})
            policy.learn(place, Candidate(**candidate), taken, Label(outcome, Source(source)))
        case "forget", []:
            policy.forget(place)


class Deciding:
    """What a Policy that stands before another one, `inner`, passes on to it. `known`: what screens
    are of."""

    def __init__(self, inner: Policy) -> None:
        self.inner = inner

    @property
    def known(self) -> Policy:
        """What is known."""
        return self.inner

    @property
    def entries(self) -> Literal["misses", "wrong"]:
        """See reuse.Policy."""
        return self.inner.entries

    def serves(self, route: RouteKey) -> bool:
        """See reuse.Policy."""
        return self.inner.serves(route)

    @property
    def count(self) -> int:
        """See reuse.Policy."""
        return self.known.count

    def state(self, most: int | None = None) -> list[RouteState]:
        """See reuse.Policy."""
        return self.known.state(most)

    def state_of(self, route: RouteKey) -> RouteState | None:
        """See reuse.Policy."""
        return self.known.state_of(route)

    def dump_slices(self) -> Iterator[Slice]:
        """See reuse.Policy."""
        return self.inner.dump_slices()

    def dump(self) -> dict[str, Any]:
        """See reuse.Policy."""
        return self.inner.dump()

    def load(self, dumped: dict[str, Any]) -> None:
        """See reuse.Policy."""
        self.inner.load(dumped)
