"""A scripted upstream: a real server on loopback that answers like an OpenAI-compatible provider, or as it is told.

It keeps a meter of its own: what each call used, whether it was finished, and what it would charge. Tests compare the
ledger's totals with that meter, so it shares no code with farthing.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.fakes.event_streams import in_shape
from tests.fakes.prompt_cache import PromptCache

__all__ = ["Call", "Script", "ScriptedUpstream", "raw_server", "scripted"]


@dataclass
class Script:
    """How one call is answered. None or 0: as usual. `cut_after`: bytes of the body after which the connection dies.
    `end_wait_s`: between the last of the body and its end.

    `fetches`: where there is a tool `fetch_removed`, the model calls it in that many turns, with the handles that it
    reads in the conversation or with `handle`, after saying `first` and together with the client's own tool `beside`;
    then it says which words of `looks_for` it has read. `answer`: a whole answer, given in the shape asked for.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    answer: dict[str, Any] | None = None
    wait_s: float = 0.0
    chunk_wait_s: float = 0.0
    chunk_bytes: int = 0
    end_wait_s: float = 0.0
    cut_after: int | None = None
    reset: bool = False
    hang: bool = False
    gzip: bool = False
    no_usage: bool = False
    refuse_stream_options: int = 0
    error_event: bool = False
    words: int | None = None
    says: str | None = None
    fetches: int | None = None
    handle: str = ""
    first: str = ""
    beside: str = ""
    looks_for: tuple[str, ...] = ()


@dataclass
class Call:
    """One call, as the upstream saw it. `tokens_out`: how many had been produced when it ended."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    model: str = ""
    tokens_in: int = 0
    cached: int = 0
    tokens_out: int = 0
    status: int = 0
    finished: bool = False
    cancelled: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedUpstream:
    """See the module. `script(...)`: what the next calls do, in order; afterwards as usual."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.url = ""
        self.at_once = 0
        self.most_at_once = 0
        self.default = Script()
        self.by_text: dict[str, Script] = {}
        self.prompt_cache: PromptCache | None = None
        self._scripts: deque[Script] = deque()

    def script(self, *scripts: Script) -> None:
        self._scripts.extend(scripts)

    def bill(self, usd_per_mtok: tuple[str, str, str]) -> Decimal:
        """Dollars charged, at (input, cached input, output) prices: successful calls, by what they produced."""
        price_in, price_cached, price_out = map(Decimal, usd_per_mtok)
        total = Decimal(0)
        for call in self.calls:
            if call.status == 200:
                total += (call.tokens_in - call.cached) * price_in + call.cached * price_cached
                total += call.tokens_out * price_out
        return total / 1_000_000

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(request.method, request.raw_path, dict(request.headers), await request.content.read())
        named = [script for text, script in self.by_text.items() if text.encode() in call.body]
        script = named[0] if named else self._scripts.popleft() if self._scripts else self.default
        self.calls.append(call)
        if self.prompt_cache is not None:
            call.cached = self.prompt_cache.read(call.headers, call.body)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request, call, script)
        except asyncio.CancelledError:
            call.cancelled = True
            raise
        except ConnectionError:
            call.cancelled = True
            return web.Response()
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.BaseRequest, call: Call, script: Script) -> web.StreamResponse:
        if script.wait_s:
            await asyncio.sleep(script.wait_s)
        if script.hang:
            await asyncio.sleep(3600)
        if script.reset:
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0)
            return web.Response()
        path = call.path.partition("?")[0]
        asked = _json(call.body)
        if isinstance(asked, dict):
            call.model = str(asked.get("model", ""))
        if script.refuse_stream_options and isinstance(asked, dict) and "stream_options" in asked:
            return self._fail(call, script.refuse_stream_options, "unknown field stream_options")
        if script.body is not None or script.status != 200:
            body = script.body if script.body is not None else _error(f"scripted {script.status}")
            headers = {"Content-Type": "application/json", **script.headers}
            return await self._send(request, call, script, script.status, headers, [body])
        answers = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/v1/embeddings": self._embeddings,
            "/v1/responses": self._responses,
            "/v1/messages": self._messages,
        }
        if request.method == "POST" and path in answers:
            if not isinstance(asked, dict):
                return self._fail(call, 400, "the body is not a JSON object")
            if script.answer is not None:
                call.tokens_in, call.cached, call.tokens_out = _used(script.answer["usage"])
                kind, pieces = in_shape(path, asked, script.answer)
                return await self._send(request, call, script, 200, {"Content-Type": kind, **script.headers}, pieces)
            try:
                kind, pieces = answers[path](call, asked, script)
            except (TypeError, AttributeError, KeyError, ValueError):
                return self._fail(call, 400, "wrong types")
            return await self._send(request, call, script, 200, {"Content-Type": kind, **script.headers}, pieces)
        if path == "/v1/models":
            body = _dump({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "me"}]})
            return await self._send(request, call, script, 200, {"Content-Type": "application/json"}, [body])
        kind = call.headers.get("Content-Type", "application/octet-stream")
        return await self._send(request, call, script, 200, {"Content-Type": kind, **script.headers}, [call.body])

    def _fail(self, call: Call, status: int, message: str) -> web.Response:
        call.status, call.finished = status, True
        return web.Response(status=status, body=_error(message), headers={"Content-Type": "application/json"})

    async def _send(
        self,
        request: web.BaseRequest,
        call: Call,
        script: Script,
        status: int,
        headers: dict[str, str],
        pieces: list[bytes],
    ) -> web.StreamResponse:
        call.status = status
        if self.prompt_cache is not None and status == 200:
            self.prompt_cache.keep(call.headers, call.body)
        stream = headers.get("Content-Type", "").startswith("text/event-stream")
        if script.gzip:
            pieces, headers = [gzip.compress(b"".join(pieces))], {**headers, "Content-Encoding": "gzip"}
        if script.chunk_bytes:
            text = b"".join(pieces)
            pieces = [text[i : i + script.chunk_bytes] for i in range(0, len(text), script.chunk_bytes)]
        response = web.StreamResponse(status=status, headers=headers)
        if not stream and not script.chunk_bytes:
            response.content_length = sum(map(len, pieces))
        await response.prepare(request)
        sent, words = 0, call.tokens_out
        if stream:
            call.tokens_out = 0
        for piece in pieces:
            if script.cut_after is not None and sent + len(piece) > script.cut_after:
                await response.write(piece[: script.cut_after - sent])
                await asyncio.sleep(0.02)
                assert request.transport is not None
                request.transport.abort()
                return response
            if script.chunk_wait_s:
                await asyncio.sleep(script.chunk_wait_s)
            await response.write(piece)
            sent += len(piece)
            if stream and call.tokens_out < words:
                call.tokens_out += 1
        call.tokens_out, call.finished = words, True
        await asyncio.sleep(script.end_wait_s)
        await response.write_eof()
        return response

    # -- what a provider would say

    def _count(self, call: Call, text: str, script: Script) -> list[str]:
        call.tokens_in = max(1, len(text.split()))
        words = [f"word{i} " for i in range(len(text) % 7 + 3 if script.words is None else script.words)]
        words[0] = f"You said {text[-40:]!r}: "
        if script.says is not None:
            words = [f"{word} " for word in script.says.split()]
        call.tokens_out = len(words)
        return words

    def _usage(self, call: Call) -> dict[str, Any]:
        return {
            "prompt_tokens": call.tokens_in,
            "completion_tokens": call.tokens_out,
            "total_tokens": call.tokens_in + call.tokens_out,
            "prompt_tokens_details": {"cached_tokens": call.cached},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def _chat(self, call: Call, asked: dict[str, Any], script: Script) -> tuple[str, list[bytes]]:
        turns = asked.get("messages")
        words = self._count(call, _spoken(turns), script)
        base = {"id": f"chatcmpl-{len(self.calls)}", "created": 1_700_000_000 + len(self.calls), "model": call.model}
        tool: dict[str, Any] | None = None
        tools: list[dict[str, Any]] = []
        if script.fetches is not None:
            called = fetch_calls(asked, script, "tool_call_id")
            tools = [
                {"id": one["id"], "type": "function"}
                | {"function": {"name": one["name"], "arguments": json.dumps(one["input"])}}
                for one in called
            ]
            words = self._fetched(call, asked, script, called)
        elif asked.get("tools") and "tool" in _spoken(turns[-1:] if isinstance(turns, list) else turns):
            name = asked["tools"][0]["function"]["name"]
            tool = {"id": f"call_{len(self.calls)}", "type": "function"}
            tool["function"] = {"name": name, "arguments": '{"city": "Paris"}'}
            tools = [tool]
        elif isinstance(asked.get("response_format"), dict) and asked["response_format"].get("type") == "json_schema":
            words = ['{"name": ', '"Ada", ', '"age": 36}']
            call.tokens_out = 3
        if not asked.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": "".join(words), "refusal": None}
            if tools:
                said = "".join(f"{word} " for word in script.first.split()) or None
                message = {"role": "assistant", "content": said, "tool_calls": tools, "refusal": None}
            choices = [
                {
                    "index": index,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": "tool_calls" if tools else "stop",
                }
                for index in range(asked.get("n") or 1)
            ]
            answer = base | {"object": "chat.completion", "choices": choices}
            if not script.no_usage:
                answer["usage"] = self._usage(call)
            return "application/json", [_dump(answer)]
        wants = bool((asked.get("stream_options") or {}).get("include_usage")) and not script.no_usage
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if not tools else None}]
        if tools:
            deltas += [{"content": f"{word} "} for word in script.first.split()]
            for index, each in enumerate(tools):
                arguments = each["function"]["arguments"]
                fine = {"index": index} | each | {"function": each["function"] | {"arguments": ""}}
                deltas.append({"tool_calls": [fine]})
                deltas += [
                    {"tool_calls": [{"index": index, "function": {"arguments": part}}]}
                    for part in (arguments[:9], arguments[9:])
                ]
        else:
            deltas += [{"content": word} for word in words]
        pieces = []
        for delta in deltas:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            pieces.append(self._chunk(base, [choice], wants))
        if script.error_event:
            return "text/event-stream", [*pieces, b'data: {"error": {"message": "overloaded"}}\n\n']
        end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls" if tools else "stop"}
        pieces.append(self._chunk(base, [end], wants))
        if wants:
            pieces.append(_event(base | {"object": "chat.completion.chunk", "choices": [], "usage": self._usage(call)}))
        return "text/event-stream", [*pieces, b"data: [DONE]\n\n"]

    def _chunk(self, base: dict[str, Any], choices: list[Any], wants: bool) -> bytes:
        chunk = base | {"object": "chat.completion.chunk", "choices": choices}
        return _event(chunk | {"usage": None} if wants else chunk)

    def _fetched(self, call: Call, asked: dict[str, Any], script: Script, called: list[dict[str, Any]]) -> list[str]:
        """The words that are said, and what they and the calls used."""
        if called:
            words = script.first.split()
            call.tokens_out = len(words) + 7 * len(called)
            return words
        read = _spoken(asked["messages"][-1])
        words = [f"{word} " for word in ("Seen:", *(word for word in script.looks_for if word in read), "done.")]
        call.tokens_out = len(words)
        return words

    def _completions(self, call: Call, asked: dict[str, Any], script: Script) -> tuple[str, list[bytes]]:
        words = self._count(call, str(asked.get("prompt", "")), script)
        base = {"id": f"cmpl-{len(self.calls)}", "object": "text_completion", "created": 1, "model": call.model}
        done = {"index": 0, "text": "".join(words), "logprobs": None, "finish_reason": "stop"}
        if not asked.get("stream"):
            return "application/json", [_dump(base | {"choices": [done], "usage": self._usage(call)})]
        pieces = [_event(base | {"choices": [done | {"text": word, "finish_reason": None}]}) for word in words]
        pieces.append(_event(base | {"choices": [done | {"text": ""}]}))
        if (asked.get("stream_options") or {}).get("include_usage"):
            pieces.append(_event(base | {"choices": [], "usage": self._usage(call)}))
        return "text/event-stream", [*pieces, b"data: [DONE]\n\n"]

    def _embeddings(self, call: Call, asked: dict[str, Any], script: Script) -> tuple[str, list[bytes]]:
        given = asked.get("input")
        texts = given if isinstance(given, list) else [given]
        call.tokens_in, call.tokens_out = sum(max(1, len(str(text).split())) for text in texts), 0
        rows = []
        for index, text in enumerate(texts):
            vector = [float(len(str(text))), float(index), 0.5]
            packed: Any = vector
            if asked.get("encoding_format") == "base64":
                packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            rows.append({"object": "embedding", "index": index, "embedding": packed})
        usage = {"prompt_tokens": call.tokens_in, "total_tokens": call.tokens_in}
        return "application/json", [_dump({"object": "list", "data": rows, "model": call.model, "usage": usage})]

    def _responses(self, call: Call, asked: dict[str, Any], script: Script) -> tuple[str, list[bytes]]:
        words = self._count(call, _spoken(asked.get("input")), script)
        text = "".join(words)
        usage = {
            "input_tokens": call.tokens_in,
            "input_tokens_details": {"cached_tokens": call.cached},
            "output_tokens": call.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": call.tokens_in + call.tokens_out,
        }
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        whole: dict[str, Any] = {
            "id": f"resp_{len(self.calls)}",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": "completed",
            "model": call.model,
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        }
        return in_shape("/v1/responses", asked, whole)

    def _messages(self, call: Call, asked: dict[str, Any], script: Script) -> tuple[str, list[bytes]]:
        words = self._count(call, _spoken(asked.get("messages")), script)
        blocks: list[dict[str, Any]] = []
        if script.fetches is not None:
            called = fetch_calls(asked, script, "tool_use_id")
            words = self._fetched(call, asked, script, called)
            blocks = [{"type": "tool_use"} | one for one in called]
        texts = [{"type": "text", "text": "".join(words)}] if words else []
        ended = "tool_use" if blocks else "end_turn"
        whole = {
            "id": f"msg_{len(self.calls)}",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": [*texts, *blocks],
            "stop_reason": ended,
            "stop_sequence": None,
            "usage": {"input_tokens": call.tokens_in - call.cached, "output_tokens": call.tokens_out,
                      "cache_read_input_tokens": call.cached, "cache_creation_input_tokens": 0},
        }  # fmt: skip
        return in_shape("/v1/messages", asked, whole)


def fetch_calls(asked: dict[str, Any], script: Script, answered: str) -> list[dict[str, Any]]:
    """The calls that the model makes now: of `fetch_removed`, if it is there and wasn't called often enough."""
    names = [tool.get("function", tool)["name"] for tool in asked.get("tools") or ()]
    said = _spoken(asked["messages"])
    before = len(set(re.findall(rf'"{answered}": "(fetch_\d+)_', said)))
    if "fetch_removed" not in names or before >= (script.fetches or 0):
        return []
    handles = [script.handle] if script.handle else re.findall(r"fetch_removed gives it, handle ([a-z0-9]+)\]", said)
    calls = [
        {"id": f"fetch_{before}_{i}", "name": "fetch_removed", "input": {"handle": handle}}
        for i, handle in enumerate(dict.fromkeys(handles))
    ]
    if script.beside:
        calls.append({"id": "beside_0", "name": script.beside, "input": {}})
    return calls


def _used(usage: dict[str, Any]) -> tuple[int, int, int]:
    """Input, what of it was cached, and output, by the usage of any of the APIs."""
    given, made = (
        ("prompt_tokens", "completion_tokens") if "prompt_tokens" in usage else ("input_tokens", "output_tokens")
    )
    cached = usage.get("cache_read_input_tokens", 0)
    return usage[given] + cached, cached or usage.get(f"{given}_details", {}).get("cached_tokens", 0), usage[made]


def _spoken(turns: Any) -> str:
    return turns if isinstance(turns, str) else json.dumps(turns, ensure_ascii=False)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _event(value: Any, name: str = "") -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + _dump(value) + b"\n\n"


def _error(message: str) -> bytes:
    return _dump({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


@asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedUpstream]:
    """A scripted upstream that listens; `up.url` ends in /v1."""
    up = ScriptedUpstream()
    server = web.Server(up.handle, handler_cancellation=True, auto_decompress=False, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    up.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield up
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: bytes, *, close: bool = True) -> AsyncIterator[str]:
    """A server that answers anything with these bytes, HTTP or not. Yields its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(65_536)
            writer.write(answer)
            await writer.drain()
            if not close:
                await reader.read(1)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
