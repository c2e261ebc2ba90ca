"""Whole answers between Anthropic's messages and OpenAI's chats, both ways. Pure. Rules: see adapt_shared.

Rules of this file:
1. An answer has been paid for, so what the other side has no word for is left out where it says nothing that was asked
   for; a block that nobody knows is refused. An end that nobody knows is `length`: it may not pass for whole.
2. Thinking becomes `reasoning_content` (DeepSeek's, vLLM's); with its signature it stands in `reasoning_details`
   (OpenRouter's) too, so that a client can send it back.

Sources: OpenAI API reference, "The chat completion object"; Anthropic API reference, "Messages"; DeepSeek, vLLM and
OpenRouter for reasoning; Mistral, "Reasoning" (thoughts and texts in a `content` that is a list); vLLM for a choice's
`stop_reason`, which is the stop sequence that was met.
"""

from __future__ import annotations

from typing import Any

from farthing.cache.exact_json import dumps
from farthing.proxy.adapt_shared import (
    CUT_SHORT,
    FINISHES,
    STOPS,
    Fields,
    Refused,
    chat_usage,
    dumped,
    failing_safely,
    message_usage,
    object_of,
)

__all__ = [
    "MOST_THOUGHT_CHARS",
    "answer_to_chat",
    "answer_to_message",
    "detail_of",
    "reasoning_in",
    "said_in",
    "stop_of",
    "thoughts_in",
]

MOST_THOUGHT_CHARS = 1_000_000
"""A longer thought is told without its signature: a stream would have to hold it."""


@failing_safely
def answer_to_chat(body: bytes, created_s: int) -> bytes:
    """A message as a chat completion. Raises Refused."""
    value = object_of(body, "body")
    if value.get("type") != "message":
        raise Refused("type", "is no message")
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for i, block in enumerate(Fields(value).need("content", list)):
        fields = Fields(block, f"content[{i}]")
        kind = fields.need("type", str)
        if kind == "text":
            texts.append(fields.need("text", str))
        elif kind == "thinking":
            thoughts.append(fields.need("thinking", str))
            details += detail_of(thoughts[-1], fields.take("signature", str))
        elif kind == "redacted_thinking":
            details.append(sealed(fields.need("data", str)))
        elif kind == "tool_use":
            called = {"name": fields.need("name", str), "arguments": dumped(fields.need("input", dict))}
            calls.append({"id": fields.need("id", str), "type": "function", "function": called})
        else:
            raise Refused(fields.path("type"), f"= {kind[:40]!r} isn't known")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if details:
        message["reasoning_details"] = details
    if calls:
        message["tool_calls"] = calls
    if refusal := explained(value):
        message["refusal"] = refusal
    usage, tier = chat_usage(value.get("usage"))
    out = {
        "id": value.get("id"),
        "object": "chat.completion",
        "created": created_s,
        "model": value.get("model"),
        "choices": [{"index": 0, "message": message} | ending(value)],
    }
    return dumps(out | ({"usage": usage} if usage else {}) | ({"service_tier": tier} if tier else {}))


def detail_of(thought: str, signature: Any) -> list[dict[str, Any]]:
    """A signed thought as OpenRouter tells it; none where it isn't signed, or is too long."""
    if not isinstance(signature, str) or not signature or len(thought) > MOST_THOUGHT_CHARS:
        return []
    return [{"type": "reasoning.text", "text": thought, "signature": signature, "format": "anthropic-claude-v1"}]


def sealed(data: str) -> dict[str, Any]:
    """A redacted thought as OpenRouter tells it."""
    return {"type": "reasoning.encrypted", "data": data, "format": "anthropic-claude-v1"}


def explained(value: dict[str, Any]) -> str:
    """Why the model refused, in words; '' where it doesn't say."""
    details = value.get("stop_details")
    words = details.get("explanation") if isinstance(details, dict) else None
    return words if isinstance(words, str) else ""


def ending(value: dict[str, Any]) -> dict[str, Any]:
    """How a choice ended, of what a message (or a `message_delta`) says of its end."""
    reason, met = value.get("stop_reason"), value.get("stop_sequence")
    finish = None if reason is None else FINISHES.get(reason, "length") if isinstance(reason, str) else "length"
    return {"finish_reason": finish} | ({"stop_reason": met} if isinstance(met, str) else {})


@failing_safely
def answer_to_message(body: bytes) -> bytes:
    """A chat completion of one choice as a message. Raises Refused."""
    value = object_of(body, "body")
    choices = Fields(value).need("choices", list)
    if len(choices) != 1:
        raise Refused("choices", "must be one")
    choice = Fields(choices[0], "choices[0]")
    message = choice.need("message", dict)
    finish, met = choice.take("finish_reason", str), choice.take("stop_reason", object)
    blocks = [*thoughts_in(message)]
    said = Fields(message, "choices[0].message")
    (thought, text), refusal = said_in(said), said.take("refusal", str)
    if thought:
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text:
        blocks.append({"type": "text", "text": text})
    calls = said.take("tool_calls", list) or []
    blocks += _all_called(calls, said.path("tool_calls"), value.get("id"), cut=finish in CUT_SHORT)
    if said.take("function_call", dict) or said.take("audio", dict):
        raise Refused(said.path("function_call"), "or audio in an answer has no counterpart")
    tier = value.get("service_tier")
    out = {
        "id": value.get("id"),
        "type": "message",
        "role": "assistant",
        "model": value.get("model"),
        "content": blocks,
    }
    return dumps(
        out
        | stop_of(finish, met, called=bool(calls), refusal=refusal or "")
        | {"usage": message_usage(value.get("usage"), tier)}
    )


def stop_of(finish: str | None, met: Any, *, called: bool, refusal: str) -> dict[str, Any]:
    """How a message ended, of what a choice says of its end. Gemini says 'stop' where there are calls.

    Raises Refused: in an error, or in a way that nobody knows.
    """
    if finish is not None and finish not in STOPS:
        raise Refused("choices[0].finish_reason", f"= {finish[:40]!r} has no counterpart")
    reason = None if finish is None else STOPS[finish]
    matched = met if reason == "end_turn" and isinstance(met, str) else None
    if refusal:
        reason = "refusal"
    elif reason == "end_turn" and called:
        reason = "tool_use"
    elif matched is not None:
        reason = "stop_sequence"
    told: dict[str, Any] = {"stop_reason": reason, "stop_sequence": matched if reason == "stop_sequence" else None}
    if refusal:
        told |= {"stop_details": {"type": "refusal", "category": None, "explanation": refusal}}
    return told


def reasoning_in(message: dict[str, Any]) -> str:
    """What a message or delta says of the model's thinking; newer vLLM and OpenRouter call it `reasoning`."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(text := message.get(name), str) and text:
            return text
    return ""


def thoughts_in(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks of thinking of a message or delta: the signed ones, or else what is told without a signature."""
    blocks: list[dict[str, Any]] = []
    signed = False
    details = message.get("reasoning_details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        text, signature, data = detail.get("text"), detail.get("signature"), detail.get("data")
        if detail.get("type") == "reasoning.encrypted" and isinstance(data, str):
            blocks.append({"type": "redacted_thinking", "data": data})
        elif isinstance(signature, str) and signature:
            signed = True
            thought = text if isinstance(text, str) else ""
            blocks.append({"type": "thinking", "thinking": thought, "signature": signature})
    if not signed and (plain := reasoning_in(message)):
        blocks.append({"type": "thinking", "thinking": plain, "signature": ""})
    return blocks


def said_in(fields: Fields) -> tuple[str, str]:
    """What a message or delta thinks in its `content`, and what it says there: a text, or Mistral's list of both."""
    content = fields.take("content", object)
    if content is None or isinstance(content, str):
        return "", content or ""
    if not isinstance(content, list):
        raise Refused(fields.path("content"), "must be a text or a list of parts")
    thoughts, texts = [], []
    for i, part in enumerate(content):
        one = Fields(part, fields.path(f"content[{i}]"))
        kind = one.need("type", str)
        if kind == "text":
            texts.append(one.need("text", str))
        elif kind == "thinking":
            thoughts.append(said_in(Fields({"content": one.need("thinking", object)}, one.where))[1])
        else:
            raise Refused(one.path("type"), f"= {kind[:40]!r} isn't known")
    return "".join(thoughts), "".join(texts)


def _all_called(calls: list[Any], where: str, answer_id: Any, *, cut: bool) -> list[dict[str, Any]]:
    """The calls as blocks. `cut`: the answer broke off at its limit, so that the last one may be half a call, which
    nobody must carry out: it is left out, as the stop reason says."""
    blocks = []
    for i, call in enumerate(calls):
        half = cut and i == len(calls) - 1
        try:
            blocks.append(_called(call, f"{where}[{i}]", answer_id, i, "" if half else "{}"))
        except Refused:
            if not half:
                raise
    return blocks


def _called(call: Any, where: str, answer_id: Any, number: int, empty: str) -> dict[str, Any]:
    """`empty`: what no arguments at all stand for."""
    fields = Fields(call, where)
    function = Fields(fields.need("function", dict), f"{where}.function")
    given = function.take("arguments", str) or empty
    return {
        "type": "tool_use",
        "id": fields.take("id", str) or call_id(answer_id, number),
        "name": function.need("name", str),
        "input": object_of(given, function.path("arguments")),
    }


def call_id(answer_id: Any, number: int) -> str:
    """A call's id where the upstream gives none (Gemini)."""
    return f"toolu_{answer_id if isinstance(answer_id, str) else ''}_{number}"
