"""How farthing's inverted lists are set: recall and time by lists, passes of training and lists that are looked into.

Entries and queries as in `bench.index_sizes` (islands round real prompts' vectors), and without any islands: drawn by
chance, where nothing is near anything and a list says least. Queries are entries turned to a cosine of .95, and of .9.
Times are processor time of one thread.

    python -m bench.index_training ../shared/data                  100,000 entries, a minute
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.answers import sibling
from bench.index import Matrix, real_vectors, timed
from bench.index_sizes import Held, clustered, nearest, turned
from bench.report import table
from farthing.cache.index_ivf import IvfIndex, Training

__all__ = ["Setting", "main", "measured", "trained"]

_REAL = 3_000
_COSINES = (0.95, 0.9)
_NPROBES = (8, 16, 32, 64)
_K = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """Lists to the square root of the entries, and passes of k-means."""

    lists_per_root: int
    passes: int


SETTINGS = (Setting(2, 0), Setting(2, 1), Setting(2, 2), Setting(2, 4), Setting(4, 0), Setting(4, 2))


def trained(entries: Matrix, setting: Setting) -> tuple[IvfIndex, float, float]:
    """The index with all entries in it; seconds that training took, and filling."""
    held: Any = Held(entries)
    training, index = Training(range(len(entries)), setting.lists_per_root, setting.passes), None
    begun_s = time.thread_time()
    while index is None:
        index = training.step(held)
    trained_s = time.thread_time()
    for start in range(0, len(entries), index.slice):
        index.extend([*enumerate(entries[start : start + index.slice], start)])
    return index, trained_s - begun_s, time.thread_time() - trained_s


def measured(entries: Matrix, setting: Setting, asked: int, chance: np.random.Generator) -> Iterator[list[str]]:
    """A row for each number of lists that are looked into."""
    index, trained_s, filled_s = trained(entries, setting)
    queries = [
        turned(entries[chance.integers(0, len(entries), asked)], np.full((asked, 1), cosine, np.float32), chance)
        for cosine in _COSINES
    ]
    right = [nearest(entries, some)[0] for some in queries]
    for nprobe in _NPROBES:
        index._ivf.nprobe = nprobe
        times_ms = timed(lambda query: index.search(query, _K), list(queries[0]))
        recalls = [
            np.mean([index.search(query, _K)[0][0] == wanted for query, wanted in zip(some, found, strict=True)])
            for some, found in zip(queries, right, strict=True)
        ]
        yield [
            *(str(setting.lists_per_root), str(setting.passes), str(nprobe)),
            *(f"{recall:.3f}" for recall in recalls),
            f"{np.percentile(times_ms, 50):.2f} / {np.percentile(times_ms, 99):.2f}",
            *(f"{trained_s:.1f}", f"{filled_s:.1f}"),
        ]


def main(arguments: list[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=400)
    given = parser.parse_args(arguments)
    chance = np.random.default_rng(given.entries)
    real = real_vectors(sibling(given.data), _REAL)
    drawn = chance.standard_normal((given.entries, real.shape[1]), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    rows = [
        [name, *row]
        for name, entries in (("islands", np.concatenate([*clustered(real, given.entries, chance)])), ("none", drawn))
        for setting in SETTINGS
        for row in measured(entries, setting, given.queries, chance)
    ]
    columns = ["islands", "lists / √n", "passes", "nprobe", "recall@1 at .95", "at .9", "search p50 / p99, ms"]
    Console(width=200).print("\n".join(table([*columns, "trained, s", "filled, s"], rows)), highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
