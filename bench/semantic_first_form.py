"""How often the semantic cache's first form hits, and how often its hits are wrong, on replayed streams.

Each stream is replayed once, top to bottom: a prompt is looked up under the scope of everything but its last message;
a miss is added. Nothing is ever learned from the labels, which only judge. "wrong" is right where the entry's class is
another one. Figures are of one order of each stream: a map, not a proof.

    python bench/semantic_first_form.py ../shared/data/semcache --streams adv,qa,intent,conv
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from farthing.cache.embedder import Embedder, open_embedder
from farthing.cache.guard import unmatchable
from farthing.cache.index import BruteIndex
from farthing.cache.semantic import NEIGHBOURS, Neighbour, judge
from farthing.proxy.text import normalise, signals

THRESHOLDS = (0.92, 0.85, 0.80)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request of a stream: `scope` is a digest of all but the last message, `answer` the class of its answer."""

    scope: str
    text: str
    answer: str


@dataclass(slots=True)
class Tally:
    """What one setting did over one stream."""

    prompts: int = 0
    hits: int = 0
    wrong: int = 0


class Remembered:
    """An embedder that embeds each text once, so that six settings cost one pass."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self._known: dict[str, NDArray[np.float32] | None] = {}
        self.embedded = 0
        self.seconds = 0.0

    def vector(self, text: str) -> NDArray[np.float32] | None:
        """None beyond the model's window."""
        if text not in self._known:
            began = time.perf_counter()
            fits = self._inner.count(text) <= self._inner.max_tokens
            self._known[text] = self._inner.embed([text])[0] if fits else None
            self.seconds += time.perf_counter() - began
            self.embedded += 1
        return self._known[text]


def prompts_of(path: Path) -> Iterator[Prompt]:
    """The stream's requests, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            *before, last = row["messages"]
            material = json.dumps([row.get("tenant"), before, last["role"]], sort_keys=True)
            yield Prompt(hashlib.sha256(material.encode()).hexdigest()[:32], last["content"], row["class"])


def replay(prompts: Sequence[Prompt], embedder: Remembered, threshold: float, *, guarded: bool) -> Tally:
    """One pass with one setting; without the guard the nearest neighbour above the threshold serves.

    Guarded, it is `judge` and `unmatchable` themselves that decide.
    """
    tally = Tally()
    indexes: dict[str, BruteIndex] = {}
    kept: list[tuple[str, str]] = []
    for prompt in prompts:
        tally.prompts += 1
        plain = normalise(prompt.text)
        vector = None if guarded and unmatchable(prompt.text) else embedder.vector(plain)
        if vector is None:
            continue
        index = indexes.setdefault(prompt.scope, BruteIndex(len(vector)))
        near = index.search(vector, NEIGHBOURS)
        served: int | None = None
        if guarded:
            found = judge(signals(plain), [Neighbour(str(n), cosine, kept[n][0]) for n, cosine in near], threshold)
            served = int(found.entry_key) if found.entry_key is not None else None
        elif near and near[0][1] >= threshold:
            served = near[0][0]
        if served is not None:
            tally.hits += 1
            tally.wrong += kept[served][1] != prompt.answer
            continue
        index.add(len(kept), vector)
        kept.append((plain, prompt.answer))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/semcache"))
    parser.add_argument("--streams", default="adv,qa,intent,conv")
    parser.add_argument("--model", default="minilm-int8")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of a table")
    given = parser.parse_args()
    embedder = Remembered(open_embedder(given.model))
    table = Table(title=f"Semantic cache, first form, {given.model}")
    for name in ("stream", "prompts", "threshold", "guard", "hit rate", "hits", "wrong", "wrong / hits"):
        table.add_column(name, justify="left" if name in ("stream", "guard") else "right")
    for stream in given.streams.split(","):
        prompts = list(prompts_of(given.folder / f"{stream}.jsonl"))
        for guarded in (False, True):
            for threshold in THRESHOLDS:
                tally = replay(prompts, embedder, threshold, guarded=guarded)
                share = f"{tally.wrong / tally.hits:.3f}" if tally.hits else "–"
                rate = f"{tally.hits / max(tally.prompts, 1):.3f}"
                guard = "with" if guarded else "without"
                if given.json:
                    row = {"stream": stream, "prompts": tally.prompts, "threshold": threshold, "guard": guarded}
                    print(json.dumps(row | {"hits": tally.hits, "wrong": tally.wrong}), flush=True)
                cells = (stream, tally.prompts, f"{threshold:.2f}", guard, rate, tally.hits, tally.wrong, share)
                table.add_row(*map(str, cells))
        table.add_section()
    if not given.json:
        console = Console()
        console.print(table)
        mean_ms = 1000 * embedder.seconds / max(embedder.embedded, 1)
        console.print(f"{embedder.embedded} texts embedded, {mean_ms:.1f} ms each on one thread")


if __name__ == "__main__":
    main()
