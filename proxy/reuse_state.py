"""What the semantic cache has learnt about its routes, kept across restarts in one JSON file.

The evidence speaks for one scorer, second stage, embedder and set of comparators: under others it proves nothing, so a
file made with others is turned aside, as is a damaged one, and the routes begin anew in observe.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import structlog

from farthing.cache.verifier import MODEL, VERSION
from farthing.policies import agree_measured, judge
from farthing.policies.agree import comparator
from farthing.policies.reuse import Bound, Policy
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified
from farthing.proxy.config import Semantic

__all__ = ["Learnt", "load", "made_with", "new_policy", "save"]

_EVERY_S = 30.0

log = structlog.get_logger("farthing.semantic")


def new_policy(semantic: Semantic) -> Policy:
    """The policy that the configuration asks for, knowing nothing yet."""
    bound = Bound(semantic.max_wrong, semantic.per, semantic.confidence)
    if semantic.unproven:
        return Static(semantic.threshold, on="score", bound=bound, mode=semantic.mode, audit_share=semantic.audit_share)
    if semantic.policy == "vcache":
        return VCache(bound, mode=semantic.mode)
    floor = min(semantic.audit_share, 0.01)
    return Verified(
        Settings(bound, semantic.mode, comparator=comparator(), audit_share=semantic.audit_share, audit_floor=floor)
    )


def kind(semantic: Semantic) -> str:
    """Which policy it is."""
    return "static" if semantic.unproven else semantic.policy


def made_with(semantic: Semantic) -> str:
    """What the evidence hangs on."""
    scorer = "guard" if semantic.unproven else f"{VERSION}/{hashlib.sha256(MODEL.read_bytes()).hexdigest()[:8]}"
    evidence = f"{scorer} {semantic.model} {agree_measured.VERSION}"
    if semantic.second_stage == "off":
        return evidence
    low, high = semantic.judge_band
    return f"{evidence} {semantic.second_stage} {judge.VERSION} {low:g}-{high:g}"


def load(path: Path, semantic: Semantic, held: dict[str, Any] | None = None) -> Policy:
    """The policy with what was learnt: from `held` (a dump of the running one), else from the file."""
    policy = new_policy(semantic)
    reason = ""
    try:
        dumped = held
        if dumped is None:
            if not path.exists():
                return policy
            kept = orjson.loads(path.read_bytes())
            if kept["made_with"] != made_with(semantic):
                raise ValueError("it was learnt with another scorer or embedder")
            dumped = kept["policy"]
        if dumped is not None:
            policy.load(dumped)
        return policy
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        reason = str(error) or type(error).__name__
    if held is None:
        aside = path.with_suffix(".other.json")
        try:
            path.replace(aside)
        except OSError:
            aside = path
        log.warning(
            "what was learnt of near-duplicates can't be used; all routes observe", reason=reason, file=str(aside)
        )
    return new_policy(semantic)


def save(path: Path, semantic: Semantic, policy: Policy) -> None:
    """Write the file anew; a reader sees the old one or the new one, never a part. Raises OSError. Blocks."""
    for attempt in range(3):
        try:
            dumped = policy.dump()
            break
        except RuntimeError:  # it changed size while it was walked through: the loop goes on meanwhile
            if attempt == 2:
                return
    body = orjson.dumps({"made_with": made_with(semantic), "policy": dumped})
    fresh = path.with_suffix(".new.json")
    with fresh.open("wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


class Learnt:
    """The one policy in use, written to its file now and then, before it changes, and once more at the end.

    Each kind of policy has a file of its own in `folder`, so that trying another one loses nothing.
    """

    def __init__(self, folder: Path, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._folder = folder
        self._spawn = spawn
        self._now: tuple[Semantic, Policy] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def use(self, semantic: Semantic) -> Policy:
        """The policy under this configuration; what the one before has learnt stays where it still speaks."""
        before = self._now
        if before is not None and before[0] == semantic:
            return before[1]
        await self._write()
        held = None
        if before is not None and (made_with(before[0]), kind(before[0])) == (made_with(semantic), kind(semantic)):
            held = await asyncio.to_thread(before[1].dump)
        policy = await asyncio.to_thread(load, self._path(semantic), semantic, held)
        self._now = (semantic, policy)
        if self._timer is None:
            self._later()
        return policy

    def _path(self, semantic: Semantic) -> Path:
        return self._folder / f"reuse-{kind(semantic)}.json"

    async def close(self) -> None:
        """Write what is known."""
        if self._timer is not None:
            self._timer.cancel()
        await self._write()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._tick)

    def _tick(self) -> None:
        self._spawn(self._write())
        self._later()

    async def _write(self) -> None:
        if self._now is None or self._now[0].mode == "off":
            return
        try:
            await asyncio.to_thread(save, self._path(self._now[0]), *self._now)
        except OSError as error:
            log.warning("what is learnt of near-duplicates can't be written", error=error.strerror)
