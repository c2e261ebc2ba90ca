"""How many tokens a text, a request or an answer has, counted with OpenAI's own ranks. Leaf.

Rules of this file: nothing is fetched, the ranks come with the package and are checked against their SHA-256; nothing
here raises for what a client wrote; all of it may take milliseconds, so callers stay off the event loop.

A text is exact. A request is its texts plus OpenAI's documented overhead per message; tools, images and other
providers' tokenizers are approximations, so that whoever uses these counts for money says so (`UsageSource.COUNTED`).
"""

from __future__ import annotations

import lzma
import re
import threading
from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from copy import copy
from hashlib import blake2b, sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson

from farthing.proxy.jsontext import loads_loosely

if TYPE_CHECKING:
    import tiktoken

__all__ = ["Tokenizer", "encoding_name", "pieces"]

# Name: SHA-256 of the ranks, and how text is split before merging. Source: tiktoken's openai_public; the same words
# and numbers define the encodings wherever they are used.
_LETTERS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_ENCODINGS = {
    "o200k_base": (
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            (
                rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS}*{_SMALL}+{_CONTRACTED}",
                rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS}+{_SMALL}*{_CONTRACTED}",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
    ),
    "cl100k_base": (
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
}
_CL100K = re.compile(r"(gpt-4|gpt-3\.5|gpt-35)(?![\w.])|gpt-3\.5-|gpt-35-|text-embedding-|(davinci|babbage)-002")

_PIECE_CHARS = 8192  # about 2 ms of tiktoken, which keeps the event loop from running meanwhile
# Where a text may be cut without changing its count: both encodings end a token between these two characters,
# whatever stands around them. (An apostrophe after a letter may be a contraction, a slash may end a token.)
_CUT = re.compile(
    r"[A-Za-z0-9](?=[ \"#$%&()*+,\-.:;<=>?@\[\\\]^_`{|}~])|[^\s](?= )|\n(?=[A-Za-z0-9])|[一-鿿](?=[，。、！？；：])"
)
_CUT_WINDOW = 512

_CACHE_ENTRY_BYTES = 192  # a digest, a small int and their place in an OrderedDict, on CPython 3.11
_CACHE_FROM_CHARS = 48  # shorter texts are counted as fast as they are found

# Per message: <|start|>role<|message|>...<|end|>; the reply begins with <|start|>assistant<|message|>.
# Source: OpenAI cookbook, "How to count tokens with tiktoken", sections 6 and 7.
_PER_MESSAGE, _PER_NAME, _REPLY = 3, 1, 3
_TOOLS_END, _PROPERTIES, _PROPERTY, _ENUM, _ENUM_ITEM = 12, 3, 3, -3, 3
# Source: OpenAI's guide to images, gpt-4o: low detail; 1024 x 1024 in high detail. The real size isn't looked at.
_IMAGE_LOW, _IMAGE_HIGH = 85, 765
_DEEPEST = 32


def encoding_name(model: str) -> str:
    """Which of our two encodings a model has: cl100k for GPT-4, GPT-3.5 and embeddings, else o200k.

    Models of other providers get o200k, which is an estimate. Source: tiktoken's model table.
    """
    bare = model.lower().rpartition("/")[2].removeprefix("ft:")
    return "cl100k_base" if _CL100K.match(bare) else "o200k_base"


def pieces(text: str, size: int = _PIECE_CHARS) -> Iterator[str]:
    """The text in pieces of at most `size` characters whose counts add up to the text's.

    Exact where a cutting place lies within the last 512 characters of each piece, which is so in prose, code and JSON.
    A longer run without one (base64, a line of CJK) is cut where it is: that moves the count by a token or so a cut.
    """
    start = 0
    while len(text) - start > size:
        end = start + size
        cut = end
        for found in _CUT.finditer(text, max(start, end - _CUT_WINDOW), end + 1):
            if found.end() <= end:
                cut = found.end()
        yield text[start:cut]
        start = cut
    yield text[start:]


class Tokenizer:
    """Counts tokens; one for the process. Threads may share it.

    The ranks are loaded at first use (up to a second and 80 MiB for each encoding). Counts of texts are
    remembered under a hash, least recently used first to go, within `cache_bytes`: a growing conversation is counted
    once. Where texts are several tenants', each must be counted by its tenant's (`of`).
    """

    def __init__(self, cache_bytes: int = 8 * 2**20) -> None:
        self._whose: bytes | None = b""
        self._encodings: dict[str, tiktoken.Encoding] = {}
        self._loading = threading.Lock()
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._most = max(1, cache_bytes // _CACHE_ENTRY_BYTES)
        self._lock = threading.Lock()

    def of(self, tenant: str | None) -> Tokenizer:
        """The same, for a tenant's texts: it is spared no counting of what another sent, since a long text takes
        milliseconds. None: for anybody's, of which nothing is remembered."""
        found = copy(self)
        found._whose = None if tenant is None else tenant.encode("utf-8", "surrogatepass")
        return found

    def count(self, text: str, model: str = "") -> int:
        """The tokens of a text. Special tokens in it are text like any other."""
        return self._count(text, encoding_name(model))

    def ready(self, model: str) -> bool:
        """Whether a text of this model can be counted at once; else its ranks are loaded first."""
        return encoding_name(model) in self._encodings

    def count_request(self, endpoint: str, payload: Mapping[str, Any], model: str) -> int:
        """The input tokens of a request: chat, completions, embeddings, responses or messages; else 0."""
        return _Walk(self, encoding_name(model)).request(endpoint, payload)

    def count_text_out(self, endpoint: str, answer: bytes | str, model: str = "") -> int:
        """The output tokens of an answer, or of as much of it as came.

        `answer`: the wire's bytes, one JSON value or server-sent events; a str is taken as the text itself.
        """
        if isinstance(answer, str):
            return self.count(answer, model)
        name = encoding_name(model)
        return sum(self._count(text, name) for text in _answer_texts(endpoint, answer))

    def _count(self, text: str, name: str) -> int:
        if len(text) < _CACHE_FROM_CHARS:
            return len(self._encoding(name).encode_ordinary(text)) if text else 0
        if self._whose is None:
            return self._anew(text, name)
        hashed = blake2b(b"%d " % len(self._whose) + self._whose, digest_size=16, key=name.encode())
        hashed.update(text.encode("utf-8", "surrogatepass"))
        key = hashed.digest()
        with self._lock:
            known = self._counts.get(key)
            if known is not None:
                self._counts.move_to_end(key)
                return known
        count = self._anew(text, name)
        with self._lock:
            self._counts[key] = count
            if len(self._counts) > self._most:
                self._counts.popitem(last=False)
        return count

    def _anew(self, text: str, name: str) -> int:
        encoding = self._encoding(name)
        return sum(len(encoding.encode_ordinary(piece)) for piece in pieces(text))

    def _encoding(self, name: str) -> tiktoken.Encoding:
        found = self._encodings.get(name)
        if found is None:
            with self._loading:
                found = self._encodings.get(name) or _load(name)
                self._encodings[name] = found
        return found


def _load(name: str) -> tiktoken.Encoding:
    """The encoding from the ranks in the package. Raises RuntimeError where they aren't what they should be."""
    import tiktoken

    digest, pattern = _ENCODINGS[name]
    ranks = lzma.decompress((files("farthing.proxy") / "ranks" / f"{name}.tiktoken.xz").read_bytes())
    if sha256(ranks).hexdigest() != digest:
        raise RuntimeError(f"the ranks of {name} in this installation are damaged; install farthing anew")
    merges = {a2b_base64(token): int(rank) for token, _, rank in (line.partition(b" ") for line in ranks.splitlines())}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=merges, special_tokens={})


class _Walk:
    """Adds up a request of whatever shape; what isn't as documented counts nothing."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def request(self, endpoint: str, payload: Mapping[str, Any]) -> int:
        if endpoint == "chat":
            schema = payload.get("response_format")
            return (
                self._turns(payload.get("messages"))
                + self._tools(payload.get("tools") or payload.get("functions"))
                + (self._json(schema.get("json_schema")) if isinstance(schema, Mapping) else 0)
            )
        if endpoint == "messages":
            system = self._content(payload.get("system"))
            return self._turns(payload.get("messages")) + system + self._tools(payload.get("tools"))
        if endpoint == "responses":
            given = payload.get("input")
            turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
            instructions = self._content(payload.get("instructions"))
            return (
                self._turns(turns)
                + (instructions + _PER_MESSAGE + 1 if instructions else 0)
                + self._tools(payload.get("tools"))
            )
        if endpoint == "embeddings":
            return self._inputs(payload.get("input"))
        if endpoint == "completions":
            return self._inputs(payload.get("prompt")) + self._text(payload.get("suffix"))
        return 0

    def _text(self, value: object) -> int:
        return self._tokenizer._count(value, self._name) if isinstance(value, str) else 0

    def _json(self, value: object) -> int:
        if value is None:
            return 0
        try:
            return self._text(value if isinstance(value, str) else orjson.dumps(value).decode())
        except (TypeError, ValueError):
            return 0

    def _inputs(self, value: object) -> int:
        """A text, several, or tokens already counted."""
        if isinstance(value, list):
            return sum(1 if isinstance(item, int) else self._inputs(item) for item in value)
        return self._text(value)

    def _turns(self, turns: object) -> int:
        if not isinstance(turns, list):
            return 0
        return sum(self._turn(turn) for turn in turns if isinstance(turn, Mapping)) + _REPLY

    def _turn(self, turn: Mapping[str, Any]) -> int:
        """A chat message, an Anthropic turn or an item of a Responses input."""
        total = _PER_MESSAGE + self._text(turn.get("role")) + self._content(turn.get("content"))
        total += self._text(turn.get("refusal")) + self._text(turn.get("reasoning_content"))
        if turn.get("type") == "function_call":
            return total + self._text(turn.get("name")) + self._json(turn.get("arguments"))
        if isinstance(turn.get("name"), str):
            total += _PER_NAME + self._text(turn["name"])
        if "output" in turn:
            total += self._content(turn["output"])
        calls = turn.get("tool_calls")
        for call in calls if isinstance(calls, list) else [turn]:
            function = call.get("function" if call is not turn else "function_call") if isinstance(call, Mapping) else 0
            if isinstance(function, Mapping):
                total += _PER_MESSAGE + self._text(function.get("name")) + self._json(function.get("arguments"))
        return total

    def _content(self, content: object, depth: int = 0) -> int:
        """A text or a list of parts."""
        if isinstance(content, str):
            return self._text(content)
        if not isinstance(content, list) or depth > _DEEPEST:
            return 0
        return sum(self._part(part, depth) for part in content if isinstance(part, Mapping))

    def _part(self, part: Mapping[str, Any], depth: int) -> int:
        kind = part.get("type")
        if kind in ("image_url", "input_image", "image"):
            image = part.get("image_url")
            low = part.get("detail") == "low" or (isinstance(image, Mapping) and image.get("detail") == "low")
            return _IMAGE_LOW if low else _IMAGE_HIGH
        if kind == "tool_use":
            return self._text(part.get("name")) + self._json(part.get("input"))
        total = self._text(part.get("text")) + self._text(part.get("refusal")) + self._text(part.get("thinking"))
        return total + self._content(part.get("content"), depth + 1)

    def _tools(self, tools: object) -> int:
        """What tool definitions add: the cookbook's formula, which OpenAI gives for flat parameters, applied at any
        depth."""
        if not isinstance(tools, list) or not tools:
            return 0
        each = 10 if self._name == "cl100k_base" else 7
        total = _TOOLS_END
        for tool in tools:
            if not isinstance(tool, Mapping):
                continue
            function = tool["function"] if isinstance(tool.get("function"), Mapping) else tool
            words = f"{function.get('name', '')}:{str(function.get('description') or '').removesuffix('.')}"
            schema = function.get("parameters") or function.get("input_schema")
            total += each + self._text(words) + self._schema(schema, 0)
        return total

    def _schema(self, schema: object, depth: int) -> int:
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return 0
        total = self._schema(schema.get("items"), depth + 1)
        for choice in ("anyOf", "oneOf", "allOf"):
            branches = schema.get(choice)
            total += sum(self._schema(one, depth + 1) for one in branches) if isinstance(branches, list) else 0
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            return total
        total += _PROPERTIES
        for key, inner in properties.items():
            total += _PROPERTY
            if not isinstance(inner, Mapping):
                continue
            options = inner.get("enum")
            if isinstance(options, list):
                total += _ENUM + sum(_ENUM_ITEM + self._json(option) for option in options)
            words = f"{key}:{inner.get('type', '')}:{str(inner.get('description') or '').removesuffix('.')}"
            total += self._text(words) + self._schema(inner, depth + 1)
        return total


def _answer_texts(endpoint: str, answer: bytes) -> list[str]:
    """What the model wrote: text, reasoning, names and arguments of calls, each stream of pieces put together."""
    texts: dict[tuple[Any, ...], list[str]] = {}
    for value in _values(answer):
        for place, text in _written(endpoint, value):
            texts.setdefault(place, []).append(text)
    return ["".join(parts) for parts in texts.values()]


def _values(answer: bytes) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of an answer: itself, or the payloads of its events; what is cut off is left out."""
    whole = answer.lstrip()[:1] == b"{"
    for line in [answer] if whole else answer.splitlines():
        if not whole and not line.startswith(b"data:"):
            continue
        try:
            value = orjson.loads(line if whole else line[5:])
        except ValueError:
            value = loads_loosely(line if whole else line[5:])
        if isinstance(value, Mapping):
            yield value


_WRITTEN = ("content", "text", "refusal", "reasoning_content", "thinking", "partial_json", "arguments", "name", "input")


def _written(endpoint: str, value: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Each written text with the place that it belongs to."""
    kind = str(value.get("type", ""))
    if endpoint in ("chat", "completions"):
        for choice in _maps(value.get("choices")):
            at = choice.get("index")
            yield from _fields((at,), choice)
            for part in _maps([choice.get("message"), choice.get("delta")]):
                yield from _fields((at,), part)
                for n, call in enumerate(_maps(part.get("tool_calls"))):
                    yield from _fields((at, "call", call.get("index", n)), call.get("function"))
    elif endpoint == "responses":
        if kind.endswith(".delta") and isinstance(value.get("delta"), str):
            yield (kind, value.get("output_index"), value.get("content_index")), value["delta"]
        elif not kind.startswith("response."):
            for n, item in enumerate(_maps(value.get("output"))):
                yield from _fields((n,), item)
                for m, part in enumerate([*_maps(item.get("content")), *_maps(item.get("summary"))]):
                    yield from _fields((n, m), part)
    elif endpoint == "messages":
        blocks = [value.get("content_block"), value.get("delta")] if kind.startswith("content_block") else []
        for block in _maps(blocks):
            yield from _fields((value.get("index"),), block)
        for n, block in enumerate(_maps(value.get("content"))):
            yield from _fields((n,), block)


def _maps(values: object) -> Iterator[Mapping[str, Any]]:
    return (value for value in (values if isinstance(values, list) else []) if isinstance(value, Mapping))


def _fields(place: tuple[Any, ...], part: object) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The written members of an object; Anthropic's `input` as JSON."""
    if not isinstance(part, Mapping):
        return
    for name in _WRITTEN:
        text = part.get(name)
        if name == "input" and isinstance(text, Mapping):
            text = orjson.dumps(text).decode() if text else ""
        if isinstance(text, str) and text:
            yield (*place, name), text
