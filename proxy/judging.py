"""Judges of every kind by one call: who only looks, who asks a model, runs code or is the operator's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from farthing.policies.judge_code import Code
from farthing.policies.judge_pairwise import Pairwise
from farthing.policies.judge_similar import Similar
from farthing.policies.judges import FREE, Judge, JudgeCase, Score, declared
from farthing.policies.opinion import Embed
from farthing.proxy.errors import ConfigFault
from farthing.proxy.judge_code import CodeLimits, run_code
from farthing.proxy.judge_custom import Custom, load

__all__ = ["AnyJudge", "Means", "Sent", "any_judge", "http_sender", "judged"]

AnyJudge = Judge | Pairwise | Custom
_KINDS: Mapping[str, type[Any]] = {**FREE, **{kind.name: kind for kind in (Similar, Pairwise, Code)}}
_PICO = Decimal(10) ** 12


class Sent(NamedTuple):
    """What came of a chat request: the completion, None where it failed; `cost_pico`: None where it isn't known."""

    value: Any
    cost_pico: int | None


Send = Callable[[Mapping[str, Any]], Awaitable[Sent]]


@dataclass(frozen=True, slots=True)
class Means:
    """What judges may use. `send`: makes a chat request, None: no model may be asked. `code`: None: no code is run."""

    send: Send | None = None
    code: CodeLimits | None = None


def any_judge(table: Mapping[str, Any], embed: Embed | None = None, folder: Path | None = None) -> AnyJudge:
    """The judge that a table declares: `{judge = "pairwise", model = "gpt-5"}`, `{judge = "custom", path = "a:b"}`.

    `folder`: where the module of a custom judge may lie. Raises ConfigFault as `declared` and `load` do.
    """
    if table.get("judge") != "custom":
        found: Judge | Pairwise = declared(table, _KINDS, embed, ("custom",))
        return found
    if set(table) != {"judge", "path"} or not isinstance(table["path"], str):
        raise ConfigFault('judge custom takes one key, path: "module:function"')
    return load(table["path"], folder)


async def judged(judge: AnyJudge, case: JudgeCase, means: Means = Means()) -> Score:
    """The score of one answer, with what it cost. Never raises for any answer, nor for a model that fails.

    A judge that only looks runs in a thread: some embed.
    """
    if isinstance(judge, Pairwise):
        return await _ask(judge, case, means.send)
    if isinstance(judge, Code):
        return await run_code(judge, case, means.code)
    if isinstance(judge, Custom):
        return await judge.judge(case)
    return await asyncio.to_thread(judge.judge, case)


def http_sender(client: httpx.AsyncClient, told: Callable[[str], None] = lambda _: None) -> Send:
    """Asks through an OpenAI-compatible server, whose base URL the client has.

    The cost is known where the answer's header tells it. `told`: is given the id of each call's ledger row, where the
    server is farthing.
    """

    async def send(body: Mapping[str, Any]) -> Sent:
        try:
            answer = await client.post("chat/completions", json=body)
            told(answer.headers.get("x-farthing-id", ""))
            value = answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return Sent(None, None)
        return Sent(value, _pico(answer.headers.get("x-farthing-cost-usd")))

    return send


async def _ask(judge: Pairwise, case: JudgeCase, send: Send | None) -> Score:
    asked = judge.ask(case)
    if isinstance(asked, Score):
        return asked
    if send is None:
        return Score(None, "no model may be asked")
    replies = [await send(body) for body in asked]
    costs = [reply.cost_pico for reply in replies]
    known = [cost for cost in costs if cost is not None]
    score = judge.read([reply.value for reply in replies])
    return score._replace(cost_pico=sum(known) if len(known) == len(costs) else None)


def _pico(usd: str | None) -> int | None:
    try:
        return None if usd is None else int(Decimal(usd) * _PICO)
    except (InvalidOperation, ValueError, OverflowError):
        return None
