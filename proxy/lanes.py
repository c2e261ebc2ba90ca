"""Which policy answers a request: the active one, or a candidate that is rolled out beside it.

A *lane* is a policy's version built into `Services`; lanes share everything in `State` (store, ledger, budgets, the
limit on requests under way) and nothing else: each has flights and a short way of hits of its own, so that no answer
crosses over which the other policy would not give. A request ends in the lane that it began in.

Experiments and hold-outs (experiments.py) are *parts* of the traffic that are taken out first, each with a lane for
every arm; what is left is the active policy's and the candidate's.

The mutable state is `active`, `candidate` and `split`, which `Rollouts` (rollouts.py) alone changes, and `parts`, which
`Experiments` alone does, each under its lock.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aiohttp import web

from farthing.policies.assign import Unit, arm_of, point_of
from farthing.proxy.body import IncomingBody
from farthing.proxy.build import Services, build
from farthing.proxy.clock import Randomness
from farthing.proxy.config import Config
from farthing.proxy.errors import FarthingError
from farthing.proxy.exchange import Exchange
from farthing.proxy.header_facts import HeaderBook, HeaderFacts
from farthing.proxy.held import State
from farthing.proxy.model_asked import model_asked
from farthing.proxy.second_stage import CrossEncoderStage
from farthing.proxy.wire import endpoint_of

__all__ = ["ACTIVE", "CANDIDATE", "EXPERIMENT", "Lanes", "Part", "Split"]

EXPERIMENT, ACTIVE, CANDIDATE = "rollout", "active", "candidate"
SESSION = "x-farthing-session"
_LOOK_AGAIN_S = 0.1


@dataclass(slots=True)
class Split:
    """How requests are divided. `share`: of units that are the candidate's. `salt`: 64 bytes at most."""

    salt: str
    unit: Unit
    share: float
    randomness: Randomness
    headers: HeaderBook

    def is_candidates(self, request: web.BaseRequest, active: Services) -> bool:
        """Whether this request is the candidate's."""
        if self.unit == "request":
            return self.randomness.uniform() < self.share
        try:
            name = unit_of(self.unit, self.headers.facts(request.headers), request, active)
        except FarthingError:
            return False  # it will be refused, by whichever lane
        return arm_of(self.salt, name, (self.share,)) == 0


@dataclass(slots=True)
class Part:
    """A part of the traffic, divided among arms by `shares`. `lanes`: one for each, by number; None: whoever answers
    what is left. `tag`: (name, value); `model`: a shell pattern; '' and None match everything. `compared`: of requests
    in arms with a lane of their own, the share whose answer is compared with a fresh one; as many are of all others."""

    name: str
    salt: str
    unit: Unit
    shares: tuple[float, ...]
    arms: tuple[str, ...]
    lanes: tuple[Services | None, ...]
    randomness: Randomness
    headers: HeaderBook
    tag: tuple[str, str] | None = None
    tenant: str = ""
    endpoint: str = ""
    model: str = ""
    compared: float = 0.0

    def compared_of(self, lane: Services) -> float:
        """Of a lane's requests, the share whose answer is compared with a fresh one."""
        if any(one is lane for one in self.lanes):
            return self.compared
        own = sum(share for share, one in zip(self.shares, self.lanes, strict=True) if one is not None)
        return min(1.0, self.compared * own / (1 - own)) if own < 1 else 0.0

    def lane(self, request: web.BaseRequest, active: Services, model: str | None = None) -> Services | None:
        """Who answers the request, that asks for `model` (None: nothing is known of it); None: it takes no part."""
        if self.model and (model is None or not fnmatchcase(model, self.model)):
            return None
        if self.endpoint and endpoint_of(request.method, request.raw_path.partition("?")[0]) != self.endpoint:
            return None
        try:
            facts = self.headers.facts(request.headers)
            if self.tag is not None and self.tag not in facts.controls().tags:
                return None
            if self.tenant and not tenant_of(facts, active).startswith(self.tenant):
                return None
            point = self.randomness.uniform() if self.unit == "request" else point_of(
                self.salt, unit_of(self.unit, facts, request, active)
            )  # fmt: skip
        except FarthingError:
            return None  # it will be refused, by whichever lane
        for share, lane in zip(self.shares, self.lanes, strict=True):
            if point < share:
                return lane
            point -= share
        return self.lanes[-1]  # what rounding leaves


def unit_of(unit: Unit, facts: HeaderFacts, request: web.BaseRequest, active: Services) -> str:
    """The unit that a request belongs to. Raises ClientFault where its headers can't be understood."""
    if unit == "session" and (session := request.headers.get(SESSION, "")):
        return f"session {session}"
    if unit == "tenant":
        return f"tenant {tenant_of(facts, active)}"
    user = facts.controls().user
    return f"user {user}" if user else f"credential {facts.credential}"


def tenant_of(facts: HeaderFacts, active: Services) -> str:
    """The ledger's name of the tenant."""
    return active.admit.tenants.identify(facts.credential).tenant


def session_of(ex: Exchange) -> str:
    """A session's name for the ledger, which has no column for it: a hash, as of all that clients name."""
    name = ex.original.headers.get(SESSION, "")
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=6).hexdigest() if name else ""


class Lanes:
    """The lanes. `divided` is false while there is only one: then finding it costs one attribute read. `by_model`: some
    part asks for the model, which stands in the body. `changed`: told whenever the active policy or the roll-out
    does."""

    def __init__(self, active: Services, stack: AsyncExitStack) -> None:
        self.active = active
        self.candidate: Services | None = None
        self.split: Split | None = None
        self.parts: tuple[Part, ...] = ()
        self.divided = self.by_model = False
        self.changed: Callable[[], None] | None = None
        self._stack = stack

    @property
    def state(self) -> State:
        """What all lanes share."""
        return self.active.state

    def lane(self, request: web.BaseRequest, model: str | None = None) -> Services:
        """Who answers the request. `model`: that it asks for, where the body was read to know."""
        for part in self.parts:
            lane = part.lane(request, self.active, model)
            if lane is not None:
                return lane
        split, candidate = self.split, self.candidate
        if split is None or candidate is None:
            return self.active
        return candidate if split.is_candidates(request, self.active) else self.active

    async def lane_by_model(self, request: web.BaseRequest) -> tuple[Services, IncomingBody]:
        """Who answers the request, and its body, of which as much was read as it took to know that."""
        headers = next((part.headers for part in self.parts if part.model), HeaderBook())
        model, source = await model_asked(request, self.active, headers)
        return self.lane(request, model), source

    async def build(self, config: Config, *, beside: Services | None = None) -> Services:
        """A lane of this configuration, that answers nothing yet: to follow the active one, or to answer `beside` one.

        Raises what `build` raises.
        """
        return await build(config, self.state, self._stack, beside or self.active, beside=beside is not None)

    def open(self, candidate: Services, split: Split) -> None:
        """From the next request on, `split` decides."""
        for lane, arm in ((self.active, ACTIVE), (candidate, CANDIDATE)):
            lane.assign.experiment, lane.assign.arm = EXPERIMENT, arm
            lane.assign.unit_of = session_of if split.unit == "session" else None
            lane.relay.repeats.clear()  # rows that are remembered name no arm
        self.candidate, self.split = candidate, split
        self._divide()

    def close(self) -> None:
        """From the next request on, the active policy answers alone."""
        gone, self.candidate, self.split = self.candidate, None, None
        assign = self.active.assign
        assign.experiment, assign.arm, assign.unit_of = "", "", None
        self.active.relay.repeats.clear()
        self._divide()
        if gone is not None:
            self._retire(gone)
        self._tell()

    def take(self, services: Services) -> None:
        """From the next request on, these answer alone; those before end what they began."""
        if self.candidate is not None:
            self.close()
        old, self.active = self.active, services
        self._divide()
        self._let_go(old)
        for one in services.upstreams:
            one.probes.start()
        self._retire(old)
        self._tell()

    def set_parts(self, parts: tuple[Part, ...]) -> None:
        """From the next request on, these parts are taken out. Lanes that are in none any more end what they began."""
        for part in parts:
            for lane, arm in zip(part.lanes, part.arms, strict=True):
                if lane is not None:
                    lane.assign.experiment, lane.assign.arm = part.name, arm
                    lane.assign.unit_of = session_of if part.unit == "session" else None
        before, self.parts = self._used(), parts
        self._divide()
        now = {id(lane) for lane in self._used()}
        for lane in before:
            if id(lane) not in now:
                self._let_go(lane)
                self._retire(lane)

    def _divide(self) -> None:
        desk, works = self.state.deferred, self.active.deferring
        if desk is not None and works is not None:
            desk.follow(works, {one.assign.policy: one.deferring for one in self._used() if one.deferring is not None})
        self.divided = self.split is not None or bool(self.parts)
        self.by_model = any(part.model for part in self.parts)
        for lane in self._used():
            lane.relay.afresh_share = max((part.compared_of(lane) for part in self.parts if part.compared), default=0.0)

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()

    def _used(self) -> list[Services]:
        """Every lane that may be given requests."""
        return [
            lane for lane in (self.active, self.candidate, *(one for part in self.parts for one in part.lanes))
            if lane is not None
        ]  # fmt: skip

    def _let_go(self, old: Services) -> None:
        """Of the upstreams that no lane uses any more."""
        used = {one for lane in self._used() for one in lane.upstreams}
        for gone in set(old.upstreams) - used:
            self.state.tasks.spawn(gone.probes.stop(), "stop probes")
            gone.pool.close()

    def _retire(self, old: Services) -> None:
        """Close what only this lane used, once nothing is under way in it any more."""
        if old.thread is not None or isinstance(old.semantic.second, CrossEncoderStage):
            self.state.tasks.spawn(self._close_when_empty(old), "retire a lane")

    async def _close_when_empty(self, old: Services) -> None:
        while old.admit.in_flight:  # noqa: ASYNC110 - an event would cost every request; this is rare
            await asyncio.sleep(_LOOK_AGAIN_S)
        used = self._used()
        if old.thread is not None and old.thread not in [lane.thread for lane in used]:
            await old.thread.close()
        second = old.semantic.second
        if isinstance(second, CrossEncoderStage) and second not in [lane.semantic.second for lane in used]:
            second.close()
