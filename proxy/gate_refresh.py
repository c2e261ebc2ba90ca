"""Draws the cases of a suite anew from captured traffic before a scheduled run, once they have become old.

By `farthing eval sample`, in a process of its own. The cases before stay beside the new ones as NAME.previous; where
nothing can be drawn the old ones go on, and that is said. Only a scheduled run does this: one after a change compares
with the run before it, and so has to ask the same.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.gating import child_of

__all__ = ["Refresh"]

log = structlog.get_logger("farthing.gates")

_DAY_S = 86_400.0


@dataclass(slots=True)
class Refresh:
    """`said`: what was told already, so that a schedule doesn't tell it each day."""

    said: set[str] = field(default_factory=set)

    async def before(self, config: Config, suite: Path, now_s: float) -> bool:
        """Draw the suite's cases anew where they are old; whether they are new now. Raises nothing for their sake."""
        if not config.gates.refresh_days:
            return False
        if not config.capture.enabled:
            self._once("capture is off: suites keep their cases (gates.refresh_days)")
            return False
        try:
            cases, size, traps = await asyncio.to_thread(_standing, suite, now_s - config.gates.refresh_days * _DAY_S)
            if not size:
                return False
            fresh = cases.with_name(f"{cases.name}.fresh")
            command = [sys.executable, "-m", "farthing.proxy.cli", "eval", "sample", str(fresh), "--config", "-"]
            command += ["--state", str(config.state_dir), "--size", str(size), "--seed", str(int(now_s))]
            command += ["--adversarial", f"{min(1.0, traps / size):.4f}", "--json"]
            status, _, why = await child_of(command, config, config.gates.timeout_s)
            if status:
                raise ConfigFault(why)
            await asyncio.to_thread(_take, fresh, cases)
        except (ConfigFault, OSError, TimeoutError) as error:
            self._once(f"{suite.name}: its cases can't be drawn anew: {str(error) or 'it took too long'}")
            return False
        log.info("a suite's cases were drawn anew", suite=suite.name, cases=size)
        return True

    def _once(self, what: str) -> None:
        if what not in self.said:
            self.said.add(what)
            log.warning(what)


def _standing(suite: Path, since_s: float) -> tuple[Path, int, int]:
    """The suite's cases, how many of them are traffic's and how many traps; none where they are from after `since_s`.

    Raises ConfigFault, OSError. Blocks.
    """
    from farthing.proxy.cli_gate import read_gate
    from farthing.proxy.eval_run import load_cases

    path = suite.parent / read_gate(suite).dataset
    if path.stat().st_mtime > since_s:
        return path, 0, 0
    cases, _ = load_cases(path)
    if not any(case.ts for case in cases):
        raise ConfigFault(f"{path.name} was not drawn from traffic: its cases stay as they were written")
    traps = sum(case.source.startswith("generated") for case in cases)
    return path, sum(case.source == "traffic" for case in cases), traps


def _take(fresh: Path, cases: Path) -> None:
    shutil.copy2(cases, cases.with_name(f"{cases.name}.previous"))
    fresh.replace(cases)
