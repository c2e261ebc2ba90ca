"""The same job through two real proxies at once, one with a student and one without: what it costs, and how long.

The job is BANKING77's (bench/distill.py): a student is trained on the earlier messages, and the last ones, which
nothing was chosen on, are each asked of both proxies, of which one goes first in turn. Both stand before one upstream
that answers as the made-up teacher does, after `--teacher-ms`, with gpt-4o-mini's usage and price. The student serves
from the start, as if its bound had been proved on live requests already; shares of audits and teaching are the default.
Dollars are the ledger's, own calls (audits) included. Processor times are the proxies' own processes'; each may take
what the other leaves, so only their difference says something on a busy machine.

    python -m bench.distill_live ../shared/data [--teacher-ms 300] [--bound 0.02] [--messages 400]     (two minutes)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import httpx
import orjson
from aiohttp import web
from rich.console import Console
from rich.table import Table

from bench.distill import MODEL, gathered
from bench.machine import facts, place, settle
from bench.servers import Running, farthing, free_port
from farthing.cache.embedder import MiniLmOnnx
from farthing.policies.student import Student
from farthing.policies.student_standing import Standing
from farthing.proxy import student_files
from farthing.proxy.distill_rows import TeacherRow
from farthing.proxy.distill_train import Recipe, cases_of, train
from farthing.proxy.tokens import Tokenizer

AT_ONCE = 4
PLAIN, PUPIL = "without", "with a student"
ROUTED = {
    "VARIANTS": f'[{{name = "pupil", student = "s", kind = "distilled"}}, {{name = "large", model = "{MODEL}"}}]',
    "ROUTES": '[{name = "r", mode = "serve", strategy = "cascade", variants = ["pupil", "large"]}]',
}


@dataclass
class Arm:
    """What one proxy did. `ms`: of each answer; `differ`: from the teacher's."""

    running: Running
    ms: list[float] = field(default_factory=list)
    by_student: list[bool] = field(default_factory=list)
    differ: int = 0
    cpu_s: float = 0.0


@asynccontextmanager
async def teacher(answers: dict[str, str], wait_ms: float, usages: dict[str, int]) -> AsyncIterator[int]:
    """The upstream's port."""

    async def answer(request: web.Request) -> web.Response:
        text = orjson.loads(await request.read())["messages"][-1]["content"]
        await asyncio.sleep(wait_ms / 1000)
        message = {"role": "assistant", "content": answers.get(text, "none")}
        given = usages.get(text, 50)
        return web.json_response({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": given, "completion_tokens": 5, "total_tokens": given + 5},
        })  # fmt: skip

    app, port = web.Application(), free_port()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield port
    finally:
        await runner.cleanup()


def taught(given: argparse.Namespace) -> tuple[Student, list[TeacherRow]]:
    """The student, and the last messages."""
    cases = cases_of(gathered(given.data, given.noise).rows, {})
    made = train(cases, Recipe("s", bound=given.bound), MiniLmOnnx())
    if made.student is None:
        raise SystemExit(made.why)
    told = made.facts["parts"]["told"]
    return made.student, list(cases.rows[-min(given.messages, told) :])


async def ask(client: httpx.AsyncClient, arm: Arm, row: TeacherRow) -> None:
    began = time.perf_counter()
    answer = await client.post(arm.running.url, json=dict(row.body), headers={"Authorization": "Bearer sk-bench"})
    arm.ms.append(1000 * (time.perf_counter() - began))
    answer.raise_for_status()
    arm.by_student.append(answer.headers["x-farthing-model"].startswith("student/"))
    arm.differ += answer.json()["choices"][0]["message"]["content"] != row.answer


async def traffic(arms: dict[str, Arm], rows: list[TeacherRow]) -> None:
    """Each message to both proxies, `AT_ONCE` messages at a time."""
    waiting = list(enumerate(rows))

    async def work(client: httpx.AsyncClient) -> None:
        while waiting:
            number, row = waiting.pop(0)
            order = list(arms.values()) if number % 2 else list(arms.values())[::-1]
            for arm in order:
                await ask(client, arm, row)

    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        for arm in arms.values():
            for _ in range(20):  # the teacher has to have answered this client, and the model to be loaded
                await client.post(
                    arm.running.url, json=dict(rows[0].body), headers={"Authorization": "Bearer sk-bench"}
                )
                await asyncio.sleep(0.1)
            arm.cpu_s = -await asyncio.to_thread(settle, arm.running.pid)
        await asyncio.gather(*(work(client) for _ in range(AT_ONCE)))


def booked(state: Path, messages: int) -> dict[str, Any]:
    """Of the ledger's rows of the messages: dollars, and what became of the student."""
    with closing(sqlite3.connect(state / "ledger.db")) as conn:
        rows = conn.execute("select endpoint, cost_usd, overhead_usd, decisions from requests order by ts").fetchall()
    asked = [row for row in rows if row[0] == "chat"][-messages:]
    audits = [row[2] for row in rows if row[0] == "audit"]
    told = [one[1] for row in asked for one in json.loads(row[3]) if one[0] == "student"]
    return {
        "usd": sum(row[1] for row in asked) * 1e-12,
        "audits": len(audits),
        "audits_usd": sum(audits) * 1e-12,
        "told": {word: told.count(word) for word in sorted(set(told))},
    }


def shown(arms: dict[str, Arm], states: dict[str, Path], count: int, given: argparse.Namespace) -> None:
    console = Console(width=130)
    title = f"{count} messages, each to both; teacher {given.teacher_ms:.0f} ms (declared), bound {given.bound:.1%}"
    table = Table("", *arms, title=title)
    ledgers = {name: booked(states[name], count) for name in arms}
    lines: dict[str, list[str]] = {
        "answered by the student": [f"{fmean(arm.by_student):.1%}" for arm in arms.values()],
        "other than the teacher's answer": [f"{arm.differ} of {count}" for arm in arms.values()],
        "$ for 1,000 requests": [f"{1000 * one['usd'] / count:.4f}" for one in ledgers.values()],
        "the same with audits": [f"{1000 * (one['usd'] + one['audits_usd']) / count:.4f}" for one in ledgers.values()],
        "ms, mean": [f"{fmean(arm.ms):.0f}" for arm in arms.values()],
        "ms, p50": [f"{median(arm.ms):.0f}" for arm in arms.values()],
        "ms, p99": [f"{quantiles(arm.ms, n=100)[98]:.0f}" for arm in arms.values()],
        "processor ms a request": [f"{1000 * arm.cpu_s / count:.1f}" for arm in arms.values()],
    }
    for name, values in lines.items():
        table.add_row(name, *values)
    console.print(table)
    console.print(f"what became of the student: {ledgers[PUPIL]['told']}; {ledgers[PUPIL]['audits']} audits")


async def run(given: argparse.Namespace, folder: Path) -> None:
    here = place(folder)
    student, rows = taught(given)
    state = folder / "with-a-student.state"
    student_files.save(state, student)
    student_files.save_standing(state, student, replace(Standing(student.bound, student.level), serves=True))
    tokenizer = Tokenizer()
    said = {str(row.body["messages"][-1]["content"]): row for row in rows}
    usages = {text: tokenizer.count_request("chat", dict(row.body), MODEL) for text, row in said.items()}
    answers = {text: row.answer for text, row in said.items()}
    # So that nothing but the student differs; near-duplicates would be embedded by both.
    settings = {"SEMANTIC__MODE": "off", "CACHE__MODE": "off", "LOG__LEVEL": "error"}
    async with teacher(answers, given.teacher_ms, usages) as port:
        with ExitStack() as servers:
            arms = {
                name: Arm(await asyncio.to_thread(servers.enter_context, farthing(name, port, here, settings | more)))
                for name, more in ((PLAIN, {}), (PUPIL, ROUTED))
            }
            await traffic(arms, rows)
            for arm in arms.values():
                arm.cpu_s += await asyncio.to_thread(settle, arm.running.pid)
            await asyncio.to_thread(servers.close)
    shown(arms, {name: folder / f"{name.replace(' ', '-')}.state" for name in arms}, len(rows), given)
    Console().print(
        "; ".join(f"{name}: {text}" for name, text in facts(here).items() if name in ("processor", "python"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--bound", type=float, default=0.02)
    parser.add_argument("--teacher-ms", type=float, default=300.0)
    parser.add_argument("--messages", type=int, default=400)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="farthing-bench-"))
    try:
        asyncio.run(run(given, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
