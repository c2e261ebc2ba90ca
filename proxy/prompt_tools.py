"""Tools in one order: the order in which the same set of tools was seen first. Pure but for what is remembered.

A provider's cache begins with the tools, byte for byte. A program that lists them in another order each time (a set, a
map, a directory) never reads what it has written. Order is a part of what the model reads, though: answers may differ
with it, which nobody can exclude by looking at the request. So this is off unless the operator asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import orjson

from farthing.proxy.jsontext import element_spans, find

__all__ = ["in_first_order"]

_MOST_SETS = 4_096


def in_first_order(
    body: bytes, payload: dict[str, Any], scope: Hashable, orders: OrderedDict[int, tuple[int, ...]]
) -> bytes:
    """The body with its tools in the order of the first request that had the same ones; each tool's bytes stay.

    `orders`: by set, which is remembered here. Tools that aren't all different stay as they are, and so do those that
    the client marks for a cache: it has thought about their order.
    """
    tools = payload.get("tools")
    if not isinstance(tools, list) or len(tools) < 2 or b'"cache_control"' in body:
        return body
    try:
        keys = [hash(orjson.dumps(tool)) for tool in tools]
    except TypeError:
        return body
    if len(set(keys)) < len(keys):
        return body
    group = hash((scope, frozenset(keys)))
    first = orders.setdefault(group, tuple(keys))
    orders.move_to_end(group)
    if len(orders) > _MOST_SETS:
        orders.popitem(last=False)
    span = find(body, ("tools",))
    if first == tuple(keys) or set(first) != set(keys) or span is None:
        return body
    spans = element_spans(body, span)
    places = dict(zip(keys, spans, strict=True))
    pieces: list[bytes] = []
    at = 0
    for (start, end), key in zip(spans, first, strict=True):
        pieces += (body[at:start], body[slice(*places[key])])
        at = end
    return b"".join((*pieces, body[at:]))
