"""An upstream that speaks OpenAI's API and invents its answers: where no model is installed, and in tests.

Rules of this file: it never passes for a model. Its model is called `simulated-1`, or as it was asked for where that
begins with `simulated-`; every free answer begins with "[simulated]" and every response carries `x-simulated: 1`. A
grammar that allows one of some words (llama.cpp's, as `root ::= "a" | "b"`) gets one of them: of two the last, of more
one by the message's hash. The same request gives the same answer, always. Its tokens are words and punctuation marks,
counted alike for prompts and answers; no model's tokenizer.

    python -m farthing.proxy.simulated --port 9000
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import logging
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from farthing.proxy.errors import error_body

__all__ = ["MODEL", "Pace", "answer", "application", "embed", "main", "tokens"]

MODEL = "simulated-1"
LABEL = {"x-simulated": "1"}
DIMENSIONS = 64
DEFAULT_MAX_TOKENS = 64
CREATED_S = 1_700_000_000
OPENINGS = ("Thank you for asking", "I'm happy to look into that", "Let me help you with that", "Good question")
ADVICE = (
    "open the app, choose the card and follow the steps that it shows",
    "this usually settles by itself within two working days",
    "check that your details are up to date and try once more",
    "the statement lists each fee beside the payment that caused it",
    "write to us in the chat with the date and the amount",
)
GRAMMAR = re.compile(r'root ::= ("[^"\\]+"(?: \| "[^"\\]+")*)')
TOKEN = re.compile(r"(?<!\s)\s*+(?:\w+|[^\w\s])")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the pretended work takes: `prefill_ms` before the first token, `token_ms` for each token."""

    prefill_ms: float = 120.0
    token_ms: float = 8.0


def tokens(text: str) -> list[str]:
    """The text cut into words and punctuation marks, each with the white space before it: joined they are the text."""
    return TOKEN.findall(text)


def answer(messages: Sequence[dict[str, Any]], max_tokens: int) -> tuple[list[str], bool]:
    """The answer's tokens, and whether it ended by itself. A pure function of the messages."""
    digest = hashlib.sha256(orjson.dumps(messages)).digest()
    question = " ".join(content_text(messages[-1].get("content")).split()) if messages else ""
    opening, advice = OPENINGS[digest[0] % len(OPENINGS)], ADVICE[digest[1] % len(ADVICE)]
    cut = tokens(f"[simulated] {opening}. About “{question[:60]}”: {advice} (case {digest[2:4].hex()}).")
    return cut[:max_tokens], len(cut) <= max_tokens


def named(asked: object) -> str:
    """What the model calls itself."""
    return asked if isinstance(asked, str) and asked.startswith("simulated-") else MODEL


def chosen(grammar: object, text: str) -> str | None:
    """The word that a grammar of words gets; None for any other grammar, or none."""
    found = GRAMMAR.fullmatch(grammar) if isinstance(grammar, str) else None
    if found is None:
        return None
    words: list[str] = re.findall(r'"([^"]+)"', found[1])
    return words[-1] if len(words) <= 2 else words[hashlib.sha256(text.encode()).digest()[0] % len(words)]


def content_text(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector made of the hashes of the text's words: texts that share words are near. Nothing learnt it."""
    vector = [0.0] * dimensions
    for word in tokens(text.lower()) or [""]:
        digest = hashlib.sha256(word.strip().encode()).digest()
        vector[int.from_bytes(digest[:4], "big") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector] if norm else [1.0, *vector[1:]]


def application(pace: Pace) -> web.Application:
    """The server: chat completions (whole and streamed), embeddings, models and /health."""
    app = web.Application(client_max_size=64 * 2**20)
    upstream = Simulated(pace)
    app.router.add_post("/v1/chat/completions", upstream.chat)
    app.router.add_post("/v1/embeddings", upstream.embeddings)
    app.router.add_get("/v1/models", upstream.models)
    app.router.add_get("/health", upstream.health)
    return app


class Simulated:
    """The request handlers; they keep no state between requests."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Source: OpenAI API reference, "Create chat completion" and "The chat completion chunk object"."""
        body = await json_object(request)
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise refusal("messages must be a list of objects", "messages")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
        if not isinstance(limit, int) or limit < 1:
            raise refusal("max_tokens must be a positive integer", "max_tokens")
        cut, ended = answer(messages, limit)
        word = chosen(body.get("grammar"), content_text(messages[-1].get("content")) if messages else "")
        if word is not None:
            cut, ended = [word], True
        prompt = sum(len(tokens(content_text(message.get("content")))) for message in messages)
        usage = {"prompt_tokens": prompt, "completion_tokens": len(cut), "total_tokens": prompt + len(cut)}
        finish = "stop" if ended else "length"
        head = {
            "id": f"chatcmpl-sim-{hashlib.sha256(orjson.dumps(messages)).hexdigest()[:12]}",
            "created": CREATED_S,
            "model": named(body.get("model")),
        }
        await asyncio.sleep(self._pace.prefill_ms / 1000)
        if body.get("stream"):
            options = body.get("stream_options")
            with_usage = isinstance(options, dict) and options.get("include_usage") is True
            return await self._stream(request, head, cut, finish, usage if with_usage else None)
        await asyncio.sleep(self._pace.token_ms * len(cut) / 1000)
        message = {"role": "assistant", "content": "".join(cut), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def _stream(
        self, request: web.Request, head: dict[str, Any], cut: list[str], finish: str, usage: dict[str, int] | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **LABEL})
        await response.prepare(request)

        async def event(choices: list[dict[str, Any]], **more: object) -> None:
            chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")

        blank = {"usage": None} if usage else {}
        await event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], **blank)
        for token in cut:
            await asyncio.sleep(self._pace.token_ms / 1000)
            await event([{"index": 0, "delta": {"content": token}, "finish_reason": None}], **blank)
        await event([{"index": 0, "delta": {}, "finish_reason": finish}], **blank)
        if usage:
            await event([], usage=usage)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """Source: OpenAI API reference, "Create embeddings"; base64 is little-endian float32."""
        body = await json_object(request)
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise refusal("input must be a string or a list of strings", "input")
        dimensions = body.get("dimensions", DIMENSIONS)
        if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
            raise refusal("dimensions must be 1 to 4096", "dimensions")
        await asyncio.sleep(self._pace.prefill_ms / 1000)
        rows = []
        for index, text in enumerate(texts):
            vector: list[float] | str = embed(text, dimensions)
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
            rows.append({"object": "embedding", "index": index, "embedding": vector})
        prompt = sum(len(tokens(text)) for text in texts)
        usage = {"prompt_tokens": prompt, "total_tokens": prompt}
        return json_response({"object": "list", "data": rows, "model": named(body.get("model")), "usage": usage})

    async def models(self, request: web.Request) -> web.StreamResponse:
        """The one model."""
        model = {"id": MODEL, "object": "model", "created": CREATED_S, "owned_by": "simulated"}
        return json_response({"object": "list", "data": [model]})

    async def health(self, request: web.Request) -> web.StreamResponse:
        """Ready as soon as it answers."""
        return json_response({"status": "ok", "simulated": True})


def json_response(value: object, status: int = 200) -> web.Response:
    """The value as JSON, labelled."""
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json", headers=LABEL)


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises a 400 in the OpenAI error shape."""
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise refusal("the body is not JSON", None) from None
    if not isinstance(body, dict):
        raise refusal("the body is not a JSON object", None)
    return body


def refusal(message: str, param: str | None) -> web.HTTPBadRequest:
    """A 400 in the OpenAI error shape."""
    body = error_body(message, kind="invalid_request_error", code=None, param=param)
    return web.HTTPBadRequest(text=body.decode(), content_type="application/json", headers=LABEL)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve on loopback until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m farthing.proxy.simulated", description="A simulated upstream.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefill-ms", type=float, default=Pace().prefill_ms)
    parser.add_argument("--token-ms", type=float, default=Pace().token_ms)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("simulated upstream (no model: answers are invented) on http://127.0.0.1:%d/v1", options.port)
    pace = Pace(options.prefill_ms, options.token_ms)
    web.run_app(application(pace), host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
