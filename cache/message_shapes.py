"""Anthropic messages, stream <-> whole. Pure.

Rules of this file:
1. A block comes as its start says it, but for what grows in deltas: text, citations, a tool's input, thinking and its
   signature. A block of another type is carried only where it is known to come in one piece.
2. Usage is what `message_start` said, over which go the cumulative counts of `message_delta`.

Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from farthing.cache.exact_json import dumps, loads
from farthing.cache.shaping import PIECE_CHARS, Unsure, a, agree, in_order, named, once, said, slices

__all__ = ["merged", "stream"]

# Where each kind of delta goes: the block's type, the delta's field, the block's field.
_DELTAS = {
    "text_delta": ("text", "text", "text"),
    "citations_delta": ("text", "citation", "citations"),
    "input_json_delta": ("tool_use", "partial_json", "input"),
    "thinking_delta": ("thinking", "thinking", "thinking"),
    "signature_delta": ("thinking", "signature", "signature"),
}
_BLOCKS = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})
# Fields of a message that stand in the delta of `message_delta`, and one that stands beside it.
_ENDING = ("stop_reason", "stop_sequence", "stop_details", "container")
_BESIDE = "context_management"
_COUNTED = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)


@dataclass(slots=True)
class _Block:
    """A content block in the making."""

    start: dict[str, Any]
    pieces: dict[str, list[Any]] = field(default_factory=dict)
    stopped: bool = False

    def add(self, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if self.stopped or kind not in _DELTAS:
            raise Unsure("a delta that belongs nowhere")
        block, name, grows = _DELTAS[kind]
        if self.start["type"] != block or delta.keys() != {"type", name}:
            raise Unsure("a delta of another block")
        self.pieces.setdefault(grows, []).append(delta[name])

    def whole(self) -> dict[str, Any]:
        if not self.stopped:
            raise Unsure("a block without its end")
        block = dict(self.start)
        for name, pieces in self.pieces.items():
            if name == "citations":
                block[name] = [*(a(list, block.get(name) or [])), *pieces]
            elif name == "input":
                text = "".join(a(str, piece) for piece in pieces)
                if text and block.get(name):
                    raise Unsure("an input said twice")
                block[name] = a(dict, loads(text.encode())) if text else a(dict, block.get(name))
            elif name == "signature":
                block[name] = None if block.get(name) == "" else block.get(name)
                for piece in pieces:
                    once(block, name, a(str, piece))
            else:
                block[name] = a(str, block.get(name)) + "".join(a(str, piece) for piece in pieces)
        return block


def merged(sse: bytes) -> dict[str, Any]:
    """The message that a complete stream amounts to. Raises Unsure, ValueError, RecursionError."""
    events = [event for event in said(sse) if event.get("type") != "ping"]
    if len(events) < 3 or events[0].get("type") != "message_start" or events[-1].get("type") != "message_stop":
        raise Unsure("not complete")
    message: dict[str, Any] = a(dict, events[0].get("message"))
    if events[0].keys() != {"type", "message"} or events[-1].keys() != {"type"} or message.get("content") != []:
        raise Unsure("more than a start and an end")
    usage = a(dict, message.get("usage"))
    blocks: dict[int, _Block] = {}
    for event in events[1:-1]:
        match event.get("type"):
            case "content_block_start" if event.keys() == {"type", "index", "content_block"}:
                block = a(dict, event["content_block"])
                if event["index"] != len(blocks) or block.get("type") not in _BLOCKS:
                    raise Unsure("a block that isn't known")
                blocks[a(int, event["index"])] = _Block(block)
            case "content_block_delta" if event.keys() == {"type", "index", "delta"}:
                _of(blocks, event).add(a(dict, event["delta"]))
            case "content_block_stop" if event.keys() == {"type", "index"}:
                _of(blocks, event).stopped = True
            case "message_delta" if event.keys() - {_BESIDE} == {"type", "delta", "usage"}:
                _ends(message, usage, event)
            case _:
                raise Unsure("an event that isn't known")
    if message.get("stop_reason") is None:
        raise Unsure("a message without its end")
    return message | {"content": [block.whole() for block in in_order(blocks)], "usage": usage}


def _of(blocks: dict[int, _Block], event: dict[str, Any]) -> _Block:
    block = blocks.get(a(int, event["index"]))
    if block is None:
        raise Unsure("a block that hasn't begun")
    return block


def _ends(message: dict[str, Any], usage: dict[str, Any], event: dict[str, Any]) -> None:
    """Take note of a `message_delta`."""
    for name, value in a(dict, event["delta"]).items():
        if name not in _ENDING:
            raise Unsure(f"{name} of a message in a delta")
        agree(message, name, value)
    if _BESIDE in event:
        agree(message, _BESIDE, event[_BESIDE])
    for name, value in a(dict, event["usage"]).items():
        if name not in _COUNTED:
            raise Unsure(f"{name} of usage in a delta")
        if value is not None or name not in usage:
            usage[name] = value


def stream(value: dict[str, Any], *, usage: bool) -> bytes:
    """The events of a message. `usage`: nothing; messages always tell it. Raises Unsure, TypeError."""
    return b"".join(map(named, _events(value)))


def _events(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    counts = a(dict, value.get("usage"))
    counted = {name: counts[name] for name in _COUNTED if name in counts}
    later = {name: None for name in (*_ENDING, _BESIDE) if name in value}
    # What the output comes to isn't known when a message begins; there a provider has counted its first token.
    early = {name: item for name, item in counts.items() if name != "output_tokens_details"}
    if type(counts.get("output_tokens")) is int:
        early["output_tokens"] = min(1, counts["output_tokens"])
    yield {"type": "message_start", "message": value | later | {"content": [], "usage": early}}
    for index, block in enumerate(a(list, value.get("content"))):
        at = {"index": index}
        start, deltas = _cut(a(dict, block))
        yield {"type": "content_block_start"} | at | {"content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta"} | at | {"delta": delta}
        yield {"type": "content_block_stop"} | at
    ending = {name: value[name] for name in _ENDING if name in value}
    beside = {_BESIDE: value[_BESIDE]} if _BESIDE in value else {}
    yield {"type": "message_delta", "delta": ending, "usage": counted} | beside
    yield {"type": "message_stop"}


def _cut(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and the deltas that follow."""
    match block.get("type"):
        case "text":
            cited = block.get("citations")
            start = block | {"text": ""} | ({"citations": []} if cited else {})
            deltas = [_delta("text_delta", piece) for piece in slices(a(str, block.get("text")), PIECE_CHARS)]
            return start, deltas + [_delta("citations_delta", one) for one in a(list, cited or [])]
        case "tool_use":
            given = a(dict, block.get("input"))
            text = dumps(given).decode() if given else ""
            pieces = ["", *slices(text, PIECE_CHARS)]
            return block | {"input": {}}, [_delta("input_json_delta", piece) for piece in pieces]
        case "thinking":
            deltas = [_delta("thinking_delta", piece) for piece in slices(a(str, block.get("thinking")), PIECE_CHARS)]
            signature = block.get("signature")
            signed = [_delta("signature_delta", signature)] if signature else []
            return block | {"thinking": ""} | ({"signature": ""} if signature else {}), deltas + signed
        case _:
            return block, []


def _delta(kind: str, piece: Any) -> dict[str, Any]:
    return {"type": kind, _DELTAS[kind][1]: piece}
