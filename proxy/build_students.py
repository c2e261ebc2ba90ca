"""The students that a configuration names, ready to answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog

from farthing.cache.embedder import Embedder, MiniLmOnnx, open_embedder
from farthing.cache.semantic_thread import SemanticThread
from farthing.policies.student import Student, Unfit
from farthing.proxy import student_files
from farthing.proxy.config import Config
from farthing.proxy.held import State
from farthing.proxy.students import Embeds, Known, Students

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MODEL", "hashes", "open_students"]

log = structlog.get_logger("farthing.student")

MODEL = "minilm-int8"
"""The embedder that students are trained on."""

_QUEUE = 64


class Shared:
    """The semantic cache's embedder, on its thread."""

    def __init__(self, thread: SemanticThread, name: str) -> None:
        self._thread = thread
        self.name = name

    async def __call__(self, text: str) -> NDArray[np.float32]:
        """See Embeds."""
        if not self._thread.ready:
            raise RuntimeError("busy or not loaded yet")
        vectors = await self._thread.run(lambda cache: cache.embed([text]))
        vector: NDArray[np.float32] = vectors[0]
        return vector


class Own:
    """An embedder of its own, on a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._executor = ThreadPoolExecutor(1, "student")
        self._embedder: Embedder | None = None
        self._pending = 0

    async def open(self) -> None:
        """Load the model; it may be asked once that is done. Raises EmbedderUnavailable."""
        self._embedder = await asyncio.get_running_loop().run_in_executor(self._executor, open_embedder, MODEL)

    async def __call__(self, text: str) -> NDArray[np.float32]:
        """See Embeds."""
        embedder = self._embedder
        if embedder is None or self._pending >= _QUEUE:
            raise RuntimeError("busy or not loaded yet")
        self._pending += 1
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._executor, embedder.embed, [text])
        finally:
            self._pending -= 1
        vector: NDArray[np.float32] = vectors[0]
        return vector

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)


def found(config: Config) -> dict[str, Student]:
    """The students that variants name, by what these call them, as far as they are there; others are told of in the
    log. Blocks."""
    students = {}
    for variant in config.variants:
        if not variant.student or variant.student in students:
            continue
        try:
            student = student_files.load(config.state_dir, variant.student)
        except Unfit as error:
            log.error("a student can't be used: its teacher answers", student=variant.student, error=str(error))
            continue
        if student is not None and student.embedder != MiniLmOnnx.name:
            log.error("a student was taught on another embedder: its teacher answers", student=variant.student)
        elif student is None:
            hint = f"farthing distill train --name {variant.student_name}"
            log.warning("a student isn't there: its teacher answers", student=variant.student, hint=hint)
        else:
            students[variant.student] = student
    return students


def hashes(students: dict[str, Student]) -> dict[str, str]:
    """What tells students of one name apart."""
    return {name: student.hash for name, student in students.items()}


async def open_students(
    config: Config,
    held: State,
    students: dict[str, Student],
    thread: SemanticThread | None,
    stack: AsyncExitStack,
) -> Students | None:
    """What answers for them; None where there are none. What is known of the same ones is kept."""
    if not students:
        return None
    known = {}
    for variant in config.variants:
        if student := students.get(variant.student):
            if student.hash not in held.students:
                standing = await asyncio.to_thread(student_files.standing_of, config.state_dir, student)
                held.students[student.hash] = Known(student, standing)
            known[variant.name] = held.students[student.hash]
    embeds: Embeds
    if thread is not None and config.semantic.model == MODEL:
        embeds = Shared(thread, MODEL)
    elif held.embeds is not None:
        embeds = held.embeds  # loaded once, whatever becomes of the configuration
    else:
        held.embeds = embeds = own = Own(MODEL)
        stack.push_async_callback(own.close)
        held.tasks.spawn(own.open(), "load the students' model")
    opened = Students(
        known=known,
        embeds=embeds,
        tokenizer=held.tokenizer,
        barred=held.barred,
        clock=held.clock,
        randomness=held.randomness,
        spawn=lambda coro: held.tasks.spawn(coro, "student"),
        state_dir=config.state_dir,
        audit_share=config.distill.audit_share,
        teach_share=config.distill.teach_share,
        deadline_s=config.distill.deadline_ms / 1000,
        note=partial(held.incidents.note, "observe"),
        vouched=held.vouched,
        all=held.students,
        crew=held.crew,
        heirs=held.heirs,
    )
    stack.push_async_callback(opened.close)
    return opened
