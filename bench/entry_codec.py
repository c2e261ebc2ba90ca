"""What stored answers shrink to and what that costs, by several codecs: `python -m bench.entry_codec ../shared/data`.

Texts are real ones of the compression data (what assistants said, worked problems, code), vectors are those of the
built-in model for lines of them; their envelopes are as an upstream sends them: a whole answer, a stream of a chunk a
token with its usage event, embeddings as decimals and as base64. Bytes and processor time (`time.process_time`) are of
one entry's body, each way as the store calls it: a new context for each entry, since entries are encoded in several
threads. All ways take turns in each round. LZ4 is left out where it isn't installed (`pip install lz4`).
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import re
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from farthing.cache.embedder import open_embedder

_SIZES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
_ROUNDS = 7
_ROUND_S = 0.02
_SLICES = (("long_chat_history", "assistant"), ("few_shot_cot", "user"), ("code_context", "tool"))
_LINE_CHARS = 200


class Codec(NamedTuple):
    """Both ways. `expand` knows how long it was, as the store does."""

    shrink: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]


def codecs() -> Mapping[str, Codec]:
    """Those that are compared, by name."""

    def zstd(level: int) -> Codec:
        return Codec(lambda body: zstandard.compress(body, level), lambda short, _: zstandard.decompress(short))

    def deflate(level: int) -> Codec:
        return Codec(lambda body: zlib.compress(body, level), lambda short, _: zlib.decompress(short))

    found = {"zlib 1": deflate(1), "zlib 6": deflate(6), "zstd 1": zstd(1), "zstd 3": zstd(3)}
    try:
        lz4: Any = importlib.import_module("lz4.block")
    except ImportError:
        return found
    return found | {
        "lz4": Codec(
            lambda body: lz4.compress(body, store_size=False),
            lambda short, size: lz4.decompress(short, uncompressed_size=size),
        )
    }


def text_of(data: Path) -> str:
    """What assistants and programs said there, one after the other."""
    said: list[str] = []
    for name, role in _SLICES:
        for line in (data / "compress" / f"{name}.jsonl").read_text("utf-8").splitlines():
            said += [one["content"] for one in json.loads(line)["messages"] if one["role"] == role and one["content"]]
    return "\n\n".join(dict.fromkeys(said))


def chat(text: str) -> bytes:
    """A whole answer that says this."""
    return json.dumps(
        {
            "id": "chatcmpl-DkR3xk1v7Qy2aVb8", "object": "chat.completion", "created": 1_764_201_600,
            "model": "gpt-4.1-mini-2025-04-14", "service_tier": "default", "system_fingerprint": "fp_3f58d112f7",
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": None,
                "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
            }],
            "usage": {"prompt_tokens": 412, "completion_tokens": len(text) // 4, "total_tokens": 412 + len(text) // 4},
        }
    ).encode()  # fmt: skip


def stream(text: str) -> bytes:
    """The same as a stream, a chunk for each word."""
    head: dict[str, Any] = {
        "id": "chatcmpl-DkR3xk1v7Qy2aVb8", "object": "chat.completion.chunk", "created": 1_764_201_600,
        "model": "gpt-4.1-mini-2025-04-14", "service_tier": "default", "system_fingerprint": "fp_3f58d112f7",
    }  # fmt: skip
    events = [
        head | {"choices": [{"index": 0, "delta": {"content": part}, "logprobs": None, "finish_reason": None}]}
        for part in re.findall(r"\s?\w{1,8}|\s|[^\w\s]", text)
    ]
    events.append(head | {"choices": [], "usage": {"prompt_tokens": 412, "completion_tokens": len(events)}})
    return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in events) + b"data: [DONE]\n\n"


def vectors(text: str, form: Callable[[Any], object]) -> bytes:
    """Embeddings of its lines."""
    embedder = open_embedder("minilm-int8")
    lines = [text[at : at + _LINE_CHARS] for at in range(0, len(text), _LINE_CHARS)]
    data = [
        {"object": "embedding", "index": number, "embedding": form(embedder.embed([line])[0])}
        for number, line in enumerate(lines)
    ]
    return json.dumps({"object": "list", "data": data, "model": "all-minilm-l6-v2"}).encode()


def decimals(text: str) -> bytes:
    """Embeddings as numbers."""
    return vectors(text, lambda vector: [float(each) for each in vector])


def base64s(text: str) -> bytes:
    """Embeddings as base64."""
    return vectors(text, lambda vector: base64.b64encode(vector.tobytes()).decode())


KINDS: Sequence[tuple[str, Callable[[str], bytes], float]] = (
    ("whole answer", chat, 1.0),
    ("streamed answer", stream, 0.02),
    ("embeddings, decimals", decimals, _LINE_CHARS / 8_300),
    ("embeddings, base64", base64s, _LINE_CHARS / 2_130),
)
"""What is stored: its name, what makes it of a text, and how many characters of text a byte of it takes."""


def cpu_us(work: Callable[[], object], round_s: float) -> float:
    """Processor time of one call, in µs, over about `round_s` of calls."""
    count, began = 0, time.process_time()
    while True:
        work()
        count += 1
        if (spent := time.process_time() - began) >= round_s:
            return spent / count * 1e6


def rows(data: Path, sizes: Sequence[int], rounds: int, round_s: float) -> Iterator[str]:
    """The table's lines: for each codec the bytes left, and µs to shrink and to expand."""
    ways = codecs()
    text = text_of(data)
    yield f"| body | bytes | {' | '.join(f'{name}: left, in, out' for name in ways)} |"
    yield f"|---|---:|{'---:|' * len(ways)}"
    for name, make, chars in KINDS:
        for size in sizes:
            at = len(text) // 7 if int(size * chars) < 100_000 else 0
            body = make(text[at : at + max(1, int(size * chars))])
            if len(body) > 4 * size:
                continue  # one vector is longer
            shorter = {way: codec.shrink(body) for way, codec in ways.items()}
            assert all(codec.expand(shorter[way], len(body)) == body for way, codec in ways.items())
            measured: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, (shrink, expand) in ways.items():
                    into = cpu_us(lambda shrink=shrink, body=body: shrink(body), round_s)
                    short = shorter[way]
                    out = cpu_us(lambda expand=expand, short=short, body=body: expand(short, len(body)), round_s)
                    measured[way].append((into, out))
            cells = []
            for way, each in measured.items():
                into, out = (statistics.median(column) for column in zip(*each, strict=True))
                cells.append(f"{100 * len(shorter[way]) / len(body):.1f} %, {into:,.0f} µs, {out:,.0f} µs")
            yield f"| {name} | {len(body):,} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    asked.add_argument("--rounds", type=int, default=_ROUNDS)
    asked.add_argument("--round-s", type=float, default=_ROUND_S)
    asked.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    given = asked.parse_args(arguments)
    for line in rows(given.data, given.sizes, given.rounds, given.round_s):
        print(line, flush=True)


if __name__ == "__main__":
    main()
