"""A chat's stream of chunks as the events of Anthropic's messages, chunk by chunk. Pure. Rules: see adapt_shared.

Rules of this file:
1. Blocks come one after the other, each whole: thinking, text, a call. What is said goes into the block that is open if
   it is of its kind, else into a new one.
2. A chat tells its usage last, so `message_start` tells none, and `message_delta` all of it.
3. A stream that told how it ended is complete, with `[DONE]` or without; one that didn't has broken off: refused.
4. A call is passed on as it comes and read once it is whole: arguments that are no object end the stream in an error,
   for nobody may carry out half of them. Where the answer was cut short the stop reason says so instead.

Sources: OpenAI API reference, "The chat completion chunk object"; Anthropic API reference, "Streaming messages".
"""

from __future__ import annotations

from typing import Any

from farthing.cache.shaping import named
from farthing.proxy.adapt_answers import call_id, reasoning_in, said_in, stop_of, thoughts_in
from farthing.proxy.adapt_errors import error_to_message
from farthing.proxy.adapt_shared import CUT_SHORT, Fields, Piece, Refused, failing_safely, message_usage, object_of
from farthing.proxy.sse import DONE, events

__all__ = ["StreamToMessages"]

_ERROR_STATUS = 500
_MOST_ARGUED_CHARS = 1_000_000  # of a call; a longer one is passed on unread


class StreamToMessages:
    """Feed it whole events."""

    def __init__(self) -> None:
        self._id: Any = None
        self._begun = False
        self._over = False
        self._index = -1
        self._kind = ""  # of the block that is open
        self._call: Any = None  # the index of the call that is open
        self._calls = 0
        self._given = ""  # the id of the call that is open, as the upstream said it
        self._argued: list[str] = []  # its arguments
        self._argued_chars = 0
        self._owed = 0  # characters of thinking that were told with their signature and are still to be repeated
        self._finish: str | None = None
        self._met: Any = None
        self._refusal: list[str] = []
        self._usage: Any = None
        self._tier: Any = None

    @failing_safely
    def feed(self, event: bytes) -> list[Piece]:
        """The events that a chunk (or several) amounts to. Raises Refused: the stream makes no sense."""
        out: list[dict[str, Any]] = []
        for one in events(event):
            if self._over or not one.data:
                continue
            if one.data == DONE:
                out += self._end()
                continue
            value = object_of(one.data, "chunk")
            if value.get("error") is not None:
                self._over = True
                told = error_to_message(_ERROR_STATUS, value["error"])
                return [*_pieces(out), Piece(b"event: error\ndata: " + told + b"\n\n")]
            out += self._see(value)
        return _pieces(out)

    @failing_safely
    def finish(self) -> list[Piece]:
        """What is still to be said at the end. Raises Refused: it has broken off."""
        if self._over:
            return []
        if not (out := self._end()):
            raise Refused("stream", "broke off before it said how it ends")
        return _pieces(out)

    def _see(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        self._usage = value.get("usage") or self._usage
        self._tier = value.get("service_tier") or self._tier
        choices = [] if value.get("choices") is None else value["choices"]
        if not isinstance(choices, list):
            raise Refused("chunk.choices", "must be a list")
        out: list[dict[str, Any]] = []
        if not self._begun and (choices or value.get("id")):
            if not choices:
                return []  # Azure's first chunk, which only tells what its filter found in the prompt
            out += self._begin(value)
        for choice in choices:
            fields = Fields(choice, "choices[0]")
            if fields.take("index", int):
                raise Refused("choices[0].index", "must be 0: one answer was asked for")
            delta = fields.take("delta", dict)
            if delta is not None:
                out += self._grow(delta)
            self._finish = fields.take("finish_reason", str) or self._finish
            self._met = fields.take("stop_reason", object) or self._met
        return out

    def _begin(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        self._begun, self._id = True, value.get("id")
        message = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": value.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return [{"type": "message_start", "message": message}]

    def _grow(self, delta: dict[str, Any]) -> list[dict[str, Any]]:
        fields = Fields(delta, "choices[0].delta")
        if fields.take("function_call", dict) or fields.take("audio", dict):
            raise Refused(fields.path("function_call"), "or audio in an answer has no counterpart")
        thought, text = said_in(fields)
        out = self._think(delta, thought)
        if text:
            out += [*self._open("text", {"type": "text", "text": ""}), self._delta("text_delta", text=text)]
        if (refusal := fields.take("refusal", str)) is not None:
            self._refusal.append(refusal)
        for i, call in enumerate(fields.take("tool_calls", list) or []):
            out += self._argue(Fields(call, fields.path(f"tool_calls[{i}]")))
        return out

    def _think(self, delta: dict[str, Any], thought: str) -> list[dict[str, Any]]:
        """What is thought, and its signature, which comes with the thought or behind it."""
        out: list[dict[str, Any]] = []
        plain = reasoning_in(delta) or thought
        if repeated := min(self._owed, len(plain)):
            self._owed -= repeated
            plain = plain[repeated:]
        signed = thoughts_in({"reasoning_details": delta.get("reasoning_details")})
        if plain:
            out += self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            out.append(self._delta("thinking_delta", thinking=plain))
        for block in signed:
            if block["type"] == "redacted_thinking":
                out += [*self._close(), *self._open("redacted_thinking", block), *self._close()]
                continue
            if self._kind != "thinking":
                self._owed += len(block["thinking"])
                out += self._open("thinking", block | {"thinking": "", "signature": ""})
                if block["thinking"]:
                    out.append(self._delta("thinking_delta", thinking=block["thinking"]))
            out += [self._delta("signature_delta", signature=block["signature"]), *self._close()]
        return out

    def _argue(self, call: Fields) -> list[dict[str, Any]]:
        """Part of a call. Gemini's have no index: one that has a name is a new one. Ollama's may all have index 0: one
        that has a name and another id is a new one."""
        number, given = call.take("index", int), call.take("id", str)
        function = Fields(call.take("function", dict) or {}, call.path("function"))
        name, text = function.take("name", str), function.take("arguments", str)
        out: list[dict[str, Any]] = []
        other = number is None or number != self._call or (given and given != self._given)
        if name and (self._kind != "tool_use" or other):
            shown = given or call_id(self._id, self._calls)
            block: dict[str, Any] = {"type": "tool_use", "id": shown, "name": name, "input": {}}
            out += [*self._close(), *self._open("tool_use", block)]
            self._call, self._given, self._calls = number, given or "", self._calls + 1
            self._argued, self._argued_chars = [], 0
        elif self._kind != "tool_use" or (number is not None and number != self._call):
            raise Refused(call.path("index"), "is of a call that isn't under way")
        if text:
            self._argued_chars += len(text)
            if self._argued_chars <= _MOST_ARGUED_CHARS:
                self._argued.append(text)
            out.append(self._delta("input_json_delta", partial_json=text))
        return out

    def _open(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        if self._kind == kind:
            return []
        out = self._close()
        self._kind = kind
        self._index += 1
        return [*out, {"type": "content_block_start", "index": self._index, "content_block": block}]

    def _close(self, *, cut: bool = False) -> list[dict[str, Any]]:
        """Raises Refused: it is a call whose arguments are no object, though it was not `cut` short."""
        if not self._kind:
            return []
        if self._kind == "tool_use" and self._argued and not cut and self._argued_chars <= _MOST_ARGUED_CHARS:
            object_of("".join(self._argued), f"tool_calls[{self._calls - 1}].function.arguments")
        self._kind = ""
        return [{"type": "content_block_stop", "index": self._index}]

    def _delta(self, kind: str, **said: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": {"type": kind} | said}

    def _end(self) -> list[dict[str, Any]]:
        if not self._begun or self._finish is None:
            return []
        self._over = True
        last = self._close(cut=self._finish in CUT_SHORT)
        end = stop_of(self._finish, self._met, called=self._calls > 0, refusal="".join(self._refusal))
        told = message_usage(self._usage, None)
        return [*last, {"type": "message_delta", "delta": end, "usage": told}, {"type": "message_stop"}]


def _pieces(said: list[dict[str, Any]]) -> list[Piece]:
    return [Piece(named(event)) for event in said]
