"""Runs the code of an answer against its tests, where the operator has said that it may be run.

A process of its own in an empty folder, without this one's environment, with limits of time, memory, file size and
number of processes. That keeps an endless loop or a greedy list from doing harm. It is no sandbox: the code may read
what this user may read and use the network. Who judges code that strangers can shape runs farthing's evaluation in a
container without network and secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from farthing.policies.judge_code import Code, Program
from farthing.policies.judges import BAD, GOOD, JudgeCase, Score

__all__ = ["CodeLimits", "run_code"]

_UNLIMITED = 3
_CHILD = Path(__file__).with_name("judge_code_child.py")


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """Of one run. `seconds`: by the clock; processor time is limited to a second more, rounded up."""

    seconds: float = 10.0
    memory_bytes: int = 512 << 20


async def run_code(judge: Code, case: JudgeCase, limits: CodeLimits | None) -> Score:
    """1 where the answer's code passes its tests, 0 where it raises, doesn't end or passes a limit.

    `limits`: None where the operator hasn't allowed code to be run, and then the score is None. Effects: a process and
    a folder, both gone when it returns.
    """
    found = judge.program(case)
    if isinstance(found, Score) or not judge.runs:
        return judge.judge(case)
    if limits is None:
        return Score(None, "running code isn't allowed here")
    return await _run(found, limits)


async def _run(program: Program, limits: CodeLimits) -> Score:
    word = secrets.token_hex(16)
    told = orjson.dumps({"code": program.code, "tests": program.tests, "word": word})
    with tempfile.TemporaryDirectory(prefix="farthing-code-") as folder, _pipe() as (reads, writes):
        cpu_s = math.ceil(limits.seconds) + 1  # the clock comes first, so that it is said what happened
        sizes = (writes, cpu_s, limits.memory_bytes, _UNLIMITED)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(_CHILD), *map(str, sizes),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            cwd=folder, env={"HOME": folder, "TMPDIR": folder}, pass_fds=(writes,), start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(limits.seconds):
                await process.communicate(told)
        except TimeoutError:
            return Score(BAD, "did not end in time")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if _read(reads) == word.encode():
            return Score(GOOD, "passes its tests")
        if process.returncode == _UNLIMITED:
            return Score(None, "its limits can't be set on this machine")
        if process.returncode == 1:
            return Score(BAD, "fails its tests")
        return Score(BAD, "ended before its tests were through")


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Both ends; reading never waits."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    try:
        yield reads, writes
    finally:
        os.close(reads)
        os.close(writes)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 64)
    except BlockingIOError:
        return b""
