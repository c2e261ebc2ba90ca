"""Reuse above a fixed score, whatever comes of it: what most semantic caches do. Pure.

It serves without any proof, so its verdicts say 'unproven'. It still audits a share of its hits, so that a screen can
show how wrong they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from farthing.policies.reuse import (
    Action,
    Bound,
    Candidate,
    Label,
    Mode,
    RouteKey,
    RouteState,
    Slice,
    Source,
    Verdict,
    slices,
    whole,
)  # fmt: skip
from farthing.policies.sequence import NOTHING, Evidence, upper

__all__ = ["Static"]


class Static:
    """See reuse.Policy. `on`: which of a candidate's two figures is held against `threshold`."""

    entries: Literal["misses", "wrong"] = "misses"

    def __init__(
        self,
        threshold: float,
        *,
        on: Literal["score", "cosine"] = "cosine",
        bound: Bound,
        mode: Mode = "observe",
        audit_share: float = 0.05,
        max_routes: int = 10_000,
    ) -> None:
        self.threshold, self.on, self.bound, self.mode = threshold, on, bound, mode
        self.audit_share, self.max_routes = audit_share, max_routes
        self._routes: OrderedDict[RouteKey, tuple[Evidence, int]] = OrderedDict()  # evidence, hits served

    def decide(self, route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool = True) -> Verdict:
        """See reuse.Policy. A figure that is no number never passes."""
        if self.mode == "off":
            return Verdict(Action.OBSERVE, "off", weight=0.0)
        evidence, served = self._routes.pop(route, (NOTHING, 0))
        serves = self.mode == "serve" and self._passes(candidate)
        self._routes[route] = evidence, served + serves
        if len(self._routes) > self.max_routes:
            self._routes.popitem(last=False)
        if not self._passes(candidate):
            return Verdict(Action.OBSERVE, "below the threshold", threshold=self.threshold, weight=0.0)
        share = self.audit_share if may_audit else 0.0
        audit = serves and chance < share
        return Verdict(
            Action.SERVE if serves else Action.OBSERVE,
            "unproven" if serves else "would serve, unproven",
            audit=audit,
            wrong=(evidence.bad + 0.5) / (evidence.seen + 1.0),
            threshold=self.threshold,
            label_chance=share if serves else 1.0,
            weight=float(audit or not serves),
        )

    def serves(self, route: RouteKey) -> bool:
        """See reuse.Policy."""
        return self.mode == "serve"

    def learn(self, route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> None:
        """See reuse.Policy. Changes what is shown, never what is served."""
        if route not in self._routes or not self._passes(candidate):
            return
        evidence, served = self._routes[route]
        if label.source is Source.COMPARISON:
            self._routes[route] = evidence.add(label.outcome, verdict.weight), served
        elif label.outcome >= 0.5:
            self._routes[route] = evidence.complained(), served

    def forget(self, route: RouteKey) -> None:
        """See reuse.Policy."""
        self._routes.pop(route, None)

    @property
    def count(self) -> int:
        """See reuse.Policy."""
        return len(self._routes)

    def state(self, most: int | None = None) -> list[RouteState]:
        """See reuse.Policy. The bound shown is measured, and not acted on."""
        return [self._state(route, *known) for route, known in islice(reversed(self._routes.items()), most)]

    def state_of(self, route: RouteKey) -> RouteState | None:
        """See reuse.Policy."""
        return self._state(route, *self._routes[route]) if route in self._routes else None

    def _state(self, route: RouteKey, evidence: Evidence, served: int) -> RouteState:
        return RouteState(
            route=route,
            serving=self.mode == "serve",
            proof="unproven",
            threshold=self.threshold,
            bound=upper(evidence, self.bound.level),
            labels=evidence.seen,
            wrong=evidence.bad,
            needed=None,
            epoch=0,
            served=served,
            drift=0.0,
            reason="a fixed threshold",
            own_labels=evidence.seen,
            own_wrong=evidence.bad,
        )

    def dump_slices(self) -> Iterator[Slice]:
        """See reuse.Policy."""
        yield from (("version", 1), ("policy", "static"), ("routes", []))
        for part in slices(list(self._routes)):
            known = [(route, *self._routes[route]) for route in part if route in self._routes]
            yield "routes", [[*route, one.seen, one.bad, served] for route, one, served in known]

    def dump(self) -> dict[str, Any]:
        """See reuse.Policy."""
        return whole(self.dump_slices())

    def load(self, dumped: dict[str, Any]) -> None:
        """See reuse.Policy."""
        try:
            if dumped["version"] != 1 or dumped["policy"] != "static":
                raise ValueError("another version")
            routes = OrderedDict(
                (RouteKey(str(tenant), str(name)), (Evidence(float(seen), float(bad)), int(served)))
                for tenant, name, seen, bad, served in dumped["routes"]
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not this policy's state: {error}") from error
        self._routes = routes

    def _passes(self, candidate: Candidate) -> bool:
        return (candidate.cosine if self.on == "cosine" else candidate.score) >= self.threshold
