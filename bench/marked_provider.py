"""A provider's prompt cache that is told by marks what to keep, by the published rules. Words are its tokens. No IO.

It shares no code with farthing: its prefixes are the texts themselves. Rules: Anthropic's (at most four marks; 1,024
tokens at least; 20 blocks looked back; five minutes or an hour after the last use) and GPT-5.6's (by itself it reads
what it can and writes the rest; with `mode: explicit` it reads and writes at breakpoints alone; 30 minutes).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

__all__ = ["Bill", "MarkedProvider", "TooManyMarks"]

LEAST, MOST, LOOK_BACK = 1024, 4, 20
SHORT_S, HALF_HOUR_S, HOUR_S = 300.0, 1800.0, 3600.0


class TooManyMarks(Exception):
    """The provider answers 400."""


@dataclass(frozen=True)
class Bill:
    """What one request is billed with, in tokens; the parts are disjoint."""

    fresh: int = 0
    read: int = 0
    written: int = 0
    written_1h: int = 0

    @property
    def tokens_in(self) -> int:
        """All of the prompt."""
        return self.fresh + self.read + self.written + self.written_1h


@dataclass
class MarkedProvider:
    """`held`: until when each prefix is kept."""

    held: dict[bytes, float] = field(default_factory=dict)

    def messages(self, body: Any, now_s: float) -> Bill:
        """A request of Anthropic's messages. Raises TooManyMarks."""
        blocks = blocks_of(body)
        marks = [number for number, (_, mark) in enumerate(blocks) if mark]
        if len(marks) > MOST:
            raise TooManyMarks
        lives = {number: HOUR_S if blocks[number][1].get("ttl") == "1h" else SHORT_S for number in marks}
        return self._bill(blocks, lives, LOOK_BACK, now_s)

    def chat(self, body: Any, now_s: float) -> Bill:
        """A chat with GPT-5.6, or a response of its. Raises TooManyMarks."""
        blocks = blocks_of(body)
        if (body.get("prompt_cache_options") or {}).get("mode") != "explicit":
            return self._bill(blocks, dict.fromkeys(range(len(blocks)), HALF_HOUR_S), len(blocks), now_s)
        marks = [number for number, (_, mark) in enumerate(blocks) if mark]
        if len(marks) > MOST:
            raise TooManyMarks
        return self._bill(blocks, dict.fromkeys(marks, HALF_HOUR_S), 1, now_s)

    def _bill(self, blocks: list[tuple[str, Any]], lives: dict[int, float], back: int, now_s: float) -> Bill:
        """Read the longest prefix that a mark finds, write up to the last mark."""
        prefixes, words, hashed, count = [], [], blake2b(digest_size=16), 0
        for said, _ in blocks:
            hashed.update(said.encode() + b"\0")
            prefixes.append(hashed.digest())
            count += len(said.split())
            words.append(count)
        found = -1
        for at in lives:
            for number in range(at, max(-1, at - back), -1):
                if self.held.get(prefixes[number], 0.0) > now_s and words[number] >= LEAST:
                    found = max(found, number)
                    break
        if found >= 0:
            kept_s = lives.get(found, min(lives.values()))
            self.held[prefixes[found]] = max(self.held[prefixes[found]], now_s + kept_s)
        able = [at for at in lives if words[at] >= LEAST]
        for at in able:
            self.held[prefixes[at]] = max(self.held.get(prefixes[at], 0.0), now_s + lives[at])
        read = words[found] if found >= 0 else 0
        written = max(0, words[able[-1]] - read) if able else 0
        hour = bool(able) and lives[able[-1]] == HOUR_S
        return Bill(count - read - written, read, 0 if hour else written, written if hour else 0)


def blocks_of(body: Any) -> list[tuple[str, Any]]:
    """Text and mark of each block, in the prompt's order."""
    found: list[tuple[str, Any]] = []
    for tool in body.get("tools") or ():
        bare = {name: value for name, value in tool.items() if name != "cache_control"}
        found.append((json.dumps(bare), tool.get("cache_control")))
    for turn in turns_of(body):
        content = turn.get("content")
        if content is None:  # a call, or what came of it
            found.append((json.dumps(turn), None))
            continue
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            mark = block.get("cache_control") or block.get("prompt_cache_breakpoint")
            found.append((f"{turn['role']} {block['text']}", mark))
    return found


def turns_of(body: Any) -> list[Any]:
    """What the system, or the developer, says, and then the turns."""
    if "input" not in body:
        return ([{"role": "system", "content": body["system"]}] if body.get("system") else []) + body["messages"]
    said = body["input"]
    first = [{"role": "instructions", "content": body["instructions"]}] if body.get("instructions") else []
    return first + ([{"role": "user", "content": said}] if isinstance(said, str) else said)
