"""Service levels while farthing serves: counted a few times a minute on a thread of its own, told to whoever asks.

Rules of this file: no request waits for it and no row passes through it: it reads the ledger (levels_tally.py), decides
(policies/levels.py) and keeps what it found until the next time. A target that begins to burn is told once, and once
when it has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from farthing.policies.levels import Pair, Standing, assess
from farthing.proxy.clock import Clock
from farthing.proxy.config_levels import ServiceLevel
from farthing.proxy.levels_tally import Promise, Tallies

__all__ = ["Burn", "Levels", "plain_standing", "promises_of", "window_name"]

log = structlog.get_logger("farthing.levels")

_EVERY_S = 15.0
_HOW = {"fast": "fast", "slow": "slowly"}


class Burn(NamedTuple):
    """A target began to burn, or has ended. `what`: in words."""

    level: str
    kind: str
    speed: str
    begins: bool
    what: str
    evidence: Mapping[str, Any]


def promises_of(levels: Sequence[ServiceLevel]) -> tuple[Promise, ...]:
    """Each target of each level."""
    return tuple(
        Promise(level.name, level.where, level.window_days, target) for level in levels for target in level.targets
    )


class Levels:
    """See the module. `on_burn`: told on this thread. Effects: a thread once there are levels, levels.db."""

    def __init__(self, state_dir: Path, clock: Clock, every_s: float = _EVERY_S) -> None:
        self.on_burn: Callable[[Burn], None] = lambda burn: None
        self._clock = clock
        self._every_s = every_s
        self._tallies = Tallies(state_dir)
        self._promises: tuple[Promise, ...] = ()
        self._standing: dict[str, tuple[Promise, Standing]] = {}
        self._burns: set[tuple[str, str, str]] = set()
        self._fault = ""
        self._made_s: float | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._round = threading.Condition()
        self._asked = self._done = 0
        self._closing = False

    def use(self, levels: Sequence[ServiceLevel]) -> None:
        """Go on with these levels; what is counted stays."""
        self._promises = promises_of(levels)
        if self._promises and self._thread is None:
            self._thread = threading.Thread(target=self._work_on, name="levels", daemon=True)
            self._thread.start()
        self._wake.set()

    def told(self) -> dict[str, Any]:
        """All levels as JSON values, as of the last round. `as_of_s`: None before the first."""
        standing, levels = self._standing, dict[str, dict[str, Any]]()
        for promise in self._promises:
            level = levels.setdefault(
                promise.level,
                {"name": promise.level, "where": promise.where, "window_days": promise.window_days, "targets": []},
            )
            if promise.key in standing:
                level["targets"].append(plain_standing(standing[promise.key][1]))
        return {"as_of_s": self._made_s, "error": self._fault, "levels": [*levels.values()]}

    def gauges(self) -> dict[str, float]:
        """For /metrics, as of the last round; by level, target, and window or speed."""
        found: dict[str, float] = {}
        for promise, standing in self._standing.values():
            place = f"{promise.target.kind}:{promise.level}"
            if standing.left is not None:
                found[f"level_budget_left_ratio:{place}"] = standing.left
            if standing.attained is not None:
                found[f"level_attained_ratio:{place}"] = standing.attained.value
            for length_s, burn in standing.rates.items():
                if burn is not None:
                    found[f"level_burn_rate:{window_name(length_s)}:{place}"] = burn
            for speed in ("fast", "slow"):
                found[f"level_burning:{speed}:{place}"] = float(any(pair.speed == speed for pair in standing.burning))
        return found

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that is in the ledger now is counted; whether it is. Blocks."""
        if self._thread is None:
            return True
        with self._round:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            return self._round.wait_for(lambda: self._done >= mine, timeout_s)

    def close(self) -> None:
        """Idempotent. Blocks."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._tallies.close()

    # -- the thread's

    def _work_on(self) -> None:
        while not self._closing:
            asked, promises = self._asked, self._promises
            more = self._look(promises)
            with self._round:
                if not more:
                    self._done = asked
                self._round.notify_all()
            if not more and asked == self._asked:
                self._wake.wait(self._every_s)
            self._wake.clear()

    def _look(self, promises: Sequence[Promise]) -> bool:
        """Count and decide; whether there is more to be counted."""
        now_s = self._clock.now_s()
        try:
            more = self._tallies.count(promises, now_s)
            if more:
                return True  # half of a ledger says nothing
            found = {promise.key: (promise, self._assessed(promise, now_s)) for promise in promises}
            self._standing, self._made_s, self._fault = found, now_s, ""
            self._tell(found.values())
        except Exception as error:  # noqa: BLE001 - the thread must live, whatever a file holds
            if not self._fault:
                log.error("service levels can't be counted", error=str(error))
            self._fault = str(error) or type(error).__name__
        return False

    def _assessed(self, promise: Promise, now_s: float) -> Standing:
        tallies = self._tallies
        window = tallies.of(promise, promise.window_days * 86_400.0, now_s)
        return assess(promise.target, window, lambda length_s: tallies.of(promise, length_s, now_s))

    def _tell(self, found: Iterable[tuple[Promise, Standing]]) -> None:
        burns = {
            (promise.level, promise.target.kind, pair.speed): (promise, standing, pair)
            for promise, standing in found
            for pair in reversed(standing.burning)  # the fastest is told
        }
        for place in burns.keys() - self._burns:
            promise, standing, pair = burns[place]
            self.on_burn(Burn(*place, True, _in_words(promise, standing, pair), plain_standing(standing)))
        for level, kind, speed in self._burns - burns.keys():
            self.on_burn(Burn(level, kind, speed, False, f"{kind} of {level} no longer burns {_HOW[speed]}", {}))
        self._burns = set(burns)


def plain_standing(standing: Standing) -> dict[str, Any]:
    """As JSON values. Shares are of 1, amounts dollars; `used` and `allowed` are events, or dollars of a cost."""
    target, attained = standing.target, standing.attained
    cost = target.kind == "cost"
    return {
        "kind": target.kind,
        "share": None if cost else target.share,
        "limit_ms": target.limit if target.kind == "latency" else None,
        "limit_usd": target.limit if cost else None,
        "events": standing.tally.events,
        "bad": None if cost else standing.tally.bad,
        "attained": None if attained is None else attained.value,
        "attained_low": None if attained is None else attained.low,
        "attained_high": None if attained is None else attained.high,
        "mean_usd": standing.mean_usd,
        "verdict": standing.verdict,
        "allowed": standing.allowed,
        "used": standing.used,
        "left": standing.left,
        "burn": {window_name(length_s): burn for length_s, burn in standing.rates.items()},
        "pairs": [
            {
                "speed": each.pair.speed,
                "short": window_name(each.pair.short_s),
                "long": window_name(each.pair.long_s),
                "rate": each.pair.rate,
                "state": each.state,
            }
            for each in standing.pairs
        ],
    }


def window_name(length_s: float) -> str:
    """`5m`, `6h`, `3d`."""
    for unit_s, unit in ((86_400, "d"), (3_600, "h")):
        if length_s % unit_s == 0:
            return f"{length_s // unit_s:.0f}{unit}"
    return f"{length_s // 60:.0f}m"


def _in_words(promise: Promise, standing: Standing, pair: Pair) -> str:
    short, long = standing.rates[pair.short_s], standing.rates[pair.long_s]
    left = "" if standing.left is None else f"; {max(0.0, standing.left):.0%} of the budget is left"
    return (
        f"{promise.target.kind} of {promise.level} burns {_HOW[pair.speed]}: {long:.1f} times what is allowed over "
        f"{window_name(pair.long_s)}, {short:.1f} over {window_name(pair.short_s)}{left}"
    )
