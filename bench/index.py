"""What an index costs at 1,000, 10,000 and 100,000 entries: search, add, remove, memory and recall, by kind.

Vectors: all-MiniLM-L6-v2's of the prompts in ../shared/data/semcache, and, beyond those, the same moved by chance to a
cosine of about 0.8; queries are entries moved to a cosine of about 0.95, as a near-duplicate is. Times are the thread's
processor time, so that what else runs on the machine doesn't count; one thread. Memory: growth of the resident set.

    python -m bench.index ../shared/data            (about ten minutes; --sizes 1000,10000 is quicker)
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.answers import sibling
from bench.index_candidates import CANDIDATES, TRAIN_AT
from bench.machine import rss_bytes
from farthing.cache.embedder import open_embedder
from farthing.cache.index_growing import GrowingIndex
from farthing.proxy.text import normalise

K = 8
_REAL = 3_000
_ENTRY_COSINE, _QUERY_COSINE = 0.8, 0.95
Matrix = NDArray[np.float32]


def real_vectors(data: Path, most: int) -> Matrix:
    """One row for each prompt, `most` at most, evenly from the streams whose prompts fit the model's window."""
    embedder = open_embedder("minilm-int8")
    texts: dict[str, None] = {}
    names = ("intent", "adv", "qa", "math")
    for name in names:
        lines = (data / "semcache" / f"{name}.jsonl").read_text("utf-8").splitlines()
        found = [normalise(json.loads(line)["messages"][-1]["content"]) for line in lines]
        texts.update(dict.fromkeys([text for text in found if len(text) < 400][: most // len(names)]))
    return np.concatenate([embedder.embed([text]) for text in texts])


def moved(vectors: Matrix, cosine: float, chance: np.random.Generator) -> Matrix:
    """Each row turned by chance to about that cosine with itself."""
    noise = chance.normal(size=vectors.shape).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    turned = cosine * vectors + np.float32(np.sqrt(1 - cosine**2)) * noise
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True), np.float32)


def timed(work: Callable[[Any], object], given: Sequence[Any]) -> list[float]:
    """Milliseconds of processor time for each call."""
    took = []
    for one in given:
        began = time.thread_time_ns()
        work(one)
        took.append((time.thread_time_ns() - began) / 1e6)
    return took


def measured(kind: str, entries: Matrix, queries: Matrix, truth: list[int]) -> dict[str, Any]:
    """One candidate at one size."""
    build = CANDIDATES[kind]
    build(entries.shape[1]).add(0, entries[0])  # loads what there is to load
    before = rss_bytes(os.getpid())
    index = build(entries.shape[1])
    adds = timed(lambda at: index.add(at, entries[at]), range(len(entries)))
    memory = rss_bytes(os.getpid()) - before
    found: list[list[tuple[int, float]]] = []
    searches = timed(lambda query: found.append(index.search(query, K)), list(queries))
    wrong_cosine = max(
        abs(got[0][1] - float(entries[got[0][0]] @ query)) for got, query in zip(found, queries, strict=True) if got
    )
    recall = float(np.mean([bool(got) and got[0][0] == right for got, right in zip(found, truth, strict=True)]))
    removes = timed(index.remove, range(0, len(entries), max(1, len(entries) // 100)))
    return {
        "index": kind,
        "entries": len(entries),
        "search_p50_ms": float(np.percentile(searches, 50)),
        "search_p99_ms": float(np.percentile(searches, 99)),
        "add_p50_ms": float(np.percentile(adds[-1000:], 50)),
        "add_p99_ms": float(np.percentile(adds[-1000:], 99)),
        "remove_p50_ms": float(np.percentile(removes, 50)),
        "bytes_per_entry": memory / len(entries),
        "recall_at_1": recall,
        "cosine_off": wrong_cosine,
    }


def rebuilt(entries: Matrix) -> str:
    """A flat index turned into lists in slices: how long a look-up may have to wait for one of them."""
    index = GrowingIndex(entries.shape[1], len(entries) - 1)
    for number, vector in enumerate(entries):
        index.add(number, vector)
    slices = []
    more = True
    while more:
        slices += timed(lambda _: index.tend(), [None])
        more = index.restless
    p50, p99, most = (float(np.percentile(slices, share)) for share in (50, 99, 100))
    return (
        f"rebuilt as a {index.kind} at {len(entries):,}: {len(slices):,} slices, p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
        f"longest {most:.1f} ms, {sum(slices) / 1000:.0f} s in all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--kinds", default=",".join(CANDIDATES))
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chance = np.random.default_rng(given.seed)
    real = real_vectors(sibling(given.data), _REAL)
    console = Console()
    table = Table(
        "index", "entries", "search p50/p99 ms", "add p50/p99 ms", "remove ms", "bytes", "recall@1", "cosine off by"
    )
    rows = []
    for size in map(int, given.sizes.split(",")):
        times = -(-size // len(real))
        parts = [real, *(moved(real, _ENTRY_COSINE, chance) for _ in range(times - 1))]
        entries = chance.permutation(np.concatenate(parts))[:size]
        queries = moved(entries[chance.integers(0, size, given.queries)], _QUERY_COSINE, chance)
        truth = [int((entries @ query).argmax()) for query in queries]
        for kind in given.kinds.split(","):
            if kind.startswith("IVF") and size < TRAIN_AT:
                continue
            # A process for each, so that one's freed memory doesn't hide another's.
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                row = alone.submit(measured, kind, entries, queries, truth).result()
            rows.append(row)
            table.add_row(
                kind, f"{size:,}", f"{row['search_p50_ms']:.2f} / {row['search_p99_ms']:.2f}",
                f"{row['add_p50_ms']:.3f} / {row['add_p99_ms']:.2f}", f"{row['remove_p50_ms']:.3f}",
                f"{row['bytes_per_entry']:,.0f}", f"{row['recall_at_1']:.3f}", f"{row['cosine_off']:.4f}",
            )  # fmt: skip
            console.print(row)
        console.print(rebuilt(entries))
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
