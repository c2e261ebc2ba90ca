"""A cheap model upstream as the semantic cache's second stage: `semantic.second_stage = "judge:MODEL"`.

Every call is an errand with the asker's own credential: a ledger row with the endpoint `judge`, its price as overhead,
bounded a day. A verdict is remembered for its tenant, so that a pair is paid for once; one that comes too late for the
asker is remembered all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson
from multidict import CIMultiDictProxy

from farthing.cache.breaker import Breaker, Gate
from farthing.policies.judge import MOST_CHARS, VERSION, probability, question
from farthing.proxy import wire
from farthing.proxy.body import NoBody
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Call, Endpoint, Exchange, Original
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.second_stage import Said

__all__ = ["Judge", "Verdicts"]

_KEPT = 10_000
_PATIENCE_S = 30.0
_TARGET = "/v1/chat/completions"
# Who is asked for log-probabilities and has none to give says so with one of these.
_REFUSALS = (400, 422)

Verdicts = OrderedDict[bytes, float]


@dataclass(slots=True)
class Judge:
    """See the module, and SecondStage. `most_at_once`: calls under way; a pair beyond it isn't judged.

    `verdicts`: the latest 10,000, by tenant, model and pair. `sure`: it is asked for log-probabilities.
    """

    model: str
    errands: Errands
    spawn: Callable[[Coroutine[Any, Any, Said]], asyncio.Task[Said]]
    most_at_once: int
    verdicts: Verdicts
    sure: bool = True
    under_way: dict[bytes, asyncio.Task[Said]] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=lambda: Breaker(threshold=5, pause_s=30.0))

    async def ask(self, ex: Exchange, text: str, other: str) -> Said:
        """See SecondStage. Who asks about a pair that is being judged waits for that judgement."""
        pair = _digest(ex.tenant, self.model, *sorted((text, other)))
        known = self.verdicts.get(pair)
        if known is not None:
            self.verdicts.move_to_end(pair)
            return Said(known)
        task = self.under_way.get(pair)
        if task is None:
            if len(text) + len(other) > MOST_CHARS:
                return Said(None, "too long to be judged")
            if len(self.under_way) >= self.most_at_once:
                return Said(None, "too many are being judged")
            if not self.errands.may(self.model):
                return Said(None, "the judge's money for today is used up, or its price is unknown")
            gate = self.breaker.ask(self.errands.clock.tick_s())
            if gate is Gate.REFUSE:
                return Said(None, "the judge failed too often")
            task = self.under_way[pair] = self.spawn(self._judge(ex, pair, text, other, probe=gate is Gate.PROBE))
            task.add_done_callback(lambda _: self.under_way.pop(pair, None))
        return await asyncio.shield(task)

    async def _judge(self, ex: Exchange, pair: bytes, text: str, other: str, *, probe: bool) -> Said:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                call = await self._call(ex, text, other, sure=self.sure)
                if self.sure and call.status in _REFUSALS:
                    call = await self._call(ex, text, other, sure=False)
                    self.sure = call.status != 200
            failed = "" if call.status == 200 and call.complete else f"the judge failed: status {call.status}"
        except TimeoutError:
            failed = "the judge failed: no answer in time"
        if failed:
            self.breaker.failed(self.errands.clock.tick_s(), probe=probe)
            return Said(None, failed)
        self.breaker.succeeded()
        verdict = self.verdicts[pair] = probability(call.value)
        if len(self.verdicts) > _KEPT:
            self.verdicts.popitem(last=False)
        return Said(verdict)

    async def _call(self, ex: Exchange, text: str, other: str, *, sure: bool) -> Call:
        own = self.errands.begin(_request(ex.original))
        own.payload = question(self.model, text, other, sure=sure)
        own.body, own.model, own.endpoint = orjson.dumps(own.payload), self.model, Endpoint.CHAT
        own.credential, own.tenant, own.controls = ex.credential, ex.tenant, ex.controls
        own.caller = ex.caller
        own.policy, own.config_id = ex.policy, ex.config_id
        return await self.errands.run(own, f"judge for {ex.id}")


def _request(client: Original) -> Original:
    headers = wire.callers(client.headers)
    headers["Content-Type"] = "application/json"
    facts = HeaderFacts(tuple(headers.items()), client.facts.products)
    return Original("POST", _TARGET, CIMultiDictProxy(headers), NoBody(), facts)


def _digest(*parts: str) -> bytes:
    """Which pair it is, for whom and by whom: of a later wording of the question it is another one."""
    return hashlib.sha256(orjson.dumps([VERSION, *(part.encode("utf-8", "replace").hex() for part in parts)])).digest()
