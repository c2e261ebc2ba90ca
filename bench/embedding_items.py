"""Embeddings kept input by input beside whole requests: what is sent, what it costs to put together, what it takes up.

Batches of 100 texts of which a share has been asked for before, in another batch. A cache of whole requests knows a
batch only where all of it came together before; here never. Tokens: counted with the model's own encoding. Vectors:
random, of 1,536 numbers, in the encoding asked for. Times: processor time, one thread, no wire.

    python -m bench.embedding_items ../shared/data
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from bench.answers import sibling
from farthing.cache.codec import encode
from farthing.cache.entry import Entry
from farthing.cache.items import Case, Vector, apportioned, asked_of, read_answer
from farthing.cache.store import Selector
from farthing.cache.store_local import LocalStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage

MODEL = "text-embedding-3-small"
BATCH, NUMBERS = 100, 1536


def answer_to(texts: list[str], vectors: dict[str, Any], tokens: dict[str, int], encoding: str) -> bytes:
    """What a provider would say."""
    rows = [{"object": "embedding", "index": i, "embedding": vectors[text][encoding]} for i, text in enumerate(texts)]
    used = sum(tokens[text] for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return orjson.dumps({"object": "list", "data": rows, "model": MODEL, "usage": usage})


def entry(key: str, vector: Vector, usage: Usage, now_s: float) -> Entry:
    return Entry(key, "t", "embeddings", MODEL, MODEL, "whole", "", vector.body(), usage, now_s, now_s + 3600)


async def batch(
    store: LocalStore, texts: list[str], vectors: dict[str, Any], tokens: dict[str, int], encoding: str
) -> tuple[int, float, float]:
    """Tokens that are sent for these texts; milliseconds before and after the upstream, of processor time."""
    began = time.process_time()
    asked = asked_of({"model": MODEL, "input": texts, "encoding_format": encoding})
    assert asked is not None
    case = Case(asked, asked.keys(b"bench", ""))
    now_s = time.time()
    case.take(await store.get_many(case.keys, now_s), not_before_s=0.0)
    sent = [asked.unique[place] for place in case.missing]
    before_ms = 1000 * (time.process_time() - began)
    said = answer_to(sent, vectors, tokens, encoding)  # the upstream's work, not ours
    began = time.process_time()
    if sent:
        answered = read_answer(orjson.loads(said), len(sent))
        assert answered is not None
        case.fill(answered, apportioned(answered.tokens, [tokens[text] for text in sent]))
        await store.put_many(
            [entry(case.keys[place], vector, usage, now_s) for place, (vector, usage) in case.fresh.items()]
        )
    body = case.answer()
    assert body is not None
    after_ms = 1000 * (time.process_time() - began)
    assert [row["embedding"] for row in orjson.loads(body)["data"]] == [vectors[text][encoding] for text in texts]
    return sum(tokens[text] for text in sent), before_ms, after_ms


async def measure(texts: list[str], batches: int) -> None:
    random = np.random.default_rng(6)
    tokenizer = Tokenizer()
    tokens = {text: tokenizer.count(text, MODEL) for text in texts}
    vectors: dict[str, Any] = {}
    for text in texts:
        numbers = random.normal(size=NUMBERS)
        single = (numbers / np.linalg.norm(numbers)).astype("<f4")
        floats = orjson.loads(orjson.dumps(single, option=orjson.OPT_SERIALIZE_NUMPY))
        vectors[text] = {"float": floats, "base64": base64.b64encode(single.tobytes()).decode()}
    table = Table("encoding", "known", "tokens sent, whole requests", "input by input", "ms before", "ms after")
    for encoding in ("base64", "float"):
        for share in (0.0, 0.5, 0.9, 1.0):
            store = LocalStore(None, clock=SystemClock(), memory_bytes=2**30, max_bytes=2**30, max_entries=10**6)
            await store.open()
            whole = items = 0
            before, after = [], []
            for number in range(batches):
                chosen = [texts[i] for i in random.permutation(len(texts))[:BATCH]]
                known = chosen[: round(share * BATCH)]
                if known:
                    await batch(store, known, vectors, tokens, encoding)
                random.shuffle(chosen)
                sent, before_ms, after_ms = await batch(store, chosen, vectors, tokens, encoding)
                whole += sum(tokens[text] for text in chosen)
                items += sent
                if number:
                    before.append(before_ms)
                    after.append(after_ms)
                await store.purge(Selector())
            await store.close()
            cells = (f"{whole:,}", f"{items:,}", f"{np.median(before):.2f}", f"{np.median(after):.2f}")
            table.add_row(encoding, f"{share:.0%}", *cells)
    console = Console()
    console.print(table)
    text = texts[0]
    sizes = Table("bytes of a vector", "as the API says it", "kept here, on disk")
    for encoding in ("base64", "float"):
        said = answer_to([text], vectors, tokens, encoding)
        read = read_answer(orjson.loads(said), 1)
        assert read is not None
        kept = encode(entry("0" * 32, read.vectors[0], Usage(fresh=1), time.time()))
        sizes.add_row(encoding, f"{len(said):,}", f"{len(kept):,}")
    console.print(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--batches", type=int, default=20)
    given = parser.parse_args()
    lines = (sibling(given.data) / "semcache" / "intent.jsonl").read_text("utf-8").splitlines()[:400]
    texts = list(dict.fromkeys(json.loads(line)["messages"][-1]["content"] for line in lines))
    asyncio.run(measure(texts, given.batches))


if __name__ == "__main__":
    main()
