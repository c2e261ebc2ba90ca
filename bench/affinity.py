"""Where conversations go, and what their prompts then cost: two real small models behind the real proxy.

    python -m bench.affinity [--apps 4] [--conversations 2] [--turns 3] [--rounds 1]

Each way of balancing gets two fresh llama.cpp servers (proxy/small_model.py) and a fresh farthing by its own command
line. Several apps, each with a system prompt of its own, hold conversations of several turns; all take turns, two at a
time, and every request streams. What was evaluated and what came from the KV cache is the server's own account
(`timings`, `usage.prompt_tokens_details`), the time to the first byte is the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.machine import Place, facts
from bench.servers import Running, farthing, free_port, started
from farthing.proxy.small_model import MODEL

WAYS = ("round_robin", "least", "affinity")
SYSTEM_WORDS = 520
AT_ONCE = 2
ANSWER_TOKENS = 16
WORDS = (
    "order parcel invoice customer refund address warehouse carrier label return damaged missing late early morning "
    "evening phone letter policy days weeks limit price discount account manager clerk ask confirm write read check "
    "before after always never unless small large blue red green first second third answer politely briefly"
)


@dataclass
class Seen:
    """What one way of balancing came to. Tokens are of prompts; times are seconds."""

    evaluated: int = 0
    cached: int = 0
    first_byte_s: list[float] = field(default_factory=list)
    later_first_byte_s: list[float] = field(default_factory=list)
    whole_s: float = 0.0


def words(dice: random.Random, count: int) -> str:
    """So many words, different for each state of the dice."""
    return " ".join(dice.choices(WORDS.split(), k=count))


def conversations(apps: int, each: int, seed: int) -> list[list[dict[str, str]]]:
    """The beginnings: conversations of one app share its system prompt. Apps take turns."""
    dice = random.Random(seed)
    systems = [f"You are clerk number {app}. {words(dice, SYSTEM_WORDS)}" for app in range(apps)]
    return [[{"role": "system", "content": systems[app]}] for _ in range(each) for app in range(apps)]


async def turn(client: httpx.AsyncClient, said: list[dict[str, str]], question: str, seen: Seen) -> None:
    """Ask, note what it cost, and add question and answer to the conversation. Raises httpx.HTTPError: no 2xx."""
    first = len(said) == 1
    said.append({"role": "user", "content": question})
    asked = {"model": MODEL, "messages": said, "temperature": 0, "max_tokens": ANSWER_TOKENS, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    answer, begun, first_byte_s = "", time.perf_counter(), None
    async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk: dict[str, Any] = json.loads(line[6:])
            for choice in chunk.get("choices", ()):
                if choice["delta"].get("content"):
                    first_byte_s = first_byte_s or time.perf_counter() - begun
                    answer += choice["delta"]["content"]
            if chunk.get("timings"):
                seen.evaluated += chunk["timings"]["prompt_n"]
            if chunk.get("usage"):
                seen.cached += chunk["usage"]["prompt_tokens_details"]["cached_tokens"]
    waited_s = first_byte_s or time.perf_counter() - begun
    seen.first_byte_s.append(waited_s)
    if not first:
        seen.later_first_byte_s.append(waited_s)
    said.append({"role": "assistant", "content": answer})


async def hold(url: str, options: argparse.Namespace, seed: int, seen: Seen) -> None:
    """All conversations, turn by turn, two requests at a time."""
    held, dice = conversations(options.apps, options.conversations, seed), random.Random(seed + 1)
    places = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:

        async def one(said: list[dict[str, str]], question: str) -> None:
            async with places:
                await turn(client, said, question, seen)

        begun = time.perf_counter()
        for _ in range(options.turns):
            order = dice.sample(held, len(held))  # no rhythm that turns could fall in with
            await asyncio.gather(*(one(said, words(dice, 30)) for said in order))
        seen.whole_s += time.perf_counter() - begun


@contextlib.contextmanager
def model(number: int, here: Place) -> Any:
    """A small model's server with one thread."""
    port = free_port()
    command = [sys.executable, "-m", "farthing.proxy.small_model", "--port", str(port), "--threads", "1"]
    core = here.load if number == 0 else here.measured
    with started(f"model {number}", command, port, here.folder, core=core, ready="/health", timeout_s=120) as running:
        yield running


def measure(way: str, options: argparse.Namespace, folder: Path, seen: Seen, seed: int) -> None:
    """One round of one way."""
    cores = sorted(os.sched_getaffinity(0))
    here = Place(folder, cores[0], cores[-1])
    with contextlib.ExitStack() as stack:
        models: list[Running] = [stack.enter_context(model(number, here)) for number in range(2)]
        settings = {
            "UPSTREAM__REPLICAS": json.dumps([f"http://127.0.0.1:{running.port}/v1" for running in models]),
            "UPSTREAM__BALANCE": way,
            "UPSTREAM__RETRY_AFTER_SEND": "true",
            "CACHE__MODE": "off",
            "SEMANTIC__MODE": "off",
        }
        proxy = stack.enter_context(farthing("farthing", None, here, settings))
        asyncio.run(hold(f"http://127.0.0.1:{proxy.port}", options, seed, seen))


def main() -> int:
    """Measure every way in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.affinity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--apps", type=int, default=4)
    parser.add_argument("--conversations", type=int, default=2, help="of each app")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    found = {way: Seen() for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for way in WAYS:
                print(f"round {number + 1}: {way}", file=sys.stderr, flush=True)
                measure(way, options, Path(folder) / f"{way}-{number}", found[way], seed=number)
        about = facts(Place(Path(folder), 0, 1))
    print(f"{about['processor']}; {about['system']}; commit {about['commit']}; load average {os.getloadavg()[1]:.1f}\n")
    heads = (
        "balance",
        "prompt tokens evaluated",
        "from the KV cache",
        "share",
        "first byte p50 s",
        "later turns p50 s",
    )
    print(f"| {' | '.join((*heads, 'all s'))} |\n|{'---|' * 7}")
    for way, seen in found.items():
        share = seen.cached / max(1, seen.cached + seen.evaluated)
        times = f"{median(seen.first_byte_s):.2f} | {median(seen.later_first_byte_s):.2f} | {seen.whole_s:.0f}"
        print(f"| {way} | {seen.evaluated:,} | {seen.cached:,} | {share:.0%} | {times} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
