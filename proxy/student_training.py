"""Trains students anew while the proxy runs, and lets one answer that has proved itself beside the one before.

The training is `farthing distill retrain` in a process of its own: at the lowest priority, for a bounded time, on what
was captured. What it leaves is an heir (student_files.py), which is compared with the teacher on live requests as the
one that answers is (students.py), and takes its place once its own bound is proved: by a new version of the policy,
without a restart. STATE/students/training.jsonl has one line for each try.

Rules of this file: until the new one has proved itself the old one stays as it was, and whatever fails leaves it so;
a failure that repeats itself is told once.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from farthing.policies.student_due import due
from farthing.proxy.config import Config
from farthing.proxy.errors import FarthingError
from farthing.proxy.gating import child_of
from farthing.proxy.held import State
from farthing.proxy.incidents import append, tail
from farthing.proxy.rollouts import Rollouts

if TYPE_CHECKING:
    from farthing.proxy.students import Known

__all__ = ["StudentTraining"]

TICK_S = 20.0
_SAID_CHARS = 400

log = structlog.get_logger("farthing.student")


@dataclass(slots=True)
class StudentTraining:
    """`latest`: each student's latest try, {"ts", "student", "why", "result", "said", "turn", "took_s"}; `result`:
    'heir', 'not better' or 'failed'; `turn`: the fall that was answered last. `running`: whose training is under way.
    `waits`: why an heir that has proved itself doesn't answer yet."""

    policies: Rollouts
    held: State
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: str = ""
    waits: dict[str, str] = field(default_factory=dict)

    async def watch(self) -> None:
        """For as long as the proxy runs."""
        await self.open()
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Exception as error:  # whatever it is, the students that answer go on, and the next try may do
                log.exception("training anew failed", error=type(error).__name__)

    async def open(self) -> None:
        """Take up what was under way."""
        for line in await asyncio.to_thread(tail, self._file, frozenset(("ts", "student", "result", "said", "turn"))):
            self.latest[line["student"]] = line
        for name in self._named():
            await self._take_up(name)

    async def tick(self) -> None:
        """Let heirs answer that have proved themselves, and train whoever is due."""
        proved = set()
        for name, (known, made_s) in self._named().items():
            heir = self.held.heirs.get(name)
            if heir is None:
                continue
            if made_of(heir) < made_s:  # an operator has trained another one since
                del self.held.heirs[name]
                from farthing.proxy import student_files

                await asyncio.to_thread(student_files.drop_heir, self._config.state_dir, name)
            elif heir.standing.serves or heir.student.template != known.student.template:
                proved.add(name)
                await self._hand_over(name, known, heir)
        config = self._config
        for name, (known, made_s) in self._named().items():
            if name in proved:  # it may still wait, and must not be trained away
                continue
            heir = self.held.heirs.get(name)
            last = self.latest.get(name)
            tried_s, turn = (float("-inf"), 0) if last is None else (last["ts"], last["turn"])
            newest_s = made_s if heir is None else made_of(heir)
            why = due(
                self.held.clock.now_s(), newest_s, tried_s, fell_back=known.standing.turn > turn,
                every_s=config.distill.retrain_days * 86_400, least_s=config.distill.retrain_least_hours * 3600,
            )  # fmt: skip
            if why and config.capture.enabled:
                await self._train(config, name, known, why, turn)

    @property
    def _config(self) -> Config:
        return self.policies.lanes.active.config

    @property
    def _file(self) -> Any:
        return self._config.state_dir / "students" / "training.jsonl"

    def _named(self) -> dict[str, tuple[Known, float]]:
        """The students that answer or might, by name, and when they were trained."""
        students = self.policies.lanes.active.students
        if students is None:
            return {}
        return {known.student.name: (known, made_of(known)) for known in students.known.values()}

    async def _take_up(self, name: str) -> None:
        from farthing.policies.student import Unfit
        from farthing.proxy import student_files
        from farthing.proxy.students import Known

        try:
            heir = await asyncio.to_thread(student_files.heir_of, self._config.state_dir, name)
        except Unfit as error:
            log.warning("a student's heir can't be read", student=name, error=str(error))
            return
        if heir is not None:
            standing = await asyncio.to_thread(student_files.standing_of, self._config.state_dir, heir)
            self.held.heirs[name] = Known(heir, standing)

    async def _hand_over(self, name: str, known: Known, heir: Known) -> None:
        """The heir answers from now on; or why it has to wait."""
        seen = heir.standing.evidence
        why = (
            f"its own bound is proved on {seen.seen:.0f} live requests, of which it answered {seen.bad:.0f} differently"
            if heir.standing.serves
            else "requests have another template than the one before was taught by"
        )
        self.held.students[heir.student.hash] = heir  # with all that is known of it
        heir.did.clear()  # which counts for the one that answers
        try:
            waits = await self.policies.take_student(name, heir.student.hash, why)
            if not waits:
                from farthing.proxy import student_files

                await asyncio.to_thread(student_files.take_heir, self._config.state_dir, heir.student)
        except FarthingError as error:
            waits = str(error)
        if waits:
            if self.waits.get(name) != waits:
                log.warning("a student that was trained anew waits", student=name, why=waits)
            self.waits[name] = waits
            return
        self.waits.pop(name, None)
        del self.held.heirs[name]
        self.held.incidents.note(
            "student", f"student {name} was trained anew and answers", why,
            {"before": known.student.hash, "hash": heir.student.hash, "compared": seen.seen, "differed": seen.bad,
             "beside": heir.student.about.get("beside", "")},
            policy=self.policies.standing.active, alert=False,
        )  # fmt: skip

    async def _train(self, config: Config, name: str, known: Known, why: str, turn: int) -> None:
        """`turn`: the fall that was answered last. One is answered by an heir alone: what was captured before a teacher
        changed contradicts what came after, so the first tries may come to nothing."""
        begun_s, self.running = self.held.clock.now_s(), name
        log.info("a student is trained anew", student=name, why=why)
        try:
            result, said = await self._child(config, name)
        finally:
            self.running = ""
        if result == "heir":
            await self._take_up(name)
        if result == "failed":
            self._failed(name, said)
        turn = known.standing.turn if result == "heir" else turn
        line = {
            "ts": begun_s, "student": name, "why": why, "result": result, "said": said, "turn": turn,
            "took_s": self.held.clock.now_s() - begun_s,
        }  # fmt: skip
        self.latest[name] = line
        log.info("training anew has ended", student=name, result=result, said=said)
        try:
            await asyncio.to_thread(append, self._file, orjson.dumps(line) + b"\n")
        except OSError as error:
            log.error("a training can't be written down", error=error.strerror)

    def _failed(self, name: str, said: str) -> None:
        last = self.latest.get(name)
        if last is None or last["result"] != "failed" or last["said"] != said:
            what = f"student {name} could not be trained anew; the one before goes on"
            self.held.incidents.note("student", what, said, {"student": name})

    async def _child(self, config: Config, name: str) -> tuple[str, str]:
        command = [sys.executable, "-m", "farthing.proxy.cli", "distill", "retrain", name]
        command += ["--config", "-", "--background", "--json"]
        try:
            status, out, why = await child_of(command, config, config.distill.retrain_timeout_s)
        except TimeoutError:
            return "failed", f"it took longer than {config.distill.retrain_timeout_s:g} s"
        if status not in (0, 1):
            return "failed", why
        try:
            told = orjson.loads(out)
            return "heir" if told["hash"] else "not better", str(told["why"])[:_SAID_CHARS]
        except (ValueError, KeyError, TypeError):
            return "failed", "its answer can't be read"


def made_of(known: Known) -> float:
    """When it was trained, in seconds since the epoch; 0 where that isn't known."""
    return float(known.student.about.get("made_s", 0.0))
