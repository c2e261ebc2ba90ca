"""From what was asked and what stands in the ledgers to one line of the table. Pure, but for `row_ids`.

A ledger row is lost when a client has an answer whose `x-farthing-id` is in no ledger. Rows answered within
WINDOW_S before their replica was killed may be lost: that is documented, for a machine that runs the writer when it is
due. On a busy one the window is longer by what a thread beside it had to wait in the second before the kill
(`stalls`). A fault shows nothing unless each replica served hits before it (`cold`). Recovery is how long after the
fault's end the last replica gave its first answer from the cache again; latencies are compared with the same run's calm
beginning.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from tests.chaos.load import Asked

__all__ = [
    "NEVER_S",
    "RECOVERY_S",
    "WINDOW_S",
    "Line",
    "Moments",
    "cold",
    "line_of",
    "recovery_s",
    "row_ids",
    "shown_s",
]

WINDOW_S = 0.1
RECOVERY_S = 5.0
NEVER_S = 1e9
LOG_LINES, LOG_LINES_PER_S = 25, 2
"""So many may be written in a run and for each kill, and by each farthing in a second, whose store goes and comes back.
They are lines for changes, none for each request."""


@dataclass(slots=True)
class Moments:
    """When the fault began and ended, which replicas were killed when, and from when to when the upstream turned from
    good to bad or back. `stalls`: when a thread woke, and how much too late. `refusing`: the codes of refusals that are
    promised while the fault lasts. Seconds of time.monotonic."""

    began: float
    ended: float
    kills: list[tuple[int, float]] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    refusing: frozenset[str] = frozenset()

    def fails(self, one: Asked) -> bool:
        """Whether a direct call would have been served and this one was not. Of two calls that were under way when
        the upstream turned one may be served and the other not. A promised refusal is none, unless it comes later."""
        if not one.failed or any(one.began <= end and begin <= one.ended for begin, end in self.cuts):
            return False
        return not (self.refuses(one) and self.began <= one.ended and one.began <= self.ended + RECOVERY_S)

    def refuses(self, one: Asked) -> bool:
        """Whether it was refused with a code that is promised."""
        return one.code in self.refusing

    def excuses(self, one: Asked) -> bool:
        """Whether the request's row may be lost: its replica was killed within the window."""
        kill = self.killed_at(one)
        late_s = max((late_s for woke, late_s in self.stalls if kill - 1 <= woke <= kill + late_s), default=0.0)
        return self.age_s(one) <= WINDOW_S + late_s

    def killed_at(self, one: Asked) -> float:
        """When the replica was killed next after the request began; its answer may still be read after that."""
        return min((at for replica, at in self.kills if replica == one.replica and at >= one.began), default=NEVER_S)

    def age_s(self, one: Asked) -> float:
        """How long the client had had its answer when the replica was killed; NEVER_S: it never was."""
        kill = self.killed_at(one)
        return NEVER_S if kill == NEVER_S else max(0.0, kill - one.ended)


@dataclass(frozen=True, slots=True)
class Line:
    """One fault's line. `failed`: not served though a direct call was. `again`: had to be asked of another replica,
    since the one asked died. `in_window`: rows lost, but within the documented window. `twice`: ids with two rows.
    Latencies are medians and 99th percentiles in milliseconds, before the fault and during it."""

    fault: str
    promise: str
    requests: int
    failed: int
    wrong: int
    again: int
    lost_rows: int
    in_window: int
    twice: int
    recovery_s: float
    log_lines: int
    calm_ms: tuple[float, float]
    fault_ms: tuple[float, float]
    notes: dict[str, Any]

    @property
    def broken(self) -> list[str]:
        """The claims that did not hold."""
        claims = {
            f"replicas that served no hit before the fault: {self.notes['cold']}": self.notes["cold"],
            f"{self.failed} requests failed that a direct call would have served": self.failed,
            f"{self.wrong} wrong answers": self.wrong,
            f"{self.lost_rows} ledger rows lost beyond the window": self.lost_rows,
            f"{self.twice} requests have two rows": self.twice,
            f"{self.log_lines} log lines": self.log_lines > self.notes["log_lines_at_most"],
            f"recovery took {shown_s(self.recovery_s)} s": self.recovery_s > RECOVERY_S,
            "nothing was refused, though it is promised": self.notes["refuses"] and not self.notes["refused"],
        }
        more = [*self.notes.get("broke", ()), *self.notes.get("more_broken", ())]
        return [*(claim for claim, holds_not in claims.items() if holds_not), *more]

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"broken": self.broken}


def line_of(
    fault: str,
    promise: str,
    asked: Sequence[Asked],
    ids: Counter[str],
    moments: Moments,
    replicas: Collection[int],
    notes: dict[str, Any] | None = None,
    log_lines: int = 0,
) -> Line:
    """The line of one fault. `ids`: of the rows of all ledgers; `replicas`: those that must serve hits again."""
    down = sum(one.unheard for one in asked)
    asked = [one for one in asked if not one.unheard]
    lost = [one for one in asked if one.row_id and one.row_id not in ids]
    excused = [one for one in lost if moments.excuses(one)]
    lasted_s = max((one.ended for one in asked), default=0.0) - min((one.began for one in asked), default=0.0)
    during = [one for one in asked if moments.began <= one.began < moments.ended]
    return Line(
        fault=fault,
        promise=promise,
        requests=len(asked),
        failed=sum(map(moments.fails, asked)),
        wrong=sum(one.wrong for one in asked),
        again=sum(one.again > 0 for one in asked),
        lost_rows=len(lost) - len(excused),
        in_window=len(excused),
        twice=sum(ids[one.row_id] > 1 for one in asked if one.row_id),
        recovery_s=round(recovery_s(asked, moments, replicas), 2),
        log_lines=log_lines,
        calm_ms=_latency_ms(one for one in asked if one.ended < moments.began),
        fault_ms=_latency_ms(during),
        notes=(notes or {})
        | {
            "with_the_upstream": sum(
                one.failed and not moments.fails(one) and not moments.refuses(one) for one in asked
            ),
            "refuses": sorted(moments.refusing),
            "refused": sum(moments.refuses(one) and not moments.fails(one) for one in asked),
            "log_lines_at_most": LOG_LINES * (1 + len(moments.kills))
            + round(LOG_LINES_PER_S * len(replicas) * lasted_s),
            "longest_stall_ms": round(max((late_s for _, late_s in moments.stalls), default=0.0) * 1000),
            "lost_after_ms": sorted(round(moments.age_s(one) * 1000) for one in lost),
            "down": down,
        }
        | {
            "cold": cold(asked, replicas, moments.began),
            "before": sum(one.ended < moments.began for one in asked),
            "during": len(during),
            "after": sum(one.began >= moments.ended for one in asked),
            "answers": dict(Counter(one.cache or "none" for one in during)),
        },
    )


def shown_s(seconds: float) -> str:
    """The seconds of a recovery as they are shown."""
    return "for ever" if seconds == NEVER_S else f"{seconds:.1f}"


def row_ids(states: Iterable[Path]) -> Counter[str]:
    """The ids of all rows of the ledgers of these state directories. What was moved aside doesn't count until it is
    salvaged."""
    found: Counter[str] = Counter()
    for state in states:
        with closing(sqlite3.connect(f"{(state / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
            found.update(row_id for (row_id,) in ledger.execute("select id from requests"))
    return found


def cold(asked: Iterable[Asked], replicas: Collection[int], before: float = NEVER_S) -> list[int]:
    """The replicas that served no hit until that moment. A fault that finds one could hide behind the fault before it,
    from which that one never recovered."""
    return sorted({*replicas} - {one.replica for one in asked if one.hit and one.ended < before})


def recovery_s(asked: Sequence[Asked], moments: Moments, replicas: Collection[int]) -> float:
    """Seconds from the fault's end until each replica has served a hit again and nothing fails; NEVER_S: not yet."""
    first: dict[int, float] = {}
    for one in asked:
        if one.began >= moments.ended and one.hit:
            first[one.replica] = min(one.ended, first.get(one.replica, one.ended))
    if not {*replicas} <= {*first}:
        return NEVER_S
    bad = (one for one in asked if moments.fails(one) or moments.refuses(one))
    failed = [one.ended for one in bad if one.ended > moments.ended]
    return max([first[replica] for replica in replicas] + failed) - moments.ended


def _latency_ms(asked: Iterable[Asked]) -> tuple[float, float]:
    times_ms = [(one.ended - one.began) * 1000 for one in asked]
    if len(times_ms) < 2:
        return 0.0, 0.0
    cuts = quantiles(times_ms, n=100, method="inclusive")
    return round(cuts[49], 1), round(cuts[98], 1)
