"""How long `farthing replay` takes: `python -m bench.replay_speed --requests 1000000`.

Makes a trace of farthing's captures, as many requests as asked for, and replays it with the default configuration
(exact cache, flights, tidy) through the real command. Requests repeat by Zipf's law, as support questions do; one in
ten prompts is a conversation with a tool's result in indented JSON. Making the trace is not part of the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console

from bench.machine import Place, facts
from bench.report import Report, Target, publish, show

ROOT = Path(__file__).parent.parent
GOAL_S = 600.0
_WORDS = (ROOT / "cache" / "lexical" / "words.tsv").read_text("utf-8").split()[::7]
_SYSTEM = "You are the assistant of a shop. Answer from the policy below, in two sentences, and never guess. "
_BEGIN_S = 1_790_000_000.0


def main() -> int:
    """Measure, print, publish; 1 where the goal was missed."""
    given = argparse.ArgumentParser(prog="python -m bench.replay_speed", description=__doc__)
    given.add_argument("--requests", type=int, default=1_000_000)
    given.add_argument("--distinct", type=int, default=0, help="prompts; 0: four tenths of the requests")
    given.add_argument("--policy-words", type=int, default=80, help="in each prompt; 900: a provider would cache it")
    given.add_argument("--processes", type=int, default=0)
    given.add_argument("--set", action="append", default=[], help="as `farthing replay` has it")
    given.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    given.add_argument("--document", type=Path, default=ROOT / "docs" / "benchmarks.md")
    given.add_argument("--no-document", action="store_true")
    asked = given.parse_args()
    where = facts(Place(ROOT, 0, 0))
    del where["cores"]  # nothing is bound to one here
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        trace = Path(folder) / "trace.jsonl"
        with trace.open("wb") as out:
            distinct = asked.distinct or max(1, asked.requests * 4 // 10)
            out.writelines(lines(asked.requests, distinct, policy_words=asked.policy_words))
        size = trace.stat().st_size
        command = [sys.executable, "-c", "from farthing.proxy.cli import main; main()", "replay", str(trace), "--json"]
        command += ["--processes", str(asked.processes), "--state", folder]
        command += [part for one in asked.set for part in ("--set", one)]
        begun = time.monotonic()
        ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        took_s = time.monotonic() - begun
    found = json.loads(ran.stdout)["replayed"][0]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory_mb, cpu_s = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime  # of the largest process; of all
    report = Report(
        "replay",
        "Replay of recorded requests, exact and tidy",
        ["requests", "trace", "time", "processor time", "requests a second", "hit rate", "largest process"],
        [
            [
                f"{asked.requests:,}",
                f"{size / 1e6:,.0f} MB",
                f"{took_s:.0f} s",
                f"{cpu_s:.1f} s",
                f"{asked.requests / took_s:,.0f}",
                f"{found['hit_rate_eligible']:.1%}",
                f"{memory_mb:,.0f} MB",
            ]
        ],
        [Target("a million requests", "under 10 minutes", f"{took_s:.0f} s", took_s < GOAL_S)]
        if asked.requests >= 1_000_000
        else [],
        ["Wall time of the whole command, other programs on the machine included; the trace lies in the page cache."],
        [{"requests": asked.requests, "bytes": size, "took_s": took_s, "cpu_s": cpu_s, "memory_mb": memory_mb}],
    )
    show(report, Console())
    said = f"python -m bench.replay_speed --requests {asked.requests} --policy-words {asked.policy_words}"
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    publish(report, where, said, when, asked.results, None if asked.no_document else asked.document)
    return int(report.missed)


def lines(count: int, distinct: int, seed: int = 1, policy_words: int = 80) -> Iterator[bytes]:
    """A trace, line by line: same seed, same bytes."""
    chance = random.Random(seed)
    weights = list(itertools.accumulate(1 / (rank + 1) ** 0.9 for rank in range(distinct)))
    at_s = _BEGIN_S
    for number in range(count):
        at_s += chance.expovariate(20.0)
        which = chance.choices(range(distinct), cum_weights=weights)[0]
        yield _line(number, at_s, which, chance.uniform(0.4, 2.5), policy_words)


def _line(number: int, at_s: float, which: int, latency_s: float, policy_words: int) -> bytes:
    said = random.Random(which)
    policy = " ".join(said.choices(_WORDS, k=policy_words)) if which % 50 else ""
    turns = [{"role": "system", "content": _SYSTEM + policy}, {"role": "user", "content": _text(said, 8, 40)}]
    if which % 10 == 0:
        call = {"id": f"call_{which}", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        rows = [{"id": n, "name": _text(said, 2, 3), "price": said.randrange(9999) / 100} for n in range(6)]
        turns += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(rows, indent=2)},
        ]
    answer = _text(said, 20, 120)
    tokens_in, tokens_out = sum(len(str(turn)) for turn in turns) // 4, len(answer) // 4
    return (
        orjson.dumps(
            {
                "id": f"far-{number}",
                "ts": at_s,
                "tenant": f"tenant-{which % 3}",
                "user": f"u{number % 500}",
                "tags": {"team": ("search", "support")[which % 2]},
                "endpoint": "chat",
                "path": "/v1/chat/completions",
                "stream": False,
                "request": {"model": "gpt-4o-mini", "messages": turns, "temperature": 0.2},
                "response": {
                    "id": f"chatcmpl-{number}",
                    "object": "chat.completion",
                    "created": int(at_s),
                    "model": "gpt-4o-mini-2024-07-18",
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
                    ],
                    "usage": {
                        "prompt_tokens": tokens_in,
                        "completion_tokens": tokens_out,
                        "total_tokens": tokens_in + tokens_out,
                    },
                },
                "status": 200,
                "row": {"latency_ms": latency_s * 1000, "upstream_ms": latency_s * 1000},
            }
        )
        + b"\n"
    )


def _text(said: random.Random, least: int, most: int) -> str:
    return " ".join(said.choices(_WORDS, k=said.randint(least, most)))


if __name__ == "__main__":
    sys.exit(main())
