"""The ledger's row: the contract's columns, in order, and what each means. No IO.

Other programs read these columns: they change only with a note in CHANGELOG.md. Money is integer pico-dollars
(1e-12 dollar); None where no price is known, which is never the same as zero. Times in `*_ms` are milliseconds,
`ts` is seconds since the epoch, UTC. No column ever holds prompt or answer text.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLUMNS", "ERRANDS", "LONGEST_NAME", "MONEY_COLUMNS", "SAVED_COLUMNS", "Row"]

LONGEST_NAME = 256
"""Characters that are kept of a model's name: clients choose it, and no real one is as long."""
ERRANDS = ("audit", "judge", "shadow", "warm")
"""Endpoints of farthing's own calls: what they cost is overhead, and no client asked or waited for them."""


class Row(NamedTuple):
    """One request. `stage_ms`, `decisions`, `attempts_detail` and `tags` are JSON texts."""

    id: str
    flight_id: str
    ts: float
    endpoint: str
    status: int
    outcome: str
    error: str
    stream: int
    tenant: str
    key_hash: str
    user: str
    tags: str
    model_requested: str
    model_served: str
    upstream: str
    attempts: int
    cache: str
    cache_reason: str
    similarity: float | None
    p_wrong: float | None
    compress: str
    tokens_in_original: int | None
    tokens_in_sent: int | None
    tokens_in_cached: int | None
    tokens_in_cache_write: int | None
    tokens_out: int | None
    tokens_reasoning: int | None
    usage_source: str
    baseline_usd: int | None
    cost_usd: int | None
    overhead_usd: int | None
    saved_exact_usd: int | None
    saved_semantic_usd: int | None
    saved_compress_usd: int | None
    saved_route_usd: int | None
    saved_prompt_cache_usd: int | None
    price_source: str
    modelled: int
    latency_ms: float
    ttft_ms: float | None
    upstream_ms: float | None
    overhead_ms: float
    stage_ms: str
    decisions: str
    attempts_detail: str
    policy: str
    experiment: str
    arm: str
    config_id: str


COLUMNS: tuple[str, ...] = Row._fields
SAVED_COLUMNS: tuple[str, ...] = (
    "saved_exact_usd",
    "saved_semantic_usd",
    "saved_compress_usd",
    "saved_route_usd",
    "saved_prompt_cache_usd",
)
MONEY_COLUMNS: tuple[str, ...] = ("baseline_usd", "cost_usd", "overhead_usd", *SAVED_COLUMNS)
