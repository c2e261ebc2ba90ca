"""The proxy's own short stages: admit, parse, assign."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farthing.proxy import wire
from farthing.proxy.aliases import under
from farthing.proxy.aliases_body import TakenOut, take_out
from farthing.proxy.config import Limits
from farthing.proxy.errors import ClientFault
from farthing.proxy.exchange import GO_ON, Continue, Endpoint, Exchange, LocalReply, Quiet, Verdict
from farthing.proxy.tenants import Tenants
from farthing.proxy.under_way import UnderWay

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing

__all__ = ["AdmitStage", "AssignStage", "ParseStage"]

_OFF_LOOP_BYTES = 262_144  # reading more than this takes milliseconds, so it leaves the event loop


@dataclass(slots=True)
class AdmitStage(Quiet):
    """Authenticate, find the tenant, keep the limits. `in_flight`: requests under way here. `together`: with those of
    other lanes and workers, which the limit counts. `rates`: takes the request out of the token buckets that count
    requests."""

    tenants: Tenants
    limits: Limits
    rates: Callable[[Exchange], Verdict | Awaitable[Verdict]] | None = None
    together: UnderWay = field(default_factory=UnderWay)
    in_flight: int = 0
    name: str = field(default="admit", init=False)
    hard: bool = field(default=True, init=False)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return bool(self.limits.max_in_flight) and self.together.all >= self.limits.max_in_flight

    def repeats(self, credential: str) -> bool:
        """Whether a request that was admitted before may be answered again without this stage."""
        return not self.full and self.rates is None and self.tenants.still_good(credential)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Raises ClientFault: 400 a header can't be understood, 401, 413, 429, 503 keys can't be looked up."""
        self.in_flight += 1
        self.together.begin()
        if self.tenants.ring is not None and (look := self.tenants.refreshed()) is not None:
            return self._after(look, ex)
        return self._admit(ex)

    async def _after(self, look: asyncio.Task[None], ex: Exchange) -> Verdict:
        await asyncio.shield(look)
        verdict = self._admit(ex)
        return verdict if isinstance(verdict, Continue | LocalReply) else await verdict

    def _admit(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        facts = ex.original.facts
        ex.credential, ex.tenant, caller = self.tenants.identify(facts.credential)
        if caller is not None:
            ex.caller = caller
        ex.controls = facts.controls()
        if facts.told:
            ex.decisions.extend(facts.told)
        if self.limits.max_in_flight and self.together.all > self.limits.max_in_flight:
            raise ClientFault(
                f"more than {self.limits.max_in_flight} requests are under way (limits.max_in_flight)",
                status=429,
                code="too_many_requests",
                kind="rate_limit_error",
                retry_after_s=1.0,
            )
        hard_bytes = self.limits.max_body_bytes
        length = ex.original.headers.get("Content-Length", "") if hard_bytes else ""
        if length.isdigit() and int(length) > hard_bytes:
            raise ClientFault(
                f"the request body is longer than {hard_bytes} bytes (limits.max_body_bytes)",
                status=413,
                code="request_too_large",
            )
        return GO_ON if self.rates is None else self.rates(ex)

    def on_end(self, ex: Exchange) -> None:
        """One fewer under way."""
        self.in_flight -= 1
        self.together.end()


@dataclass(slots=True)
class ParseStage(Quiet):
    """Body -> request. What isn't understood is passed on untouched, with the reason.

    `products`: other gateways whose words in the body are farthing's to read, and not the upstream's.
    """

    limit_bytes: int
    products: tuple[str, ...] = ()
    name: str = field(default="parse", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Read the body of an endpoint that we know. Raises ClientFault: 408, 413."""
        original = ex.original
        ex.endpoint = wire.endpoint_of(original.method, original.path)
        if ex.endpoint is Endpoint.OTHER:
            ex.cache_reason = "endpoint is only relayed"
            return GO_ON
        if not original.facts.plain_json:
            ex.cache_reason = "body is not plain JSON"
            return GO_ON
        body = original.source.arrived()
        if body is None or len(body) > min(self.limit_bytes, _OFF_LOOP_BYTES):
            return self._wait_for(ex)
        ex.body = body
        return self._note(ex, *self._understood(ex, body))

    async def _wait_for(self, ex: Exchange) -> Verdict:
        """A body that is still coming, or takes long to be read."""
        ex.body = await ex.original.source.read(self.limit_bytes)
        if ex.body is None:
            ex.cache_reason = "body is longer than limits.parse_bytes"
            return GO_ON
        if len(ex.body) > _OFF_LOOP_BYTES:
            return self._note(ex, *await asyncio.to_thread(self._understood, ex, ex.body))
        return self._note(ex, *self._understood(ex, ex.body))

    def _understood(self, ex: Exchange, body: bytes) -> tuple[wire.Body | str, TakenOut | None]:
        """The body, or the reason why it isn't understood; and what in it was said to farthing. For any thread."""
        read = wire.read_body(body)
        if not self.products or ex.controls.off or isinstance(read, str):
            return read, None
        return read, take_out(body, read.payload, self.products)

    def _note(self, ex: Exchange, body: wire.Body | str, taken: TakenOut | None) -> Verdict:
        if isinstance(body, str):
            ex.cache_reason = body
            return GO_ON
        ex.payload, ex.exact, ex.plain, ex.cache_reason = body.payload, body.exact, body.plain, body.problem
        if taken is not None:
            self._take_over(ex, taken)
        model = body.payload.get("model")
        if body.problem and ex.body is not None and wire.named_twice(ex.body):
            model = None  # who reads the first one and who the last isn't ours to say
        ex.model = model if isinstance(model, str) else ""
        ex.stream = body.payload.get("stream") is True
        options = body.payload.get("stream_options")
        own = body.payload.get("usage")  # OpenRouter's way of asking
        ex.asks_usage = (isinstance(options, dict) and options.get("include_usage") is True) or (
            isinstance(own, dict) and own.get("include") is True
        )
        return GO_ON

    def _take_over(self, ex: Exchange, taken: TakenOut) -> None:
        ex.decisions.extend(taken.told)
        ex.controls = under(ex.controls, taken.said)
        if taken.fields and ex.payload is not None:
            ex.body_in, ex.body = ex.body, taken.body
            ex.payload = taken.of(ex.payload)
            ex.exact = None if ex.exact is None else taken.of(ex.exact)


@dataclass(slots=True)
class AssignStage(Quiet):
    """Freezes what applies to this request: the policy's name, the configuration, the switches.

    `lossy`: what may be done that changes an answer, of what `x-farthing-compress` asks. `experiment`, `arm`: which
    this lane stands for, '' while it is the only one; `unit_of`: the unit that stays in its arm where no column names
    it. `all_off`: by configuration, in which a lane still stands for its arm; `switched_off`: by the emergency switch.
    """

    policy: str
    config_id: str
    all_off: bool
    switched_off: Callable[[], bool]
    lossy: Mapping[str, str]
    routing: Routing | None = None
    experiment: str = field(default="", init=False)
    arm: str = field(default="", init=False)
    unit_of: Callable[[Exchange], str] | None = field(default=None, init=False)
    name: str = field(default="assign", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict:
        """Decide whether this request is optimised at all. Raises ClientFault 403: the caller's key is for others."""
        if ex.caller is not None and ex.caller.key is not None:
            for model in {ex.model, ex.controls.route or ex.model}:
                ex.caller.key.check_model(model, ex.endpoint, ex.original.method)
        ex.policy, ex.config_id, ex.lossy = self.policy, self.config_id, self.lossy[ex.controls.compress]
        if ex.controls.off:
            ex.optimise, ex.cache_reason = False, "x-farthing-off"
            self._name(ex)
        elif self.all_off or self.switched_off():
            ex.optimise, ex.cache_reason, ex.policy = False, "switched off", "off"
            if self.experiment and not self.switched_off():
                self._take_part(ex)
            self._name(ex)
        else:
            if self.experiment:
                self._take_part(ex)
            if self.routing is not None:
                self.routing.find(ex)
        return GO_ON

    def _name(self, ex: Exchange) -> None:
        """A name that only farthing knows is no optimisation: unresolved, it would mean nothing upstream."""
        if self.routing is not None:
            self.routing.find(ex, names_only=True)

    def _take_part(self, ex: Exchange) -> None:
        ex.experiment, ex.arm = self.experiment, self.arm
        if self.unit_of is not None and (unit := self.unit_of(ex)):
            ex.decide(self.name, "unit", unit)
