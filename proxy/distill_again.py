"""`farthing distill retrain`: a student trained anew by what it was trained by, beside the one that is there.

Rules of this file: the one that is there stays whatever comes of it; the new one is kept as its heir only where its own
proof holds and it is not worse on requests that it never saw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farthing.cache.embedder import Embedder
from farthing.policies.student import Student
from farthing.policies.student_again import beside
from farthing.proxy import student_files
from farthing.proxy.config import Config
from farthing.proxy.distill_rows import gather
from farthing.proxy.distill_source import lines_of, wanted_of
from farthing.proxy.distill_train import Recipe, cases_of, scored, train
from farthing.proxy.errors import ConfigFault

__all__ = ["Again", "again", "answers_from"]


@dataclass(frozen=True, slots=True)
class Again:
    """`hash`: of the heir; '' where there is none. `why`: for people. `facts`: as of `distill_train.Trained`."""

    hash: str
    why: str
    facts: dict[str, Any]


def again(
    config: Config,
    name: str,
    trace: Path | None,
    embedder: Embedder,
    now_s: float,
    tell: Callable[[str, int, int], None],
) -> Again:
    """Train it, look at both, and keep the new one as an heir where it may be one.

    Raises ConfigFault: there is no such student, nothing to learn from, or no closed set any more; Unfit: damaged.
    """
    called = next((one.student for one in config.variants if one.student_name == name), name)  # the one that answers
    old = student_files.load(config.state_dir, called)
    if old is None:
        raise ConfigFault(f"there is no student {name!r} to train anew: farthing distill train --name {name}")
    asked = old.about.get("asked") or {}
    wanted = wanted_of(config, asked.get("route", ""), asked.get("model", "*"), "", now_s, refusals=True)
    found = gather(lines_of(config, trace, wanted.since_s), wanted)
    cases = cases_of(found.rows, config.aliases, old.template)
    recipe = Recipe(name, old.bound, old.level, cosine=asked.get("near", 0.95) or 2.0)
    made = train(cases, recipe, embedder, tell)
    facts = made.facts | {"dropped": dict(found.dropped), "made_s": now_s, "asked": asked}
    if made.student is None or made.held is None:
        return Again("", made.why, facts)
    new = dataclasses.replace(made.student, about=facts)
    if new.hash == old.hash:
        return Again("", "it came out as it was: nothing new was learnt", facts)
    why = "of requests like those that the old one was taught by, there are none any more"
    if new.template == old.template:
        both = [scored(one, made.held.vectors, made.held.rows) for one in (new, old)]
        rng = np.random.default_rng(int(new.hash, 16))
        told = beside(both[0], new.threshold, both[1], answers_from(config.state_dir, old), old.bound, rng)
        facts["beside"] = why = told.said
        if not told.passed:
            return Again("", why, facts)
    student_files.save_heir(config.state_dir, new)
    return Again(new.hash, why, facts)


def answers_from(state_dir: Path, student: Student) -> float:
    """From which confidence on it answers now. One that was sent back to observe answers nobody, however sure it is:
    what it would say wrongly is nothing that another one must keep up with."""
    standing = student_files.standing_of(state_dir, student)
    return math.inf if standing.turn and not standing.serves else student.threshold
