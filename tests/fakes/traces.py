"""Traces for tests: lines as a log has them, files of them, and runs over these in this very process."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from farthing.proxy.config import Config, load
from farthing.proxy.prices import RateCard
from farthing.proxy.replay_facts import reading_of
from farthing.proxy.replay_lane import Lane
from farthing.proxy.replay_read import Trace, open_trace
from farthing.proxy.replay_run import Run, play
from tests.fakes.proxying import PRICES

__all__ = ["BEGIN_S", "config_with", "line", "run_on", "traffic", "written"]

BEGIN_S = 1_790_000_000.0


def config_with(**flags: Any) -> Config:
    return load(None, {}, {"prices": PRICES} | {name.replace("__", "."): value for name, value in flags.items()})


def line(
    at_s: float | None, text: str, *, latency_ms: float | None = None, said: str = "fine", **more: Any
) -> dict[str, Any]:
    answer = {
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | more.pop("body", {})
    return {"ts": at_s, "body": body, "response": answer, "latency_ms": latency_ms} | more


def written(path: Path, lines: Sequence[Any]) -> Path:
    texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    content = "".join(text + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def run_on(
    trace: Path | Trace,
    *configs: Config,
    stop: Callable[[], bool] = lambda: False,
    run: Run | None = None,
    by: Any = (),
) -> Run:
    configs = configs or (config_with(),)
    if run is None:
        run = Run([Lane(one, at, RateCard(one.prices.models), by=by) for at, one in enumerate(configs)], by)
    readings = [reading_of(one, near=False, beyond=False) for one in configs]
    play(run, open_trace(trace) if isinstance(trace, Path) else trace, readings, "", processes=1, stop=stop)
    return run


def traffic(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    lines = []
    for n in range(count):
        text = f"please tell me about item {chance.randrange(12)} in shop {chance.randrange(3)}"
        at_s = BEGIN_S + n + chance.uniform(-3, 3)
        lines.append(line(at_s, text, latency_ms=chance.uniform(0, 4000), said=text[-20:], tags={"n": str(n % 2)}))
    return lines
