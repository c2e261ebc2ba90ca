"""Which model a request asks for, before anything else is done with it: for experiments on some models alone.

Rules of this file: who may not call is never read, and nothing beyond `limits.parse_bytes` is held; what isn't
understood has no model, and whoever answers the request then finds its body as if nobody had looked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from farthing.proxy.body import IncomingBody
from farthing.proxy.config_routes import target_of
from farthing.proxy.errors import FarthingError
from farthing.proxy.exchange import Endpoint
from farthing.proxy.header_facts import HeaderBook
from farthing.proxy.wire import endpoint_of

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["model_asked"]

_OFF_LOOP_BYTES = 65_536


async def model_asked(
    request: web.BaseRequest, active: Services, headers: HeaderBook
) -> tuple[str | None, IncomingBody]:
    """The model, by what an alias stands for, and the body with what was read of it. None: it isn't known."""
    limits = active.config.limits
    source = IncomingBody(request.content, hard_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    if endpoint_of(request.method, request.raw_path.partition("?")[0]) is Endpoint.OTHER:
        return None, source
    try:
        facts = headers.facts(request.headers)
        if facts.waits or not facts.plain_json:
            return None, source
        active.admit.tenants.identify(facts.credential)
        body = await source.read(limits.parse_bytes)
    except (FarthingError, ConnectionError):
        return None, source  # whoever answers it finds the same, and says so
    if body is None:
        return None, source
    model = await asyncio.to_thread(_model, body) if len(body) > _OFF_LOOP_BYTES else _model(body)
    return None if model is None else target_of(active.config.aliases, model), source


def _model(body: bytes) -> str | None:
    try:
        value = orjson.loads(body)
    except (ValueError, RecursionError):
        return None
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) else None
