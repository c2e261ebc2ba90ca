"""What the supervisor passes between workers: who asks, who is asked, what they answer; and what the dead had counted.

Each worker has one socket to the hub and says JSON lines over it:
    {"ready": true}                                it answers requests
    {"tell": WHAT, "about": VALUE, "to": "keeper" | "others"}
                                                   nobody answers
    {"leaving": true}                              the keeper goes: what it is told is the next one's; hears {"left"}
    {"ask": WHAT, "about": VALUE, "to": "keeper" | "others", "id": N, "within_s": S}
    {"answer": VALUE, "id": M}                     to what it was asked
    {"counted": FAMILIES}                          what it has counted (metrics_merge.py); or in a question, which then
                                                   asks for the others' too
and hears {"tell", "about"}, {"ask", "about", "id": M} and {"answers": [{"slot", "answer"}], "id": N, "missing": how
many didn't answer; and where that was asked for "counted": [{"slot", "counted"}], "dead": FAMILIES}.

Rules of this file:
1. The hub knows nothing of what is asked, but for counters: it keeps each worker's last ones, and adds those of one
   that has ended to what the dead had, so that totals never fall.
2. Nobody waits longer than the asker said: who hasn't answered by then is left out.
3. The order of what one worker says to another is kept.
4. What is told to the keeper while there is none waits for the next one, `MOST_HELD` of it; then the oldest goes.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from farthing.proxy.metrics_merge import Families, added
from farthing.proxy.tasks import TaskGroup

__all__ = ["LONGEST_LINE", "MOST_HELD", "Hub", "Line"]

log = structlog.get_logger("farthing.workers")

LONGEST_LINE = 64 * 2**20
MOST_HELD = 20_000


@dataclass(slots=True, eq=False)
class Line:
    """One worker's. `ready`: it answers requests; `leaving`: what the keeper is told is no more told to it;
    `ended`: nothing more comes."""

    slot: int
    writer: asyncio.StreamWriter
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    counted: Families = field(default_factory=dict)
    leaving: bool = False
    ended: bool = False

    def say(self, what: dict[str, Any]) -> None:
        """Send it; one that is gone hears nothing."""
        if not self.ended:
            with suppress(OSError, RuntimeError):
                self.writer.write(json.dumps(what).encode() + b"\n")


@dataclass(slots=True)
class _Question:
    asker: Line
    id: int
    waits_for: set[Line]
    counts: bool
    answers: list[dict[str, Any]] = field(default_factory=list)


class Hub:
    """See the module. `keeper`: the slot whose worker is asked what only one may decide."""

    def __init__(self, tasks: TaskGroup, keeper: int = 0) -> None:
        self._tasks = tasks
        self._keeper = keeper
        self._lines: list[Line] = []
        self._questions: dict[int, _Question] = {}
        self._next = 0
        self._held: deque[dict[str, Any]] = deque(maxlen=MOST_HELD)
        self.dead: Families = {}

    def listen(self, slot: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Line:
        """Take a worker in."""
        line = Line(slot, writer)
        self._lines.append(line)
        self._tasks.spawn(self._heard(line, reader), f"worker {slot}")
        return line

    async def _heard(self, line: Line, reader: asyncio.StreamReader) -> None:
        try:
            while text := await reader.readline():
                self._one(line, json.loads(text))
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # it was killed in the middle of a line, or isn't one of ours
        finally:
            self._lost(line)

    def _one(self, line: Line, said: dict[str, Any]) -> None:
        if "counted" in said:
            line.counted = said["counted"]
        if "ready" in said:
            line.ready.set()
            if line.slot == self._keeper:
                self._give_held(line)
        elif "leaving" in said:
            line.leaving = True
            line.say({"left": True})
        elif "tell" in said:
            self._tell(line, said)
        elif "ask" in said:
            self._ask(line, said)
        elif "answer" in said:
            self._answer(line, said)

    def _tell(self, line: Line, said: dict[str, Any]) -> None:
        if said["to"] == "others":
            for other in self._others(line):
                other.say(said)
            return
        keepers = [other for other in self._keepers(line) if not other.leaving]
        if keepers:
            keepers[-1].say(said)
            return
        if len(self._held) == MOST_HELD - 1:
            log.warning("the keeper is away for long: the oldest of what it is told is lost", most=MOST_HELD)
        self._held.append(said)

    def _give_held(self, keeper: Line) -> None:
        while self._held:
            keeper.say(self._held.popleft())

    def _ask(self, line: Line, said: dict[str, Any]) -> None:
        asked: Sequence[Line] = self._others(line)
        if said["to"] == "keeper":
            asked = self._keepers(line)[-1:]
        self._next += 1
        self._questions[self._next] = _Question(line, said["id"], set(asked), "counted" in said)
        for other in asked:
            other.say({"ask": said["ask"], "about": said["about"], "id": self._next})
        asyncio.get_running_loop().call_later(said["within_s"], self._end, self._next)
        if not asked:
            self._end(self._next)

    def _answer(self, line: Line, said: dict[str, Any]) -> None:
        question = self._questions.get(said["id"])
        if question is None or line not in question.waits_for:
            return
        question.waits_for.discard(line)
        question.answers.append({"slot": line.slot, "answer": said["answer"]})
        if not question.waits_for:
            self._end(said["id"])

    def _end(self, id: int) -> None:
        question = self._questions.pop(id, None)
        if question is None:
            return
        said = {"answers": question.answers, "id": question.id, "missing": len(question.waits_for)}
        if question.counts:
            others = [one for one in self._lines if one is not question.asker and one.counted]
            said |= {"dead": self.dead, "counted": [{"slot": one.slot, "counted": one.counted} for one in others]}
        question.asker.say(said)

    def _others(self, line: Line) -> list[Line]:
        return [other for other in self._lines if other is not line and other.ready.is_set() and not other.ended]

    def _keepers(self, line: Line) -> list[Line]:
        """The newest last: while one follows another there may be two for a moment."""
        return [other for other in self._others(line) if other.slot == self._keeper]

    def _lost(self, line: Line) -> None:
        line.ended = True
        line.ready.set()  # whoever waits for it looks again
        self._lines.remove(line)
        self.dead = added([self.dead, line.counted], counters=True)
        line.writer.close()
        for id, question in list(self._questions.items()):
            if line in question.waits_for:
                question.waits_for.discard(line)
                if not question.waits_for:
                    self._end(id)
