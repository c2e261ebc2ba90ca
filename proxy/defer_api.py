"""What clients ask of their deferred requests: status, result, list, cancel. The client's own credential authorises.

Another's request isn't there (404): nobody learns which ids exist.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from multidict import CIMultiDict

from farthing.proxy.deferring import Desk
from farthing.proxy.errors import ClientFault, StoreFault, error_body
from farthing.proxy.header_facts import HeaderFacts

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["PATH", "deferred"]

PATH = "/farthing/api/deferred"
_JSON = "application/json"


async def deferred(services: Services, request: web.BaseRequest, path: str) -> web.Response:
    """The answer to a call at or under `PATH`."""
    try:
        return await _answer(services, request, path.removeprefix(PATH).strip("/").split("/"))
    except ClientFault as fault:
        return _fault(fault.status, fault.message, fault.code or "", fault.kind)
    except StoreFault:
        return _fault(503, "deferred requests can't be seen to at this moment; ask again", "store_unavailable")


async def _answer(services: Services, request: web.BaseRequest, parts: list[str]) -> web.Response:
    desk = services.state.deferred
    credential = await _credential(services, request)
    if desk is None:
        return _not_there()
    await desk.meet(CIMultiDict(request.headers))
    id, verb, method = parts[0], "/".join(parts[1:]), request.method
    if not id:
        if method != "GET":
            return _wrong_method("GET")
        return _json(200, {"object": "list", "data": await desk.of(credential)})
    status = await desk.find(id, credential)
    if status is None:
        return _not_there()
    if not verb and method == "GET":
        return _json(200, status)
    if (not verb and method == "DELETE") or (verb == "cancel" and method == "POST"):
        await desk.cancel(id)
        return _json(200, await desk.find(id, credential) or status)
    if verb == "result" and method == "GET":
        return await _result(desk, id, status)
    return _not_there() if verb not in ("", "cancel", "result") else _wrong_method("GET")


async def _result(desk: Desk, id: str, status: dict[str, Any]) -> web.Response:
    """The answer's own bytes and status; while there is none, 202 with the request's status."""
    if status["status"] in ("failed", "cancelled"):
        code = (status["error"] or {}).get("code", "cancelled")
        return _fault(410, f"this request was {status['status']} and has no result", code)
    found = await desk.result(id)
    if found is None:
        return _json(202, status, {"Retry-After": "60"})
    headers = {"Content-Type": found.kind, "x-farthing-id": id}
    return web.Response(status=found.status, body=found.body, headers=headers)


async def _credential(services: Services, request: web.BaseRequest) -> str:
    """Whose call it is. Raises ClientFault: 401 nobody that is known, or nobody at all; 503."""
    tenants = services.admit.tenants
    if tenants.ring is not None and (look := tenants.refreshed()) is not None:
        await asyncio.shield(look)
    pairs = tuple(pair for pair in request.headers.items() if pair[0] != "Content-Length")
    shown = HeaderFacts(pairs, services.config.compat.aliases).credential
    return tenants.identify(shown).credential


def _not_there() -> web.Response:
    return _fault(404, "there is no such deferred request", "not_found")


def _wrong_method(allowed: str) -> web.Response:
    return _fault(405, f"this is asked for with {allowed}", "method_not_allowed")


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(value),
        headers={"Content-Type": _JSON, "Cache-Control": "no-store"} | (headers or {}),
    )


def _fault(status: int, message: str, code: str, kind: str = "invalid_request_error") -> web.Response:
    body = error_body(message, kind=kind, code=code)
    return web.Response(status=status, body=body, headers={"Content-Type": _JSON, "Cache-Control": "no-store"})
