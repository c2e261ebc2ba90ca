"""Which compression steps are applied to a request, in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Plan", "Step", "plan"]

Step = Literal["tidy"]


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps`: in the order of their application. `reason`: why it isn't what was asked for; '' where it is."""

    steps: tuple[Step, ...]
    reason: str = ""


def plan(tidy_on: bool, asked: str) -> Plan:
    """The steps for one request: what its header asks for (`x-farthing-compress`, '' for nothing) within the config.

    The header can switch off what the config switches on, never the other way round: the operator has the last word.
    """
    if asked == "off":
        return Plan(())
    steps: tuple[Step, ...] = ("tidy",) if tidy_on else ()
    if asked not in ("", "tidy"):
        return Plan(steps, f"{asked} is not available")
    return Plan(steps, "tidy is switched off in the configuration" if asked and not tidy_on else "")
