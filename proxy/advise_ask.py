"""Asks the upstream on behalf of `farthing compress advise`, within a budget. The command's only network.

Rules of this file: no call begins that could pass the budget; a call that fails is an answer that is none, with the
reason; a key goes into one header and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from farthing.policies.answer import Answer, read
from farthing.proxy.config import mask_url
from farthing.proxy.prices import RateCard
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, from_payload

__all__ = ["Asker", "Budget", "OutOfBudget", "Said", "as_case"]

TIMEOUT_S = 120.0
_PATHS = {"chat": "/chat/completions", "responses": "/responses", "messages": "/messages"}
_ANTHROPIC_VERSION = "2023-06-01"
# Assumed of an answer whose length nothing limits, for the budget alone.
_TOKENS_OUT = 1024
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class OutOfBudget(Exception):
    """The next call could cost more than is left."""


class Said(NamedTuple):
    """`answer`: None where the call failed, and then `error` says how. `value`: its body."""

    answer: Answer | None
    usage: Usage | None = None
    error: str = ""
    value: Any = None


@dataclass(slots=True)
class Budget:
    """Dollars, as integer pico-dollars. `limit_pico`: None for none. `spent_pico`: as answers reported it, priced."""

    limit_pico: int | None
    spent_pico: int = 0
    _held_pico: int = 0

    def hold(self, pico: int) -> None:
        """Set the most that a call can cost aside. Raises OutOfBudget."""
        if self.limit_pico is not None and self.spent_pico + self._held_pico + pico > self.limit_pico:
            raise OutOfBudget
        self._held_pico += pico

    def settle(self, held_pico: int, spent_pico: int) -> None:
        """The call has ended, and cost this much."""
        self._held_pico -= held_pico
        self.spent_pico += spent_pico


def as_case(endpoint: str, body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The request as a trial sends it: whole, one choice, temperature 0, nothing stored; `model` where one is named."""
    left_out = ("stream", "stream_options", "n", "store", "metadata", "background", "top_p")
    case = {name: value for name, value in body.items() if name not in left_out}
    case["temperature"] = 0
    if endpoint == "responses":
        case["store"] = False
    if model:
        case["model"] = model
    if endpoint == "messages":
        case.setdefault("max_tokens", _TOKENS_OUT)
    return case


@dataclass(slots=True)
class Asker:
    """Calls `url`, at most `at_once` at a time. `at_s`: the moment whose prices hold. `calls`: how many were made."""

    http: httpx.AsyncClient
    url: str
    key: str
    rates: RateCard
    budget: Budget
    at_s: float
    tokenizer: Tokenizer
    at_once: asyncio.Semaphore
    calls: int = 0
    _cold: set[str] = field(default_factory=set)

    async def ask(self, endpoint: str, body: Mapping[str, Any]) -> Said:
        """One call; a model that takes no temperature is asked without. Raises OutOfBudget; other faults are `Said`."""
        async with self.at_once:
            model = str(body.get("model") or "")
            if model in self._cold:
                body = _without_temperature(body)
            said, status = await self._call(endpoint, body, model)
            if status == 400 and "temperature" in said.error and "temperature" in body:
                self._cold.add(model)
                said, _ = await self._call(endpoint, _without_temperature(body), model)
            return said

    @property
    def sampled(self) -> bool:
        """Whether some model took no temperature, so that its answers vary."""
        return bool(self._cold)

    async def _call(self, endpoint: str, body: Mapping[str, Any], model: str) -> tuple[Said, int]:
        rates = self.rates.rates(model, self.at_s)
        held = 0
        if rates is not None:
            tokens_in = self.tokenizer.count_request(endpoint, body, model)
            limits = [body[name] for name in _LIMITS if isinstance(body.get(name), int)]
            held = rates.pico(Usage(fresh=tokens_in, output=max(limits, default=_TOKENS_OUT)))
        self.budget.hold(held)
        spent = 0
        try:
            self.calls += 1
            said, status = await self._post(endpoint, body)
            price = self.rates.price(model, said.usage, self.at_s) if said.usage is not None else None
            if price is not None:
                spent = price.pico
            elif said.answer is not None:
                spent = held
        finally:
            self.budget.settle(held, spent)
        return said, status

    async def _post(self, endpoint: str, body: Mapping[str, Any]) -> tuple[Said, int]:
        try:
            answer = await self.http.post(self.url + _PATHS[endpoint], json=dict(body), headers=self._headers(endpoint))
        except httpx.HTTPError as error:
            return Said(None, error=f"{mask_url(self.url)} does not answer ({type(error).__name__})"), 0
        if answer.status_code != 200:
            return Said(None, error=f"status {answer.status_code}: {answer.text[:300]}"), answer.status_code
        found = read(answer.content)
        try:
            value = answer.json()
        except ValueError:
            value = None
        if not found or not isinstance(value, dict):
            return Said(None, error="an answer that is not understood"), 200
        used = value.get("usage")
        usage = from_payload(endpoint, used, value.get("service_tier")) if isinstance(used, dict) else None
        return Said(found[0], usage, value=value), 200

    def _headers(self, endpoint: str) -> dict[str, str]:
        if endpoint == "messages":
            return {"anthropic-version": _ANTHROPIC_VERSION} | ({"x-api-key": self.key} if self.key else {})
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def _without_temperature(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "temperature"}
