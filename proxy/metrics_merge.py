"""Metrics of several processes as those of one: counters and histograms are added, gauges as their meaning says.

Families are plain values, so that they can be sent: {name: {"type", "help", "samples": [[name, [[label, value]...],
number]...]}}. Pure; imports no library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["Families", "added", "merged"]

Families = dict[str, dict[str, Any]]

_ADDED = frozenset({"counter", "histogram"})
_SUMS = frozenset(
    {
        "farthing_in_flight_requests",
        "farthing_ledger_pending_rows",
        "farthing_capture_pending_rows",
        "farthing_semantic_log_waiting_changes",
        "farthing_otlp_pending_spans",
        "farthing_replica_in_flight",
    }
)
# 1 while all is well: as ill as the illest.
_LEAST = frozenset(
    {
        "farthing_ledger_healthy",
        "farthing_store_healthy",
        "farthing_capture_healthy",
        "farthing_otlp_healthy",
        "farthing_replica_healthy",
        "farthing_semantic_log_reached",
        "farthing_agreed_reached",
    }
)
# As bad as the worst, or as many as who has most: everything that the keeper doesn't know better.
_MOST = frozenset(
    {
        "farthing_store_entries",
        "farthing_store_bytes",
        "farthing_stages_left_out",
        "farthing_spend_today_usd",
        "farthing_semantic_entries",
        "farthing_semantic_log_generation",
        "farthing_semantic_log_lag_changes",
        "farthing_semantic_log_age_seconds",
        "farthing_semantic_replicas",
        "farthing_semantic_replicas_compared",
        "farthing_semantic_replicas_differing",
        "farthing_optimisation_off",
        "farthing_budget_spent_usd",
        "farthing_replica_circuit_open",
        "farthing_replica_draining",
    }
)


def added(parts: Iterable[Families], *, counters: bool = False) -> Families:
    """All of them together; a gauge is the first one's that has it. `counters`: without gauges."""
    found: Families = {}
    sums: dict[str, dict[tuple[Any, ...], float]] = {}
    for part in parts:
        for name, family in part.items():
            adds = family["type"] in _ADDED
            if counters and not adds:
                continue
            if name not in found:
                found[name] = {"type": family["type"], "help": family["help"], "samples": []}
                sums[name] = {}
            values, join = sums[name], _join(name, adds=adds)
            for sample, labels, value in family["samples"]:
                place = (sample, *map(tuple, labels))
                values[place] = join(values[place], value) if place in values else value
    for name, values in sums.items():
        found[name]["samples"] = [
            [sample, [list(pair) for pair in labels], value] for (sample, *labels), value in values.items()
        ]
    return found


def merged(
    own: Families, others: Iterable[tuple[bool, Families]], dead: Iterable[Families], *, keeper: bool
) -> Families:
    """What all workers say. `keeper`: whether `own` is the keeper's; so with each of the others: what only the keeper
    knows is its own. `dead`: what those who have ended had counted."""
    parts = sorted([(keeper, own), *others], key=lambda one: not one[0])
    return added([*(part for _, part in parts), *dead])


def _join(name: str, *, adds: bool) -> Any:
    if adds or name in _SUMS:
        return lambda one, other: one + other
    if name in _LEAST:
        return min
    return max if name in _MOST else lambda first, later: first
