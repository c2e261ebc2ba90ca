"""How often a model disagrees with itself: each prompt asked twice, judged by the comparators.

A 'wrong' hit on a real upstream means disagreement beyond this. The model is SmolLM2-135M (farthing.proxy.small_model),
a process of its own on one thread; prompts are drawn by seed from the streams of ../shared/data.

    python -m bench.same_prompt ../shared/data --prompts 30         (Ctrl-C: the table of what has been asked by then)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from bench.answers import sibling
from farthing.cache.embedder import open_embedder
from farthing.policies.agree import agree_bytes
from farthing.proxy.small_model import INSTALL, MODEL, missing

TEMPERATURES = (0.0, 1.0)
_LABELS = ("card_arrival", "exchange_rate", "lost_or_stolen_card", "transfer_fee_charged")


def prompts(data: Path, count: int, chance: Random) -> Iterator[tuple[str, list[dict[str, str]], int]]:
    """(kind, messages, max_tokens), `count` of each kind, in turns."""
    rows = {name: _rows(data / "semcache" / f"{name}.jsonl") for name in ("intent", "math", "long", "qa")}
    told = f"Classify the message as one of: {', '.join(_LABELS)}. Reply with the label only."
    short = [row for row in rows["long"] if len(row["messages"][-1]["content"]) < 1600]
    drawn = [chance.sample(found, count) for found in (rows["intent"], rows["math"], short, rows["qa"])]
    for label, worked, passage, question in zip(*drawn, strict=True):
        yield "label", [{"role": "system", "content": told}, label["messages"][-1]], 16
        yield "worked number", worked["messages"], 160
        yield "short answer", passage["messages"], 48
        yield "open question", question["messages"], 120


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The model's base URL, while it runs. Raises SystemExit: not installed, or not up within a minute."""
    if lacking := missing():
        raise SystemExit(f"{lacking}; to install: {'; '.join(INSTALL)}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "farthing.proxy.small_model", "--port", str(port), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.5)
        else:
            raise SystemExit("the model did not come up")
        yield url
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--prompts", type=int, default=30, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the pairs of answers here, as lines of JSON")
    given = parser.parse_args()
    data = sibling(given.data)
    embed = open_embedder("minilm-int8").embed
    found: Counter[tuple[str, float, str]] = Counter()
    told: Counter[tuple[str, float]] = Counter()
    kept = []
    with served() as url, httpx.Client(base_url=url, timeout=300) as client, contextlib.suppress(KeyboardInterrupt):
        for kind, messages, most in prompts(data, given.prompts, Random(given.seed)):
            for temperature in TEMPERATURES:
                body = {"model": MODEL, "messages": messages, "max_tokens": most, "temperature": temperature}
                a, b = (client.post("/v1/chat/completions", json=body).raise_for_status().content for _ in range(2))
                opinion = agree_bytes(a, b, embed)
                found[kind, temperature, opinion.agreement] += 1
                told[kind, temperature] += 1
                kept.append({"kind": kind, "temperature": temperature, "by": opinion.by, "reason": opinion.reason,
                             "agreement": opinion.agreement, "a": a.decode(), "b": b.decode()})  # fmt: skip
                if given.keep:
                    given.keep.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    table = Table("kind", "temperature", "pairs", "same", "different", "unsure", title=f"{MODEL} against itself")
    for (kind, temperature), total in told.items():
        shares = [f"{found[kind, temperature, one] / total:.2f}" for one in ("same", "different", "unsure")]
        table.add_row(kind, f"{temperature:g}", str(total), *shares)
    Console().print(table)


if __name__ == "__main__":
    main()
