"""One arm of an evaluation: a private proxy under the arm's configuration, asked every case.

The whole proxy runs, in this process, with a state directory of its own that is gone afterwards: what an arm answers,
costs and takes is what it would answer, cost and take. Nothing of the live proxy is touched; what its routes have
learnt may be copied in.

Rules of this file: a case that was made from another is asked after that one; money is the ledger's; a fault is an
answer with its status, and ends nothing.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from farthing.policies.answer import Answer, read
from farthing.policies.dataset import EvalCase
from farthing.proxy.app import Running, running
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_money import costs_of
from farthing.proxy.holdout import without
from farthing.proxy.route_standing import FILE as ROUTES_FILE
from farthing.proxy.row import ERRANDS

__all__ = ["LEARNT", "Answered", "Arm", "asked", "isolated", "plain"]

_PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "messages": "/messages",
    "completions": "/completions",
}
_PATIENCE_S = 60.0
_TIMEOUT_S = 180.0
LEARNT = ("secret", "reuse-*.json", "compress-*.json", ROUTES_FILE)
STUDENTS = "students"  # with what was proved of each: one that observes leaves all to its teacher here too


@dataclass(frozen=True, slots=True)
class Arm:
    """`learnt`: a state directory whose evidence the arm begins with; None: with none."""

    name: str
    config: Config
    learnt: Path | None = None


class Answered(NamedTuple):
    """What came of one case. `answer`: None where nothing that is understood came. `cost_pico`: None: unknown price."""

    status: int
    answer: Answer | None
    cost_pico: int | None
    latency_ms: float
    overhead_ms: float
    cache: str
    error: str = ""


def isolated(config: Config, state_dir: Path, max_usd: Decimal | None) -> Config:
    """The configuration for an arm: on loopback, without keys of clients, telemetry or capture, with the run's money as
    its hard limit. Experiments and hold-outs are off: they would give some cases to another policy."""
    plainly = {"host": "127.0.0.1", "port": 0, "admin_token": None, "tls_cert": None, "tls_key": None}
    server = config.server.model_copy(update=plainly)
    spend = config.spend.model_copy(update={"daily_usd": max_usd})
    defaults = Config()
    kept: dict[str, Any] = {
        name: getattr(defaults, name)
        for name in (
            "auth",
            "otlp",
            "capture",
            "alerts",
            "store",
            "ledger",
            "gates",
            "rollout",
            "experiments",
            "holdout",
        )
    }
    kept["watch"] = config.watch.model_copy(update={"enabled": False})
    return config.model_copy(
        update={**kept, "server": server, "spend": spend, "state_dir": state_dir, "budgets": (), "rate_limits": ()}
    )


def plain(config: Config) -> Config:
    """The same upstream with every optimisation off: what clients would get without farthing."""
    return without(config, "all-off").model_copy(update={"variants": (), "routes": (), "aliases": {}})


async def asked(
    arm: Arm,
    cases: Sequence[EvalCase],
    folder: Path,
    key: str,
    at_once: int,
    tell: Callable[[], None] = lambda: None,
    warm: Sequence[EvalCase] = (),
) -> dict[str, Answered]:
    """Every case's answer, by its id. `warm`: asked before, and not told of.

    Raises ConfigFault: the arm can't start.
    """
    async with _proxy(arm, folder) as (proxy, client):
        headers = {"Authorization": f"Bearer {key}", "x-api-key": key} if key else {}
        await _all(proxy, client, warm, headers, at_once, lambda: None)
        found = await _all(proxy, client, cases, headers, at_once, tell)
        await _settled(proxy)
        return await asyncio.to_thread(_with_money, found, proxy)


@asynccontextmanager
async def _proxy(arm: Arm, folder: Path) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    await asyncio.to_thread(_prepare, folder, arm.learnt)
    async with running(arm.config) as proxy:
        await _loaded(proxy)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"{proxy.url}/v1", timeout=_TIMEOUT_S, limits=limits, trust_env=False
        ) as client:
            yield proxy, client


def _prepare(folder: Path, learnt: Path | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if learnt is None:
        return
    for pattern in LEARNT:
        for path in learnt.glob(pattern):
            shutil.copy2(path, folder / path.name)
    if (learnt / STUDENTS).is_dir():
        shutil.copytree(learnt / STUDENTS, folder / STUDENTS)


async def _loaded(proxy: Running) -> None:
    """The near-duplicate cache is there, if the arm has one: else its first cases would say nothing of it."""
    thread = proxy.services.thread
    for _ in range(round(_PATIENCE_S / 0.02)):
        if thread is None or thread.loaded:
            return
        await asyncio.sleep(0.02)
    raise ConfigFault('the semantic model didn\'t load; see the log, or set semantic.mode = "off" in this arm')


async def _all(
    proxy: Running,
    client: httpx.AsyncClient,
    cases: Sequence[EvalCase],
    headers: Mapping[str, str],
    at_once: int,
    tell: Callable[[], None],
) -> dict[str, tuple[str, Answered]]:
    """In the dataset's order, a few at a time."""
    gate = asyncio.Semaphore(at_once)
    done = {case.id: asyncio.Event() for case in cases}
    found: dict[str, tuple[str, Answered]] = {}

    async def one(case: EvalCase) -> None:
        if case.of in done:
            await done[case.of].wait()
            await _settled(proxy)  # the original's answer can be found by now
        async with gate:
            try:
                found[case.id] = await _ask(client, case, headers)
            finally:
                done[case.id].set()
                tell()

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(one(case))
    return found


async def _ask(client: httpx.AsyncClient, case: EvalCase, headers: Mapping[str, str]) -> tuple[str, Answered]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    more = {"anthropic-version": "2023-06-01"} if case.endpoint == "messages" else {}
    try:
        answer = await client.post(_PATHS[case.endpoint], json=dict(case.request), headers={**headers, **more})
    except httpx.HTTPError as error:
        return "", Answered(0, None, None, (loop.time() - begun) * 1000, 0.0, "", type(error).__name__)
    latency_ms = (loop.time() - begun) * 1000
    choices = read(answer.content) if answer.status_code == 200 else None
    told = answer.headers
    fault = "" if choices else f"status {answer.status_code}"
    overhead = float(told.get("x-farthing-overhead-ms", 0.0))
    found = Answered(
        answer.status_code,
        choices[0] if choices else None,
        None,
        latency_ms,
        overhead,
        told.get("x-farthing-cache", ""),
        fault,
    )
    return told.get("x-farthing-id", ""), found


async def _settled(proxy: Running) -> None:
    """What goes on behind the answers (audits, shadows, learning) is done: it costs too."""
    for _ in range(round(_PATIENCE_S / 0.02)):
        if not len(proxy.services.state.tasks):
            return
        await asyncio.sleep(0.02)


def _with_money(found: Mapping[str, tuple[str, Answered]], proxy: Running) -> dict[str, Answered]:
    """With each row's cost, and an equal share of what optimisers' own calls cost."""
    ledger = proxy.services.state.ledger
    assert ledger is not None
    ledger.flush()
    costs, own = costs_of(ledger.path, ERRANDS)
    share = own // max(1, len(found))
    told = {}
    for id, (row_id, one) in found.items():
        cost = costs.get(row_id)
        told[id] = one._replace(cost_pico=None if cost is None else cost + share)
    return told
