"""Every kind of index at 10,000, 100,000 and a million entries: memory, building, searching, and what is found.

Vectors: all-MiniLM-L6-v2's of 3,000 real prompts of ../shared/data/semcache are centres. An entry is a centre turned by
chance to a cosine between .7 and .98 with it, each entry to its own; so the nearest of an entry's neighbours are about
as near as another wording is. A query is an entry turned to .95. What is right is the nearest by the exact product.

Times are processor time: of building, all threads'; of one search, the one thread's that does it. `index` is what
FAISS would write of it, `resident` how much the process grew, tables and spare room included. Each kind is built in a
process of its own. The two that farthing has are its own classes, filled as they are there.

    python -m bench.index_sizes                                     writes the tables of docs/ too
    python -m bench.index_sizes --sizes 1000000 --kinds graph       the one that takes long, by itself
    python -m bench.index_sizes --sizes 10000 --no-docs             a minute
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.answers import sibling
from bench.index import Matrix, moved, real_vectors, timed
from bench.index_pages import cells, kept, write
from bench.provenance import about
from farthing.cache.index import BruteIndex
from farthing.cache.index_ivf import NPROBE, IvfIndex, Training

__all__ = ["KINDS", "Kind", "clustered", "measured", "nearest", "run", "turned"]

K = 8
_REAL = 3_000
_ENTRY_COSINES, _QUERY_COSINE = (0.7, 0.98), 0.95
_BLOCK = 50_000
_TRAINED_ON = 40  # vectors for each list
_ROUNDS = 10  # of k-means
_NPROBE = 16
_LINKS, _EF_BUILD, _EF_SEARCH = 32, 200, 128  # of the graph: a link more or more care than most use

Search = Callable[[Matrix], tuple[NDArray[np.float32], NDArray[np.int64]]]
Size = Callable[[], int]  # to be asked when memory has been looked at: it takes a copy


@dataclass(frozen=True, slots=True)
class Kind:
    """`spec`: FAISS's, with LISTS for the number of lists; FLAT and IVF: the product's. `np`: without training codes
    for Hamming distances, which nothing here uses."""

    name: str
    spec: str


FLAT, IVF = "farthing's flat", "farthing's IVF"
KINDS = (
    Kind("flat, 32 bits (farthing's)", FLAT),
    Kind("flat, 16 bits", "SQfp16"),
    Kind("flat, 8 bits", "SQ8"),
    Kind(f"IVF, 16 bits, nprobe {NPROBE} (farthing's)", IVF),
    Kind("graph, HNSW, 16 bits", f"HNSW{_LINKS},SQfp16"),
    Kind(f"IVF, 8 bits, nprobe {_NPROBE}", "IVFLISTS,SQ8"),
    Kind(f"IVF-PQ, 96 bytes, nprobe {_NPROBE}", "IVFLISTS,PQ96np"),
    Kind(f"IVF-PQ, 48 bytes, nprobe {_NPROBE}", "IVFLISTS,PQ48np"),
)


def clustered(real: Matrix, count: int, chance: np.random.Generator) -> Iterator[Matrix]:
    """So many entries in blocks; the real vectors themselves are the first."""
    yield real[:count]
    for start in range(len(real), count, _BLOCK):
        centres = real[chance.integers(0, len(real), min(_BLOCK, count - start))]
        cosines = chance.uniform(*_ENTRY_COSINES, size=(len(centres), 1)).astype(np.float32)
        yield turned(centres, cosines, chance)


def turned(vectors: Matrix, cosines: Matrix, chance: np.random.Generator) -> Matrix:
    """Each row turned by chance until it has its own one of `cosines` (shape [n, 1]) with itself."""
    noise = chance.standard_normal(vectors.shape, np.float32)
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(cosines * vectors + np.sqrt(1 - cosines**2) * noise, np.float32)


def nearest(entries: Matrix, queries: Matrix) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest entry of each query and its cosine, exactly."""
    best, found = np.full(len(queries), -2.0, np.float32), np.zeros(len(queries), np.int64)
    for start in range(0, len(entries), _BLOCK):
        cosines = queries @ np.asarray(entries[start : start + _BLOCK]).T
        at = cosines.argmax(axis=1)
        better = cosines[np.arange(len(queries)), at]
        found = np.where(better > best, at + start, found)
        best = np.maximum(best, better)
    return found, best


def flat(entries: Matrix) -> BruteIndex:
    """The product's own, filled as it is there: one by one."""
    index = BruteIndex(entries.shape[1])
    for number, vector in enumerate(entries):
        index.add(number, vector)
    return index


def lists(entries: Matrix) -> IvfIndex:
    """The product's own, trained and filled in slices, as it is there."""
    training, index = Training(range(len(entries))), None
    held: Any = Held(entries)
    while index is None:
        index = training.step(held)
    for start in range(0, len(entries), index.slice):
        index.extend([*enumerate(entries[start : start + index.slice], start)])
    return index


class Held:
    """What a training reads from: the index before it."""

    def __init__(self, entries: Matrix) -> None:
        self._entries = entries

    def __contains__(self, number: int) -> bool:
        return 0 <= number < len(self._entries)

    def vector(self, number: int) -> Matrix:
        return np.array(self._entries[number])


def own(spec: str, entries: Matrix) -> tuple[Search, Size]:
    """One of the product's, and what tells its size."""
    index = flat(entries) if spec == FLAT else lists(entries)

    def size() -> int:
        return entries.size * 4 if isinstance(index, BruteIndex) else len(faiss.serialize_index(index._ivf))

    def search(query: Matrix) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found = index.search(query[0], K)
        return np.array([[c for _, c in found]], np.float32), np.array([[n for n, _ in found]], np.int64)

    return search, size


def by_faiss(spec: str, entries: Matrix, threads: int) -> tuple[Search, Size]:
    """One of FAISS's: trained on a part where it must be, filled in blocks, by so many threads."""
    faiss.omp_set_num_threads(threads)
    count, dim = entries.shape
    lists = 2 * math.isqrt(count)
    index: Any = faiss.index_factory(dim, spec.replace("LISTS", str(lists)), faiss.METRIC_INNER_PRODUCT)
    if spec.startswith("HNSW"):
        index.hnsw.efConstruction, index.hnsw.efSearch = _EF_BUILD, _EF_SEARCH
    if spec.startswith("IVF"):
        ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
        ivf.nprobe = _NPROBE
        clusterings = [ivf.cp, *([ivf.pq.cp] if isinstance(ivf, faiss.IndexIVFPQ) else [])]
        for clustering in clusterings:
            clustering.niter, clustering.min_points_per_centroid = _ROUNDS, 1  # no word about small sizes
    if not index.is_trained:
        some = np.linspace(0, count - 1, min(count, _TRAINED_ON * lists)).astype(np.int64)
        index.train(np.asarray(entries[some]))
    for start in range(0, count, _BLOCK):
        index.add(np.asarray(entries[start : start + _BLOCK]))
    faiss.omp_set_num_threads(1)
    return lambda query: index.search(query, K), lambda: len(faiss.serialize_index(index))


def measured(spec: str, stored: Path, queries: Matrix, threads: int) -> dict[str, Any]:
    """One kind over the entries in that file. `threads`: that build; one searches."""
    entries = np.load(stored, mmap_mode="r")
    before, begun_s = anonymous_bytes(), time.process_time()
    search, size = own(spec, entries) if spec in (FLAT, IVF) else by_faiss(spec, entries, threads)
    built_s, resident = time.process_time() - begun_s, anonymous_bytes() - before
    found: list[tuple[int, float]] = []

    def one(query: Matrix) -> None:
        cosines, numbers = search(query)
        found.append((int(numbers[0, 0]), float(cosines[0, 0])))

    times_ms = timed(one, [query.reshape(1, -1) for query in queries])
    right, _ = nearest(entries, queries)
    off = [abs(cosine - float(entries[n] @ query)) for (n, cosine), query in zip(found, queries, strict=True) if n >= 0]
    return {
        "bytes": size() / len(entries),
        "resident": resident / len(entries),
        "built_s": built_s,
        "p50_us": 1000 * float(np.percentile(times_ms, 50)),
        "p99_us": 1000 * float(np.percentile(times_ms, 99)),
        "recall": float(np.mean([n == int(wanted) for (n, _), wanted in zip(found, right, strict=True)])),
        "off": max(off, default=0.0),
    }


def anonymous_bytes() -> int:
    """What this process holds, without the files that it has mapped (proc(5), RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def run(
    real: Matrix, sizes: Sequence[int], kinds: Sequence[Kind], asked: int, threads: int
) -> Iterator[dict[str, Any]]:
    """What was measured, kind by kind at each size. `asked`: so many queries."""
    for size in sizes:
        chance = np.random.default_rng(size)
        with tempfile.TemporaryDirectory(prefix="farthing-index-") as home:
            stored = Path(home) / "entries.npy"
            entries = np.lib.format.open_memmap(stored, "w+", np.float32, (size, real.shape[1]))
            at = 0
            for block in clustered(real, size, chance):
                entries[at : at + len(block)] = block
                at += len(block)
            entries.flush()
            queries = moved(np.asarray(entries[chance.integers(0, size, asked)]), _QUERY_COSINE, chance)
            del entries
            for kind in kinds:
                # A process for each, so that one's freed memory doesn't hide another's.
                with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                    got = alone.submit(measured, kind.spec, stored, queries, threads).result()
                yield {"index": kind.name, "entries": size} | got


def main(arguments: list[str]) -> None:
    """Measure, keep, and write both documents anew unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--kinds", default="", metavar="TEXT", help="those whose name holds this")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="that build; 1 on a busy machine")
    parser.add_argument("--no-docs", action="store_true", help="print it, but leave the documents alone")
    given = parser.parse_args(arguments)
    console = Console()
    kinds = [kind for kind in KINDS if given.kinds in kind.name]
    command = shlex.join(["python", "-m", "bench.index_sizes", *arguments])
    real = real_vectors(sibling(given.data), _REAL)
    found = []
    for one in run(real, [int(size) for size in given.sizes.split(",")], kinds, given.queries, given.threads):
        found.append(one | about(command))
        console.print("  ".join(cells(one)), highlight=False)
        if not given.no_docs:  # at once, since a million takes long
            write(kept(found))


if __name__ == "__main__":
    main(sys.argv[1:])
