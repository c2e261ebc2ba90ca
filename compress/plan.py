"""How far a request may be compressed: what its header asks for, within the configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ASKED", "Plan", "Reach", "lossy", "plan"]

Reach = Literal["nothing", "tidy", "recode", "squeeze"]
_ORDER: tuple[Reach, ...] = ("nothing", "tidy", "recode", "squeeze")
ASKED: dict[str, Reach] = {"": "squeeze", "off": "nothing", "tidy": "tidy", "squeeze": "squeeze"}
"""The values of `x-farthing-compress`, '' for none, and how far each goes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`tidy`: applies. `reach`: the boldest that may be done. `reason`: why it isn't what was asked for; '' where it
    is."""

    tidy: bool
    reach: Reach
    reason: str = ""

    def may(self, reach: Reach) -> bool:
        """Whether it goes so far."""
        return _ORDER.index(reach) <= _ORDER.index(self.reach)


def plan(*, tidy: bool, squeeze: str, asked: str) -> Plan:
    """What may be done to one request. `squeeze`: its mode; `asked`: `x-farthing-compress`, '' for nothing.

    The header can switch off what the config switches on, never the other way round: the operator has the last word.
    """
    wished = ASKED.get(asked, "nothing")
    reason = ""
    if asked == "tidy" and not tidy:
        reason = "tidy is switched off in the configuration"
    elif asked == "squeeze" and squeeze != "serve":
        reason = "squeeze is " + ("only observed" if squeeze == "observe" else "switched off in the configuration")
    return Plan(tidy and wished != "nothing", wished, reason)


def lossy(*, recode: str, squeeze: str, asked: str) -> str:
    """What may be done to a request that changes its answer: a part of its identity; '' for nothing.

    `recode`, `squeeze`: their modes. Whether it is done hangs on what is proved by then, which is no part of it.
    """
    wished = plan(tidy=True, squeeze=squeeze, asked=asked)
    modes: tuple[tuple[Reach, str], ...] = (("recode", recode), ("squeeze", squeeze))
    return "+".join(name for name, mode in modes if mode == "serve" and wished.may(name))
