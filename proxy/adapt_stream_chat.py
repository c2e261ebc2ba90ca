"""A stream of Anthropic's messages as a chat's chunks, event by event. Pure. Rules: see adapt_shared.

What is held: how far the stream is, its usage, and a thought until its signature comes (at most MOST_THOUGHT_CHARS).
An event of an unknown kind is passed by, as the API's versioning asks of its readers; a block or a delta of an unknown
kind is part of the answer, and is refused.

Sources: Anthropic API reference, "Streaming messages" and "Versions"; OpenAI API reference, "The chat completion chunk
object".
"""

from __future__ import annotations

from typing import Any

from farthing.cache.exact_json import dumps
from farthing.proxy.adapt_answers import MOST_THOUGHT_CHARS, detail_of, ending, explained, sealed
from farthing.proxy.adapt_errors import chat_error, error_to_chat
from farthing.proxy.adapt_shared import Fields, Piece, Refused, chat_usage, dumped, failing_safely, object_of
from farthing.proxy.sse import events

__all__ = ["StreamToChat"]


class StreamToChat:
    """Feed it whole events. The chunk with the usage, which not every client asked for, is marked `usage_only`."""

    def __init__(self, created_s: int) -> None:
        self._created_s = created_s
        self._envelope: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._end: dict[str, Any] = {}
        self._kind = ""
        self._index: int | None = None  # of the block under way
        self._calls = 0
        self._spoken = False  # the input of the call under way has begun
        self._thought: list[str] = []
        self._thought_chars = 0
        self._signature = ""
        self._over = False

    @failing_safely
    def feed(self, event: bytes) -> list[Piece]:
        """The chunks that an event (or several) amounts to. Raises Refused: the stream makes no sense."""
        out: list[Piece] = []
        for one in events(event):
            if one.data and not self._over:
                out += self._see(object_of(one.data, "event"))
        return out

    def finish(self) -> list[Piece]:
        """Nothing. Raises Refused: without its `message_stop` or an error it has broken off."""
        if not self._over:
            raise Refused("stream", "broke off before it said how it ends")
        return []

    def _see(self, value: dict[str, Any]) -> list[Piece]:
        match value.get("type"):
            case "message_start":
                return self._begin(Fields(value).need("message", dict))
            case "content_block_start":
                self._index = Fields(value).take("index", int)
                return self._open(Fields(Fields(value).need("content_block", dict), "content_block"))
            case "content_block_delta":
                self._at(value)
                return self._grow(Fields(Fields(value).need("delta", dict), "delta"))
            case "content_block_stop":
                self._at(value)
                return self._close()
            case "message_delta":
                if isinstance(delta := value.get("delta"), dict):
                    self._end |= {name: item for name, item in delta.items() if item is not None}
                self._count(value.get("usage"))
                return []
            case "message_stop":
                return self._stop()
            case "ping":
                return [Piece(b": ping\n\n")]
            case "error":
                self._over = True
                return [Piece(b"data: " + chat_error(error_to_chat(value.get("error"))) + b"\n\n")]
            case str(kind) if not kind.startswith("content_block"):
                return []
            case kind:
                raise Refused("event.type", f"= {str(kind)[:40]!r} isn't known")

    def _at(self, value: dict[str, Any]) -> None:
        if self._index is None or value.get("index") != self._index:
            raise Refused("event.index", "is of a block that isn't open")

    def _begin(self, message: dict[str, Any]) -> list[Piece]:
        if self._envelope:
            raise Refused("event.type", "= 'message_start' comes twice")
        self._envelope = {
            "id": message.get("id"),
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": message.get("model"),
        }
        self._count(message.get("usage"))
        return self._said({"role": "assistant"})

    def _count(self, usage: Any) -> None:
        """Counts are cumulative; some servers that don't count the input again say 0 for it at the end."""
        if isinstance(usage, dict):
            self._usage |= {
                name: count
                for name, count in usage.items()
                if count or (count is not None and (name == "output_tokens" or name not in self._usage))
            }

    def _open(self, block: Fields) -> list[Piece]:
        self._kind = block.need("type", str)
        match self._kind:
            case "text":
                return self._said({"content": block.take("text", str) or ""})
            case "thinking":
                self._thought, self._thought_chars = [], 0
                self._signature = block.take("signature", str) or ""
                return self._think(block.take("thinking", str) or "")
            case "redacted_thinking":
                return self._said({"reasoning_details": [sealed(block.need("data", str))]})
            case "tool_use":
                given = block.take("input", dict)
                called = {"name": block.need("name", str), "arguments": dumped(given) if given else ""}
                head = {"index": self._calls, "id": block.need("id", str), "type": "function", "function": called}
                self._spoken = bool(given)
                self._calls += 1
                return self._said({"tool_calls": [head]})
            case kind:
                raise Refused("content_block.type", f"= {kind[:40]!r} isn't known")

    def _grow(self, delta: Fields) -> list[Piece]:
        kind = delta.need("type", str)
        match self._kind, kind:
            case "text", "text_delta":
                return self._said({"content": delta.need("text", str)})
            case "thinking", "thinking_delta":
                return self._think(delta.need("thinking", str))
            case "thinking", "signature_delta":
                self._signature += delta.need("signature", str)
                return []
            case "tool_use", "input_json_delta":
                text = delta.need("partial_json", str)
                return self._argue(text) if text else []
            case "text", "citations_delta":
                return []
            case _:
                raise Refused("delta.type", f"= {kind[:40]!r} isn't known here")

    def _think(self, text: str) -> list[Piece]:
        self._thought_chars += len(text)
        if self._thought_chars <= MOST_THOUGHT_CHARS:
            self._thought.append(text)
        else:
            self._thought.clear()
        return self._said({"reasoning_content": text})

    def _argue(self, text: str) -> list[Piece]:
        self._spoken = True
        return self._said({"tool_calls": [{"index": self._calls - 1, "function": {"arguments": text}}]})

    def _close(self) -> list[Piece]:
        kind, self._kind, self._index = self._kind, "", None
        if kind == "tool_use" and not self._spoken:
            return self._argue("{}")
        if kind == "thinking" and self._thought_chars <= MOST_THOUGHT_CHARS:
            details = detail_of("".join(self._thought), self._signature)
            self._thought.clear()
            return self._said({"reasoning_details": details}) if details else []
        return []

    def _stop(self) -> list[Piece]:
        self._over = True
        out = self._said({"refusal": refusal}) if (refusal := explained(self._end)) else []
        out += self._said({}, ending(self._end))
        usage, tier = chat_usage(self._usage)
        if usage is not None:
            told = self._envelope | {"choices": [], "usage": usage} | ({"service_tier": tier} if tier else {})
            out.append(Piece(b"data: " + dumps(told) + b"\n\n", usage_only=True))
        return [*out, Piece(b"data: [DONE]\n\n")]

    def _said(self, delta: dict[str, Any], end: dict[str, Any] | None = None) -> list[Piece]:
        if not self._envelope:
            raise Refused("event.type", "is of a message that hasn't begun")
        choice = {"index": 0, "delta": delta} | (end or {"finish_reason": None})
        return [Piece(b"data: " + dumps(self._envelope | {"choices": [choice]}) + b"\n\n")]
