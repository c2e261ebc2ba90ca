"""The adapters as tests call them."""

from __future__ import annotations

from typing import Any

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt import Adapter, adapter_for
from farthing.proxy.adapt_shared import Options
from farthing.proxy.exchange import Endpoint

__all__ = ["TO_CHAT", "TO_MESSAGES", "adapter", "as_chat", "as_messages", "chat"]

NOW_S = 1_700_000_000
BOTH = Options(cache_control=True, top_k=True)


def adapter(client: Endpoint, style: Any, options: Options | None = BOTH) -> Adapter:
    found = adapter_for(client, style, created_s=NOW_S, options=options)
    assert found is not None
    return found


TO_MESSAGES, TO_CHAT = adapter(Endpoint.CHAT, "anthropic"), adapter(Endpoint.MESSAGES, "openai")


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]} | more


def as_messages(body: dict[str, Any], options: Options = BOTH) -> Any:
    return loads(adapter(Endpoint.CHAT, "anthropic", options).request(dumps(body))[1])


def as_chat(body: dict[str, Any], options: Options = BOTH) -> Any:
    return loads(adapter(Endpoint.MESSAGES, "openai", options).request(dumps(body))[1])
