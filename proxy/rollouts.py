"""Promotes, rolls out, watches and rolls back policies: the one place that changes which policy answers.

Rules of this file:
1. A change first takes effect, then is written down, which nobody waits for who holds the lock: a disk that is slow
   or hangs delays no rollback. An operator is answered once it is written, or after a second.
2. Whoever changes the lanes holds the lock; the guard's own rollback needs it too, and finds nothing to do where
   somebody was faster. Nothing is read from the disk under it but what only the disk has: a version from before this
   process.
3. What the program does of its own accord is an incident.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import structlog

from farthing.policies.assign import Unit
from farthing.policies.guard import Guard, Reading, Verdict
from farthing.policies.rollout import At, Move, Plan, next_move
from farthing.proxy.build import Services
from farthing.proxy.config import Config
from farthing.proxy.errors import ClientFault, FarthingError
from farthing.proxy.header_facts import HeaderBook
from farthing.proxy.lanes import Lanes, Split
from farthing.proxy.policy_scribe import Scribe
from farthing.proxy.rollout_rows import outcomes_of
from farthing.proxy.row import Row
from farthing.proxy.student_pins import pinned, unpinned, with_student
from farthing.proxy.versions import Book, Standing, policy_version, with_policy_of, with_sections

__all__ = ["TOLD", "Gate", "Rollout", "Rollouts", "Watch"]

log = structlog.get_logger("farthing.policy")

Gate = Callable[[Config, str], Awaitable[str]]
"""Asked before a promotion, with the candidate's configuration and the suite's name: why it is blocked, '' where it
isn't."""

TOLD = "policy"
"""What other workers are told at once, that is also written down for those that begin later."""

_LOOK_EVERY_S = 0.25
_LOOK_AGAIN_S = 1.0  # after a fault
_SAVE_EVERY_S = 5.0
_RATEABLE = 20_000
_MOST_KNOWN = 16
_WRITTEN_WITHIN_S = 1.0


@dataclass(slots=True)
class Watch:
    """The guard, fed by the ledger's thread and asked on the event loop. `arms`: of the latest requests, for
    ratings."""

    guard: Guard
    unit: Unit
    arms: OrderedDict[str, tuple[bool, str]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on_rows(self, rows: Iterable[Row]) -> None:
        """Take what concerns the roll-out. In the ledger's thread."""
        found = outcomes_of(rows, self.unit)
        if not found:
            return
        with self.lock:
            for name, outcome in found:
                self.guard.seen(outcome)
                self.arms[name] = (outcome.candidate, outcome.unit)
            while len(self.arms) > _RATEABLE:
                self.arms.popitem(last=False)

    def rated(self, request_id: str, bad: bool) -> None:
        """Somebody rates an answer. A second bad word on the same one counts for nothing."""
        with self.lock:
            found = self.arms.get(request_id)
            if found is not None and bad:
                del self.arms[request_id]
                self.guard.rated_bad(candidate=found[0], unit=found[1])

    def verdict(self) -> tuple[Verdict, int, int]:
        """What the guard says, and how many requests of the active policy and the candidate it says it from."""
        with self.lock:
            return self.guard.verdict(), self.guard.active.requests, self.guard.candidate.requests

    def begin(self, share: float) -> None:
        """A step begins."""
        with self.lock:
            self.guard.begin(share)

    def dump(self) -> dict[str, Any]:
        """The guard's evidence as plain values."""
        with self.lock:
            return self.guard.dump()


@dataclass(slots=True)
class Rollout:
    """One roll-out under way. `at`: its step, and since when; `since_s`: of the first; `said`: why it stays where it
    is."""

    version: str
    plan: Plan
    unit: Unit
    salt: str
    note: str
    since_s: float
    at: At
    watch: Watch
    said: str = ""
    saved_tick: float = float("-inf")

    @property
    def share(self) -> float:
        """Of units that are the candidate's."""
        return self.plan.steps[self.at.step]

    def kept(self) -> dict[str, Any]:
        """As plain values, to go on from after a restart."""
        return {
            "version": self.version, "steps": list(self.plan.steps), "hold_s": self.plan.hold_s,
            "min_requests": self.plan.min_requests, "unit": self.unit, "salt": self.salt, "note": self.note,
            "since_s": self.since_s, "step": self.at.step, "step_since_s": self.at.since_s, "guard": self.watch.dump(),
        }  # fmt: skip


class Rollouts:
    """Everything that may become of policies. `standing`: what is in force; `going`: the roll-out under way."""

    def __init__(self, lanes: Lanes, book: Book, standing: Standing, gate: Gate | None = None) -> None:
        self.lanes = lanes
        self.book = book
        self.standing = standing
        self.going: Rollout | None = None
        self.rollbacks = self.promotions = 0
        self.hindered: Callable[[], str] | None = None  # why nothing may be rolled out in steps now
        self._gate = gate
        self._scribe = Scribe(book, lanes.state.tasks)
        self._known: OrderedDict[str, Config] = OrderedDict()  # policies that were active in this process
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # -- what an operator asks

    async def promote(
        self, config: Config, *, note: str = "", now: bool, plan: Plan, unit: Unit, suite: str = ""
    ) -> None:
        """Let another policy come to all traffic, in steps or at once; the rest of `config` is the active one's.

        Raises ClientFault: it is active already, another roll-out is under way, or a gate blocks it (code `gate`).
        """
        base = self.lanes.active.config
        config = await asyncio.to_thread(pinned, config)
        version = policy_version(config)
        going = self.going
        if going is not None and going.version != version:
            said = f"{going.version} is being rolled out: roll it back first, or finish it with --now"
            raise ClientFault(said, status=409, code="rollout_under_way")
        if going is None:
            self._is_another(version)
        if going is not None and not now:
            raise ClientFault(f"{version} is being rolled out already", status=409, code="rollout_under_way")
        if not now and self.hindered is not None and (why := self.hindered()):
            raise ClientFault(f"{why}: stop it first, or promote with --now", status=409, code="experiment_under_way")
        await self._pass_gates(config, suite)
        async with self._lock:
            self._unchanged(going)
            self._is_another(version)
            if self.lanes.active.config is not base:  # read again while gates ran, which take minutes
                config = with_policy_of(self.lanes.active.config, config)
            if now or plan.steps[0] == 1.0:
                await self._take(config, "promoted", note)
            elif self.lanes.state.ledger is None:
                said = "a roll-out is watched by the ledger's rows, and ledger.enabled is false: promote with --now"
                raise ClientFault(said, status=409, code="needs_ledger")
            else:
                await self._begin(config, plan, unit, note)
            if note:  # the version may be an old one
                self._scribe.noted(version, note)
        await self._scribe.written(_WRITTEN_WITHIN_S)

    async def roll_back(self, version: str = "", why: str = "") -> str:
        """To the active policy alone where one is being rolled out, else to the one before, or to `version`: which
        answers now. Raises ClientFault where there is none before."""
        async with self._lock:
            target = await self._back(version, why)
        await self._scribe.written(_WRITTEN_WITHIN_S)
        return target

    async def _back(self, version: str, why: str) -> str:
        if self.going is not None and version in ("", self.standing.active):
            self._drop(self.going, why or "an operator asked", "candidate rolled back")
            return self.standing.active
        target = version or next(iter(self.standing.before[::-1]), "")
        if not target:
            raise ClientFault("there is no version before this one", status=409, code="nothing_before")
        self._is_another(target)
        known = self._known.get(target)
        config = await self.config_of(target) if known is None else with_policy_of(self.lanes.active.config, known)
        await self._take(config, "rolled back to", why, back=target in self.standing.before)
        return target

    async def config_of(self, version: str) -> Config:
        """The active configuration with another policy. Raises ClientFault: there is none of that name, or it is no
        longer valid here."""
        stored = await asyncio.to_thread(self.book.find, version)
        if stored is None:
            raise ClientFault(f"there is no policy version {version}", status=404, code="unknown_version")
        return with_sections(self.lanes.active.config, stored.given)

    async def reload(self, config: Config) -> None:
        """Take a changed configuration. A changed policy in it answers at once and ends a roll-out; an unchanged one
        leaves the active policy and the roll-out as they are."""
        declared = policy_version(unpinned(config))
        while True:
            base, read = self.lanes.active.config, await asyncio.to_thread(pinned, config)
            async with self._lock:
                if self.lanes.active.config is base:  # else another student may be active than the one that was read
                    await self._reload(declared, read)
                    break
        await self._scribe.written(_WRITTEN_WITHIN_S)

    async def _reload(self, declared: str, config: Config) -> None:
        version = policy_version(config)
        why = self.standing.changed(declared, version)
        if version != self.standing.file:
            self._scribe.keep(config, self._now_s(), "from the file")
        self.standing.file, self.standing.declared = version, declared
        if why:
            if self.going is not None:
                self._drop(self.going, "the configuration file has another policy", "candidate dropped")
            if version != self.standing.active:
                await self._take(config, "reloaded", why)
                return
        lane = await self.lanes.build(with_policy_of(config, self.lanes.active.config))
        going, candidate = self.going, self.lanes.candidate
        if going is None or candidate is None:
            self.lanes.take(lane)
        else:
            beside = await self.lanes.build(with_policy_of(config, candidate.config), beside=lane)
            self.lanes.take(lane)
            self.lanes.open(beside, self._split(going))
        if self.standing.active != version:
            log.warning("another policy than the file's is active", active=self.standing.active, file=version)
        self._save()

    async def take_student(self, name: str, hash: str, why: str) -> str:
        """Let another student of that name answer in the active policy, which is another version by that. Returns why
        it has to wait; '' where it is done."""
        async with self._lock:
            if self.going is not None:
                return "a policy is being rolled out"
            if self.hindered is not None and (hindered := self.hindered()):
                return hindered
            config = with_student(self.lanes.active.config, name, hash)
            of_file = self.standing.active == self.standing.file
            await self._take(config, "a student was retrained", why)
            if of_file:
                self.standing.file = self.standing.active
                self._save()
        await self._scribe.written(_WRITTEN_WITHIN_S)
        return ""

    async def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on with a roll-out after a restart; one that can't go on is dropped, as an incident."""
        version = str(kept.get("version", ""))
        try:
            plan = Plan(tuple(kept["steps"]), float(kept["hold_s"]), int(kept["min_requests"]))
            candidate = await self.lanes.build(await self.config_of(version), beside=self.lanes.active)
            version = policy_version(candidate.config)  # other defaults of a newer farthing make it another one
            at = At(int(kept["step"]), float(kept["step_since_s"]))
            going = Rollout(version, plan, kept["unit"], kept["salt"], kept["note"], float(kept["since_s"]), at,
                            self._watch(plan, kept["unit"], plan.steps[at.step]))  # fmt: skip
            if kept["guard"] is not None:
                going.watch.guard.load(kept["guard"])
            self._open(going, candidate)
        except (FarthingError, ValueError, KeyError, TypeError, IndexError) as error:
            self.standing.rollout = None
            self._incident(
                "rollout_lost", f"the roll-out of {version} ended", str(error) or type(error).__name__, version
            )

    async def close(self) -> None:
        """Look no more, and write what is known."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._save()
        await self._scribe.written(_WRITTEN_WITHIN_S)

    # -- what becomes of it

    async def _pass_gates(self, config: Config, suite: str) -> None:
        for one in dict.fromkeys(name for name in (self.lanes.active.config.rollout.gate, suite) if name):
            if self._gate is None:
                raise ClientFault(f"the gate {one} can't be run by this farthing", status=409, code="gate")
            blocked = await self._gate(config, one)
            if blocked:
                raise ClientFault(f"{one}: {blocked}", status=409, code="gate")

    def _unchanged(self, going: Rollout | None) -> None:
        if self.going is not going:
            raise ClientFault("the policy was changed meanwhile", status=409, code="rollout_under_way")

    def _is_another(self, version: str) -> None:
        if version == self.standing.active:
            raise ClientFault(f"{version} is active already", status=409, code="active_already")

    async def _begin(self, config: Config, plan: Plan, unit: Unit, note: str) -> None:
        now_s = self._now_s()
        version = policy_version(config)
        candidate = await self.lanes.build(config, beside=self.lanes.active)
        watch = self._watch(plan, unit, plan.steps[0])
        self._open(Rollout(version, plan, unit, f"{version} {now_s:.3f}", note, now_s, At(0, now_s), watch), candidate)
        self._scribe.keep(config, now_s, note)
        self._write("roll-out begun", version, self.standing.active, note)
        log.info("policy is rolled out", version=version, share=plan.steps[0])

    def _watch(self, plan: Plan, unit: Unit, share: float) -> Watch:
        guard = Guard(self.lanes.active.config.rollout.bounds, plan.guarded)
        guard.begin(share)
        return Watch(guard, unit)

    def _open(self, going: Rollout, candidate: Services) -> None:
        self.going = going
        self.lanes.open(candidate, self._split(going))
        self.lanes.state.listeners.append(going.watch.on_rows)
        self.lanes.state.rated = going.watch.rated
        self._later()

    def _split(self, going: Rollout) -> Split:
        book = HeaderBook(products=self.lanes.active.config.compat.aliases)
        return Split(going.salt, going.unit, going.share, self.lanes.state.randomness, book)

    def _end(self) -> None:
        """No roll-out any more; the lanes are the caller's."""
        if self.going is not None:
            self.lanes.state.listeners.remove(self.going.watch.on_rows)
            self.lanes.state.rated = None
        self.going = self.standing.rollout = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _take(self, config: Config, what: str, why: str, *, back: bool = False) -> None:
        """Another policy answers, alone."""
        lane = await self.lanes.build(config)
        before, version = self.standing.active, policy_version(config)
        self._end()
        self._known[before] = self.lanes.active.config
        self._known.move_to_end(before)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        self.lanes.take(lane)
        self.standing.take(version, self._now_s(), why, back=back)
        self.promotions += not back
        self.rollbacks += back
        self._scribe.keep(config, self._now_s(), why)
        self._write(what, version, before, why)
        log.info("policy is active", version=version, before=before, what=what)

    def _drop(self, going: Rollout, why: str, what: str) -> None:
        """The candidate answers no more."""
        self._end()
        self.lanes.close()
        self.rollbacks += 1
        log.warning("roll-out ended", version=going.version, share=going.share, why=why)
        self._write(what, going.version, self.standing.active, why)

    # -- the guard

    def _later(self, wait_s: float = _LOOK_EVERY_S) -> None:
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self.lanes.state.tasks.spawn(self._look(), "roll-out")

    async def _look(self) -> None:
        """Ask the guard, and do what it says. Whatever fails, it is asked again: no candidate is left unwatched."""
        wait_s = _LOOK_EVERY_S
        try:
            await self._ask_guard()
        except Exception as error:
            wait_s = _LOOK_AGAIN_S
            log.error("a roll-out could not be looked at", error=type(error).__name__, exc_info=error)
        if self.going is not None:
            self._later(wait_s)

    async def _ask_guard(self) -> None:
        async with self._lock:
            going = self.going
            if going is None:
                return
            verdict, _, requests = going.watch.verdict()
            move, going.said = next_move(going.plan, going.at, self._now_s(), verdict, requests)
            if move is Move.BACK:
                self._send_back(going, verdict)
            elif move is Move.FINISH:
                await self._finish(going)
            elif move is Move.STEP:
                self._step(going)
        if self.going is not None and self.lanes.state.clock.tick_s() - self.going.saved_tick >= _SAVE_EVERY_S:
            self.going.saved_tick = self.lanes.state.clock.tick_s()
            self._save()

    def _send_back(self, going: Rollout, verdict: Verdict) -> None:
        told = {one.metric: reading(one) for one in verdict.readings}
        evidence = {"share": going.share, "metrics": told}
        what = f"the roll-out of {going.version} was rolled back at {going.share:.0%}"
        self._incident("rollback", what, verdict.reason, going.version, evidence)
        self._drop(going, verdict.reason, "candidate rolled back by the guard")

    async def _finish(self, going: Rollout) -> None:
        candidate = self.lanes.candidate
        assert candidate is not None
        try:
            await self._take(candidate.config, "roll-out finished", going.note)
        except Exception as error:
            if self.going is not going:
                raise
            why = str(error) or type(error).__name__
            log.error("a candidate can't be built any more", version=going.version, exc_info=error)
            self._incident("rollback", f"{going.version} can't be built any more", why, going.version)
            self._drop(going, why, "candidate rolled back")

    def _step(self, going: Rollout) -> None:
        going.at = At(going.at.step + 1, self._now_s())
        going.watch.begin(going.share)
        self.lanes.split = self._split(going)
        log.info("policy is rolled out", version=going.version, share=going.share)
        self._write(f"step to {going.share:.0%}", going.version, self.standing.active, "")

    # -- books

    def _now_s(self) -> float:
        return self.lanes.state.clock.now_s()

    def _write(self, what: str, version: str, before: str, why: str) -> None:
        if self.lanes.state.crew is not None:  # a disk that is full or slow keeps it from no other worker
            self.lanes.state.crew.peers.tell(TOLD, told_to_others(self._as_it_is()))
        self._scribe.note(self._now_s(), what, version, before, why)
        self._save()

    def _save(self) -> None:
        self._scribe.save(self._as_it_is())

    def _as_it_is(self) -> Standing:
        self.standing.rollout = None if self.going is None else self.going.kept()
        self.standing.saved_s = max(self._now_s(), self.standing.saved_s + 0.001)
        return self.standing

    def _incident(self, kind: str, what: str, why: str, policy: str, evidence: Mapping[str, Any] | None = None) -> None:
        self.lanes.state.incidents.note(kind, what, why, evidence, policy=policy)


def told_to_others(standing: Standing) -> dict[str, Any]:
    """What is in force as plain values, without the guard's evidence, which is the keeper's."""
    rollout = None if standing.rollout is None else standing.rollout | {"guard": None}
    return asdict(replace(standing, rollout=rollout))


def reading(one: Reading) -> dict[str, float | None]:
    """A reading as plain values."""
    return {"active": one.active, "candidate": one.candidate, "evidence": round(one.evidence, 4)}
