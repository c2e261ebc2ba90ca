"""Requests and answers of every API as messages of OpenTelemetry's GenAI conventions: a role and parts. Pure.

Rules of this file: nothing raises on any JSON value; pictures, sounds and files are told by type and size, never by
their bytes, and addresses without what follows a `?`; what has no agreed form is told by its type and size alone.

Sources: open-telemetry/semantic-conventions-genai: docs/gen-ai/client-inference.md, and under model/gen-ai the schemas
gen-ai-input-messages.json, gen-ai-output-messages.json, gen-ai-system-instructions.json, gen-ai-tool-definitions.json;
1.41 has the same forms. The API references of OpenAI and Anthropic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from farthing.cache.exact_json import dumps

__all__ = ["FINISH", "Asked", "Message", "Part", "answered", "asked", "call", "reasoning", "text"]

Part = dict[str, Any]
Message = dict[str, Any]

FINISH: Mapping[Any, str] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_call"),
    **dict.fromkeys(("content_filter", "refusal"), "content_filter"),
    **dict.fromkeys(("failed", "cancelled", None), "error"),
}
"""Why a generation ended, in the conventions' words. None: it didn't say, so it broke off."""

_AGREED = frozenset(
    {"text", "reasoning", "tool_call", "tool_call_response", "server_tool_call", "server_tool_call_response", "blob"}
    | {"uri", "file", "compaction"}
)
_CREDENTIAL = re.compile(r"//[^/@]*@")
_MODALITY = {"image": "image", "audio": "audio", "video": "video"}


class Asked(NamedTuple):
    """What a request says. `instructions`: those that its API takes apart from the messages."""

    instructions: list[Part]
    messages: list[Message]
    tools: list[Part]


def asked(endpoint: str, request: Mapping[str, Any]) -> Asked:
    """What goes to the model; nothing for embeddings, of which the conventions record no content."""
    tools = [_tool(one) for one in _list(request.get("tools"))]
    if endpoint == "chat":
        return Asked([], [_chat(one) for one in _list(request.get("messages"))], tools)
    if endpoint == "messages":
        turns = [_message(one.get("role"), one.get("content")) for one in _dicts(request.get("messages"))]
        return Asked(_parts(request.get("system")), turns, tools)
    if endpoint == "responses":
        given = request.get("input")
        turns = [_message("user", given)] if isinstance(given, str) else [_item(one) for one in _dicts(given)]
        return Asked(_parts(request.get("instructions")), turns, tools)
    if endpoint == "completions":
        return Asked([], [_message("user", one) for one in _prompts(request.get("prompt"))], [])
    return Asked([], [], [])


def answered(endpoint: str, answer: Any) -> list[Message]:
    """One message for each generation of a whole answer; none where it is an error."""
    if not isinstance(answer, dict):
        return []
    if endpoint in ("chat", "completions"):
        return [_choice(one) for one in _dicts(answer.get("choices"))]
    if endpoint == "messages" and answer.get("type") == "message":
        return [_message("assistant", answer.get("content")) | _ended(answer.get("stop_reason"))]
    if endpoint == "responses" and answer.get("object") == "response":
        parts = [part for item in _dicts(answer.get("output")) for part in _item(item)["parts"]]
        told = answer.get("incomplete_details")
        reason = (told.get("reason") if isinstance(told, dict) else None) or answer.get("status")
        if reason == "completed" and any(part["type"] == "tool_call" for part in parts):
            reason = "tool_calls"
        return [{"role": "assistant", "parts": parts} | _ended(reason)]
    return []


def text(said: Any) -> Part:
    """What was written."""
    return {"type": "text", "content": said} if isinstance(said, str) else _other(None, said)


def reasoning(said: Any) -> Part:
    """What was thought."""
    return {"type": "reasoning", "content": said} if isinstance(said, str) else _other(None, said)


def call(name: Any, identity: Any, arguments: Any) -> Part:
    """A tool's call."""
    return {"type": "tool_call", "id": _word(identity), "name": _word(name) or "", "arguments": arguments}


def _choice(one: Mapping[str, Any]) -> Message:
    message = one.get("message")
    said = _chat(message) if isinstance(message, dict) else _message("assistant", one.get("text"))
    return said | _ended(one.get("finish_reason"))


def _ended(reason: Any) -> dict[str, str]:
    known = FINISH.get(reason) if isinstance(reason, str | None) else "error"
    return {"finish_reason": known or reason}


def _chat(one: Any) -> Message:
    """A message of a chat, in a request or an answer."""
    if not isinstance(one, dict):
        return {"role": "", "parts": [_other(None, one)]}
    role, content = one.get("role"), one.get("content")
    if role in ("tool", "function"):
        answer = content if isinstance(content, str | None) else _parts(content)
        return {"role": "tool", "parts": [_response(one.get("tool_call_id") or one.get("name"), answer)]}
    parts = [reasoning(one[name]) for name in ("reasoning_content", "reasoning") if one.get(name)][:1]
    parts += _parts(content)
    if one.get("refusal"):
        parts.append({"type": "refusal", "content": one["refusal"]})
    if one.get("audio"):
        parts.append(_blob("audio", one["audio"].get("data") if isinstance(one["audio"], dict) else None))
    for each in _dicts(one.get("tool_calls")):
        inner = each.get("function") or each.get("custom")
        inner = inner if isinstance(inner, dict) else {}
        parts.append(call(inner.get("name"), each.get("id"), inner.get("arguments", inner.get("input"))))
    if isinstance(legacy := one.get("function_call"), dict):
        parts.append(call(legacy.get("name"), None, legacy.get("arguments")))
    named = {"name": one["name"]} if isinstance(one.get("name"), str) else {}
    return {"role": _word(role) or "assistant", "parts": parts, **named}


def _message(role: Any, content: Any) -> Message:
    return {"role": _word(role) or "", "parts": _parts(content)}


def _item(one: dict[str, Any]) -> Message:
    """An item of a response's input or output."""
    kind = one.get("type", "message")
    if kind == "message":
        return _message(one.get("role", "assistant"), one.get("content"))
    if kind in ("function_call_output", "custom_tool_call_output"):
        answer = one.get("output")
        answer = answer if isinstance(answer, str | None) else _parts(answer)
        return {"role": "tool", "parts": [_response(one.get("call_id"), answer)]}
    if kind == "reasoning":
        thoughts = [*_dicts(one.get("content")), *_dicts(one.get("summary"))]
        return {"role": "assistant", "parts": [reasoning(each.get("text")) for each in thoughts]}
    return {"role": "assistant", "parts": [_part(one)]}


def _parts(content: Any) -> list[Part]:
    if content is None:
        return []
    return [_part(one) for one in content] if isinstance(content, list) else [_part(content)]


def _part(one: Any) -> Part:
    """A part as any of the APIs writes it: their names for parts don't collide."""
    if isinstance(one, str):
        return text(one)
    if not isinstance(one, dict):
        return _other(None, one)
    kind = one.get("type")
    match kind:
        case "text" | "input_text" | "output_text":
            return text(one.get("text"))
        case "refusal" if isinstance(one.get("refusal"), str):
            return {"type": "refusal", "content": one["refusal"]}
        case "thinking":
            return reasoning(one.get("thinking"))
        case "tool_use":
            return call(one.get("name"), one.get("id"), one.get("input"))
        case "function_call" | "custom_tool_call":
            return call(one.get("name"), one.get("call_id"), one.get("arguments", one.get("input")))
        case "tool_result":
            answer = one.get("content")
            return _response(one.get("tool_use_id"), answer if isinstance(answer, str | None) else _parts(answer))
        case "image_url":
            inner = one.get("image_url")
            return _held("image", inner.get("url") if isinstance(inner, dict) else inner)
        case "input_image":
            return _file("image", one) or _held("image", one.get("image_url"))
        case "input_audio":
            inner = one.get("input_audio")
            inner = inner if isinstance(inner, dict) else {}
            return _blob("audio", inner.get("data"), f"audio/{inner.get('format', 'unknown')}")
        case "file" | "input_file":
            inner = one.get("file")
            inner = inner if isinstance(inner, dict) else one
            return _file("document", inner) or _held("document", inner.get("file_data") or inner.get("file_url"))
        case "image" | "document":
            return _source(kind, one.get("source"))
    return _other(kind, one)


def _source(kind: str, source: Any) -> Part:
    """Anthropic's pictures and documents."""
    source = source if isinstance(source, dict) else {}
    if source.get("type") == "text":
        return text(source.get("data"))
    if source.get("type") == "url":
        return _held(kind, source.get("url"))
    return _file(kind, source) or _blob(kind, source.get("data"), source.get("media_type"))


def _file(modality: str, one: Mapping[str, Any]) -> Part | None:
    named = one.get("file_id")
    return {"type": "file", "modality": modality, "file_id": named} if isinstance(named, str) else None


def _held(modality: str, where: Any) -> Part:
    """What stands in an address: the data itself, or where it lies."""
    if not isinstance(where, str) or where.startswith("data:") or "://" not in where[:16]:
        return _blob(modality, where)
    bare = _CREDENTIAL.sub("//", where.partition("?")[0].partition("#")[0], count=1)
    return {"type": "uri", "modality": modality, "uri": bare}


def _blob(modality: str, data: Any, mime: Any = None) -> Part:
    """The bytes are left out: `content`, which a blob must have, is empty, and `bytes` says how many there were."""
    length = len(data) if isinstance(data, str) else 0
    if length and data.startswith("data:"):
        head = data[:200].partition(",")[0]
        mime, length = head[5:].partition(";")[0], length - len(head) - 1
    kind = _word(mime)
    modality = _MODALITY.get((kind or "").partition("/")[0], modality)
    return {"type": "blob", "modality": modality, "mime_type": kind, "content": "", "bytes": length * 3 // 4}


def _response(identity: Any, answer: Any) -> Part:
    return {"type": "tool_call_response", "id": _word(identity), "response": answer}


def _other(kind: Any, value: Any) -> Part:
    """What has no agreed form. A word that the conventions mean something else by isn't taken over."""
    kind = _word(kind) or "unknown"
    return {"type": "unknown" if kind in _AGREED else kind, "bytes": _size(value)}


def _size(value: Any) -> int:
    try:
        return len(dumps(value))
    except TypeError:  # lone surrogates
        return len(str(value))


def _tool(one: Any) -> Part:
    """A tool by its type and name: the conventions advise against the rest, which may be large."""
    if not isinstance(one, dict):
        return {"type": "unknown", "name": ""}
    inner = one.get("function") or one.get("custom")
    name = (inner if isinstance(inner, dict) else one).get("name")
    kind = _word(one.get("type")) or "function"
    return {"type": kind, "name": _word(name) or kind}


def _prompts(prompt: Any) -> list[Any]:
    """A completion's prompts: one, several, or one or several as numbers of tokens."""
    if isinstance(prompt, list) and not all(isinstance(one, int) for one in prompt):
        return [[{"type": "tokens", "tokens": one}] if isinstance(one, list) else one for one in prompt]
    return [] if prompt is None else [[{"type": "tokens", "tokens": prompt}] if isinstance(prompt, list) else prompt]


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]
