"""A worker's line to the others, through the supervisor's hub (hub.py says what is said over it)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import structlog

from farthing.proxy.hub import LONGEST_LINE
from farthing.proxy.metrics_merge import Families
from farthing.proxy.tasks import TaskGroup

__all__ = ["Answers", "Peers"]

log = structlog.get_logger("farthing.workers")


_LEAVES_WITHIN_S = 1.0


class Answers(NamedTuple):
    """What the others said: slot and value of each. `missing`: how many didn't in time. `counted`: by slot, what each
    other one last said that it counted, and `dead` what those had counted that have ended; where that was asked for."""

    values: Sequence[tuple[int, Any]]
    missing: int = 0
    counted: Sequence[tuple[int, Families]] = ()
    dead: Families | None = None


class Peers:
    """`on_lost`: called when the supervisor has gone. Belongs to the event loop."""

    def __init__(self, tasks: TaskGroup, on_lost: Callable[[], None]) -> None:
        self._tasks = tasks
        self._on_lost = on_lost
        self._writer: asyncio.StreamWriter | None = None
        self._told: dict[str, Callable[[Any], None]] = {}
        self._asked: dict[str, Callable[[Any], Awaitable[Any]]] = {}
        self._waiting: dict[int, asyncio.Future[Answers]] = {}
        self._left = asyncio.Event()
        self._next = 0

    async def open(self, line: socket.socket) -> None:
        """Begin to listen. Raises OSError."""
        reader, self._writer = await asyncio.open_unix_connection(sock=line, limit=LONGEST_LINE)
        self._tasks.spawn(self._hear(reader), "hear the others")

    async def close(self) -> None:
        """Say no more, once all is said; idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    def when_told(self, what: str, do: Callable[[Any], None]) -> None:
        """Call `do` with what another one tells."""
        self._told[what] = do

    def when_asked(self, what: str, answer: Callable[[Any], Awaitable[Any]]) -> None:
        """Answer what another one asks. A fault is nobody's answer: the asker has its deadline."""
        self._asked[what] = answer

    def ready(self) -> None:
        """Requests are answered here from now on."""
        self._say({"ready": True})

    def counted(self, families: Families) -> None:
        """What is counted here, in case this process dies."""
        self._say({"counted": families})

    def tell(self, what: str, about: Any, *, to: Literal["keeper", "others"] = "others") -> None:
        """Tell all others, or the keeper, whom it reaches also where there is none just now; never waits."""
        self._say({"tell": what, "about": about, "to": to})

    async def leave(self) -> None:
        """The keeper goes: what it is told from now on is the next one's. All that was told before has been heard when
        this returns."""
        self._say({"leaving": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVES_WITHIN_S):
                await self._left.wait()

    async def ask(
        self,
        what: str,
        about: Any,
        *,
        to: Literal["keeper", "others"],
        within_s: float,
        counted: Families | None = None,
    ) -> Answers:
        """Ask, and wait for all who are asked, but no longer than that. `counted`: what is counted here;
        said along, it asks for what the others have counted."""
        self._next += 1
        waits = self._waiting[self._next] = asyncio.get_running_loop().create_future()
        id = self._next
        question = {"ask": what, "about": about, "to": to, "id": id, "within_s": within_s}
        self._say(question | ({} if counted is None else {"counted": counted}))
        try:
            async with asyncio.timeout(within_s + 1.0):
                answers: Answers = await waits
                return answers
        except TimeoutError:
            return Answers([], missing=1)
        finally:
            self._waiting.pop(id, None)

    def _say(self, what: dict[str, Any]) -> None:
        if self._writer is not None:
            with suppress(OSError, RuntimeError):
                self._writer.write(json.dumps(what).encode() + b"\n")

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, ValueError):
            while text := await reader.readline():
                said = json.loads(text)
                if "answers" in said:
                    self._answered(said)
                elif "left" in said:
                    self._left.set()
                elif "ask" in said:
                    self._tasks.spawn(self._answer(said), "answer another worker")
                elif (do := self._told.get(said["tell"])) is not None:
                    try:
                        do(said["about"])
                    except Exception as error:
                        log.error("what another worker told could not be done", what=said["tell"], exc_info=error)
        if self._writer is not None:
            self._on_lost()

    def _answered(self, said: dict[str, Any]) -> None:
        waits = self._waiting.get(said["id"])
        if waits is not None and not waits.done():
            values = [(one["slot"], one["answer"]) for one in said["answers"]]
            counted = [(one["slot"], one["counted"]) for one in said.get("counted", ())]
            waits.set_result(Answers(values, said["missing"], counted, said.get("dead")))

    async def _answer(self, said: dict[str, Any]) -> None:
        answer = self._asked.get(said["ask"])
        if answer is not None:
            self._say({"answer": await answer(said["about"]), "id": said["id"]})
