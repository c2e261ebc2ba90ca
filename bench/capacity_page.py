"""What `bench.capacity_measured` measured last (docs/capacity.json) and what the model makes of it, in a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.capacity import COLUMNS, FASTER_US, KEPT, Costs, Load, kept_costs, rows, waits
from bench.provenance import measured_by
from bench.report import replace_section, table

__all__ = ["of_costs", "of_mixes", "of_sizes", "of_waits", "sections", "write"]

PAGE = KEPT.parent / "operations.md"
KINDS = (
    ("a miss, its answer stored", "miss_us", "shared_miss_us"),
    ("a hit, the first at this replica for a minute", "first_hit_us", "shared_first_hit_us"),
    ("a hit again, from memory, the short way", "hit_us", "shared_hit_us"),
    ("an event of a stream", "event_us", ""),
    ("what the semantic cache adds to a miss, observing", "semantic_us", ""),
    ("a near-duplicate put into the replicas' log", "", "log_write_us"),
    ("one taken from it, by each other replica", "", "log_follow_us"),
    ("Valkey's own, a miss", "", "valkey_shared_miss_us"),
    ("Valkey's own, a first hit", "", "valkey_shared_first_hit_us"),
)


def of_costs(kept: dict[str, Any]) -> str:
    """Each cost in µs and in bare servers."""
    costs = kept["costs"]

    def shown(name: str) -> str:
        if not name:
            return "–"
        of_bare = costs[name] / costs["bare_us"]
        return f"{costs[name]:,.0f} ({of_bare:.1f})" if of_bare >= 0.05 else f"{costs[name]:,.0f} ({of_bare:.2f})"

    found = [[what, shown(alone), shown(shared)] for what, alone, shared in KINDS]
    columns = [f"µs (× the bare server's {costs['bare_us']:,.0f})", "a store of its own (SQLite)", "over Valkey"]
    return "\n".join([*table(columns, found), "", measured_by([kept])])


def of_mixes(kept: dict[str, Any]) -> str:
    """The model against what was measured."""
    found = []
    for one in kept["mixes"]:
        mix = f"{one['hit_ratio']:.0%} hits"
        if one["hit_ratio"]:
            mix += f", {one['again_share']:.0%} of them again"
        if one["hit_ratio"] < 1:
            mix += f"; {one['stream_share']:.0%} of misses streams"
        off = one["model_us"] / one["measured_us"] - 1
        some = f"{min(one['rounds_us']):,.0f} to {max(one['rounds_us']):,.0f}"
        found.append([
            "over Valkey" if one["shared"] else "SQLite", mix, f"{one['model_us']:,.0f}",
            f"{one['measured_us']:,.0f} ({some})", f"{off:+.0%}".replace("-", "−"),
        ])  # fmt: skip
    columns = ["store", "mix", "model, µs a request", "measured (rounds)", "the model is off by"]
    return "\n".join([*table(columns, found), "", measured_by([kept])])


def of_sizes(costs: Costs) -> str:
    """What each size of load needs."""
    return "\n".join([*table(list(COLUMNS), rows(Load(0), costs, FASTER_US)), "", "By `python -m bench.capacity`."])


def of_waits(costs: Costs) -> str:
    """How long work waits."""
    found = waits(Load(0), costs, 1)
    lines = [
        ["wait p50, ms", *(f"{p50:.2f}" for _, p50, _ in found)],
        ["wait p99, ms", *(f"{p99:.1f}" for *_, p99 in found)],
    ]
    return "\n".join(table(["busy", *(f"{busy:.0%}" for busy, _, _ in found)], lines))


def sections(kept: dict[str, Any]) -> dict[str, str]:
    """Each section of the page by its name."""
    costs = kept_costs()
    return {
        "capacity-costs": of_costs(kept),
        "capacity-sizes": of_sizes(costs),
        "capacity-mixes": of_mixes(kept),
        "capacity-waits": of_waits(costs),
    }


def write(page: Path = PAGE) -> None:
    """All of its sections anew. Raises ValueError: it has no place for one."""
    text = page.read_text("utf-8")
    for section, said in sections(json.loads(KEPT.read_text("utf-8"))).items():
        text = replace_section(text, section, said)
    page.write_text(text, "utf-8")
