"""OpenAI Responses, stream <-> whole. Pure.

Rules of this file:
1. `response.completed` has the whole answer, so that is what a stream amounts to, provided that all that was said
   before says the same: every text was streamed to its last letter, every part and item ended as it stands there.
   Otherwise a client that read the deltas and one that read the end would have had two answers.
2. Items of which it isn't known how they are streamed aren't turned: hosted tools, audio, shells, what is new.

Source: OpenAI API reference, "The response object" and "Streaming events" of Responses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from farthing.cache.shaping import PIECE_CHARS, Unsure, a, named, said, slices

__all__ = ["merged", "stream"]


class _Kind(NamedTuple):
    """A text that grows in deltas. `place`: the item's field with the parts, of which the event's field `which` tells
    one; '' where the item has the text itself. `name`: the text's field, there and in the event that ends it."""

    item: str
    place: str
    which: str
    part: str
    name: str


_KINDS = {
    "response.output_text": _Kind("message", "content", "content_index", "output_text", "text"),
    "response.refusal": _Kind("message", "content", "content_index", "refusal", "refusal"),
    "response.reasoning_text": _Kind("reasoning", "content", "content_index", "reasoning_text", "text"),
    "response.reasoning_summary_text": _Kind("reasoning", "summary", "summary_index", "summary_text", "text"),
    "response.function_call_arguments": _Kind("function_call", "", "", "", "arguments"),
    "response.custom_tool_call_input": _Kind("custom_tool_call", "", "", "", "input"),
}
_BASES = {(kind.item, kind.place, kind.part): base for base, kind in _KINDS.items()}
_PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}
_PART_OF = {place: (base, index) for base, (place, index) in _PARTS.items()}
_BEGINNINGS = frozenset({"response.created", "response.in_progress", "response.queued"})
_CITED = "response.output_text.annotation.added"
# An event with a field that isn't here says something that the whole answer may not. `obfuscation`: random padding.
_FIELDS = frozenset(
    {"type", "sequence_number", "obfuscation", "item_id", "output_index", "content_index", "summary_index"}
    | {"delta", "logprobs", "text", "refusal", "arguments", "input", "name", "part", "item", "response"}
    | {"annotation", "annotation_index"}
)

# Where a text or part stands: output index, field of the item, index in that field.
_Place = tuple[int, str, int]


class _Text(NamedTuple):
    """A text of the whole answer. `base`: of its events. `part`: which it is in, None where it is the item's own."""

    base: str
    text: str
    part: dict[str, Any] | None


def _texts(index: int, item: dict[str, Any]) -> Iterator[tuple[_Place, _Text]]:
    """What of an item is streamed in deltas. Raises Unsure: nobody knows."""
    kind = item.get("type")
    if (base := _BASES.get((str(kind), "", ""))) is not None:
        yield (index, "", 0), _Text(base, a(str, item.get(_KINDS[base].name)), None)
        return
    if kind not in ("message", "reasoning"):
        raise Unsure("an item that isn't known")
    for place in ("summary", "content"):
        parts = item.get(place)
        if place == "content" and kind == "message":
            a(list, parts)
        for i, part in enumerate(a(list, parts or [])):
            base = _BASES.get((kind, place, str(a(dict, part).get("type"))))
            if base is None:
                raise Unsure("a part that isn't known")
            yield (index, place, i), _Text(base, a(str, part.get(_KINDS[base].name)), part)


def _tokens(logprobs: Any) -> list[Any]:
    return [a(dict, one).get("token") for one in a(list, logprobs or [])]


@dataclass(slots=True)
class _Told:
    """What a stream said before its end."""

    deltas: dict[tuple[_Place, str], list[str]] = field(default_factory=dict)
    tokens: dict[_Place, list[Any]] = field(default_factory=dict)
    ended: dict[tuple[_Place, str], Any] = field(default_factory=dict)
    parts: dict[_Place, dict[str, Any]] = field(default_factory=dict)
    begun: dict[int, dict[str, Any]] = field(default_factory=dict)
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    cited: dict[tuple[_Place, int], Any] = field(default_factory=dict)
    ids: set[tuple[int, Any]] = field(default_factory=set)

    def add(self, event: dict[str, Any]) -> None:
        """Take note of an event of an item."""
        kind, index = a(str, event.get("type")), a(int, event.get("output_index"))
        base, _, what = kind.rpartition(".")
        if "item_id" in event:
            self.ids.add((index, event["item_id"]))
        if kind == _CITED:
            place = (index, "content", a(int, event.get("content_index")))
            self.cited[place, a(int, event.get("annotation_index"))] = event.get("annotation")
        elif base in _KINDS and what in ("delta", "done"):
            of = _KINDS[base]
            place = (index, of.place, a(int, event.get(of.which)) if of.which else 0)
            if what == "done":
                self.ended[place, base] = event.get(of.name)
            else:
                self.deltas.setdefault((place, base), []).append(a(str, event.get("delta")))
                self.tokens.setdefault(place, []).extend(_tokens(event.get("logprobs")))
        elif base in _PARTS and what in ("added", "done"):
            where, which = _PARTS[base]
            part = a(dict, event.get("part"))
            if what == "done":
                self.parts[index, where, a(int, event.get(which))] = part
        elif kind == "response.output_item.added":
            if index in self.begun:
                raise Unsure("an item twice")
            self.begun[index] = a(dict, event.get("item"))
        elif kind == "response.output_item.done":
            self.done[index] = a(dict, event.get("item"))
        else:
            raise Unsure("an event that isn't known")

    def must_be(self, output: list[Any]) -> None:
        """Raises Unsure where the output isn't what was said."""
        texts = {place: text for i, item in enumerate(output) for place, text in _texts(i, a(dict, item))}
        whole = {(place, text.base): text.text for place, text in texts.items()}
        streamed = dict.fromkeys(whole, "") | {at: "".join(pieces) for at, pieces in self.deltas.items()}
        tokens = {place: _tokens((text.part or {}).get("logprobs")) for place, text in texts.items()}
        items = dict(enumerate(output))
        same = (
            streamed == whole
            and self.done == items
            and all(whole.get(at) == text for at, text in self.ended.items())
            and all(place in texts and texts[place].part == part for place, part in self.parts.items())
            and all(tokens[place] == found for place, found in self.tokens.items())
            and self.begun.keys() == items.keys()
            and all((begun.get("type"), begun.get("id")) == _of(items[i]) for i, begun in self.begun.items())
            and all(index in items and items[index].get("id") == name for index, name in self.ids)
        )
        if not same:
            raise Unsure("deltas and end disagree")
        for (place, i), annotation in self.cited.items():
            known = a(list, ((texts[place].part if place in texts else None) or {}).get("annotations"))
            if known[i : i + 1] != [annotation]:
                raise Unsure("a citation that isn't at the end")


def _of(item: dict[str, Any]) -> tuple[Any, Any]:
    return item.get("type"), item.get("id")


def merged(sse: bytes) -> dict[str, Any]:
    """The response that a complete stream amounts to. Raises Unsure, ValueError, RecursionError."""
    told, ids = _Told(), set()
    whole: dict[str, Any] | None = None
    for event in said(sse):
        if whole is not None or not event.keys() <= _FIELDS:
            raise Unsure("something after the end, or that isn't known")
        kind = event.get("type")
        if kind in _BEGINNINGS:
            ids.add(a(dict, event.get("response")).get("id"))
        elif kind == "response.completed":
            whole = a(dict, event.get("response"))
        else:
            told.add(event)
    if whole is None or whole.get("status") != "completed" or ids != {whole.get("id")}:
        raise Unsure("not complete")
    told.must_be(a(list, whole.get("output")))
    return whole


def stream(value: dict[str, Any], *, usage: bool) -> bytes:
    """The events of a response. `usage`: nothing; responses always tell it. Raises Unsure, TypeError."""
    return b"".join(named(event | {"sequence_number": number}) for number, event in enumerate(_events(value)))


def _events(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    unknown = {name: None for name in ("usage", "completed_at") if name in value}
    begun = value | {"status": "in_progress", "output": []} | unknown
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(a(list, value.get("output"))):
        at = {"output_index": index}
        yield {"type": "response.output_item.added"} | at | {"item": _begun(a(dict, item))}
        for place, text in _texts(index, item):
            yield from _grows({"item_id": a(str, item.get("id"))} | at, place, text, item)
        yield {"type": "response.output_item.done"} | at | {"item": item}
    yield {"type": "response.completed", "response": value}


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is when nothing of it has been said."""
    empty: dict[str, Any] = {name: [] for name in ("summary", "content") if isinstance(item.get(name), list)}
    empty |= {name: "" for name in ("arguments", "input") if name in item}
    return item | empty | ({"status": "in_progress"} if item.get("status") == "completed" else {})


def _grows(at: dict[str, Any], place: _Place, text: _Text, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events by which a text grows: its part, deltas, citations, and the ends of text and part."""
    kind, part, around = _KINDS[text.base], text.part, ""
    if part is not None:
        around, index = _PART_OF[kind.place]
        at = at | {index: place[2]}
        empty: dict[str, Any] = {name: [] for name in ("annotations", "logprobs") if isinstance(part.get(name), list)}
        yield {"type": f"{around}.added"} | at | {"part": part | {kind.name: ""} | empty}
    logprobs = (part or {}).get("logprobs") or []
    logged: dict[str, Any] = {"logprobs": []} if kind.part == "output_text" else {}
    if logprobs:  # their tokens needn't make up the text, so they go with all of it
        yield {"type": f"{text.base}.delta"} | at | {"delta": text.text, "logprobs": logprobs}
    else:
        for piece in slices(text.text, PIECE_CHARS):
            yield {"type": f"{text.base}.delta"} | at | {"delta": piece} | logged
    for i, annotation in enumerate((part or {}).get("annotations") or []):
        yield {"type": _CITED} | at | {"annotation_index": i, "annotation": annotation}
    called = {"name": item["name"]} if kind.item == "function_call" and "name" in item else {}
    yield {"type": f"{text.base}.done"} | at | called | {kind.name: text.text} | (logged and {"logprobs": logprobs})
    if part is not None:
        yield {"type": f"{around}.done"} | at | {"part": part}
