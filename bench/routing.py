"""What a routing decision costs, and what routing saves on a simulated table of prompts and models.

    python -m bench.routing            (a minute)

**The decision**: processor time of finding a request's route among 50 and choosing its variant, as the pipeline does
both; the route is the last one. Beside the median of all stands that of the fastest of fifty blocks: the speed of a
shared machine changes within seconds, so that all kinds are measured in turns. The proxy has been at work: the times of
variants' latest answers are known, as many conversations are remembered as may be, this one among them, and each route
has a bound that its shadows have proved.

**The table** is RouterBench-like (Hu et al., "RouterBench", 2024: for each prompt and model whether the answer is right
and what it cost), but made: nothing was asked of any model. Each prompt has a difficulty d from Beta(2, 3), a length
from a log-normal (median 400 tokens in, 200 out), tools with chance 0.15, images with 0.05, and 16 times the length
with 0.05. A model of skill s is right with chance 1 / (1 + exp(-9 (s - d))), each prompt and model by itself. Prices,
windows and abilities are those of `MODELS`. A cascade's check rejects a wrong answer with chance `caught` and a right
one with `spoilt`; those of `CHECKS` are assumed, from a format check to a good judge, and checking costs `JUDGE_SHARE`
of the answer's price. A strategy's setting is chosen on the first half of the prompts: the cheapest whose quality is at
least the wanted share of the strongest model's. It is scored on the second.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import orjson
from multidict import CIMultiDict, CIMultiDictProxy
from rich.console import Console
from rich.table import Table

from farthing.policies.cascade import course
from farthing.policies.choose import Standing, choose
from farthing.policies.routes import Conditions, Route, RouteTable
from farthing.policies.stays import Stay
from farthing.policies.variant import Needs, Variant
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.config import load
from farthing.proxy.config_routes import routes_of, variants_of
from farthing.proxy.exchange import Controls, Endpoint, Exchange, Original
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.prices import RateCard
from farthing.proxy.route_standing import RouteStandings
from farthing.proxy.routing import Routing
from farthing.proxy.stage_route import RoutingStage
from farthing.proxy.wire import read_body

MOST_US = 50.0
BLOCKS = 50


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the table. Prices: dollars per million tokens in and out."""

    skill: float
    usd_in: float
    usd_out: float
    variant: Variant


MODELS = (
    Model(0.45, 0.05, 0.10, Variant("tiny-int4", "tiny", kind="int4", context_tokens=8_000, tools=False, images=False)),
    Model(0.60, 0.15, 0.60, Variant("small", "small", context_tokens=32_000, images=False)),
    Model(0.75, 0.80, 3.20, Variant("medium", "medium", context_tokens=128_000)),
    Model(0.95, 2.50, 10.0, Variant("large", "large", context_tokens=128_000)),
)
LARGE = MODELS[-1]
CHECKS = {"format only": (0.25, 0.01), "log-probabilities": (0.55, 0.08), "good judge": (0.80, 0.05)}
WANTED = (0.90, 0.95, 0.99)
JUDGE_SHARE = 0.1  # of the cheap answer's price again, for checking it


@dataclass(frozen=True, slots=True)
class Prompt:
    """`right`: whether each model answers it rightly. `luck`: for a cascade's check of each."""

    needs: Needs
    tokens_out: int
    right: dict[str, bool]
    luck: dict[str, float]
    sticky: float

    def usd(self, model: Model) -> float:
        """What the model's answer costs."""
        return (self.needs.tokens_in * model.usd_in + self.tokens_out * model.usd_out) / 1e6


def prompts(count: int, seed: int) -> list[Prompt]:
    """The table's rows; see the module."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        difficulty = rng.betavariate(2, 3)
        long = 16 if rng.random() < 0.05 else 1
        needs = Needs(
            tokens_in=int(rng.lognormvariate(math.log(400), 0.8)) * long + 1,
            tools=rng.random() < 0.15,
            images=rng.random() < 0.05,
        )
        right = {
            model.variant.name: rng.random() < 1 / (1 + math.exp(-9 * (model.skill - difficulty))) for model in MODELS
        }
        luck = {model.variant.name: rng.random() for model in MODELS}
        made.append(Prompt(needs, int(rng.lognormvariate(math.log(200), 0.7)) + 1, right, luck, rng.random()))
    return made


BY_NAME = {model.variant.name: model for model in MODELS}
Scored = tuple[float, float]
Setting = tuple[str, Route, tuple[float, float] | None]


def scored(rows: Sequence[Prompt], route: Route, check: tuple[float, float] | None = None) -> Scored:
    """(share of right answers, dollars for a thousand prompts) of a route, decided by the policies themselves."""
    right, usd = 0, 0.0
    for row in rows:

        def standing(variant: Variant, row: Prompt = row) -> Standing:
            return Standing(usd=row.usd(BY_NAME[variant.name]))

        order = choose(route, row.needs, standing, row.sticky, 0.5).order
        way = course(route, order, row.needs, "large", stream=False)
        served = way.chain[0].name if way.chain[0] is not None else "large"
        for variant in way.tries:
            assert check is not None
            usd += row.usd(BY_NAME[variant.name]) * (1 + JUDGE_SHARE)
            caught, spoilt = check
            if row.luck[variant.name] >= (spoilt if row.right[variant.name] else caught):
                served = variant.name
                break
        else:
            usd += row.usd(BY_NAME[served])
        right += row.right[served]
    return right / len(rows), usd / len(rows) * 1000


def settings(train: Sequence[Prompt]) -> dict[str, list[Setting]]:
    """Each strategy's settings to choose from, with a word for each."""
    measured = {name: sum(row.right[name] for row in train) / len(train) for name in BY_NAME}
    variants = tuple(
        Variant(one.name, one.model, kind=one.kind, context_tokens=one.context_tokens, tools=one.tools,
                images=one.images, quality=measured[one.name])
        for one in (model.variant for model in MODELS)
    )  # fmt: skip
    everything = Conditions()
    found: dict[str, list[tuple[str, Route, tuple[float, float] | None]]] = {
        "fixed": [],
        "weighted": [],
        "cheapest": [],
    }
    for variant in variants:
        found["fixed"].append((variant.name, Route("r", everything, "fixed", (variant,)), None))
        quality = variant.quality or 0.0
        cheapest = Route("r", everything, "cheapest", variants, min_quality=quality)
        found["cheapest"].append((f"min_quality {quality:.2f}", cheapest, None))
    for variant in variants[:-1]:
        for share in range(5, 100, 5):
            pair = Route("r", everything, "weighted", (variant, variants[-1]), weights=(share, 100 - share))
            found["weighted"].append((f"{share} % {variant.name}", pair, None))
    for name, check in CHECKS.items():
        listed = found[f"cascade, {name}"] = []
        for first in range(len(variants)):
            for last in range(first + 1, len(variants)):
                chain = variants[first : last + 1]
                told = " > ".join(one.name for one in chain)
                listed.append((told, Route("r", everything, "cascade", chain), check))
                if last > first + 1:
                    ends = (variants[first], variants[last])
                    listed.append((f"{ends[0].name} > {ends[1].name}", Route("r", everything, "cascade", ends), check))
    return found


def saved(count: int, seed: int, console: Console) -> None:
    """Print the table."""
    rows = prompts(count, seed)
    train, test = rows[: count // 2], rows[count // 2 :]
    best_train, _ = scored(train, Route("r", Conditions(), "fixed", (LARGE.variant,)))
    best, full_usd = scored(test, Route("r", Conditions(), "fixed", (LARGE.variant,)))
    console.print(f"{count} simulated prompts, seed {seed}; large alone: {best:.3f} right, ${full_usd:.3f} a thousand")
    table = Table("strategy", *(f"{wanted:.0%} of large's quality" for wanted in WANTED))
    for name, listed in settings(train).items():
        tried = [(scored(train, route, check), told, route, check) for told, route, check in listed]
        cells = []
        for wanted in WANTED:
            good = [one for one in tried if one[0][0] >= wanted * best_train]
            if not good:
                cells.append("none")
                continue
            _, told, route, check = min(good, key=lambda one: one[0][1])
            quality, usd = scored(test, route, check)
            cells.append(f"{usd / full_usd:.0%} of its cost ({quality / best:.1%}; {told})")
        table.add_row(name, *cells)
    console.print(table)


def at_work(routing: Routing) -> None:
    """Let it know what it does after some time."""
    rng, now_s, now_tick = random.Random(7), time.time(), time.monotonic()
    for variant in routing.variants.values():
        for _ in range(40):
            routing.speed(variant).answered(rng.uniform(0.2, 2), now_tick)
            routing.speed(variant).said(rng.randint(10, 900))
    for _ in range(routing.stays.most):
        routing.stays.put(
            rng.getrandbits(61), Stay(rng.choice(list(routing.variants)), rng.randint(0, 5000), now_s + 300)
        )
    routing.standings = RouteStandings(Path("nothing is kept"), lambda coro: coro.close(), lambda *_: None)


def deciding(routes: int, *, one_model: bool) -> Callable[[], float]:
    """Makes one request's decision among so many routes: the µs of processor time that it took.

    `one_model`: all routes are for the request's model, and differ by their tag.
    """
    usual: dict[str, object] = {
        "mode": "serve", "strategy": "cheapest", "variants": ["a", "b", "c"], "max_worse": 0.02
    }  # fmt: skip
    listed = [
        usual | {"name": f"r{at}", "model": "gpt-*" if one_model else f"model-{at}-*", "tag": f"team=t{at}"}
        for at in range(routes - 1)
    ]
    listed.append(usual | {"name": "last", "model": "gpt-*"})
    variants = [{"name": name, "model": model} for name, model in
                (("a", "gpt-4o"), ("b", "gpt-4o-mini"), ("c", "gpt-4.1-nano"))]  # fmt: skip
    config = load(None, {}, {"variants": variants, "routes": listed, "shadow.share": 0.1})
    known = variants_of(config.variants)
    table = RouteTable(routes_of(config.routes, known, {}))
    routing = Routing(known, table, {}, RateCard({}), SystemClock(), SystemRandomness())
    at_work(routing)
    stage = RoutingStage(routing)
    turns = [
        {"role": "user" if at % 2 == 0 else "assistant", "content": "words and more words " * 10} for at in range(10)
    ]
    body = orjson.dumps({"model": "gpt-4o", "messages": turns, "temperature": 0.5})
    read = read_body(body)
    assert not isinstance(read, str)
    headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
    original = Original("POST", "/v1/chat/completions", headers, None, HeaderFacts(()))  # type: ignore[arg-type]

    def decide() -> float:
        ex = Exchange("id", original, time.time(), 0.0)
        ex.payload, ex.exact, ex.body, ex.model = read.payload, read.exact, body, "gpt-4o"
        ex.endpoint, ex.controls = Endpoint.CHAT, Controls(tags=(("feature", "faq"), ("team", "search")))
        begun = time.process_time_ns()
        routing.find(ex)
        stage.on_request(ex)
        took_us = (time.process_time_ns() - begun) / 1000
        assert ex.plan.choice is not None
        assert ex.plan.conversation is not None
        routing.stays.put(ex.plan.conversation, Stay("a", 500, time.time() + 300))
        return took_us

    return decide


def decided(times: int, console: Console) -> float:
    """Print what decisions take; the slowest kind's median, in µs. All kinds go in turns, so that a machine which is
    slow for some seconds is so for all of them."""
    kinds = [(routes, one_model) for routes in (1, 10, 50) for one_model in (False, True)]
    made = [deciding(routes, one_model=one_model) for routes, one_model in kinds]
    blocks: list[list[list[float]]] = [[] for _ in kinds]
    for at in range(BLOCKS + 1):
        for decide, took in zip(made, blocks, strict=True):
            block = [decide() for _ in range(times // BLOCKS)]
            if at:  # the first one warms up
                took.append(block)
    table = Table("routes", "found by", "p50, µs", "p50 of the fastest block, µs", "p99, µs")
    medians = []
    for (routes, one_model), took in zip(kinds, blocks, strict=True):
        all_us = [one for block in took for one in block]
        medians.append(median(all_us))
        shown = (medians[-1], min(map(median, took)), quantiles(all_us, n=100)[98])
        table.add_row(str(routes), "tag" if one_model else "model", *(f"{one:.1f}" for one in shown))
    console.print(table)
    return max(medians)


def main() -> int:
    """Measure and print; 1 where 50 routes take longer than they may."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    asked.add_argument("--prompts", type=int, default=20_000)
    asked.add_argument("--seed", type=int, default=7)
    asked.add_argument("--times", type=int, default=20_000)
    given = asked.parse_args()
    console = Console(width=200)
    console.print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    took_us = decided(given.times, console)
    saved(given.prompts, given.seed, console)
    return int(took_us > MOST_US)


if __name__ == "__main__":
    raise SystemExit(main())
