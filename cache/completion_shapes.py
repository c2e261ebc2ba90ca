"""Legacy completions, stream <-> whole. Pure.

Log-probabilities are four lists in step, of which `text_offset` counts from the beginning of the whole text; a server
that begins anew in each chunk can't be told from one that doesn't but by that count, so it is checked.

Source: OpenAI API reference, "The completion object", and its streams: usage in a chunk of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from farthing.cache.chunks import chunk_stream, merged_chunks
from farthing.cache.shaping import PIECE_CHARS, Unsure, a, agree, slices

__all__ = ["merged", "stream"]

_OBJECT = "text_completion"
_LISTS = frozenset({"tokens", "token_logprobs", "top_logprobs", "text_offset"})


def merged(sse: bytes) -> dict[str, Any]:
    """The completion that a complete stream amounts to. Raises Unsure, ValueError, RecursionError."""
    return merged_chunks(sse, _OBJECT, _OBJECT, _Choice)


def stream(value: dict[str, Any], *, usage: bool) -> bytes:
    """The chunks of a completion, with `[DONE]`; `usage`: with the chunk that says it. Raises Unsure, TypeError."""
    return chunk_stream(value, _OBJECT, _parts, usage=usage)


@dataclass(slots=True)
class _Choice:
    """A choice in the making. `offset`: where the whole text begins, by `text_offset`."""

    texts: list[str] = field(default_factory=list)
    chars: int = 0
    logprobs: dict[str, list[Any] | None] | None = None
    offset: int | None = None
    around: dict[str, Any] = field(default_factory=dict)

    def add(self, choice: dict[str, Any]) -> None:
        for name, value in choice.items():
            if name == "logprobs":
                self.around.setdefault(name, None)
                if value is not None:
                    self._logprobs(a(dict, value))
            elif name in ("delta", "message"):
                raise Unsure("a chat, not a completion")
            elif name not in ("index", "text"):
                agree(self.around, name, value)
        text = a(str, choice.get("text"))
        self.texts.append(text)
        self.chars += len(text)

    def _logprobs(self, value: dict[str, Any]) -> None:
        if not value.keys() <= _LISTS:
            raise Unsure("unknown logprobs")
        lists = {name: a(list, items) for name, items in value.items() if items is not None}
        if len({len(items) for items in lists.values()}) > 1:
            raise Unsure("logprobs out of step")
        if offsets := lists.get("text_offset"):
            begins = a(int, offsets[0]) - self.chars
            if self.offset not in (None, begins):
                raise Unsure("offsets that don't count from the beginning")
            self.offset = begins
        if self.logprobs is None:
            self.logprobs = {name: lists.get(name) for name in value}
            return
        if {name: items is None for name, items in self.logprobs.items()} != {
            name: value[name] is None for name in value
        }:
            raise Unsure("other logprobs than before")
        for name, known in self.logprobs.items():
            if known is not None:
                known.extend(lists[name])

    def whole(self, index: int) -> dict[str, Any]:
        if self.around.get("finish_reason") is None:
            raise Unsure("a choice without its end")
        logprobs = {} if self.logprobs is None else {"logprobs": self.logprobs}
        return {"index": index, "text": "".join(self.texts)} | self.around | logprobs


def _parts(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A choice in pieces: its text, in one where log-probabilities go with it, and the end."""
    index, text = {"index": choice.get("index")}, a(str, choice.get("text"))
    none: dict[str, Any] = {"logprobs": None} if "logprobs" in choice else {}
    if choice.get("logprobs") is not None:
        yield index | {"text": text, "logprobs": choice["logprobs"], "finish_reason": None}
    else:
        for piece in slices(text, PIECE_CHARS):
            yield index | {"text": piece} | none | {"finish_reason": None}
    end = {name: item for name, item in choice.items() if name not in ("index", "text", "logprobs")}
    yield index | {"text": ""} | none | end
