"""A judge of the operator's own: a Python function, named in the suite as "module:function".

    def polite(case):                       # case.request, case.answer.text, case.reference (or None)
        return 1.0 if "please" in case.answer.text else 0.0

It gives a number from 0 to 1, True or False, None where it can't say, or one of these with a reason as a tuple, and
may be `async`. It runs in this process with all of its rights, in a thread where it isn't async: only the operator
names it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from farthing.policies.judges import JudgeCase, Score
from farthing.proxy.errors import ConfigFault

__all__ = ["Custom", "load"]

_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Custom:
    """`path`: as it was named. `function`: see the module."""

    path: str
    function: Callable[[JudgeCase], Any]
    name: ClassVar[str] = "custom"
    compares: ClassVar[bool] = False

    async def judge(self, case: JudgeCase) -> Score:
        """What the function says; None where it raises or gives something else. Its cost isn't known."""
        try:
            if inspect.iscoroutinefunction(self.function):
                said = await self.function(case)
            else:
                said = await asyncio.to_thread(self.function, case)
        except Exception as error:  # noqa: BLE001 - somebody else's code: whatever it raises is its verdict
            return Score(None, f"{self.path} raised {type(error).__name__}", None)
        return _score(said, self.path)


def load(path: str, folder: Path | None = None) -> Custom:
    """The function behind "module:function". `folder`: where its module may lie besides the installed ones.

    Raises ConfigFault: not of that form, no such module or function, or the module itself raises.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name.isidentifier():
        raise ConfigFault(f'judge custom: {path!r} must be "module:function"')
    before = list(sys.path)
    try:
        if folder is not None:
            sys.path.insert(0, str(folder.resolve()))
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise ConfigFault(f"judge custom: {module_name} can't be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path[:] = before
    if not callable(function):
        raise ConfigFault(f"judge custom: {module_name} has no function {name!r}")
    return Custom(path, function)


def _score(said: Any, path: str) -> Score:
    if isinstance(said, Score):
        said, reason, cost_pico = said
    elif isinstance(said, tuple) and len(said) == 2:
        (said, reason), cost_pico = said, None
    else:
        reason, cost_pico = "", None
    reason = str(reason)[:_REASON_CHARS] or path
    if said is None:
        return Score(None, reason, cost_pico)
    if isinstance(said, int | float) and math.isfinite(said) and 0 <= said <= 1:
        return Score(float(said), reason, cost_pico)
    return Score(None, f"{path} gave no number from 0 to 1", cost_pico)
