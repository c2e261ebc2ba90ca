"""An upstream that caches prompts by marks: Anthropic's messages, and chats by GPT-5.6's rules, and so responses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp import web

from bench.marked_provider import Bill, MarkedProvider, TooManyMarks
from farthing.proxy.clock import FakeClock

__all__ = ["CLAUDE", "GPT", "Marked", "MarkedCache", "Turn", "marked_cache"]

CLAUDE, GPT = "claude-sonnet-5", "gpt-5.6"
Turn = dict[str, Any]


@dataclass
class Marked:
    """One call and its bill, in tokens."""

    body: Any
    status: int = 200
    fresh: int = 0
    read: int = 0
    written: int = 0
    written_1h: int = 0
    output: int = 2
    key: str = ""  # shown as Anthropic's clients do; of chats: what xAI reads as a prompt_cache_key

    def billed(self, bill: Bill) -> None:
        """What the provider says."""
        self.fresh, self.read, self.written, self.written_1h = bill.fresh, bill.read, bill.written, bill.written_1h

    def pico(self, prices: Any) -> int:
        """As billed."""
        parts = (
            (self.fresh, "input"),
            (self.read, "cached"),
            (self.written, "cache_write"),
            (self.written_1h, "cache_write_1h"),
            (self.output, "output"),
        )
        return int(sum(count * Decimal(str(prices.get(f"{name}_usd_per_mtok", 0))) for count, name in parts) * 10**6)

    def plain_pico(self, prices: Any) -> int:
        """Had nothing been cached."""
        whole = self.fresh + self.read + self.written + self.written_1h
        return Marked(None, fresh=whole, output=self.output).pico(prices)


@dataclass
class MarkedCache:
    """The server's state."""

    clock: FakeClock
    url: str = ""
    calls: list[Marked] = field(default_factory=list)
    provider: MarkedProvider = field(default_factory=MarkedProvider)
    refuses_marks: bool = False
    forgets: bool = False
    fails_models: tuple[str, ...] = ()

    def billed_pico(self, prices: Any) -> int:
        """All calls together."""
        return sum(call.pico(prices) for call in self.calls if call.status == 200)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Anthropic's."""
        body = await request.json()
        call = Marked(body, key=request.headers.get("x-api-key", ""))
        self.calls.append(call)
        marks = json.dumps(body).count('"cache_control"')
        try:
            if marks and self.refuses_marks:
                raise TooManyMarks
            call.billed(self.provider.messages(body, self.clock.now_s()))
        except TooManyMarks:
            call.status = 400
            error = {"type": "invalid_request_error", "message": "marks"}
            return web.json_response({"type": "error", "error": error}, status=400)
        usage = {
            "input_tokens": call.fresh,
            "cache_read_input_tokens": call.read,
            "cache_creation_input_tokens": call.written + call.written_1h,
            "cache_creation": {
                "ephemeral_5m_input_tokens": call.written,
                "ephemeral_1h_input_tokens": call.written_1h,
            },
            "output_tokens": call.output,
        }
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
        message |= {"stop_reason": "end_turn", "content": [{"type": "text", "text": "Fine, thanks."}], "usage": usage}
        if not body.get("stream"):
            return web.json_response(message)
        events = [
            {"type": "message_start", "message": message | {"content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Fine, thanks."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
            {"type": "message_stop"},
        ]
        text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return web.Response(body=text.encode(), content_type="text/event-stream")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """GPT-5.6's: by itself it reads what it can and writes the rest; in explicit mode up to each breakpoint."""
        body = await request.json()
        call = Marked(body, key=request.headers.get("x-grok-conv-id", ""))
        self.calls.append(call)
        if body["model"] in self.fails_models:
            call.status = 500
            return web.json_response({"error": {"message": "no"}}, status=500)
        if self.forgets:
            self.provider.held.clear()
        call.billed(self.provider.chat(body, self.clock.now_s()))
        details = {"cached_tokens": call.read, "cache_write_tokens": call.written}
        given = call.fresh + call.read + call.written
        usage = {
            "prompt_tokens": given,
            "completion_tokens": 2,
            "total_tokens": given + 2,
            "prompt_tokens_details": details,
        }
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Fine, thanks."}}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return web.json_response(head | {"choices": [choice], "usage": usage})

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """The same of the responses API."""
        body = await request.json()
        call = Marked(body, key=request.headers.get("x-grok-conv-id", ""))
        self.calls.append(call)
        if self.forgets:
            self.provider.held.clear()
        call.billed(self.provider.chat(body, self.clock.now_s()))
        details = {"cached_tokens": call.read, "cache_write_tokens": call.written}
        given = call.fresh + call.read + call.written
        usage = {"input_tokens": given, "output_tokens": 2, "total_tokens": given + 2, "input_tokens_details": details}
        text = {"type": "output_text", "text": "Fine, thanks.", "annotations": []}
        said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        head = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "completed"}
        whole = head | {"output": [said], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto"}
        whole["tools"] = []
        if not body.get("stream"):
            return web.json_response(whole)
        begun = {"type": "response.created", "response": whole | {"status": "in_progress", "output": []}}
        ended = {"type": "response.completed", "response": whole}
        events = "".join(
            f"event: {event['type']}\ndata: {json.dumps(event | {'sequence_number': at})}\n\n"
            for at, event in enumerate((begun, ended))
        )
        return web.Response(body=events.encode(), content_type="text/event-stream")


@asynccontextmanager
async def marked_cache() -> AsyncIterator[MarkedCache]:
    """It, on loopback."""
    server = MarkedCache(FakeClock())
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/messages", server.messages)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/v1/responses", server.responses)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
