"""What policies learn where replicas share a store: all learn the same, from the labels of all.

Rules of this file:
1. What is agreed upon (agreed.py) is the policy itself: each decision, label and reset goes into the log, and every
   replica's `_agreed` takes them in the log's order.
2. A replica decides on a policy of its own, `inner`, which has taken in what was told here, whatever the log has seen
   of it: so a wrong answer counts here at once, though the server may be away. At each mark it is made anew from what
   all agree upon.
3. Until a replica has had what all know, and where too much waits for the server, nothing is served and nothing learnt:
   what nobody can be told of proves nothing.
4. What serves without proof (semantic.unproven) has nothing to agree upon.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import orjson
import structlog

from farthing.policies.reuse import Candidate, Label, Policy, RouteKey, Verdict, whole
from farthing.policies.static import Static
from farthing.policies.verified import TakenBack, TakesBack
from farthing.proxy.agreed import Agreed
from farthing.proxy.agreement import Agreement
from farthing.proxy.config_section import Section
from farthing.proxy.learnt import Recipe, named_after
from farthing.proxy.learnt_told import AWAY, Deciding, decided, forgotten, labelled, take
from farthing.proxy.version import version

__all__ = ["AgreedPolicy", "SharedLearning"]

log = structlog.get_logger("farthing.learnt")

S = TypeVar("S", bound=Section)
_NAME_DIGITS = 16


class AgreedPolicy(Deciding):
    """The policy of one replica, and a Machine of what all agree upon: see the module. `new`: one that knows nothing.
    `first`: what this replica knows when it joins, which is what all begin with where nobody has been here before."""

    def __init__(self, new: Callable[[], Policy], first: Policy) -> None:
        super().__init__(first)
        self.log: Agreed | None = None
        self.on_taken_back: TakenBack | None = None
        self._new = new
        self._own = False  # what is being applied was told here, and comes back for the first time
        self._agreed = new()
        self._agreed.load(first.dump())
        self._listen()

    @property
    def known(self) -> Policy:
        """What all agree upon."""
        return self._agreed

    @property
    def can_tell(self) -> bool:
        """Whether this replica knows what all know, and what is told now will reach them."""
        return self.log is not None and self.log.state.current and not self.log.full and not self.log.closed

    def decide(self, route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool = True) -> Verdict:
        """See reuse.Policy."""
        if not self.can_tell:
            return AWAY
        self._tell(decided(route, candidate, chance, may_audit=may_audit))
        return self.inner.decide(route, candidate, chance, may_audit=may_audit)

    def serves(self, route: RouteKey) -> bool:
        """See reuse.Policy."""
        return self.can_tell and self.inner.serves(route)

    def learn(self, route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> None:
        """See reuse.Policy."""
        if self.can_tell:
            self._tell(labelled(route, candidate, verdict, label))
            self.inner.learn(route, candidate, verdict, label)

    def forget(self, route: RouteKey) -> None:
        """See reuse.Policy. What an operator says counts in any case, and is told however much waits."""
        if self.log is not None:
            self.log.tell(forgotten(route), always=True)
        self.inner.forget(route)

    # As a Machine.

    def apply(self, event: Any, *, own: bool) -> None:
        """Machine.apply."""
        self._own = own
        for policy in (self._agreed, *(() if own else (self.inner,))):
            try:
                take(policy, event)
            except (ValueError, TypeError, KeyError) as error:
                log.warning("a word of another replica's can't be understood", error=repr(error))
                return

    def slices(self) -> Iterator[Any]:
        """Machine.slices."""
        return (list(part) for part in self._agreed.dump_slices())

    async def put(self, slices: Sequence[Any]) -> None:
        """Machine.put."""
        self._agreed = await self._loaded(lambda: slices)
        self._listen()

    async def stands(self, slices: Callable[[], Sequence[Any]], waiting: Callable[[], list[Any]]) -> None:
        """Machine.stands: the policy that decides is made anew from it."""
        own = waiting()  # many, after an outage
        fresh = await self._loaded(slices, own)
        for event in waiting()[len(own) :]:  # told meanwhile
            take(fresh, event)
        self.inner = fresh

    async def _loaded(self, slices: Callable[[], Sequence[Any]], events: Sequence[Any] = ()) -> Policy:
        """The policy of this state, and what these events make of it. Raises ValueError: it is no such policy's."""
        fresh = self._new()

        def load() -> None:
            fresh.load(whole((name, value) for name, value in slices()))
            for event in events:
                take(fresh, event)

        try:
            await asyncio.to_thread(load)
        except (KeyError, TypeError, ArithmeticError) as error:
            raise ValueError(f"not this policy's state: {error!r}") from error
        return fresh

    def _listen(self) -> None:
        """Where a route is taken back for all, the replica whose word it was tells its operator, and no other one."""
        if isinstance(self._agreed, TakesBack):
            heard = weakref.WeakMethod(self._taken_back)  # who answers by it alone keeps it alive

            def tell(route: RouteKey, why: str, evidence: dict[str, Any]) -> None:
                if (taken_back := heard()) is not None:
                    taken_back(route, why, evidence)

            self._agreed.on_taken_back = tell

    def _taken_back(self, route: RouteKey, why: str, evidence: dict[str, Any]) -> None:
        if self._own and self.on_taken_back is not None:
            self.on_taken_back(route, why, evidence)

    def _tell(self, event: list[Any]) -> None:
        if self.log is not None:
            self.log.tell(event)


class Weakly:
    """A Machine that holds its policy only as long as somebody else does: whoever answers by it."""

    def __init__(self, policy: AgreedPolicy) -> None:
        self._policy = weakref.ref(policy)

    def apply(self, event: Any, *, own: bool) -> None:
        """Machine.apply."""
        if (policy := self._policy()) is not None:
            policy.apply(event, own=own)

    def slices(self) -> Iterator[Any]:
        """Machine.slices."""
        policy = self._policy()
        return iter(()) if policy is None else policy.slices()

    async def put(self, slices: Sequence[Any]) -> None:
        """Machine.put."""
        if (policy := self._policy()) is not None:
            await policy.put(slices)

    async def stands(self, slices: Callable[[], Sequence[Any]], waiting: Callable[[], list[Any]]) -> None:
        """Machine.stands."""
        if (policy := self._policy()) is not None:
            await policy.stands(slices, waiting)


class SharedLearning:
    """A Sharing with all replicas that have the same settings, and the same farthing."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement

    def join(self, recipe: Recipe[S], settings: S, policy: Policy) -> Policy:
        """Sharing.join. It is followed until nobody holds it any more: several may be in use at a time."""
        if recipe.off(settings) or isinstance(policy, Static):
            return policy
        joined = AgreedPolicy(lambda: recipe.new(settings), policy)
        form = orjson.dumps(next(iter(policy.dump_slices()))).decode()
        about = [
            recipe.about,
            recipe.kind(settings),
            recipe.made_with(settings),
            named_after(settings),
            form,
            version(),
        ]
        name = hashlib.sha256("\0".join(about).encode()).hexdigest()[:_NAME_DIGITS]
        joined.log = self._agreement.join(f"learnt:{name}", Weakly(joined))
        weakref.finalize(joined, self._agreement.leave, joined.log).atexit = False
        return joined
