"""A real pair of variants: what do a coarser and a pruned form of the demo's model save, and how often do they answer
otherwise? And what does a cascade of the two keep?

    pip install gguf
    python -m bench.real_variants --models DIR [--texts 120]

Texts of the demo's workload (proxy/workload) are put twice: *topic*, whose answer is one of seven words, held to them
by a JSON schema, and *reply*, free text of at most 32 tokens. Every variant (bench/make_variants.py) gets all of them,
alone, one at a time, one thread, greedy. **Quality** is the share of answers that say what the full model says to the
same request (policies/agree.py; in doubt it counts as another answer): its own answers are the standard, since nothing
here knows the right ones. **Cost** is the server's processor time, as a price per processor second would charge it. A
cascade asks the lesser variant and keeps answers of at least a confidence (geometric mean of the tokens'
probabilities), else asks the full one too; the confidence is chosen on the first half of the texts, the cheapest whose
quality there is at least the wanted one, and scored on the second half. The last table puts `fixed`, `cheapest` (a
route for each task, with `min_quality`) and `cascade` side by side over both tasks (bench/real_strategies.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.make_variants import make
from bench.real_strategies import Asked, Task, cascade, cheapest, chosen, fixed, kept
from bench.servers import free_port, started
from farthing.cache.embedder import open_embedder
from farthing.policies.accept import confidence
from farthing.policies.agree import agree_bytes
from farthing.policies.opinion import Embed

WORKLOAD = Path(__file__).parent.parent / "proxy" / "workload" / "banking.jsonl"
TOPICS = ("card", "transfer", "top-up", "exchange", "cash", "account", "other")
WANTED = (0.80, 0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. `cpu_s`: the server's processor time for it."""

    answer: bytes
    cpu_s: float
    sure: float


def texts(count: int) -> list[str]:
    """The first so many different texts of the workload."""
    lines = WORKLOAD.read_text().splitlines()
    return list(dict.fromkeys(orjson.loads(line)["text"] for line in lines))[:count]


def asked(task: str, text: str) -> dict[str, Any]:
    """The request."""
    if task == "topic":
        order = f"What is the customer's message about? Answer with one of: {', '.join(TOPICS)}."
        schema = {
            "type": "object",
            "properties": {"topic": {"enum": list(TOPICS)}},
            "required": ["topic"],
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "topic", "schema": schema}}
        rest: dict[str, Any] = {"response_format": form, "max_tokens": 16}
    else:
        order = "You answer customers of a bank in one short sentence."
        rest = {"max_tokens": 32}
    messages = [{"role": "system", "content": order}, {"role": "user", "content": text}]
    return {"model": "m", "messages": messages, "temperature": 0, "seed": 1, "logprobs": True, **rest}


def same(full: Told, other: Told, embed: Embed) -> bool:
    """Whether it says what the full model says; in doubt it doesn't."""
    return full is other or agree_bytes(full.answer, other.answer, embed).wrong is False


def ask_all(name: str, file: Path, folder: Path, tasks: Sequence[str], of: Sequence[str]) -> dict[str, list[Told]]:
    """Every text of every task, to one variant in a server of its own."""
    port = free_port()
    command = [sys.executable, "-m", "farthing.proxy.small_model", "--port", str(port), "--threads", "1"]
    command += ["--file", str(file), "--name", name]
    found: dict[str, list[Told]] = {}
    with (
        started(name, command, port, folder, core=1, ready="/health", timeout_s=60) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client,
    ):
        for task in tasks:
            client.post("/v1/chat/completions", content=orjson.dumps(asked(task, "Hello"))).raise_for_status()
            for text in of:
                before = machine.cpu_s(server.pid)
                answer = client.post("/v1/chat/completions", content=orjson.dumps(asked(task, text))).raise_for_status()
                told = Told(answer.content, machine.cpu_s(server.pid) - before, confidence(answer.content) or 0.0)
                found.setdefault(task, []).append(told)
    return found


def strategies(tasks: Mapping[str, Task]) -> Table:
    """What each strategy costs over all tasks at equal measured quality, chosen on one half and scored on the other."""
    table = Table(
        "strategy", "wanted", "share of cost", "same answers", "escalated", "chosen on the first half", box=None
    )
    for column in table.columns[1:5]:
        column.justify = "right"
    for name, strategy in (("fixed", fixed), ("cheapest, by task", cheapest), ("cascade, by task", cascade)):
        for wanted in WANTED:
            way = strategy(tasks, wanted)
            told = f"{way.cost:.0%}", f"{way.quality:.1%}", f"{way.escalated:.0%}", way.setting
            table.add_row(name, f"{wanted:.0%}", *told)
    return table


def main() -> int:
    """Ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="where the variants are made, once")
    parser.add_argument("--texts", type=int, default=120)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    files, of, tasks = make(given.models), texts(given.texts), ("topic", "reply")
    embed: Embed = open_embedder("minilm-int8").embed
    with tempfile.TemporaryDirectory() as folder:
        told = {name: ask_all(name, file, Path(folder), tasks, of) for name, file in files.items()}
    half = len(of) // 2
    of_tasks: dict[str, Task] = {}
    for task in tasks:
        full = told["full"][task]
        asked_of = of_tasks[task] = {
            name: [Asked(a.cpu_s, a.sure, same(b, a, embed)) for a, b in zip(mine[task], full, strict=True)]
            for name, mine in told.items()
        }
        table = Table("way", "file, MiB", "CPU ms a request", "share of cost", "same answers", "escalated", box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, file in files.items():
            whole, mine = asked_of["full"], asked_of[name]
            cpu_ms = 1000 * sum(one.cost for one in mine) / len(mine)
            alone = kept(whole, mine, 0.0)
            size = f"{file.stat().st_size / 2**20:.0f}"
            table.add_row(
                name, size, f"{cpu_ms:.0f}", f"{alone.cost:.0%}", f"{sum(one.same for one in mine)} of {len(mine)}", ""
            )
            for wanted in () if name == "full" else WANTED:
                way = kept(whole[half:], mine[half:], chosen(whole[:half], mine[:half], wanted))
                label = f"  {name}, then full: {wanted:.0%} wanted"
                table.add_row(label, "", "", f"{way.cost:.0%}", f"{way.quality:.1%}", f"{way.escalated:.0%}")
        console.print(f"\n{task}, {len(of)} texts", highlight=False)
        console.print(table)
    console.print(f"\nboth tasks, {len(tasks) * len(of)} requests, at equal measured quality", highlight=False)
    console.print(strategies(of_tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
