"""What of a request goes into a batch, and what its client gets for the line that comes back. No sockets.

Rules of this file: a batch's line is what would have gone to that upstream at once, and its answer is turned as that
would have been turned; what was told of usage is the upstream's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from multidict import CIMultiDict

from farthing.policies.variant import Variant, put_in
from farthing.proxy.adapt import Refused
from farthing.proxy.adapt_errors import message_error
from farthing.proxy.adapting import adapter_between
from farthing.proxy.batch_api import Line
from farthing.proxy.batch_ways import Target
from farthing.proxy.defer_store import Result
from farthing.proxy.errors import ClientFault, error_body
from farthing.proxy.exchange import Attempt, Call, Endpoint, Exchange, Head, Outcome
from farthing.proxy.filling import FillingStage
from farthing.proxy.jsontext import minify
from farthing.proxy.observe import loads, read_whole
from farthing.proxy.styles import suited

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing

__all__ = ["Sent", "answered", "as_value", "as_variant", "failed_body", "inputs_of", "to_send"]

_JSON = "application/json"


class Sent(NamedTuple):
    """A request as the upstream is asked in a batch. `path`: under `/v1`; `body`: on one line."""

    path: str
    model: str
    body: bytes


def to_send(ex: Exchange, target: Target, variant: Variant | None) -> Sent | None:
    """The request as it goes into a batch; None: it doesn't go on one line. Raises ClientFault: the upstream has no
    word for a field of it. Cost: linear in the body."""
    assert ex.body is not None
    body = ex.body_out if ex.body_out is not None else ex.body
    if variant is not None:
        body = put_in(body, variant)
    path, endpoint, adapter = ex.original.path, ex.endpoint, adapter_between(ex, target.upstream)
    if adapter is not None:
        try:
            path, body = adapter.request(body)
            endpoint = adapter.upstream
        except Refused as refused:
            raise ClientFault(str(refused), code="unsupported_parameter", param=refused.param) from None
    body = suited(target.upstream.style, endpoint, body)
    if b"\n" in body or b"\r" in body:
        found = minify(body)
        if found is None:
            return None
        body = found
    return Sent(path, ex.model if variant is None else variant.model, body)


def inputs_of(ex: Exchange) -> int:
    """How many texts it has embedded; 0 for any other call."""
    if ex.endpoint is not Endpoint.EMBEDDINGS or ex.payload is None:
        return 0
    if ex.items is not None:
        return len(ex.items.missing) if ex.items.reduced else len(ex.items.asked.places)
    given = ex.payload.get("input")
    return len(given) if isinstance(given, list) and given and isinstance(given[0], str | list) else 1


async def answered(
    own: Exchange, target: Target, line: Line, filling: FillingStage, routing: Routing | None, *, given: bool = False
) -> Result | None:
    """What the client gets; None: the answer to a part doesn't fit what was known, and all of it has to be asked for.
    `given`: the line is what the client got already.

    Effects: `own.call` stands for the line, ready for the books.
    """
    adapter = None if given else adapter_between(own, target.upstream)
    endpoint = own.endpoint if adapter is None else adapter.upstream
    name, variant = target.upstream.name, own.variant
    call = own.call = Call(id=own.id, upstream=name, started_tick=own.received_tick)  # all of it is waiting
    call.elsewhere = target.foreign
    call.attempts.append(Attempt(name, status=line.status, variant="" if variant is None else variant.name))
    told = loads(line.body)
    usage, served = read_whole(endpoint, told)
    call.usage = None if usage is None else usage._replace(tier="")  # its tier is the batch's
    call.model_served = served if variant is None else _priced(routing, variant, served)
    call.complete = True
    status, body = line.status, line.body
    if adapter is not None:
        try:
            status, body = adapter.status(line.status), adapter.answer(line.status, line.body)
        except Refused as refused:
            own.outcome, own.error = Outcome.FAILED, f"the batch's answer can't be turned: {refused}"
            status, body = 502, failed_body(own, 502, own.error)
    call.head = Head(line.status if status == 502 and own.error else status, CIMultiDict({"Content-Type": _JSON}))
    call.answer, call.value = body, told if adapter is None else loads(body)
    own.status = status
    case = own.items
    if case is not None and case.reduced and status == 200 and not given:
        whole = await filling.together(own, case, call)
        if whole is None:
            return None
        call.answer, call.value, body = whole, loads(whole), whole
    return Result(status, _JSON, body)


def failed_body(own: Exchange, status: int, message: str) -> bytes:
    """An error of ours, in the shape that its client reads."""
    if own.endpoint is Endpoint.MESSAGES:
        return message_error(status, message)
    return error_body(message, kind="upstream_error", code="upstream")


def _priced(routing: Routing | None, variant: Variant, served: str) -> str:
    return routing.priced_name(variant, served) if routing is not None else served or variant.model


def as_value(variant: Variant) -> dict[str, Any]:
    """A variant as plain values, as far as asking it goes."""
    params = [[name, value.decode()] for name, value in variant.params]
    return {"name": variant.name, "model": variant.model, "upstream": variant.upstream, "params": params}


def as_variant(value: dict[str, Any]) -> Variant:
    """What `as_value` gave."""
    params = tuple((name, text.encode()) for name, text in value["params"])
    return Variant(value["name"], value["model"], value["upstream"], params)
