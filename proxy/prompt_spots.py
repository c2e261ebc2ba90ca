"""Where in a request's body a prefix may be marked, and how the mark is spliced in. Pure.

A *spot* is the end of a block of the prompt, in the provider's order: tools, system, turns. One is told for the last
tool, for the system prompt, and for each turn: at its last block that may carry a mark.

Rules of this file:
1. Marks are inserted, nothing is written anew: without what was inserted the body is what it was, byte for byte.
2. A text is one block: `"hi"` becomes `[{"type":"text","text":"hi", MARK}]`, which both APIs take for the same.
3. What can't carry a mark (thinking, empty texts, calls in a chat) is a part of the prefix all the same. Of a response
   its end is a spot too, since the provider may cache it by itself: only no mark goes there (`markable`).
4. A response whose prompt lies elsewhere, in whole or in part, has no spots: nobody here knows its prefix.

Sources: Anthropic API reference, "Prompt caching" (what can be cached); OpenAI API reference, chat/create and
responses/create (`prompt_cache_breakpoint` of input_text, input_image and input_file, not of `instructions` or tools;
`prompt_cache_options`; a text as `input` or as a message's content is one input_text, of a user where nobody is named).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from farthing.proxy.jsontext import find, insert_member, splice

__all__ = ["Spot", "Spots", "inserted", "own_marks", "spots_of"]

_OTHER_CHARS = 3_000  # what an image weighs at the most, whatever its encoding's length
_MARKABLE = {
    "messages": frozenset({"text", "image", "document", "tool_use", "tool_result", "search_result"}),
    "chat": frozenset({"text", "image_url", "input_audio", "file"}),
    "responses": frozenset({"input_text", "input_image", "input_file"}),
}
_WEIGH_LITTLE = frozenset({"image", "image_url", "document", "input_image"})
_TEXTS = frozenset({"text", "input_text", "output_text"})
_ELSEWHERE = ("previous_response_id", "conversation", "prompt")
Path = tuple[str | int, ...]


class Spot(NamedTuple):
    """`path`: of the block or, where `text`, of the text that is to become one of that type. `key`: the prefix's hash,
    `chars`: its length, `block`: its number. `turn`: of which it is the end, from 1 on; 0: of the head. `own`: the
    client's mark. `markable`: whether one may stand there."""

    path: Path
    text: str
    key: int
    chars: int
    block: int
    turn: int
    own: Any = None
    markable: bool = True


@dataclass(slots=True)
class Spots:
    """`chars`: of the whole prompt. `head`, `first`: hashes of what stands before the turns, and of that with the first
    user's turn."""

    spots: list[Spot]
    chars: int
    head: int
    first: int


def spots_of(endpoint: str, payload: dict[str, Any], field: str, scope: tuple[object, ...]) -> Spots:
    """The spots of a chat, of a response or of Anthropic's messages. `field`: the mark's name. `scope`: whose cache it
    is, and for which model. Cost: linear in the bytes, about 2 microseconds a kilobyte."""
    walk = _Walk(endpoint, field, hash(scope))
    if endpoint == "responses" and _elsewhere(payload):
        return Spots([], 0, walk.key, walk.key)
    tools = payload.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        walk.block(tool, ("tools", number), markable=endpoint == "messages")
    walk.end(0)
    _head(walk, endpoint, payload)
    head, first = walk.key, 0
    name = "input" if endpoint == "responses" else "messages"
    turns, bare = payload.get(name), False
    if endpoint == "responses" and isinstance(turns, str):
        turns, bare = [{"role": "user", "content": turns}], True
    heading = endpoint != "messages"
    for number, turn in enumerate(turns if isinstance(turns, list) else ()):
        if not isinstance(turn, dict):
            walk.within("turn", turn)
            continue
        role = turn.get("role")
        heading = heading and role in ("system", "developer")
        walk.within("role", role)
        path: Path = (name,) if bare else (name, number, "content")
        walk.content(turn.get("content"), path, markable=role != "assistant" or endpoint == "messages")
        rest = {name: value for name, value in turn.items() if name not in ("role", "content")}
        if rest and not (endpoint == "responses" and rest == {"type": "message"}):  # what an item is by itself
            walk.within("rest", rest)
        walk.end(0 if heading else number + 1)
        head = walk.key if heading else head
        first = walk.key if role == "user" and not first else first
    return Spots(walk.spots, walk.chars, head, first or walk.key)


def _elsewhere(payload: dict[str, Any]) -> bool:
    """Whether a part of the prompt is named only: it lies with the provider."""
    items = payload.get("input")
    return any(payload.get(name) is not None for name in _ELSEWHERE) or any(
        isinstance(one, dict) and one.get("type") == "item_reference"
        for one in (items if isinstance(items, list) else ())
    )


def _head(walk: _Walk, endpoint: str, payload: dict[str, Any]) -> None:
    """What stands between the tools and the turns."""
    if endpoint == "messages":
        walk.content(payload.get("system"), ("system",))
        walk.end(0)
    names = {"messages": ("tool_choice", "thinking"), "chat": ("response_format",)}.get(endpoint, ("text",))
    for name in names:
        if payload.get(name) is not None:
            walk.within(name, payload[name])
    if endpoint == "responses":
        walk.content(payload.get("instructions"), ("instructions",), markable=False)
        walk.end(0)


class _Walk:
    """The prefix as it grows."""

    __slots__ = ("_field", "_last", "_markable", "_text_type", "_whole", "block_number", "chars", "key", "spots")

    def __init__(self, endpoint: str, field: str, key: int) -> None:
        self._field, self._markable = field, _MARKABLE[endpoint]
        self._text_type = "input_text" if endpoint == "responses" else "text"
        self._whole = endpoint == "responses"  # each end is told, also where no mark may stand
        self.key, self.chars, self.block_number = key, 0, 0
        self.spots: list[Spot] = []
        self._last: Spot | None = None

    def within(self, name: str, value: Any) -> None:
        """Something that belongs to the prompt and isn't a block."""
        raw = _plain(value)
        self.key = hash((self.key, name, raw))
        self.chars += len(raw)

    def content(self, content: Any, path: Path, *, markable: bool = True) -> None:
        """A text or a list of blocks."""
        if isinstance(content, str):
            self._text(content)
            if content and markable:
                self._note(path, text=self._text_type)
        elif isinstance(content, list):
            for number, block in enumerate(content):
                self.block(block, (*path, number), markable=markable)
        elif content is not None:
            self.within("content", content)

    def block(self, block: Any, path: Path, *, markable: bool) -> None:
        """One block, or one tool."""
        if not isinstance(block, dict):
            self.within("block", block)
            return
        kind, text = block.get("type"), block.get("text")
        bare = {name: value for name, value in block.items() if name != self._field}
        if kind in _TEXTS and isinstance(text, str) and len(bare) == 2:
            self._text(text)
        else:
            raw = _plain(bare)
            self.key = hash((self.key, raw))
            self.chars += min(len(raw), _OTHER_CHARS) if kind in _WEIGH_LITTLE else len(raw)
            self.block_number += 1
        own = block.get(self._field)
        if path[0] == "tools" or (kind in self._markable and not (kind in _TEXTS and not text)):
            if own is not None:
                self.spots.append(self._spot(path, own=own))
                self._last = None
            elif markable:
                self._note(path)

    def end(self, turn: int) -> None:
        """The turn ends here: its last block that may carry a mark is a spot; where there is none, its end may be."""
        if self._last is None and self._whole and self.chars and not (self.spots and self.spots[-1].key == self.key):
            self.block_number += 1
            self._last = self._spot(())._replace(markable=False)
        if self._last is not None:
            self.spots.append(self._last._replace(turn=turn))
            self._last = None

    def _text(self, text: str) -> None:
        self.key = hash((self.key, text))
        self.chars += len(text)
        self.block_number += 1

    def _note(self, path: Path, *, text: str = "") -> None:
        self._last = self._spot(path, text=text)

    def _spot(self, path: Path, *, text: str = "", own: Any = None) -> Spot:
        return Spot(path, text, self.key, self.chars, self.block_number, 0, own)


def own_marks(value: Any, field: str) -> int:
    """How many marks the client has set, wherever. Raises RecursionError."""
    if isinstance(value, dict):
        own = int(value.get(field) is not None)
        return own + sum(own_marks(inner, field) for inner in value.values() if isinstance(inner, dict | list))
    if isinstance(value, list):
        return sum(own_marks(inner, field) for inner in value if isinstance(inner, dict | list))
    return 0


def inserted(
    body: bytes, marks: Iterable[tuple[Spot, bytes]], field: str, members: Sequence[tuple[str, bytes]] = ()
) -> bytes:
    """The body with these marks (`field`: JSON value) and these new members of its own. Every byte of it stays.

    Raises ValueError: a spot isn't there.
    """
    edits: list[tuple[int, int, bytes]] = []
    name = orjson.dumps(field)
    for spot, value in marks:
        span = find(body, spot.path) if spot.markable else None
        if span is None:
            raise ValueError("the block to be marked isn't there")
        start, end = span
        if spot.text:
            before, after = b'[{"type":"%s","text":' % spot.text.encode(), b"," + name + b":" + value + b"}]"
            if spot.path == ("input",):  # all that is asked is this text
                before, after = b'[{"role":"user","content":' + before, after + b"}]"
            edits += ((start, start, before), (end, end, after))
        else:  # a block is never empty: it has a type, or is a tool
            edits.append((start + 1, start + 1, name + b":" + value + b","))
    out = splice(body, edits)
    for member, value in members:
        out = insert_member(out, member, value)
    return out


def _plain(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, integers beyond 64 bits, nesting
        return repr(value).encode(errors="backslashreplace")
