"""The route stage: which model serves. `RouteStage` knows the request's own wish; `RoutingStage` the routes too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from farthing.policies.variant import Variant
from farthing.proxy.account import dollars
from farthing.proxy.config_routes import target_of
from farthing.proxy.errors import ClientFault
from farthing.proxy.exchange import GO_ON, Exchange, Quiet, Verdict

if TYPE_CHECKING:
    from farthing.proxy.route_shadow import RouteShadow
    from farthing.proxy.routing import Plan, Routing
    from farthing.proxy.students import Students

__all__ = ["RouteStage", "RoutingStage"]


@dataclass(slots=True)
class RouteStage(Quiet):
    """Which model serves: the one asked for, the one that `x-farthing-route` names, or none at all."""

    name: str = field(default="route", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict:
        """Name the other model, for the upstream stage to put in.

        Raises ClientFault: 504 where only what is cached was asked for, since no cache has answered by now; 400.
        """
        refuse_uncached(ex)
        self._by_header(ex, ex.controls.route)
        return GO_ON

    def _by_header(self, ex: Exchange, wanted: str) -> None:
        if not wanted or wanted == ex.model or not ex.optimise:
            return
        if ex.body is None or ex.exact is None:
            raise ClientFault(
                "x-farthing-route needs a JSON body with a model", code="invalid_route", param="x-farthing-route"
            )
        ex.variant = Variant(wanted, wanted)
        ex.decide(self.name, "routed", wanted)


@dataclass(slots=True)
class RoutingStage(RouteStage):
    """The same where there are variants, routes or aliases. A route that observes is told at the end, with what its
    choice would have cost; and students learn from whoever answered."""

    routing: Routing
    students: Students | None = None
    shadow: RouteShadow | None = field(default=None, init=False)

    def on_request(self, ex: Exchange) -> Verdict:
        """Choose whom to ask. Raises as RouteStage does."""
        refuse_uncached(ex)
        if ex.variant is not None:
            return GO_ON  # asked once more in the same way
        plan: Plan | None = ex.plan
        if plan is None:
            self._by_header(ex, target_of(self.routing.aliases, ex.controls.route))
            return GO_ON
        try:
            plan.choice = plan.choice or self.routing.choose(ex, plan)
        except Exception as error:  # noqa: BLE001 - a choice that can't be made must not fail the request
            ex.plan = None
            ex.decide(self.name, "error", type(error).__name__)
            return GO_ON
        if plan.serves:
            ex.led = plan.route if plan.choice.order else None
            ex.decide(self.name, "routed" if plan.choice.order else "not routed", told(plan))
        return GO_ON

    def on_end(self, ex: Exchange) -> None:
        """What an observing route would have done, and what the model that was asked for would have said."""
        if self.students is not None:
            self.students.ended(ex)
        plan: Plan | None = ex.plan
        if self.shadow is not None and self._elsewhere(ex):
            self.shadow.ended(ex)
        elif self.shadow is not None and plan is not None and _compares(plan) and _asked_upstream(ex):
            self.shadow.held_back(ex, replace(plan, route=plan.held_back, held_back=None, choice=None))
        if plan is None or plan.serves or plan.choice is None or ex.call is None or ex.call.served is not None:
            return
        if not plan.choice.order:
            ex.decide(self.name, "would not route", told(plan))
            return
        usage, first, at_s = ex.call.usage, plan.choice.order[0], ex.received_s
        price = None if usage is None else self.routing.rates.at(first.upstream).price(first.model, usage, at_s)
        cost = "at a price that isn't known" if price is None else f"for ${dollars(price.pico)}"
        ex.decide(self.name, "would route", f"{told(plan)}, {cost}")

    def _elsewhere(self, ex: Exchange) -> bool:
        """Whether a route, and not the client, had another model answer than the one that was asked for."""
        routing = self.routing
        if not _asked_upstream(ex) or ex.controls.route:
            return False
        if ex.model in routing.aliases or ex.model in routing.variants:
            return False
        return routing.elsewhere(ex.model, ex.call)


def _compares(plan: Plan) -> bool:
    """Whether the route observes, and shadows say whether it may serve; one that leads nowhere has nothing to show."""
    return plan.held_back is not None and plan.choice is not None and bool(plan.choice.order)


def _asked_upstream(ex: Exchange) -> bool:
    """Whether the answer is an upstream's own, and no stored one."""
    return ex.call is not None and ex.call.served is None


def refuse_uncached(ex: Exchange) -> None:
    """Raises ClientFault 504 where only what is cached was asked for."""
    if ex.controls.only_if_cached and not ex.controls.off:
        raise ClientFault(
            "nothing is cached for this request and only-if-cached was asked for", status=504, code="not_cached"
        )


def told(plan: Plan) -> str:
    """The choice in words."""
    choice = plan.choice
    assert choice is not None
    whose = "" if plan.route is None else f"{plan.route.name}: "
    to = f"{choice.order[0].name}, " if choice.order else ""
    return f"{whose}{to}{choice.why}"
