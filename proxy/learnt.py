"""What a policy has learnt about its routes, kept across restarts in one file of JSON lines.

The evidence speaks for what it was made with (a scorer, an embedder, a set of comparators): with others it proves
nothing, so a file made with others is turned aside, as is a damaged one, and the routes begin anew in observe.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import orjson
import structlog

from farthing.policies.reuse import Policy, whole
from farthing.proxy.config_section import Section

__all__ = ["Learnt", "Recipe", "Sharing", "lines", "load", "named_after", "observes", "save"]

S = TypeVar("S", bound=Section)
T = TypeVar("T")
_EVERY_S = 30.0

log = structlog.get_logger("farthing.learnt")


@dataclass(frozen=True, slots=True)
class Recipe(Generic[S]):
    """How a policy is had from a section of the configuration.

    `about`: what it learns of, in words. `kind`: which policy it is; each kind has a file of its own, `file` of it, so
    that trying another one loses nothing. `made_with`: what the evidence hangs on. `off`: nothing is learnt.
    """

    about: str
    file: Callable[[S], str]
    kind: Callable[[S], str]
    made_with: Callable[[S], str]
    new: Callable[[S], Policy]
    off: Callable[[S], bool]


class Sharing(Protocol):
    """How a policy is learnt together with other replicas."""

    def join(self, recipe: Recipe[S], settings: S, policy: Policy) -> Policy:
        """The policy that all learn, for as long as somebody holds it; at first it knows what this one does."""
        ...


def named_after(settings: Section) -> str:
    """The same in every process that has the same settings."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]


def load(
    path: Path, recipe: Recipe[S], settings: S, held: dict[str, Any] | None = None, *, aside: bool = True
) -> Policy:
    """The policy with what was learnt: from `held` (a dump of the running one), else from the file. `aside`: a file
    that can't be used is turned aside; else it is another process's, and left alone."""
    policy = recipe.new(settings)
    reason = ""
    try:
        dumped = held
        if dumped is None:
            if not path.exists():
                return policy
            head, *parts = map(orjson.loads, path.read_bytes().splitlines())
            if head["made_with"] != recipe.made_with(settings):
                raise ValueError("it was learnt with something else")
            dumped = whole((name, value) for name, value in parts)
        policy.load(dumped)
        return policy
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        reason = str(error) or type(error).__name__
    if held is None and aside:
        other = path.with_suffix(".other.json")
        try:
            path.replace(other)
        except OSError:
            other = path
        said = f"what was learnt of {recipe.about} can't be used; all routes observe"
        log.warning(said, reason=reason, file=str(other))
    return recipe.new(settings)


def lines(recipe: Recipe[S], settings: S, policy: Policy) -> Iterator[bytes]:
    """The file, line by line: what it was made with, and whether it may serve now; then one slice of the policy's dump
    after the other."""
    head: dict[str, Any] = {"made_with": recipe.made_with(settings)}
    if not getattr(policy, "can_tell", True):
        head["observes"] = True
    yield orjson.dumps(head) + b"\n"
    for part in policy.dump_slices():
        yield orjson.dumps(part) + b"\n"


def observes(path: Path) -> bool:
    """Whether the file says that nothing may be served now. Blocks."""
    try:
        with path.open("rb") as file:
            return bool(orjson.loads(file.readline()).get("observes", False))
    except (OSError, ValueError, AttributeError):
        return False


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


class Learnt(Generic[S]):
    """The one policy in use, written to its file in `folder` now and then, before it changes, and once more at the
    end. Others may be in use beside it, for a share of the traffic; they aren't written while they are.

    `every_s`: how often; where writing takes long, more seldom. `sharing`: with whom it is learnt together.
    """

    every_s: float = _EVERY_S

    def __init__(
        self,
        folder: Path,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        recipe: Recipe[S],
        sharing: Sharing | None = None,
    ) -> None:
        self._sharing = sharing
        self._folder = folder
        self._spawn = spawn
        self._recipe = recipe
        self._now: tuple[S, Policy] | None = None
        self._beside: list[tuple[S, Policy]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._took_s = 0.0
        self._written = b""

    async def use(self, settings: S) -> Policy:
        """The policy under this configuration; what the one before has learnt stays where it still speaks."""
        before = self._now
        if before is not None and before[0] == settings:
            return before[1]
        await self._write()
        for one in self._beside:
            if one[0] == settings:
                self._now, self._beside = one, []
                return one[1]
        held = None
        if before is not None and self._which(before[0]) == self._which(settings):
            held = whole(await _between_others(before[1].dump_slices()))
        policy = await self._loaded(settings, held)
        self._now = (settings, policy)
        if self._timer is None:
            self._later()
        return policy

    async def beside(self, settings: S) -> Policy:
        """The policy of a candidate: the one in use where it has the same settings, else one of its own, which begins
        with what the other has learnt where that speaks for it too. It is kept on when it comes into use."""
        before = self._now
        if before is None:
            return await self.use(settings)
        if before[0] == settings:
            return before[1]
        self._beside = [one for one in self._beside if one[0] == settings]
        if not self._beside:
            held = None
            if self._which(before[0]) == self._which(settings):
                held = whole(await _between_others(before[1].dump_slices()))
            self._beside = [(settings, await self._loaded(settings, held))]
        return self._beside[0][1]

    async def close(self) -> None:
        """Write what is known."""
        if self._timer is not None:
            self._timer.cancel()
        await self._write()

    async def _loaded(self, settings: S, held: dict[str, Any] | None) -> Policy:
        path = self._folder / self._recipe.file(settings)
        policy = await asyncio.to_thread(load, path, self._recipe, settings, held)
        return policy if self._sharing is None else self._sharing.join(self._recipe, settings, policy)

    def _which(self, settings: S) -> tuple[str, str]:
        return self._recipe.made_with(settings), self._recipe.kind(settings)

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(self.every_s, 50 * self._took_s), self._tick)

    def _tick(self) -> None:
        self._spawn(self._write())
        self._later()

    async def _write(self) -> None:
        if self._now is None or self._recipe.off(self._now[0]):
            return
        settings, policy = self._now
        begun_s = asyncio.get_running_loop().time()
        content = await _between_others(lines(self._recipe, settings, policy))
        digest = hashlib.sha256(b"".join([self._recipe.file(settings).encode(), *content])).digest()
        if digest == self._written:
            return
        try:
            await asyncio.to_thread(save, self._folder / self._recipe.file(settings), content)
            self._written = digest
        except OSError as error:
            log.warning(f"what is learnt of {self._recipe.about} can't be written", error=error.strerror)
        self._took_s = asyncio.get_running_loop().time() - begun_s
