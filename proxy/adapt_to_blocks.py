"""What is said in a chat as Anthropic's turns of content blocks. Pure. Rules: see adapt_shared.

Sources: OpenAI API reference, "Create chat completion"; Anthropic API reference, "Create a message". Left out because
it changes no answer: thinking of earlier turns that has no signature (Anthropic doesn't take it), annotations,
`prompt_cache_breakpoint`, an image's `detail` of auto or high.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from farthing.proxy.adapt_shared import Fields, Refused, cached, object_of

__all__ = ["system_and_turns"]

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)((?:;[\w=.-]+)*?);base64,", re.ASCII)
_NAMED = {"image/jpg": "image/jpeg"}  # OpenAI takes both names, Anthropic the registered one
_Kinds = Mapping[str, Callable[[Fields], dict[str, Any]]]


def system_and_turns(fields: Fields) -> dict[str, Any]:
    """`system` is what instructions come first; later ones stay where they are (models before 4.8 refuse those)."""
    instructions: list[Any] = []
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None
    role = ""
    for i, turn in enumerate(fields.need("messages", list)):
        message = Fields(turn, f"messages[{i}]")
        role = message.need("role", str)
        message.may_be("name", why="has no counterpart: speakers have no names there")
        if role == "tool":
            result = _result(message)
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append(result)
        elif role in ("system", "developer"):
            content = _content(message, _TEXTS)
            if content and turns:
                turns.append({"role": "system", "content": content})
            elif content:  # an empty text says nothing, and Anthropic refuses it
                instructions.append(content)
        elif role == "user":
            turns.append({"role": "user", "content": _content(message, _PARTS)})
        elif role == "assistant":
            if spoken := _spoken(message):
                turns.append({"role": "assistant", "content": spoken})
        else:
            raise Refused(message.path("role"), f"= {role[:40]!r} has no counterpart")
        message.done()
        results = results if role == "tool" else None
    if role == "assistant":
        raise Refused("messages", "must not end with an assistant's: there it would be gone on with, not answered")
    if len(instructions) == 1:
        return {"system": instructions[0], "messages": turns}
    blocks = [block for content in instructions for block in _blocks(content)]
    return ({"system": blocks} if blocks else {}) | {"messages": turns}


def _blocks(content: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return told if content else []


def _content(message: Fields, kinds: _Kinds) -> Any:
    """A message's content: a text stays one, parts become blocks; a mark on the message stands on its last block."""
    content = message.need("content", object)
    mark = message.take("cache_control", dict)
    if isinstance(content, list):
        where = message.path("content")
        blocks = [block for i, part in enumerate(content) if (block := _part(part, f"{where}[{i}]", kinds))]
    elif isinstance(content, str):
        if mark is None:
            return content
        blocks = _blocks(content)
    else:
        raise Refused(message.path("content"), "must be a text or a list of parts")
    if mark is not None and blocks:
        blocks[-1] = blocks[-1] | {"cache_control": mark}
    return blocks


def _part(part: Any, where: str, kinds: _Kinds) -> dict[str, Any] | None:
    """A part as a block; None for an empty text, which Anthropic refuses."""
    fields = Fields(part, where)
    kind = fields.need("type", str)
    if kind not in kinds:
        raise Refused(f"{where}.type", f"= {kind[:40]!r} has no counterpart")
    block = cached(fields, kinds[kind](fields))
    fields.leave_out("prompt_cache_breakpoint")
    fields.done()
    return None if block.get("text") == "" else block


def _text(fields: Fields) -> dict[str, Any]:
    return {"type": "text", "text": fields.need("text", str)}


def _refusal(fields: Fields) -> dict[str, Any]:
    return {"type": "text", "text": fields.need("refusal", str)}


def _image(fields: Fields) -> dict[str, Any]:
    inner = Fields(fields.need("image_url", dict), fields.path("image_url"))
    url = inner.need("url", str)
    inner.may_be("detail", "auto", "high", why="can't be chosen there")
    inner.done()
    return {"type": "image", "source": _source(url, inner.path("url"))}


def _file(fields: Fields) -> dict[str, Any]:
    inner = Fields(fields.need("file", dict), fields.path("file"))
    inner.may_be("file_id", why="names a file that the upstream doesn't have")
    source = _source(inner.need("file_data", str), inner.path("file_data"))
    if source.get("media_type") != "application/pdf":
        raise Refused(inner.path("file_data"), "must be a data URL with a PDF")
    title = inner.take("filename", str)
    inner.done()
    return {"type": "document", "source": source} | ({"title": title} if title else {})


def _source(url: str, where: str) -> dict[str, Any]:
    if (found := _DATA_URL.match(url)) is not None:
        kind = found[1].lower()
        return {"type": "base64", "media_type": _NAMED.get(kind, kind), "data": url[found.end() :]}
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise Refused(where, "must be an http(s) address or a data URL in base64")


_TEXTS: _Kinds = {"text": _text}
_PARTS: _Kinds = {"text": _text, "image_url": _image, "file": _file}
_SPOKEN: _Kinds = {"text": _text, "refusal": _refusal}
_RESULTS: _Kinds = {"text": _text, "image_url": _image}


def _spoken(message: Fields) -> Any:
    """What the assistant said and called; None for nothing."""
    message.may_be("audio")
    message.may_be("function_call", why="is the old form of tools: send `tool_calls`")
    message.leave_out("reasoning_content", "reasoning", "annotations")
    thoughts = _thoughts(message)
    calls = message.take("tool_calls", list) or []
    refusal = message.take("refusal", str)
    content: Any = None
    if (value := message.take("content", object)) is not None:
        held = Fields({"content": value, "cache_control": message.take("cache_control", dict)}, message.where)
        content = _content(held, _SPOKEN)
    if not (thoughts or calls or refusal):
        return content or None
    blocks = [*thoughts, *_blocks(content or "")]
    if refusal:
        blocks.append({"type": "text", "text": refusal})
    return blocks + [_call(call, message.path(f"tool_calls[{i}]")) for i, call in enumerate(calls)]


def _thoughts(message: Fields) -> list[dict[str, Any]]:
    """Signed thinking that an answer brought in `reasoning_details`; the rest Anthropic wouldn't take."""
    found: list[dict[str, Any]] = []
    for i, detail in enumerate(message.take("reasoning_details", list) or []):
        fields = Fields(detail, message.path(f"reasoning_details[{i}]"))
        text, signature, sealed = (fields.take(name, object) for name in ("text", "signature", "data"))
        if isinstance(sealed, str):
            found.append({"type": "redacted_thinking", "data": sealed})
        elif isinstance(signature, str) and isinstance(text, str):
            found.append({"type": "thinking", "thinking": text, "signature": signature})
    return found


def _call(call: Any, where: str) -> dict[str, Any]:
    outer = Fields(call, where)
    outer.may_be("type", "function", why="must be function: other kinds of tools have no counterpart")
    function = Fields(outer.need("function", dict), f"{where}.function")
    given = function.take("arguments", str) or "{}"
    block = {
        "type": "tool_use",
        "id": outer.need("id", str),
        "name": function.need("name", str),
        "input": object_of(given, function.path("arguments")),
    }
    block = cached(outer, block)
    outer.leave_out("index")
    function.done()
    outer.done()
    return block


def _result(message: Fields) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.need("tool_call_id", str)}
    block = cached(message, block)
    content = _content(message, _RESULTS)
    return block | ({"content": content} if content else {})
