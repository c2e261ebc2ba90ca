"""When a gate has to run by itself: on a schedule, and after what it depends on has changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ON_TIME", "Standing", "Trigger", "due"]

Trigger = str
ON_TIME = "its time has come"
_SETTLE_S = 30.0  # several changes that come together are one


@dataclass(frozen=True, slots=True)
class Standing:
    """What a suite was last run for. `seen`: each thing that it depends on, as it was then. Seconds since the epoch."""

    at_s: float
    seen: Mapping[str, str] = field(default_factory=dict)


def due(last: Standing | None, now_s: float, seen: Mapping[str, str], every_s: float, changed_s: float) -> Trigger:
    """Why the suite has to run now; '' where it hasn't to. `every_s`: 0 for no schedule. `changed_s`: when the latest
    change was noticed. A suite that never ran is due at once where anything is asked of it."""
    if last is None:
        return "it never ran"
    changes = sorted(name for name, value in seen.items() if last.seen.get(name, value) != value)
    if changes and now_s - changed_s >= _SETTLE_S:
        return f"changed: {', '.join(changes)}"
    if every_s and now_s - last.at_s >= every_s:
        return ON_TIME
    return ""
