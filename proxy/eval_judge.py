"""Judges of every kind for an evaluation: a model judge is asked through a private proxy, which knows what it costs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx

from farthing.policies.judge_pairwise import Pairwise
from farthing.policies.judges import JudgeCase, Score
from farthing.proxy.app import Running, running
from farthing.proxy.config import Config
from farthing.proxy.eval_arm import isolated, plain
from farthing.proxy.eval_money import costs_of
from farthing.proxy.judge_code import CodeLimits
from farthing.proxy.judging import AnyJudge, Means, http_sender, judged
from farthing.proxy.row import ERRANDS

__all__ = ["EvalJudge"]

_TIMEOUT_S = 180.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class EvalJudge:
    """Implements eval_run's Judging. `config`: whose upstream a model judge is asked at, with `key`, for `max_usd` at
    most. `code`: None: no code is run."""

    one: AnyJudge
    config: Config
    key: str = ""
    max_usd: Decimal | None = None
    code: CodeLimits | None = None

    @property
    def name(self) -> str:
        """As it is declared."""
        return self.one.name

    async def judge(self, cases: Sequence[JudgeCase]) -> list[Score]:
        """One score for each, in order; some at once. Raises ConfigFault: the judge's proxy can't start."""
        if isinstance(self.one, Pairwise):
            return await self._asked(cases)
        means, gate = Means(code=self.code), asyncio.Semaphore(_AT_ONCE)

        async def score(case: JudgeCase) -> Score:
            async with gate:
                return await judged(self.one, case, means)

        return list(await asyncio.gather(*(score(case) for case in cases)))

    async def _asked(self, cases: Sequence[JudgeCase]) -> list[Score]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def score(case: JudgeCase, client: httpx.AsyncClient) -> tuple[Score, list[str]]:
            calls: list[str] = []
            async with gate:
                return await judged(self.one, case, Means(http_sender(client, calls.append))), calls

        with tempfile.TemporaryDirectory(prefix="farthing-judge-") as folder:
            async with running(isolated(plain(self.config), Path(folder), self.max_usd)) as proxy:
                async with self._client(f"{proxy.url}/v1/") as client:
                    found = await asyncio.gather(*(score(case, client) for case in cases))
                costs = await asyncio.to_thread(_costs, proxy)
        return [one._replace(cost_pico=_sum([costs.get(id) for id in calls])) for one, calls in found]

    def _client(self, url: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)


def _costs(proxy: Running) -> dict[str, int | None]:
    ledger = proxy.services.state.ledger
    assert ledger is not None
    ledger.flush()
    return costs_of(ledger.path, ERRANDS)[0]


def _sum(costs: Sequence[int | None]) -> int | None:
    """None where one isn't known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
