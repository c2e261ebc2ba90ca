"""Streams of one answer or several, with the calls of the retrieval tool taken out: one stream to the client. Pure.

Rules of this file:
1. What a client may see goes on at once; nothing but calls of ours, ends, and usage is held back.
2. An event that need not change keeps its bytes.
3. Until something is to be seen, nothing is: then a failure can still be told with its own status.

Sources: OpenAI API reference (chat completion chunks), Anthropic API reference (streaming messages).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import orjson

from farthing.compress.marker import TOOL
from farthing.compress.retrieval import Spoken, spoken_blocks, spoken_message, summed
from farthing.proxy.sse import DONE, events

__all__ = ["Out", "Stream", "stream_of"]

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class Out(NamedTuple):
    """An event for the client. `usage_only`: only for one that asked for usage."""

    body: bytes
    usage_only: bool = False


class Stream(Protocol):
    """One stream to the client, made of as many as there are rounds."""

    def begin(self) -> None:
        """Another upstream answer follows."""
        ...

    def see(self, piece: bytes) -> list[Out]:
        """An event of it; what may be shown now."""
        ...

    def spoken(self) -> Spoken:
        """What this answer said."""
        ...

    def end(self, *, final: bool) -> list[Out]:
        """The answer has ended. `final`: nothing follows; else its own end isn't shown."""
        ...

    def usage(self) -> dict[str, Any] | None:
        """What this answer used, as the provider says it."""
        ...


def stream_of(endpoint: str) -> Stream:
    """For chat completions or Anthropic's messages."""
    return _Messages() if endpoint == "messages" else _Chat()


def loads(data: bytes) -> dict[str, Any] | None:
    """The object that the bytes are, if they are one."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class _Chat:
    def __init__(self) -> None:
        self._rounds = 0
        self._identity: dict[str, Any] = {}
        self._bare: list[Out] = []  # role-only chunks, which wait for company
        self._seen = False
        self._content = ""  # the end of what was shown of it
        self._earlier: list[dict[str, Any]] = []
        self._usage: dict[str, Any] | None = None
        self.begin()

    def begin(self) -> None:
        if self._usage is not None:
            self._earlier.append(self._usage)
        self._rounds += 1
        self._usage = None
        self._message: dict[str, Any] = {"role": "assistant"}
        self._calls: list[dict[str, Any]] = []
        self._at: dict[Any, int] = {}  # index -> place in _calls
        self._unnamed: dict[Any, list[dict[str, Any]]] = {}
        self._ends: list[tuple[bytes, dict[str, Any] | None]] = []
        self._apart = bool(self._content) and not self._content.endswith("\n")

    def see(self, piece: bytes) -> list[Out]:
        out: list[Out] = []
        known = False
        for event in events(piece):
            known = True
            out += self._event(event.data, piece)
        return out if known else [Out(piece)] if self._seen else []

    def _event(self, data: bytes, piece: bytes) -> list[Out]:
        chunk = None if data == DONE else loads(data)
        if chunk is None:
            if data == DONE:
                self._ends.append((piece, None))
                return []
            return self._show(Out(piece))
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        if choice is None:
            if isinstance(usage, dict):
                self._ends.append((piece, chunk))
                return []
            return [] if self._rounds > 1 and "error" not in chunk else self._show(Out(piece))
        if not self._identity:
            self._identity = {name: chunk[name] for name in ("id", "created") if name in chunk}
        before = choice.get("delta")
        delta = self._without_own(before) if isinstance(before, dict) else {}
        changed = delta != before
        if changed:
            chunk = chunk | {"choices": [choice | {"delta": delta}]}
        if isinstance(usage, dict) and self._earlier:
            chunk = chunk | {"usage": summed([*self._earlier, usage])}
        if choice.get("finish_reason") is not None:
            self._ends.append((b"" if changed else piece, chunk))
            return []
        if not any(item not in (None, "", []) for name, item in delta.items() if name != "role"):
            if not changed and self._rounds == 1 and not self._seen:
                self._bare.append(Out(piece))
                return []
            return [] if changed or self._rounds > 1 else [Out(piece)]
        apart = self._separator(chunk, delta)
        same = not changed and self._rounds == 1
        return apart + self._show(Out(piece) if same else Out(_event(chunk | self._identity)))

    def _without_own(self, delta: dict[str, Any]) -> dict[str, Any]:
        """What of a delta may be shown; all of it is noted."""
        for name, item in delta.items():
            if name in _TEXTS and isinstance(item, str):
                self._message[name] = (self._message.get(name) or "") + item
            elif isinstance(item, list) and name != "tool_calls":
                self._message[name] = [*self._message.get(name, []), *item]
            elif name not in ("role", "tool_calls") and item is not None:
                self._message[name] = item
        calls = delta.get("tool_calls")
        if not isinstance(calls, list) or not calls:
            return delta
        shown = [seen for call in calls if isinstance(call, dict) for seen in self._call(call)]
        if shown == calls:
            return delta
        rest = {name: item for name, item in delta.items() if name != "tool_calls"}
        return rest | {"tool_calls": shown} if shown else rest

    def _call(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        """Pieces of calls that may be shown now that this one has come."""
        index = call.get("index", 0)
        function = call.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if index not in self._at and not name and "custom" not in call:
            self._unnamed.setdefault(index, []).append(call)  # whose it is isn't known yet
            return []
        waiting = [*self._unnamed.pop(index, []), call]
        if name and index in self._at and call.get("id") not in (None, "", self._calls[self._at[index]].get("id")):
            del self._at[index]  # some servers give every call the same index
        if index not in self._at:
            self._at[index] = len(self._calls)
            self._calls.append({})
        place = self._at[index]
        for one in waiting:
            _grow(self._calls[place], one)
        if _name(self._calls[place]) == TOOL:
            return []
        own = sum(1 for other in self._calls[:place] if _name(other) == TOOL)
        return [one | {"index": place - own} if own and isinstance(index, int) else one for one in waiting]

    def spoken(self) -> Spoken:
        return spoken_message(self._message | ({"tool_calls": self._calls} if self._calls else {}))

    def usage(self) -> dict[str, Any] | None:
        return self._usage

    def end(self, *, final: bool) -> list[Out]:
        out: list[Out] = []
        total = summed([*self._earlier, *([self._usage] if self._usage is not None else [])])
        calls_left = any(_name(call) != TOOL for call in self._calls)
        for piece, chunk in self._ends:
            if chunk is None:
                out += [Out(piece)] if final else []
                continue
            changed = not piece or self._rounds > 1
            choices = chunk.get("choices") or []
            if choices and not final:
                if not _says(choices[0].get("delta")):
                    continue
                self._content = str(choices[0]["delta"].get("content") or self._content)
                chunk, changed = chunk | {"choices": [choices[0] | {"finish_reason": None}]}, True
            elif choices and choices[0].get("finish_reason") == "tool_calls" and self._calls and not calls_left:
                chunk, changed = chunk | {"choices": [choices[0] | {"finish_reason": "stop"}]}, True
            elif not choices and not final:
                continue
            if isinstance(chunk.get("usage"), dict):
                chunk = chunk | {"usage": total if final else None}
            out += self._show(Out(_event(chunk | self._identity) if changed else piece, usage_only=not choices))
        return [*self._flushed(), *out] if final else out

    def _separator(self, chunk: dict[str, Any], delta: dict[str, Any]) -> list[Out]:
        """An empty line between what was said before a call and what is said after it."""
        said = delta.get("content")
        if not isinstance(said, str) or not said:
            return []
        apart, self._apart = self._apart, False
        self._content = said
        if not apart:
            return []
        gap = {"choices": [chunk["choices"][0] | {"delta": {"content": "\n\n"}}]} | self._identity
        return [Out(_event(chunk | gap))]

    def _show(self, out: Out) -> list[Out]:
        return [*self._flushed(), out]

    def _flushed(self) -> list[Out]:
        self._seen = True
        bare, self._bare = self._bare, []
        return bare


class _Messages:
    def __init__(self) -> None:
        self._rounds = 0
        self._start: list[Out] = []
        self._next = 0
        self._earlier: list[dict[str, Any]] = []
        self._usage: dict[str, Any] = {}
        self.begin()

    def begin(self) -> None:
        if self._usage:
            self._earlier.append(self._usage)
        self._rounds += 1
        self._usage = {}
        self._blocks: dict[Any, dict[str, Any]] = {}
        self._inputs: dict[Any, str] = {}
        self._places: dict[Any, int] = {}
        self._ends: list[tuple[bytes, dict[str, Any]]] = []

    def see(self, piece: bytes) -> list[Out]:
        out: list[Out] = []
        known = False
        for event in events(piece):
            known = True
            value = loads(event.data)
            out += self._event(value, piece) if value is not None else self._show(Out(piece))
        return out if known else [Out(piece)] if not self._start and self._next else []

    def _event(self, value: dict[str, Any], piece: bytes) -> list[Out]:
        kind, index = value.get("type"), value.get("index")
        if kind == "message_start":
            message = value.get("message")
            self._note(message.get("usage") if isinstance(message, dict) else None)
            if self._rounds == 1:
                self._start.append(Out(piece))
            return []
        if kind in ("message_delta", "message_stop"):
            self._note(value.get("usage"))
            self._ends.append((piece, value))
            return []
        if kind == "ping":
            return [] if self._start else [Out(piece)]
        if kind not in ("content_block_start", "content_block_delta", "content_block_stop"):
            return self._show(Out(piece))
        if kind == "content_block_start":
            block = value.get("content_block")
            self._blocks[index] = dict(block) if isinstance(block, dict) else {}
            if not _own_block(self._blocks[index]):
                self._places[index], self._next = self._next, self._next + 1
        elif kind == "content_block_delta":
            self._delta(index, value.get("delta"))
        place = self._places.get(index)
        if place is None:
            return []
        return self._show(Out(piece) if place == index else Out(_event(value | {"index": place}, kind)))

    def _delta(self, index: Any, delta: Any) -> None:
        block = self._blocks.get(index)
        if block is None or not isinstance(delta, dict):
            return
        if isinstance(delta.get("partial_json"), str):
            self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
        for name in ("text", "thinking", "signature"):
            if isinstance(delta.get(name), str):
                block[name] = (block.get(name) or "") + delta[name]
        if "citation" in delta:
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]

    def spoken(self) -> Spoken:
        for index, text in self._inputs.items():
            self._blocks[index]["input"] = loads(text.encode("utf-8", "surrogatepass")) or {}
        return spoken_blocks(list(self._blocks.values()))

    def usage(self) -> dict[str, Any] | None:
        return self._usage or None

    def end(self, *, final: bool) -> list[Out]:
        if not final:
            return []
        out: list[Out] = []
        own = any(map(_own_block, self._blocks.values()))
        calls = any(block.get("type") == "tool_use" and not _own_block(block) for block in self._blocks.values())
        for piece, value in self._ends:
            delta = value.get("delta")
            changed = value
            if isinstance(delta, dict) and delta.get("stop_reason") == "tool_use" and own and not calls:
                changed = changed | {"delta": delta | {"stop_reason": "end_turn"}}
            if self._earlier and isinstance(value.get("usage"), dict):
                changed = changed | {"usage": summed([*self._earlier, self._usage])}
            out += self._show(Out(piece) if changed is value else Out(_event(changed, str(value.get("type")))))
        return out

    def _note(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage |= {name: item for name, item in usage.items() if item is not None}

    def _show(self, out: Out) -> list[Out]:
        start, self._start = self._start, []
        return [*start, out]


def _says(delta: Any) -> bool:
    return isinstance(delta, dict) and any(isinstance(delta.get(name), str) and delta[name] for name in _TEXTS)


def _own_block(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_use" and block.get("name") == TOOL


def _name(call: dict[str, Any]) -> Any:
    function = call.get("function")
    return function.get("name") if isinstance(function, dict) else None


def _grow(call: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of a call: its arguments grow, what else there is was said once."""
    for name, item in piece.items():
        if name in ("function", "custom") and isinstance(item, dict):
            inner = call.setdefault(name, {})
            for key, said in item.items():
                if key in ("arguments", "input") and isinstance(said, str):
                    inner[key] = inner.get(key, "") + said
                elif said not in (None, ""):
                    inner[key] = said
        elif name != "index" and item not in (None, ""):
            call[name] = item


def _event(value: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + orjson.dumps(value) + b"\n\n"
