"""Anthropic's turns of content blocks as the messages of a chat. Pure. Rules: see adapt_shared.

Rules of this file:
1. A turn of the user's becomes a message for each tool result, and one for the rest. Results come first, as both APIs
   want it.
2. Chats have no mark for a result that is an error: its text begins with 'Error: '. OpenAI takes no images in a tool's
   message: they follow in a message of the user's, which names the call.

Sources: Anthropic API reference, "Create a message"; OpenAI API reference, "Create chat completion". Left out because
it changes no answer: thinking of earlier turns (its signature is Anthropic's own).
"""

from __future__ import annotations

from typing import Any

from farthing.proxy.adapt_shared import Fields, Options, Refused, cached, dumped

__all__ = ["instruction", "turns_of"]

_ERROR = "Error: "


def instruction(content: Any, where: str, options: Options) -> dict[str, Any]:
    """The system message that says this. Raises Refused."""
    if isinstance(content, str):
        return {"role": "system", "content": content}
    return {"role": "system", "content": _parts(content, where, options, ("text",))}


def turns_of(turns: list[Any], options: Options) -> list[dict[str, Any]]:
    """The chat's messages. Raises Refused."""
    out: list[dict[str, Any]] = []
    role = ""
    for i, turn in enumerate(turns):
        message = Fields(turn, f"messages[{i}]")
        role = message.need("role", str)
        content, where = message.need("content", object), message.path("content")
        if role == "user":
            out += _user(content, where, options)
        elif role == "assistant":
            out.append(_assistant(content, where, options))
        elif role == "system":
            out.append(instruction(content, where, options))
        else:
            raise Refused(message.path("role"), f"= {role[:40]!r} has no counterpart")
        message.done()
    if role == "assistant":
        raise Refused("messages", "must not end with an assistant's: there it would not be gone on with")
    return out


def _user(content: Any, where: str, options: Options) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    rest: list[tuple[int, Any]] = []
    for i, block in enumerate(_list(content, where)):
        if isinstance(block, dict) and block.get("type") == "tool_result":
            results.append(_result(Fields(block, f"{where}[{i}]"), options, images))
        else:
            rest.append((i, block))
    said = images + [_part(block, f"{where}[{i}]", options, _SAID) for i, block in rest]
    return results + ([{"role": "user", "content": said}] if said or not results else [])


def _result(fields: Fields, options: Options, images: list[dict[str, Any]]) -> dict[str, Any]:
    """A tool's message. `images`: where those go that can't stand in it."""
    fields.leave_out("type")
    call = fields.need("tool_use_id", str)
    content = fields.take("content", object)
    if content is None:
        content = ""
    if not isinstance(content, str):
        content = _parts(content, fields.path("content"), options, ("text", "image"))
        if not options.tool_images and (shown := [part for part in content if part["type"] == "image_url"]):
            images += [{"type": "text", "text": f"Images in the result of {call}:"}, *shown]
            content = [part for part in content if part["type"] != "image_url"] or "(images follow)"
        content = content or ""
    if fields.take("is_error", bool):
        content = _as_error(content)
    out = {"role": "tool", "tool_call_id": call, "content": content}
    out = cached(fields, out, keep=options.cache_control)
    fields.done()
    return out


def _as_error(content: Any) -> Any:
    if isinstance(content, str):
        return content if content.startswith(_ERROR) else _ERROR + content
    if content and str(content[0].get("text", "")).startswith(_ERROR):
        return content
    return [{"type": "text", "text": _ERROR}, *content]


def _assistant(content: Any, where: str, options: Options) -> dict[str, Any]:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for i, block in enumerate(_list(content, where)):
        at = f"{where}[{i}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_use":
            calls.append(_call(Fields(block, at), options))
        elif kind not in ("thinking", "redacted_thinking"):
            texts.append(_part(block, at, options, ("text",)))
    said: Any = texts or None
    if calls and len(texts) == 1 and texts[0].keys() == {"type", "text"}:
        said = texts[0]["text"]
    if calls:
        return {"role": "assistant", "content": said, "tool_calls": calls}
    return {"role": "assistant", "content": said or ""}  # it only thought: null needs calls beside it


def _call(fields: Fields, options: Options) -> dict[str, Any]:
    fields.leave_out("type")
    out = {
        "id": fields.need("id", str),
        "type": "function",
        "function": {"name": fields.need("name", str), "arguments": dumped(fields.need("input", dict))},
    }
    out = cached(fields, out, keep=options.cache_control)
    caller = fields.take("caller", dict)
    if caller is not None and caller != {"type": "direct"}:
        raise Refused(fields.path("caller"))
    fields.done()
    return out


def _list(content: Any, where: str) -> list[Any]:
    if not isinstance(content, list):
        raise Refused(where, "must be a text or a list of blocks")
    return content


def _parts(content: Any, where: str, options: Options, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_part(block, f"{where}[{i}]", options, kinds) for i, block in enumerate(_list(content, where))]


_SAID = ("text", "image", "document")


def _part(block: Any, where: str, options: Options, kinds: tuple[str, ...]) -> dict[str, Any]:
    fields = Fields(block, where)
    kind = fields.need("type", str)
    if kind not in kinds:
        raise Refused(f"{where}.type", f"= {kind[:40]!r} has no counterpart")
    if kind == "text":
        part: dict[str, Any] = {"type": "text", "text": fields.need("text", str)}
        fields.leave_out("citations")  # of an earlier answer: they say nothing to the model that the text doesn't
    elif kind == "image":
        part = {"type": "image_url", "image_url": {"url": _url(fields)}}
    else:
        part = _document(fields)
    part = cached(fields, part, keep=options.cache_control)
    fields.done()
    return part


def _url(fields: Fields) -> str:
    source = Fields(fields.need("source", dict), fields.path("source"))
    kind = source.need("type", str)
    if kind == "base64":
        url = f"data:{source.need('media_type', str)};base64,{source.need('data', str)}"
    elif kind == "url":
        url = source.need("url", str)
    else:
        raise Refused(source.path("type"), f"= {kind[:40]!r} has no counterpart")
    source.done()
    return url


def _document(fields: Fields) -> dict[str, Any]:
    """A PDF as a file, a plain text as a text."""
    title = fields.take("title", str)
    if (citations := fields.take("citations", dict)) is not None and citations.get("enabled"):
        raise Refused(fields.path("citations"))
    given = fields.take("source", dict)
    if given is not None and given.get("type") == "text":
        source = Fields(given, fields.path("source"))
        source.leave_out("type", "media_type")
        text = source.need("data", str)
        source.done()
        return {"type": "text", "text": f"{title}\n\n{text}" if title else text}
    if given is None or given.get("type") != "base64":
        raise Refused(fields.path("source"), "must be base64 or text")
    held = Fields({"source": given}, fields.where)
    return {"type": "file", "file": {"file_data": _url(held)} | ({"filename": title} if title else {})}
