"""How many tokens a byte of a request has: what policies/reserve.py takes for granted, against what is counted.

python -m bench.tokens_per_byte ../shared/data/compress
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from bench.compress import ROOT
from bench.compress_data import load
from farthing.policies.reserve import Learned, estimate
from farthing.proxy.tokens import Tokenizer


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.tokens_per_byte", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=ROOT.parent / "shared" / "data" / "compress")
    tokenizer, found = Tokenizer(), dict[str, list[tuple[float, float]]]()
    made = {
        "hexadecimal (made)": secrets.token_hex(20_000),
        "random base64 (made)": secrets.token_urlsafe(20_000),
        "Chinese (made)": "合同规定交货期为三十天，请确认付款条件。" * 400,
        "digits (made)": "".join(str(secrets.randbelow(10)) for _ in range(20_000)),
        "any ASCII (made)": "".join(chr(32 + secrets.randbelow(95)) for _ in range(20_000)),
        "hieroglyphs (made)": "".join(chr(0x13000 + secrets.randbelow(1000)) for _ in range(20_000)),
        "emoji (made)": "".join(chr(0x1F300 + secrets.randbelow(700)) for _ in range(20_000)),
    }
    requests = [(item.slice, item.messages) for item in load(parser.parse_args().data)]
    requests += [(name, [{"role": "user", "content": text}]) for name, text in made.items()]
    for name, messages in requests:
        payload = {"model": "gpt-4o", "messages": messages}
        body = orjson.dumps(payload)
        counted = tokenizer.count_request("chat", payload, "gpt-4o")
        taken = estimate("chat", payload, body, "gpt-4o", Learned()).tokens_in
        found.setdefault(name, []).append((counted / len(body), counted / taken))
    table = Table("requests", "count", "tokens a byte, median", "most", "counted / reserved, most")
    for name, figures in found.items():
        ratios = sorted(ratio for ratio, _ in figures)
        most = max(share for _, share in figures)
        table.add_row(name, str(len(figures)), f"{ratios[len(ratios) // 2]:.3f}", f"{ratios[-1]:.3f}", f"{most:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
