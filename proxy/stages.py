"""The proxy's own short stages: admit, parse, assign."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from farthing.proxy import wire
from farthing.proxy.aliases import under
from farthing.proxy.aliases_body import TakenOut, take_out
from farthing.proxy.config import Auth, Limits
from farthing.proxy.errors import ClientFault
from farthing.proxy.exchange import GO_ON, Endpoint, Exchange, Quiet, Verdict
from farthing.proxy.routing import Routing

__all__ = ["AdmitStage", "AssignStage", "ParseStage", "Tenants"]

_REMEMBERED = 10_000
_OFF_LOOP_BYTES = 262_144  # reading more than this takes milliseconds, so it leaves the event loop


class Tenants:
    """Who a credential belongs to: HMAC-SHA-256 with a local secret, so that no key is kept and none can be guessed
    from a record. Different credentials never share, unless the configuration puts them into one named scope."""

    def __init__(self, secret: bytes, auth: Auth) -> None:
        self._secret = secret
        self._scopes = {digest.lower(): scope.name for scope in auth.scopes for digest in scope.credentials_sha256}
        self._clients = {key.sha256: key.name for key in auth.client_keys}
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def identify(self, shown: str) -> tuple[str, str]:
        """(credential, tenant), both opaque. Raises ClientFault 401 where client keys are declared and none fits.

        `shown`: of wire.credential.
        """
        known = self._known.get(shown)
        if known is None:
            known = self._work_out(shown)
            self._known[shown] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _work_out(self, shown: str) -> tuple[str, str]:
        keys = [line.partition(":")[2].strip() for line in shown.split("\n")]
        keys = [key[7:].strip() if key[:7].lower() == "bearer " else key for key in keys]
        digests = [hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest() for key in keys]
        credential = hmac.new(self._secret, shown.encode(errors="surrogateescape"), "sha256").hexdigest()[:32]
        if self._clients:
            named = [self._clients[digest] for digest in digests if digest in self._clients]
            if not named:
                raise ClientFault(
                    "this proxy needs a client key that it knows (Authorization: Bearer ...)",
                    status=401,
                    code="invalid_api_key",
                    kind="authentication_error",
                )
        scopes = [self._scopes[digest] for digest in digests if digest in self._scopes]
        return credential, self.of_scope(scopes[0]) if scopes else credential

    def of_scope(self, name: str) -> str:
        """The tenant that the credentials of a named scope are."""
        return hmac.new(self._secret, b"scope:" + name.encode(), "sha256").hexdigest()[:32]


@dataclass(slots=True)
class AdmitStage(Quiet):
    """Authenticate, find the tenant, keep the limits. `in_flight`: requests under way."""

    tenants: Tenants
    limits: Limits
    in_flight: int = 0
    name: str = field(default="admit", init=False)
    hard: bool = field(default=True, init=False)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return bool(self.limits.max_in_flight) and self.in_flight >= self.limits.max_in_flight

    def on_request(self, ex: Exchange) -> Verdict:
        """Raises ClientFault: 400 a header can't be understood, 401, 413, 429."""
        self.in_flight += 1
        facts = ex.original.facts
        ex.credential, ex.tenant = self.tenants.identify(facts.credential)
        ex.controls = facts.controls()
        if facts.told:
            ex.decisions.extend(facts.told)
        if self.limits.max_in_flight and self.in_flight > self.limits.max_in_flight:
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
        return GO_ON

    def on_end(self, ex: Exchange) -> None:
        """One fewer under way."""
        self.in_flight -= 1


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

    `lossy`: what may be done that changes an answer, of what `x-farthing-compress` asks.
    """

    policy: str
    config_id: str
    switched_off: Callable[[], bool]
    lossy: Mapping[str, str]
    routing: Routing | None = None
    name: str = field(default="assign", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict:
        """Decide whether this request is optimised at all."""
        ex.policy, ex.config_id, ex.lossy = self.policy, self.config_id, self.lossy[ex.controls.compress]
        if ex.controls.off:
            ex.optimise, ex.cache_reason = False, "x-farthing-off"
        elif self.switched_off():
            ex.optimise, ex.cache_reason, ex.policy = False, "switched off", "off"
        elif self.routing is not None:
            self.routing.find(ex)
        return GO_ON
