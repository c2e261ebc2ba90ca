"""What marks for a provider's prompt cache are worth: a day's traffic, five ways, and the bill of each.

    python -m bench.prompt_cache [--hours 8] [--seed 1] [--provider anthropic|gpt-5.6]
                                 [--api chat|responses|instructions]

The traffic is made, not recorded: apps with a shared system prompt each (some busy, some hardly used) hold
conversations of several turns, whose pauses are of the order of a minute and some of many; and one in five requests is
a long document that nobody sends again. The provider is `bench/marked_provider.py`, which caches by the published
rules. Ways: no marks; the usual ones, which mark every system prompt and every last turn (`always`), or the system
prompt alone (`system`); farthing's own decision (`Marker`, the code that serves), which learns as it goes; and the same
decision with the future known (`foreseen`), which nobody can have. With GPT-5.6 `none` is what it does by itself. Its
chats may be responses instead, whose system prompt is a message of the developer, or `instructions`, where no mark may
stand.
Money is of the prompts alone; answers cost the same in all ways.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import median
from typing import Any, cast

from multidict import CIMultiDict, CIMultiDictProxy

from bench.marked_provider import Bill, MarkedProvider
from farthing.policies.prefix_returns import Returns
from farthing.proxy.clock import FakeClock
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.config_prompt_cache import PromptCache
from farthing.proxy.config_upstream import Upstream
from farthing.proxy.exchange import Endpoint, Exchange, Original
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_marking import Marker
from farthing.proxy.prompt_memory import WINDOWS_S, PromptMemory
from farthing.proxy.prompt_spots import spots_of
from farthing.proxy.usage import Usage

PROVIDERS = {
    "anthropic": ("claude-sonnet-5", ("2", "0.2", "2.5", "4"), "cache_control"),
    "gpt-5.6": ("gpt-5.6", ("4", "0.4", "5", "5"), "prompt_cache_breakpoint"),
}
"""Model, dollars for a million tokens (input, read, written, written for an hour), and the mark's name."""
APPS = ((700, 8.0), (1500, 20.0), (2500, 90.0), (4000, 400.0), (6000, 1500.0), (9000, 5000.0))
"""Words of the system prompt, and seconds between two conversations, on average."""
WORDS = "order parcel invoice refund address label return damaged late phone letter policy limit price".split()  # noqa: SIM905
ONE_OFF_SHARE = 0.2
GOES_ON = 0.65
PAUSE_MEDIAN_S, PAUSE_SIGMA = 50.0, 1.3


@dataclass(frozen=True)
class Asked:
    """A request and when it comes."""

    at_s: float
    system: str
    turns: tuple[tuple[str, str], ...]


@dataclass
class Sum:
    """What one way came to. `cpu_s`: of our own decision, for each request."""

    bills: list[Bill] = field(default_factory=list)
    marks: int = 0
    cpu_s: list[float] = field(default_factory=list)

    def tokens(self, name: str) -> int:
        """Of all requests."""
        return sum(getattr(bill, name) for bill in self.bills)

    def usd(self, prices: Sequence[str]) -> Decimal:
        """The bill, in dollars."""
        parts = zip(("fresh", "read", "written", "written_1h"), prices, strict=True)
        return sum((self.tokens(name) * Decimal(price) for name, price in parts), Decimal(0)) / 1_000_000


def said(dice: random.Random, count: int) -> str:
    """So many words."""
    return " ".join(dice.choices(WORDS, k=count))


def traffic(hours: float, seed: int) -> list[Asked]:
    """All requests, in order."""
    dice, until_s = random.Random(seed), hours * 3600
    made: list[Asked] = []
    begins: list[tuple[float, int, str]] = []
    for number, (words, every_s) in enumerate(APPS):
        system = f"You are clerk {number}. {said(dice, words)}"
        heapq.heappush(begins, (dice.expovariate(1 / every_s), number, system))
    while begins:
        at_s, number, system = heapq.heappop(begins)
        if at_s > until_s:
            continue
        heapq.heappush(begins, (at_s + dice.expovariate(1 / APPS[number][1]), number, system))
        if dice.random() < ONE_OFF_SHARE:
            made.append(Asked(at_s, "", (("user", f"{at_s} {said(dice, dice.randint(1500, 6000))}"),)))
            continue
        turns: list[tuple[str, str]] = []
        while at_s <= until_s:
            turns.append(("user", f"{at_s} {said(dice, dice.randint(10, 200))}"))
            made.append(Asked(at_s, system, tuple(turns)))
            if dice.random() > GOES_ON:
                break
            turns.append(("assistant", said(dice, dice.randint(50, 300))))
            at_s += 5 + dice.lognormvariate(0, PAUSE_SIGMA) * PAUSE_MEDIAN_S
    return sorted(made, key=lambda one: one.at_s)


def body_of(asked: Asked, model: str, provider: str, api: str) -> dict[str, Any]:
    """The request as a client sends it."""
    turns = [{"role": role, "content": text} for role, text in asked.turns]
    if provider == "anthropic":
        system = {"system": asked.system} if asked.system else {}
        return {"model": model, "max_tokens": 64, **system, "messages": turns}
    if api == "instructions" and asked.system:
        return {"model": model, "instructions": asked.system, "input": turns}
    head = [{"role": "system" if api == "chat" else "developer", "content": asked.system}] if asked.system else []
    return {"model": model, "messages" if api == "chat" else "input": [*head, *turns]}


def marked(body: dict[str, Any], *, last: bool) -> dict[str, Any]:
    """With the usual marks: on the system prompt and, where `last`, on the last turn."""
    mark = {"cache_control": {"type": "ephemeral"}}
    body = dict(body)
    if body.get("system"):
        body["system"] = [{"type": "text", "text": body["system"]} | mark]
    if last:
        *before, turn = body["messages"]
        body["messages"] = [*before, turn | {"content": [{"type": "text", "text": turn["content"]} | mark]}]
    return body


class Foreseen(Returns):
    """Chances by what will really come. `arrivals`: of each prefix, ascending."""

    def __init__(self, arrivals: dict[int, list[float]], clock: FakeClock) -> None:
        super().__init__(WINDOWS_S)
        self._arrivals, self._clock = arrivals, clock

    def chances(self, key: int, kinds: object) -> tuple[float, ...]:
        """n / (n + 1) for n returns in a row, each within the window of the one before: see prompt_marks."""
        times, at = self._arrivals[key], bisect_right(self._arrivals[key], self._clock.now_s())
        found = []
        for window_s in self.windows_s:
            before_s, count = self._clock.now_s(), 0
            for time_s in times[at : at + 50]:
                if time_s - before_s > window_s:
                    break
                before_s, count = time_s, count + 1
            found.append(count / (count + 1))
        return tuple(found)


def exchange_of(number: int, at_s: float, body: dict[str, Any], endpoint: Endpoint) -> Exchange:
    """The request as the stages see it."""
    original = Original("POST", "/v1/x", CIMultiDictProxy(CIMultiDict()), cast(Any, None), HeaderFacts(()))
    ex = Exchange(f"bench-{number}", original, at_s, at_s)
    ex.endpoint, ex.payload, ex.model, ex.body = endpoint, body, body["model"], json.dumps(body).encode()
    return ex


async def ours(asked: list[Asked], provider: str, api: str, *, foreseen: bool) -> Sum:
    """Farthing's decision, request by request, over the provider's answers."""
    model, prices, mark = PROVIDERS[provider]
    openai = Endpoint.CHAT if api == "chat" else Endpoint.RESPONSES
    endpoint = Endpoint.MESSAGES if provider == "anthropic" else openai
    names = ("input", "cached", "cache_write", "cache_write_1h")[: 4 if provider == "anthropic" else 3]
    price = ModelPrice.model_validate(
        {f"{name}_usd_per_mtok": rate for name, rate in zip(names, prices, strict=False)} | {"output_usd_per_mtok": 10}
    )
    upstream = Upstream(provider="anthropic" if provider == "anthropic" else "openai", url="http://127.0.0.1:1/v1")
    clock, memory = FakeClock(0.0), PromptMemory.of(32_768)
    if foreseen:
        arrivals: dict[int, list[float]] = defaultdict(list)
        for one in asked:
            for spot in spots_of(endpoint, body_of(one, model, provider, api), mark, ("default", model, "")).spots:
                arrivals[spot.key].append(one.at_s)
        memory.returns = Foreseen(arrivals, clock)
    marker = Marker(PromptCache(mode="serve"), memory, RateCard({model: price}), clock)
    behind, found = MarkedProvider(), Sum()
    for number, one in enumerate(asked):
        clock.advance(one.at_s - clock.now_s())
        ex = exchange_of(number, one.at_s, body_of(one, model, provider, api), endpoint)
        begun = time.process_time()
        what = await marker.look(ex, upstream, endpoint, ex.body)
        found.cpu_s.append(time.process_time() - begun)
        body = ex.payload if what is None else json.loads(what.body)
        bill = billed(behind, body, provider, one.at_s)
        found.bills.append(bill)
        if what is not None:
            found.marks += len(what.chosen)
            usage = Usage(bill.fresh, bill.read, bill.written, cache_write_1h=bill.written_1h)
            marker.learn(what, usage)
    return found


def billed(behind: MarkedProvider, body: Any, provider: str, at_s: float) -> Bill:
    """What the provider bills."""
    return behind.messages(body, at_s) if provider == "anthropic" else behind.chat(body, at_s)


def by_rule(asked: list[Asked], provider: str, api: str, way: str) -> Sum:
    """No marks, or the usual ones."""
    behind, found = MarkedProvider(), Sum()
    for one in asked:
        body = body_of(one, PROVIDERS[provider][0], provider, api)
        if way != "none":
            body = marked(body, last=way == "always")
            found.marks += json.dumps(body).count(f'"{PROVIDERS[provider][2]}"')
        found.bills.append(billed(behind, body, provider, one.at_s))
    return found


async def measure(hours: float, seed: int, provider: str, api: str = "chat") -> dict[str, Sum]:
    """All ways over the same traffic."""
    asked = traffic(hours, seed)
    ways = ("none", "system", "always") if provider == "anthropic" else ("none",)  # GPT-5.6 writes by itself
    found = {way: by_rule(asked, provider, api, way) for way in ways}
    found["farthing"] = await ours(asked, provider, api, foreseen=False)
    found["foreseen"] = await ours(asked, provider, api, foreseen=True)
    return found


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.prompt_cache", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--provider", choices=list(PROVIDERS), default="anthropic")
    parser.add_argument("--api", choices=["chat", "responses", "instructions"], default="chat")
    options = parser.parse_args()
    found = asyncio.run(measure(options.hours, options.seed, options.provider, options.api))
    prices = PROVIDERS[options.provider][1]
    plain = found["none"].usd(prices)
    sys.stdout.write(f"{len(found['none'].bills)} requests, {options.hours:g} hours\n")
    sys.stdout.write("| way | prompts | of none | marks | fresh | read | written | for an hour |\n")
    for way, sums in found.items():
        usd = sums.usd(prices)
        tokens = " | ".join(f"{sums.tokens(name):,}" for name in ("fresh", "read", "written", "written_1h"))
        sys.stdout.write(f"| {way} | ${usd:.2f} | {usd / plain:.1%} | {sums.marks:,} | {tokens} |\n")
    cpu_us = sorted(second * 1e6 for second in found["farthing"].cpu_s)
    sys.stdout.write(f"decision, CPU: p50 {median(cpu_us):.0f} us, p99 {cpu_us[int(0.99 * len(cpu_us))]:.0f} us\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
