"""What routes, budgets, replicas, policies and incidents look like where there are some."""

from __future__ import annotations

import json
from typing import Any

from farthing.proxy.figures_routes import Declared
from farthing.proxy.row import Row
from tests.fakes.rows import DOLLAR, NOW_S, row

__all__ = ["BUDGETS", "DECLARED", "FAQ", "INCIDENTS", "POLICY", "QUALITY", "REPLICAS", "ROUTED", "routed"]

MILLI = DOLLAR // 1000
DECLARED = Declared(
    (("faq: billing, refunds", "serve", "cascade"), ("rest", "observe", "cheapest"), ("idle", "serve", "fixed")),
    ("mini", "large"),
)
FAQ = "faq: billing, refunds"


def routed(*decisions: tuple[str, str], by: tuple[str, ...] = (), **changes: Any) -> Row:
    """A row with these decisions of the route, whose attempts asked these variants."""
    told = [["exact", "miss", ""], *(["route", *each] for each in decisions)]
    attempts = [
        {"upstream": "default", "status": 200, "error": "", "duration_ms": 1.0, "backoff_ms": 0.0}
        | ({"variant": name} if name else {})
        for name in by
    ]
    money = {"baseline_usd": 4 * MILLI, "cost_usd": MILLI, "saved_route_usd": 3 * MILLI}
    texts = {"decisions": json.dumps(told, separators=(",", ":")), "attempts_detail": json.dumps(attempts)}
    return row(**{**money, **texts, **changes})


def _rows() -> list[Row]:
    tried = ("routed", f"{FAQ}: mini, first of a cascade")
    dear = {"latency_ms": 900.0, "cost_usd": 5 * MILLI, "saved_route_usd": -MILLI}
    both = (("escalated", "mini: status 503"), ("failed", "large: 5xx"))
    would = ("would route", "rest: mini, cheapest, for $0.0011")
    kinds: list[tuple[int, dict[str, Any], tuple[tuple[str, str], ...], tuple[str, ...]]] = [
        (60, {"latency_ms": 300.0}, (tried, ("accepted", "mini")), ("mini",)),
        (18, dear, (tried, ("escalated", "mini: refusal")), ("mini", "large")),
        (2, {"latency_ms": 2900.0}, (tried, *both), ("mini", "large", "")),
        (1, {"status": 500, "outcome": "failed"}, (tried, ("hedged", "mini said nothing in 400 ms")), ("mini", "mini")),
        (30, {"cost_usd": 4 * MILLI, "saved_route_usd": 0}, (would,), ("",)),
        (3, {}, (("routed", "large, named by the request"),), ("large",)),
    ]
    return [
        routed(*decisions, by=by, id=f"routed-{kind}-{i}", ts=NOW_S - 60 - i, **changes)
        for kind, (count, changes, decisions, by) in enumerate(kinds)
        for i in range(count)
    ]


ROUTED = _rows()

BUDGETS: dict[str, Any] = {
    "budgets": [
        {"name": "all", "of": "all", "only": [], "per": "month", "hard": False, "limit_usd": 400.0, "refused": 0,
         "resets_at": "2027-02-01T00:00:00Z", "count": 1,
         "subjects": [{"subject": "", "spent_usd": 131.25, "held_usd": 0.0, "share": 0.328125}]},
        {"name": "teams", "of": "tag:team", "only": ["s*"], "per": "day", "hard": True, "limit_usd": 5.0, "refused": 7,
         "resets_at": "2027-01-16T00:00:00Z", "count": 9,
         "subjects": [
             {"subject": "search", "spent_usd": 5.02, "held_usd": 0.0, "share": 1.004},
             {"subject": "support", "spent_usd": 4.25, "held_usd": 0.5, "share": 0.85},
             {"subject": "sales", "spent_usd": 1.0, "held_usd": 0.25, "share": 0.2}]},
        {"name": "keys", "of": "key", "only": [], "per": "week", "hard": True, "limit_usd": 20.0, "refused": 0,
         "resets_at": "2027-01-18T00:00:00Z", "count": 0, "subjects": []},
    ],
    "rate_limits": [
        {"name": "calm", "of": "tenant", "unit": "requests", "per_min": 600, "refused": 0},
        {"name": "tokens", "of": "key", "unit": "tokens", "per_min": 200_000, "refused": 3},
    ],
    "store": "ok",
}  # fmt: skip

REPLICAS: list[dict[str, Any]] = [
    {"upstream": "vllm", "name": "10.0.0.7:8000", "healthy": True, "circuit": "closed", "draining": False,
     "in_flight": 4, "keys": []},
    {"upstream": "vllm", "name": "10.0.0.8:8000", "healthy": True, "circuit": "open", "draining": False,
     "in_flight": 0, "keys": []},
    {"upstream": "vllm", "name": "10.0.0.9:8000", "healthy": True, "circuit": "closed", "draining": True,
     "in_flight": 1, "keys": []},
    {"upstream": "default", "name": "api.provider:443", "healthy": True, "circuit": "closed", "draining": False,
     "in_flight": 11, "keys": [{"name": "1", "in_flight": 6, "parked_s": 0.0, "left_share": 0.62},
                               {"name": "2", "in_flight": 5, "parked_s": 11.2, "left_share": 0.04}]},
]  # fmt: skip

POLICY: dict[str, Any] = {
    "active": {"version": "p-0123456789ab", "since": NOW_S - 90_000, "note": "the configuration file has it"},
    "candidate": {
        "version": "p-ba9876543210", "share": 0.1, "step": 2, "steps": [0.01, 0.1, 0.5, 1.0], "unit": "user",
        "since": NOW_S - 1200, "step_since": NOW_S - 500, "note": "cheaper faq", "waits_for": "100 s more at this step",
        "guard": {"says": "hold", "why": "errors 2.1% against 1.0%: perhaps worse than accepted",
                  "requests": {"active": 900, "candidate": 101},
                  "metrics": {"errors": {"active": 0.01, "candidate": 0.021, "evidence": 0.61},
                              "latency": {"active": 2100.0, "candidate": 1980.0, "evidence": -0.2},
                              "cost": {"active": 0.0021, "candidate": 0.0009, "evidence": 0.0},
                              "ratings": {"active": None, "candidate": None, "evidence": 0.0}}},
    },
    "before": "p-00000000000a",
    "versions": [
        {"version": "p-ba9876543210", "made_at": NOW_S - 1200, "note": "cheaper faq"},
        {"version": "p-0123456789ab", "made_at": NOW_S - 90_000, "note": "the configuration file has it"},
        {"version": "p-00000000000a", "made_at": NOW_S - 900_000, "note": ""},
    ],
    "switched_off": False,
}  # fmt: skip

INCIDENTS: dict[str, Any] = {
    "incidents": [
        {"ts": NOW_S - 4000, "kind": "rollback", "what": "p-0000000000cc was rolled back at 1%",
         "why": "errors 9.0% against 1.0%: worse than accepted, proved", "policy": "p-0000000000cc", "route": "",
         "evidence": {"requests": 160, "metrics": {"errors": 1.2}}},
        {"ts": NOW_S - 90_000, "kind": "semantic", "what": "A route went back to observing", "why": "", "policy": "",
         "route": "gpt-4o-mini 5d1f", "evidence": {}},
    ]
}  # fmt: skip


def _series(name: str, where: str, state: str, alarm: str = "") -> dict[str, Any]:
    return {"series": name, "slice": where, "state": state, "alarm": alarm, "since_s": NOW_S - 600, "warns": ["routes"],
            "evidence": 1.0, "bins": []}  # fmt: skip


QUALITY: dict[str, Any] = {
    "watch": {"enabled": True, "alarms": 3, "series": [
        _series("refused", "all", "drifting", "answers that refuse: 'refused' was 1.0% and is 26.4% now"),
        _series("refused", "tag:team=<b>docs</b>", "drifting", "the same there"),
        _series("input_tokens", "length:short", "drifting", "length of requests: longer"),
        _series("hit", "all", "quiet"), _series("topic", "all", "learning")]},
    "gates": {"running": "refunds", "runs": [
        {"ts": NOW_S - 120, "suite": "/suites/faq", "trigger": "prices changed", "verdict": "block",
         "why": "worse_share: 6.2% of answers are worse"},
        {"ts": NOW_S - 7200, "suite": "/suites/new", "trigger": "schedule", "verdict": "inconclusive",
         "why": "41 cases"},
        {"ts": NOW_S - 9000, "suite": "/suites/faq", "trigger": "a promotion", "verdict": "ship", "why": ""}]},
    "feedback": {"metrics": [
        {"metric": "rating", "source": "client", "count": 40, "mean": 0.85},
        {"metric": "revenue_usd", "source": "client", "count": 3, "mean": 12.3456},
        {"metric": "reask", "source": "implicit", "count": 7, "mean": 1.0}]},
}  # fmt: skip
