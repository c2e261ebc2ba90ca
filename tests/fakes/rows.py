"""Ledger rows for tests, and some thousand plausible ones for screens and measurements."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from farthing.proxy.row import COLUMNS, Row

NOW_S = 1_800_000_000.0
DOLLAR = 10**12

BLANK: dict[str, Any] = {
    "id": "r0", "flight_id": "", "ts": NOW_S - 60, "endpoint": "chat", "status": 200, "outcome": "completed",
    "error": "", "stream": 0, "tenant": "t", "key_hash": "", "user": "", "tags": "{}", "model_requested": "gpt-4o-mini",
    "model_served": "gpt-4o-mini", "upstream": "default", "attempts": 1, "cache": "miss", "cache_reason": "",
    "similarity": None, "p_wrong": None, "compress": "", "tokens_in_original": 0, "tokens_in_sent": 0,
    "tokens_in_cached": 0, "tokens_in_cache_write": 0, "tokens_out": 0, "tokens_reasoning": 0,
    "usage_source": "upstream", "baseline_usd": 0, "cost_usd": 0, "overhead_usd": 0, "saved_exact_usd": 0,
    "saved_semantic_usd": 0, "saved_compress_usd": 0, "saved_route_usd": 0, "saved_prompt_cache_usd": 0,
    "price_source": "", "modelled": 0, "latency_ms": 100.0, "ttft_ms": None, "upstream_ms": None, "overhead_ms": 1.0,
    "stage_ms": "{}", "decisions": "[]", "attempts_detail": "[]", "policy": "", "experiment": "", "arm": "",
    "config_id": "c",
}  # fmt: skip


def row(**changes: Any) -> Row:
    """A plain miss that cost nothing, with `changes`."""
    return Row(**{**BLANK, **changes})


def ledger(path: Path | str, rows: Iterable[Row] = ()) -> sqlite3.Connection:
    """A ledger at `path` holding `rows`."""
    conn = sqlite3.connect(path)
    listed = ", ".join(f'"{column}"' + (" text primary key" if column == "id" else "") for column in COLUMNS)
    conn.execute(f"create table if not exists requests ({listed})")
    conn.execute("create index if not exists requests_ts on requests (ts)")
    marks = ", ".join("?" * len(COLUMNS))
    conn.executemany(f"insert into requests values ({marks})", rows)
    conn.commit()
    return conn


MODELS = {  # dollars per million tokens: in, out
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-5-mini": (0.25, 2.0),
    "claude-sonnet-4-5": (3.0, 15.0),
    "text-embedding-3-small": (0.02, 0.0),
}


def plausible(count: int, days: float = 7.0, seed: int = 1, now_s: float = NOW_S) -> list[Row]:
    """`count` rows as a small team's week might leave them: daily rhythm, hits, joins, errors, unknown prices."""
    dice = random.Random(seed)
    return sorted((_plausible(dice, i, days, now_s) for i in range(count)), key=lambda made: made.ts)


def _plausible(dice: random.Random, i: int, days: float, now_s: float) -> Row:
    while True:
        ago_s = dice.random() * days * 86_400
        hour = ((now_s - ago_s) / 3600) % 24
        if dice.random() < 0.25 + 0.75 * max(0.0, math.sin((hour - 6) / 24 * 2 * math.pi)):
            break
    model = dice.choices([*MODELS, "llama-internal-70b"], [25, 40, 12, 8, 12, 3])[0]
    prices = MODELS.get(model)
    warm = 0.25 + 0.2 * (1 - ago_s / (days * 86_400))
    cache = dice.choices(
        ["hit-exact", "hit-semantic", "joined", "miss", "bypass"], [warm, 0.05, 0.03, 0.85 - warm, 0.07]
    )[0]
    original = int(dice.lognormvariate(7, 0.9))
    tidied = int(original * dice.random() * 0.18) if cache == "miss" and dice.random() < 0.5 else 0
    cached = int((original - tidied) * 0.6) if cache == "miss" and dice.random() < 0.25 else 0
    out = 0 if model.startswith("text-") else int(dice.lognormvariate(5.2, 0.8))
    here = cache.startswith("hit") or cache == "joined"
    money: dict[str, int | None] = dict.fromkeys(
        ("baseline_usd", "cost_usd", "overhead_usd", "saved_exact_usd", "saved_semantic_usd", "saved_compress_usd",
         "saved_route_usd", "saved_prompt_cache_usd")
    )  # fmt: skip
    if prices:
        pin, pout = int(prices[0] * 1e6), int(prices[1] * 1e6)
        baseline = original * pin + out * pout
        zero = dict.fromkeys(money, 0)
        if here:
            money = {**zero, "baseline_usd": baseline}
            money["saved_semantic_usd" if cache == "hit-semantic" else "saved_exact_usd"] = baseline
        else:
            by_cache, by_tidy = cached * pin // 2, tidied * pin
            if cached and dice.random() < 0.2:  # a cache write's premium that never paid
                by_cache = -cached * pin // 4
            money = {
                **zero, "baseline_usd": baseline, "cost_usd": baseline - by_tidy - by_cache,
                "saved_compress_usd": by_tidy, "saved_prompt_cache_usd": by_cache,
            }  # fmt: skip
        if cache == "miss" and dice.random() < 0.3:
            money["overhead_usd"] = 40 * 20_000
    overhead_ms = dice.lognormvariate(-0.2, 0.5) + (4 if cache == "hit-semantic" else 0)
    upstream_ms = None if cache.startswith("hit") else dice.lognormvariate(7.0, 0.55)
    latency_ms = (upstream_ms or 0) + overhead_ms
    failed, left = dice.random() < 0.012, dice.random() < 0.008
    stream = int(not model.startswith("text-") and dice.random() < 0.5)
    form = dice.choices(["tidy", "recode", "squeeze"], [5, 3, 1])[0] if tidied else ""
    decisions = [
        {"stage": "eligible", "action": "bypass" if cache == "bypass" else "yes", "reason": ""},
        {"stage": "exact", "action": "hit" if cache == "hit-exact" else "miss", "reason": ""},
    ]
    if tidied:
        decisions.append({"stage": "tidy", "action": "rewrote", "reason": f"{tidied} tokens of white space"})
    team = dice.choice(["search", "support", "support", "docs"])
    return row(
        id=f"req_{i:06d}", ts=now_s - ago_s, endpoint="embeddings" if model.startswith("text-") else "chat",
        model_requested=model, model_served=model, cache=cache, stream=stream, tenant="default",
        attempts=0 if here else 1,
        cache_reason={"hit-semantic": "unproven", "bypass": "hosted tools"}.get(cache, ""),
        similarity=0.95 if cache == "hit-semantic" else None, user=f"u{dice.randrange(40)}",
        tags=json.dumps({"team": team, "feature": "faq"}), tokens_in_original=original,
        tokens_in_sent=0 if here else original - tidied, tokens_in_cached=cached, tokens_out=out,
        modelled=int(tidied > 0), latency_ms=latency_ms, upstream_ms=upstream_ms,
        overhead_ms=overhead_ms, ttft_ms=latency_ms * 0.3 if stream else None,
        outcome="failed" if failed else "abandoned" if left else "completed", status=503 if failed else 200,
        error="upstream answered 503" if failed else "", compress=form,
        decisions=json.dumps(decisions), stage_ms=json.dumps({"exact": 0.1, "semantic": 0.4, "tidy": 0.2}),
        attempts_detail=json.dumps([] if here else [{"upstream": "default", "status": 503 if failed else 200,
                                    "error": "", "duration_ms": upstream_ms, "backoff_ms": 0.0}]),
        price_source="genai-prices 2026-11-01" if prices else "", **money,
    )  # fmt: skip
