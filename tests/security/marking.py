"""An upstream whose every answer says who asked: the credentials that it saw, whatever the prompt.

So any answer that reaches another tenant gives itself away, whichever tier it came from.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from farthing.proxy.clock import Clock, SystemClock

_THINKS_S = 0.005  # so that others may join

__all__ = ["marking", "owner_of", "seen_by"]

_SAYS_WHO = (
    "authorization", "x-api-key", "api-key", "cookie", "x-auth-token", "ocp-apim-subscription-key",
)  # fmt: skip


def owner_of(headers: Any) -> str:
    """Who these headers are from, as a short mark."""
    shown = sorted(f"{name.lower()}:{value}" for name, value in headers.items() if name.lower() in _SAYS_WHO)
    return hashlib.sha256("\n".join(shown).encode()).hexdigest()[:12]


def seen_by(endpoint: str, answer: bytes) -> set[str]:
    """The owners that an answer names."""
    if endpoint == "embeddings":
        items = json.loads(answer)["data"]
        return {"".join(f"{int(number):x}" for number in item["embedding"]) for item in items}
    text = answer.decode()
    return {text[at + 6 : at + 18] for at in range(len(text)) if text.startswith("owner-", at)}


@asynccontextmanager
async def marking() -> AsyncIterator[str]:
    """The server; yields its base URL."""
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    asked = json.loads(await request.content.read() or b"{}")
    owner = owner_of(request.headers)
    await asyncio.sleep(_THINKS_S)
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    if request.path.endswith("/embeddings"):
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": [float(int(digit, 16)) for digit in owner]}
            for index in range(len(texts))
        ]
        used = {"prompt_tokens": 5 * len(texts), "total_tokens": 5 * len(texts)}
        return web.json_response({"object": "list", "data": data, "model": "m", "usage": used})
    said = f"owner-{owner}"
    base = {"id": "chatcmpl-1", "created": int(_CLOCK.now_s()), "model": "m"}
    if not asked.get("stream"):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return web.json_response(base | {"object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    head = base | {"object": "chat.completion.chunk"}
    for delta, finish in (({"role": "assistant", "content": said}, None), ({}, "stop")):
        chunk = head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    if (asked.get("stream_options") or {}).get("include_usage"):
        await response.write(b"data: " + json.dumps(head | {"choices": [], "usage": usage}).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


_CLOCK: Clock = SystemClock()
