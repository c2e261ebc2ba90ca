"""Draws the cases of a suite anew from captured traffic before a scheduled run, once they have become old.

By `farthing eval sample`, in a process of its own. Only what was drawn is drawn anew: cases that somebody wrote stay,
and so does what users complained about, since a mistake that was made once is what a suite is there to find again. The
file before stays beside the new one as NAME.previous; where fewer cases than before can be drawn the old ones go on,
and that is said. Only a scheduled run does this: one after a change compares with the run before it, and so has to ask
the same.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson
import structlog

from farthing.policies.outcome import RATING
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.gating import child_of

if TYPE_CHECKING:
    from farthing.policies.dataset import EvalCase

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
            old = await asyncio.to_thread(_standing, suite, now_s - config.gates.refresh_days * _DAY_S)
            if old is None:
                return False
            fresh = old.path.with_name(f"{old.path.name}.fresh")
            command = [sys.executable, "-m", "farthing.proxy.cli", "eval", "sample", str(fresh), "--config", "-"]
            command += ["--state", str(config.state_dir), "--size", str(old.size), "--seed", str(int(now_s))]
            command += ["--since", datetime.fromtimestamp(old.since_s, UTC).isoformat()]
            command += ["--adversarial", f"{min(1.0, old.traps / old.size):.4f}", "--json"]
            try:
                status, _, why = await child_of(command, config, config.gates.timeout_s)
                if status:
                    raise ConfigFault(why)
                await asyncio.to_thread(_take, fresh, old)
            finally:
                await asyncio.to_thread(fresh.unlink, missing_ok=True)
        except (ConfigFault, OSError, TimeoutError, ValueError, OverflowError) as error:
            self._once(f"{suite.name}: its cases can't be drawn anew: {str(error) or 'it took too long'}")
            return False
        log.info("a suite's cases were drawn anew", suite=suite.name, cases=old.size)
        return True

    def _once(self, what: str) -> None:
        if what not in self.said:
            self.said.add(what)
            log.warning(what)


class _Old(NamedTuple):
    """A suite's cases as they are. `size`, `traps`: how many were drawn from traffic, and made of these; `since_s`: the
    first of them, before which another part of the traffic may lie; `stay`: those that nobody drew."""

    path: Path
    size: int
    traps: int
    since_s: float
    stay: tuple[EvalCase, ...]


def _standing(suite: Path, since_s: float) -> _Old | None:
    """What the suite asks; None where that is from after `since_s`. Raises ConfigFault, OSError. Blocks."""
    from farthing.proxy.cli_gate import read_gate
    from farthing.proxy.eval_run import load_cases

    path = suite.parent / read_gate(suite).dataset
    if path.stat().st_mtime > since_s:
        return None
    cases, _ = load_cases(path)
    drawn = [case for case in cases if case.source == "traffic" and case.ts]
    if not drawn:
        raise ConfigFault(f"{path.name} was not drawn from traffic: its cases stay as they were written")
    made = [case for case in cases if case.source.startswith("generated")]
    gone = {case.id for case in (*drawn, *made)}
    stay = tuple(case for case in cases if case.id not in gone)
    return _Old(path, len(drawn), len(made), min(case.ts for case in drawn), stay)


def _take(fresh: Path, old: _Old) -> None:
    """Put them in the place of the old ones. Raises ConfigFault: they are fewer. OSError."""
    from farthing.proxy.eval_run import load_cases
    from farthing.proxy.eval_sample import write

    cases, _ = load_cases(fresh)
    count = sum(case.source == "traffic" for case in cases)
    if count < old.size:
        raise ConfigFault(f"{count} of {old.size} could be drawn from what is captured")
    rated = {_asked(case) for case in cases if case.source == RATING}
    stay = [case for case in old.stay if case.source != RATING or _asked(case) not in rated]
    shutil.copy2(old.path, old.path.with_name(f"{old.path.name}.previous"))
    write(old.path, sorted((*cases, *stay), key=lambda case: case.ts))


def _asked(case: EvalCase) -> bytes:
    return orjson.dumps([case.endpoint, case.tenant, case.request], option=orjson.OPT_SORT_KEYS)
