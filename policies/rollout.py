"""How a candidate comes to all traffic: in steps, each held until it has earned the next. Pure.

A step lasts until `hold_s` have passed, the candidate has answered `min_requests` in it, and the guard has nothing
against it. The guard may send it back at any moment; nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from farthing.policies.guard import Verdict, Word

__all__ = ["DEFAULT_STEPS", "At", "Move", "Next", "Plan", "checked", "next_move"]

DEFAULT_STEPS = (0.01, 0.1, 0.5, 1.0)


class Move(StrEnum):
    """What becomes of a roll-out now."""

    STAY = "stay"
    STEP = "step"
    FINISH = "finish"
    BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, as shares of traffic, rising, the last of them 1; and what each has to last."""

    steps: tuple[float, ...] = DEFAULT_STEPS
    hold_s: float = 600.0
    min_requests: int = 100

    def __post_init__(self) -> None:
        checked(self.steps)

    @property
    def guarded(self) -> int:
        """The steps at which there are two arms to compare."""
        return len(self.steps) - 1


class At(NamedTuple):
    """Where a roll-out stands: the number of its step, and since when (seconds since the epoch)."""

    step: int
    since_s: float


class Next(NamedTuple):
    """The move, and why."""

    move: Move
    reason: str


def checked(steps: Sequence[float]) -> tuple[float, ...]:
    """The same steps. ValueError where they don't rise from above 0 to 1."""
    rises = all(a < b for a, b in pairwise(steps))
    if not steps or not rises or not 0.0 < steps[0] <= 1.0 or steps[-1] != 1.0:
        raise ValueError("steps are shares that rise from above 0 to 1, as 0.01, 0.1, 0.5, 1")
    return tuple(steps)


def next_move(plan: Plan, at: At, now_s: float, verdict: Verdict, requests: int) -> Next:
    """What to do now. `requests`: that the candidate has answered in this step."""
    if verdict.word is Word.BACK:
        return Next(Move.BACK, verdict.reason)
    left_s = at.since_s + plan.hold_s - now_s
    if requests < plan.min_requests:
        return Next(Move.STAY, f"{requests} of {plan.min_requests} requests that this step needs")
    if left_s > 0:
        return Next(Move.STAY, f"{left_s:.0f} s of this step are left")
    if verdict.word is Word.HOLD:
        return Next(Move.STAY, verdict.reason)
    if plan.steps[at.step + 1] == 1.0:
        return Next(Move.FINISH, "all steps are passed")
    return Next(Move.STEP, "this step is passed")
