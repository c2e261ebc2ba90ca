"""What a batch gains: the default model on padded batches against one text at a time, and how far vectors then move.

The model is int8 with activations scaled by whatever shares the batch, so a text's vector depends on its company: the
second figure is the least cosine between a text's vector alone and in the batch. Times: processor time, one thread.

    python -m bench.embedding_batch ../shared/data
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.answers import sibling
from farthing.cache.embedder import MiniLmOnnx
from farthing.proxy.text import normalise

SIZES = (1, 2, 4, 8, 16)


def together(model: MiniLmOnnx, texts: list[str]) -> NDArray[np.float32]:
    """One call for all: padded to the longest, mean over each text's own tokens."""
    tokens = [model._tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, tokens))
    ids = np.array([row + [0] * (longest - len(row)) for row in tokens], np.int64)
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in tokens], np.int64)
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    hidden = model._session.run(None, {name: given[name] for name in model._inputs})[0]
    mean = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=160)
    given = parser.parse_args()
    lines = (sibling(given.data) / "semcache" / "intent.jsonl").read_text("utf-8").splitlines()[: given.texts]
    texts = [normalise(json.loads(line)["messages"][-1]["content"]) for line in lines]
    model = MiniLmOnnx()
    alone = model.embed(texts)
    table = Table("texts in a call", "ms a text", "least cosine with its vector alone", "mean")
    for size in SIZES:
        began = time.thread_time()
        found = np.concatenate([together(model, texts[at : at + size]) for at in range(0, len(texts), size)])
        took_ms = 1000 * (time.thread_time() - began) / len(texts)
        cosines = (found * alone).sum(axis=1)
        table.add_row(str(size), f"{took_ms:.2f}", f"{cosines.min():.4f}", f"{cosines.mean():.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
