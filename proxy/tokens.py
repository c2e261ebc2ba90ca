"""Counts tokens with tiktoken, from ranks that ship with the package: nothing is fetched. Leaf.

Text is counted exactly in the two encodings that OpenAI publishes ranks for; other models' tokenizers are approximated
by o200k_base, and whoever uses the count marks it as counted. Loading takes about a second and counting 100k tokens a
tenth of one, so callers stay off the event loop.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import threading
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import tiktoken

__all__ = ["Tokenizer", "encoding_for"]

# Name -> (sha256 of the decompressed ranks, the pattern that cuts text into words before merging). Both are part of the
# published definition of the encodings (tiktoken, openai_public).
_ENCODINGS = {
    "cl100k_base": (
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
        r"\s+(?!\S)|\s",
    ),
    "o200k_base": (
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
_OLDER = re.compile(r"(?:^|[/:])(?:gpt-4(?!o|\.1|\.5)|gpt-3\.5|text-embedding-(?:3|ada))")
_PIECE_CHARS = 16_384
_FORCED_CHARS = 65_536
# Both patterns begin a new word at a single space between two letters, so a cut there changes no count.
_SEAM = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_MESSAGE_TOKENS = 3  # OpenAI cookbook, "How to count tokens": per message, and once for the answer's beginning
_PART_TEXT = ("text", "content", "refusal", "output", "arguments", "thinking", "name")


def encoding_for(model: str) -> str:
    """The encoding that a model uses, as far as it is published; o200k_base for all others."""
    return "cl100k_base" if _OLDER.search(model) else "o200k_base"


class Tokenizer:
    """Counts, and remembers counts of long texts, so that a growing conversation is counted once. Thread-safe."""

    def __init__(self, remembered: int = 20_000) -> None:
        self._lock = threading.Lock()
        self._encodings: dict[str, tiktoken.Encoding] = {}
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._remembered = remembered

    def count(self, text: str, model: str) -> int:
        """Tokens of a text; names of special tokens in it count as the text that they are."""
        name = encoding_for(model)
        if len(text) < 64:
            return self._count(text, name)
        place = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=name.encode()).digest()
        with self._lock:
            known = self._counts.get(place)
            if known is not None:
                self._counts.move_to_end(place)
                return known
        count = sum(self._count(piece, name) for piece in pieces(text))
        with self._lock:
            self._counts[place] = count
            if len(self._counts) > self._remembered:
                self._counts.popitem(last=False)
        return count

    def count_request(self, endpoint: str, payload: Mapping[str, Any], model: str) -> int:
        """Input tokens of a request: exact for its texts, OpenAI's documented overhead for each message, the JSON text
        for tools and schemas (an approximation: the provider's own form of them is not published)."""
        if endpoint == "embeddings":
            return self._inputs(payload.get("input"), model)
        if endpoint == "completions":
            return self._inputs(payload.get("prompt"), model)
        total = _MESSAGE_TOKENS
        for field in ("system", "instructions"):
            total += sum(self.count(text, model) for text in texts(payload.get(field)))
        turns = payload.get("input" if endpoint == "responses" else "messages")
        if isinstance(turns, str):
            return total + _MESSAGE_TOKENS + self.count(turns, model)
        for turn in turns if isinstance(turns, list) else []:
            total += _MESSAGE_TOKENS + 1 + sum(self.count(text, model) for text in texts(turn))
        for field in ("tools", "functions", "response_format", "text"):
            if payload.get(field):
                total += self.count(orjson.dumps(payload[field], default=str).decode(), model)
        return total

    def count_text_out(self, endpoint: str, answer: bytes, model: str) -> int:
        """Output tokens of an answer, or of as much of a stream as has come."""
        if endpoint == "embeddings":
            return 0
        return self.count("".join(spoken(answer)), model)

    def _inputs(self, value: Any, model: str) -> int:
        if isinstance(value, str):
            return self.count(value, model)
        if isinstance(value, list):
            if value and all(isinstance(item, int) for item in value):
                return len(value)  # already tokens
            return sum(self._inputs(item, model) for item in value)
        return 0

    def _count(self, text: str, name: str) -> int:
        encoding = self._encodings.get(name)
        if encoding is None:
            with self._lock:
                encoding = self._encodings.get(name) or load(name)
                self._encodings[name] = encoding
        try:
            return len(encoding.encode_ordinary(text))
        except UnicodeEncodeError:  # a lone surrogate
            return len(encoding.encode_ordinary(text.encode("utf-8", "replace").decode()))


def load(name: str) -> tiktoken.Encoding:
    """The encoding, from the package's ranks. Raises ValueError where their checksum is wrong."""
    import tiktoken

    digest, pattern = _ENCODINGS[name]
    raw = lzma.decompress((Path(__file__).parent / "ranks" / f"{name}.tiktoken.xz").read_bytes())
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ValueError(f"the ranks of {name} are damaged; install farthing again")
    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in raw.splitlines() if line)}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def pieces(text: str) -> Iterator[str]:
    """The text in pieces that are counted one by one, so that no single call holds the interpreter for long.

    Cut where a new word begins anyway; a text without such a place for 64k characters is cut by force, which can make
    its count one or two tokens larger.
    """
    start = 0
    while len(text) - start > _PIECE_CHARS:
        seam = _SEAM.search(text, start + _PIECE_CHARS, start + _FORCED_CHARS)
        end = seam.start() if seam else min(len(text), start + _FORCED_CHARS)
        yield text[start:end]
        start = end
    yield text[start:]


def texts(value: Any) -> Iterator[str]:
    """Every text that a model reads in a message, a content part or a tool call."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _PART_TEXT or name in ("tool_calls", "function", "summary", "input"):
                yield from texts(item)


def spoken(answer: bytes) -> Iterator[str]:
    """The generated text of an answer: whole JSON, or the events of a stream, however far it came."""
    if answer[:1] == b"{":
        value = _loads(answer)
        if isinstance(value, dict):
            for choice in value.get("choices") or []:
                yield from texts(choice.get("message") or choice.get("text") if isinstance(choice, dict) else None)
            yield from texts(value.get("output"))
            yield from texts(value.get("content"))
        return
    for line in answer.split(b"\n"):
        value = _loads(line[5:]) if line.startswith(b"data:") else None
        if isinstance(value, dict):
            for choice in value.get("choices") or []:
                if isinstance(choice, dict):
                    yield from texts({k: v for k, v in (choice.get("delta") or {}).items() if k != "role"})
                    yield from texts(choice.get("text"))
            delta = value.get("delta")
            if isinstance(delta, str):
                yield delta
            elif isinstance(delta, dict):
                yield from texts(delta.get("text") or delta.get("partial_json") or delta.get("thinking"))


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None
