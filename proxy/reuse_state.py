"""What the semantic cache has learnt about its routes, kept across restarts in one file of JSON lines.

The evidence speaks for one scorer, second stage, embedder and set of comparators: under others it proves nothing, so a
file made with others is turned aside, as is a damaged one, and the routes begin anew in observe.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog

from farthing.cache.verifier import MODEL, VERSION
from farthing.policies import agree_measured, judge
from farthing.policies.agree import comparator
from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Bound, Policy, whole
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified
from farthing.proxy.config import Semantic

__all__ = ["PRIOR", "Learnt", "lines", "load", "made_with", "new_policy", "save"]

T = TypeVar("T")
_EVERY_S = 30.0
# Where the tests of a route begin: scores of the verifier that ships, and how much of the level lies on each. Chosen on
# the texts that it learned from, before any label of any route is seen, so that none is used up for choosing.
PRIOR = Ladder((0.88, 0.84, 0.80, 0.70, 0.50), (0.1, 0.5, 0.2, 0.1, 0.1))

log = structlog.get_logger("farthing.semantic")


def new_policy(semantic: Semantic) -> Policy:
    """The policy that the configuration asks for, knowing nothing yet."""
    bound = Bound(semantic.max_wrong, semantic.per, semantic.confidence)
    if semantic.unproven:
        return Static(semantic.threshold, on="score", bound=bound, mode=semantic.mode, audit_share=semantic.audit_share)
    if semantic.policy == "vcache":
        return VCache(bound, mode=semantic.mode)
    floor = min(semantic.audit_share, 0.01)
    share = semantic.audit_share
    return Verified(
        Settings(bound, semantic.mode, comparator=comparator(), audit_share=share, audit_floor=floor, prior=PRIOR)
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
            head, *parts = map(orjson.loads, path.read_bytes().splitlines())
            if head["made_with"] != made_with(semantic):
                raise ValueError("it was learnt with another scorer or embedder")
            dumped = whole((name, value) for name, value in parts)
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


def lines(semantic: Semantic, policy: Policy) -> Iterator[bytes]:
    """The file, line by line: what it was made with, then one slice of the policy's dump after the other."""
    yield orjson.dumps({"made_with": made_with(semantic)}) + b"\n"
    for part in policy.dump_slices():
        yield orjson.dumps(part) + b"\n"


def save(path: Path, content: Iterable[bytes]) -> None:
    """Write the file anew; a reader sees the old one or the new one, never a part. Raises OSError. Blocks."""
    fresh = path.with_suffix(".new.json")
    with fresh.open("wb") as out:
        out.writelines(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


async def _between_others(steps: Iterable[T]) -> list[T]:
    """What the steps give, each taken on the loop, which the policy lives on, with everybody else's turn in between."""
    found = []
    for one in steps:
        found.append(one)
        await asyncio.sleep(0)
    return found


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
            held = whole(await _between_others(before[1].dump_slices()))
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
        semantic, policy = self._now
        content = await _between_others(lines(semantic, policy))
        try:
            await asyncio.to_thread(save, self._path(semantic), content)
        except OSError as error:
            log.warning("what is learnt of near-duplicates can't be written", error=error.strerror)
