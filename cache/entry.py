"""A stored answer."""

from __future__ import annotations

from typing import Literal, NamedTuple

from farthing.proxy.usage import Usage

__all__ = ["Entry", "Shape"]

Shape = Literal["whole", "stream"]


class Entry(NamedTuple):
    """One complete, successful answer, with what is needed to replay, price, expire and purge it.

    `key`: 32 hex digits (with a suffix `.N` for the N-th variant). `scope`: the tenant that may see it.
    `body`: the upstream's bytes, decoded from any content encoding: one JSON value (`whole`) or the SSE stream with
    its usage event (`stream`). `stored_s`, `expires_s`: seconds since the epoch.
    `namespace`: what the request said in `x-farthing-scope`, '' where nothing. `usage`: as billed; `tokens_saved`: how
    many tokens more the client's request had than what was sent for it, negative where it had fewer.
    """

    key: str
    scope: str
    endpoint: str
    model_requested: str
    model_served: str
    shape: Shape
    content_type: str
    body: bytes
    usage: Usage | None
    stored_s: float
    expires_s: float
    tags: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    tokens_saved: int = 0
