"""Streams of chunks, as chats and legacy completions have them: what surrounds the choices, merged and cut. Pure.

Source: OpenAI API reference, "The chat completion chunk object" and "The completion object"; Azure's empty first chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from farthing.cache.exact_json import dumps, loads
from farthing.cache.shaping import Unsure, a, agree, in_order
from farthing.proxy.sse import DONE, events

__all__ = ["chunk_stream", "merged_chunks"]

_ENVELOPE = ("id", "created", "model", "service_tier", "system_fingerprint")


class Growing(Protocol):
    """A choice in the making."""

    def add(self, choice: dict[str, Any]) -> None:
        """Take note of its part of a chunk. Raises Unsure."""
        ...

    def whole(self, index: int) -> dict[str, Any]:
        """The choice, when all has been said. Raises Unsure: it has no end."""
        ...


def merged_chunks(sse: bytes, chunk_object: str, whole_object: str, new: Callable[[], Growing]) -> dict[str, Any]:
    """The answer that a complete stream of chunks amounts to.

    Usage is the last one said. `obfuscation`, OpenAI's random padding, is dropped. Raises Unsure where the stream is
    not complete (`[DONE]`, a finish reason for every choice) or its chunks are not surely mergeable: envelopes that
    disagree, an error, or what a choice isn't sure of; ValueError, RecursionError.
    """
    top: dict[str, Any] = {}
    choices: dict[int, Growing] = {}
    done = False
    for event in events(sse):
        if done or event.name == "error":
            raise Unsure("an error, or something after the end")
        if event.data == DONE:
            done = True
            continue
        if not event.data:
            continue
        chunk = a(dict, loads(event.data))
        if chunk.get("error") is not None:
            raise Unsure("an error")
        if (chunk.get("object") or chunk_object) != chunk_object:
            raise Unsure("another API's chunk")
        for name, value in chunk.items():
            _envelope(top, name, value)
        for part in a(list, chunk.get("choices")):
            index = a(dict, part).get("index")
            if type(index) is not int:
                raise Unsure("a choice without an index")
            if index not in choices:
                choices[index] = new()
            choices[index].add(part)
    if not done or not choices:
        raise Unsure("not complete")
    usage = {"usage": top.pop("usage")} if "usage" in top else {}
    first = {name: top.pop(name) for name in ("id", "created", "model") if name in top}
    if "id" not in first:
        raise Unsure("no id")
    whole = [choice.whole(index) for index, choice in enumerate(in_order(choices))]
    return {"id": first.pop("id"), "object": whole_object} | first | {"choices": whole} | usage | top


def _envelope(top: dict[str, Any], name: str, value: Any) -> None:
    """Take note of a chunk's top-level field."""
    if name in ("choices", "object", "obfuscation"):
        return
    if name == "usage":
        if value is not None or name not in top:
            top[name] = value
    elif name == "created":
        # Some servers stamp every chunk anew. The first stamp is the answer's; 0 is Azure's word for none.
        if value or name not in top:
            top[name] = top.get(name) or value
    elif name in ("id", "model") and value == "":
        top.setdefault(name, None)  # Azure's first chunk, which only tells what its filter found in the prompt
    else:
        agree(top, name, value)


def chunk_stream(
    value: dict[str, Any],
    chunk_object: str,
    parts: Callable[[dict[str, Any]], Iterator[dict[str, Any]]],
    *,
    usage: bool,
) -> bytes:
    """The chunks of an answer, with `[DONE]`. `parts`: a choice in pieces, the end among them.

    `usage`: whether with the chunk that has the usage and no choices, and `usage: null` in all others.
    Raises Unsure: it isn't such an answer; TypeError: it isn't JSON.
    """
    envelope = {"id": value.get("id"), "object": chunk_object} | {
        name: value[name] for name in _ENVELOPE if name in value
    }
    said_once = {
        name: item
        for name, item in value.items()
        if name not in _ENVELOPE and name not in ("object", "choices", "usage")
    }
    tail = {"usage": None} if usage and "usage" in value else {}
    chunks = []
    for choice in a(list, value.get("choices")):
        for part in parts(a(dict, choice)):
            chunks.append(envelope | said_once | {"choices": [part]} | tail)
            said_once = {}
    if usage and value.get("usage") is not None:
        chunks.append(envelope | {"choices": [], "usage": value["usage"]})
    return b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
