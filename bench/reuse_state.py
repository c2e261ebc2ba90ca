"""What it costs the event loop to show and to write what is learnt of 10,000 routes: `python -m bench.reuse_state`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from random import Random

import orjson

from farthing.policies.agree_measured import comparator
from farthing.policies.reuse import Action, Bound, Candidate, Label, RouteKey
from farthing.policies.verified import Settings, Verified
from farthing.proxy.config import Semantic
from farthing.proxy.learnt import lines
from farthing.proxy.reuse_state import REUSE
from farthing.proxy.semantic_admin import MOST_ROUTES, shown

ROUTES, TENANTS, LABELS = 10_000, 50, 15


def taught(seed: int = 1) -> Verified:
    """A policy that knows many routes, most of which serve on the pool's word."""
    policy, random = Verified(Settings(Bound(0.1), mode="serve")), Random(seed)
    for number in range(ROUTES * LABELS):
        route = RouteKey(f"tenant {number % TENANTS}", f"route {number % ROUTES}")
        score = random.uniform(0.4, 0.9)
        candidate = Candidate("entry", score, score)
        verdict = policy.decide(route, candidate, random.random())
        if verdict.action is not Action.SERVE or verdict.audit:
            policy.learn(route, candidate, verdict, Label(float(random.random() < 0.01)))
    return policy


def longest(steps: Iterable[object]) -> tuple[float, float, int]:
    """The longest step and all of them, in ms, and how many they are."""
    each, last = [], time.process_time()
    for _ in steps:
        now = time.process_time()
        each.append((now - last) * 1e3)
        last = time.process_time()
    return max(each), sum(each), len(each)


def main() -> int:
    """Measure, print."""
    policy = taught()
    print(f"{policy.count:,} routes, {sum(state.serving for state in policy.state()):,} serving")
    for name in ("first", "again"):
        began = time.process_time()
        body = orjson.dumps([shown(state, 0.05, comparator()) for state in policy.state(MOST_ROUTES)])
        took_ms = (time.process_time() - began) * 1e3
        print(f"shown, {name}: {took_ms:.1f} ms for {MOST_ROUTES} routes, {len(body):,} bytes")
    step, total, count = longest(lines(REUSE, Semantic(), policy))
    print(f"written: longest of {count} steps {step:.1f} ms, {total:.0f} ms in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
