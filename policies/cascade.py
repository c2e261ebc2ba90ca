"""What a route means for one request: whom to try first and check, and whom to ask in turn until one answers. Pure.

Rules of this file:
1. The model that was asked for, at the default upstream, ends every route's chain that doesn't hold it already. Who
   names a variant itself asks for that one: its failure is the answer, and nobody else is asked in its place.
2. A streamed request is checked only where its route says that streams are held back; else the last variant of the
   cascade answers it as it comes. A student answers streams too: it needs no check, and is there at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farthing.policies.routes import Route
from farthing.policies.variant import Needs, Variant, unfit

__all__ = ["ASKED", "Allowance", "Course", "after_failure", "course"]

ASKED = None
"""The leg that is the client's own request: its model, at the default upstream."""

Leg = Variant | None


@dataclass(frozen=True, slots=True)
class Course:
    """`tries`: each is asked for a whole answer, which is checked; `chain`: asked in turn, passed on as it comes.

    `passed_over`: would be tried, but that the answer is a stream, which the route doesn't hold back.
    """

    tries: tuple[Variant, ...]
    chain: tuple[Leg, ...]
    passed_over: tuple[Variant, ...] = ()


def course(route: Route | None, order: Sequence[Variant], needs: Needs, model: str, *, stream: bool) -> Course:
    """The course of a request for `model`. `order`: of choose.Choice; empty: the asked-for model alone.

    `route` None: the client named the variant.
    """
    if route is None and order:
        return Course((), (ASKED if order[0].is_plainly(model) else order[0],))
    tries: tuple[Variant, ...] = ()
    passed_over: tuple[Variant, ...] = ()
    if order and route is not None and route.strategy == "cascade":
        holds = not stream or route.accept.streams == "hold"
        last = [one for one in order[-1:] if not one.student]  # it abstains, where its teacher doesn't fit the request
        cheaper = order[: len(order) - len(last)]
        tries = tuple(one for one in cheaper if holds or one.student)
        passed_over = () if holds else tuple(one for one in cheaper if not one.student)
        order = last
    fallbacks = [] if route is None or not order else [one for one in route.fallbacks if not unfit(one, needs)]
    chain: list[Leg] = [ASKED if one.is_plainly(model) else one for one in (*order, *fallbacks)]
    if ASKED not in chain:
        chain.append(ASKED)
    return Course(tries, tuple(dict.fromkeys(chain)), passed_over)


def after_failure(chain: Sequence[Leg], place: int, failure: str, on: frozenset[str]) -> int | None:
    """The place of the next leg after that at `place` failed with the class `failure`; None: none is left."""
    if failure in on:
        return place + 1 if place + 1 < len(chain) else None
    if ASKED not in chain[place + 1 :]:
        return None  # what the asked-for model, or the variant that was named, says itself is the answer
    return chain.index(ASKED, place)


@dataclass(slots=True)
class Allowance:
    """Bounds second calls: one at first, and then no more than `share` of the requests. Mutable; not thread-safe."""

    share: float
    left: float = 1.0
    most: float = 10.0

    def earn(self) -> None:
        """One request more."""
        self.left = min(self.most, self.left + self.share)

    def take(self) -> bool:
        """Whether a second call may be made now; then it counts."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
