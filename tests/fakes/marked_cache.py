"""An upstream that caches prompts by marks: Anthropic's messages, and chats by GPT-5.6's rules. Words are its tokens.

It shares no code with farthing: its prefixes are the texts themselves.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp import web

from farthing.proxy.clock import FakeClock

__all__ = ["CLAUDE", "GPT", "Marked", "MarkedCache", "Turn", "marked_cache"]

CLAUDE, GPT = "claude-sonnet-5", "gpt-5.6"
LEAST, LOOK_BACK = 1024, 20
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
    key: str = ""

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
    """The server's state. `held`: until when each prefix is kept."""

    clock: FakeClock
    url: str = ""
    calls: list[Marked] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)
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
        blocks = _blocks(body)
        marks = [number for number, (_, mark) in enumerate(blocks) if mark]
        if len(marks) > 4 or (marks and self.refuses_marks):
            call.status = 400
            return web.json_response(
                {"type": "error", "error": {"type": "invalid_request_error", "message": "marks"}}, status=400
            )
        self.bill(call, blocks, marks, LOOK_BACK)
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
        call = Marked(body)
        self.calls.append(call)
        blocks = _blocks(body)
        marks = [number for number, (_, mark) in enumerate(blocks) if mark]
        if body["model"] in self.fails_models:
            call.status = 500
            return web.json_response({"error": {"message": "no"}}, status=500)
        if self.forgets:
            self.held.clear()
        if (body.get("prompt_cache_options") or {}).get("mode") != "explicit":
            self.bill(call, blocks, list(range(len(blocks))), len(blocks))
        else:
            self.bill(call, blocks, marks, 1)
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

    def bill(self, call: Marked, blocks: list[tuple[str, Any]], marks: list[int], back: int) -> None:
        """Read the longest prefix that a mark finds, write up to the last mark."""
        now_s = self.clock.now_s()
        prefixes, words, text = [], [], ""
        for said, _ in blocks:
            text += said + "\0"
            prefixes.append(text)
            words.append(len(text.replace("\0", " ").split()))
        found = -1
        for at in marks:
            for number in range(at, max(-1, at - back), -1):
                if self.held.get(prefixes[number], 0.0) > now_s:
                    found = max(found, number)
                    break
        read = words[found] if found >= 0 else 0
        if found >= 0:
            self.held[prefixes[found]] = max(self.held[prefixes[found]], now_s + 300)
        for at in marks:
            if words[at] >= LEAST:
                life_s = 3600 if isinstance(blocks[at][1], dict) and blocks[at][1].get("ttl") == "1h" else 300
                self.held[prefixes[at]] = now_s + life_s
        last = max((words[at] for at in marks if words[at] >= LEAST), default=0)
        call.read = read if read >= LEAST else 0
        hour = marks and isinstance(blocks[marks[-1]][1], dict) and blocks[marks[-1]][1].get("ttl") == "1h"
        written = max(0, last - call.read)
        call.written, call.written_1h = (0, written) if hour else (written, 0)
        call.fresh = words[-1] - call.read - written


def _blocks(body: Any) -> list[tuple[str, Any]]:
    """Text and mark of each block, in the prompt's order."""
    found: list[tuple[str, Any]] = [
        (
            json.dumps({name: value for name, value in tool.items() if name != "cache_control"}),
            tool.get("cache_control"),
        )
        for tool in body.get("tools") or []
    ]
    turns = ([{"role": "system", "content": body["system"]}] if body.get("system") else []) + body["messages"]
    for turn in turns:
        content = turn["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            mark = block.get("cache_control") or block.get("prompt_cache_breakpoint")
            found.append((f"{turn['role']} {block['text']}", mark))
    return found


@asynccontextmanager
async def marked_cache() -> AsyncIterator[MarkedCache]:
    """It, on loopback."""
    server = MarkedCache(FakeClock())
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/messages", server.messages)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
