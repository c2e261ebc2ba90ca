"""`farthing demo --evals`: how a policy proves itself, and how a bad one is kept out or taken back. In five acts.

1. Traffic passes and is captured. 2. A suite is drawn from it. 3. A good policy passes the gate, a bad one is blocked.
4. The good one is rolled out; on the way the provider changes its model without a word, which no test beforehand can
know: users complain, and the roll-out is taken back by itself. 5. The alarms themselves, on made data.

Everything goes through farthing's own commands and admin calls; the upstream is a world whose truth is known
(demo_world.py), and simulated users rate what they get by it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from farthing.proxy.demo_servers import NotStarted, Server, free_port
from farthing.proxy.demo_world import World, asked
from farthing.proxy.traffic import Question, load_questions

__all__ = ["Story", "run"]

READY_S = 60.0
ADMIN = {"x-farthing-admin": "1"}
TRAFFIC = 460
RATED = 0.5  # of answers; a user who rates is right about it
AT_ONCE = 8
MOST_ROLLED_OUT = 6_000
LACKING = "The demo's gates need scipy and pyyaml: pip install 'farthing[eval]'"
SUITE = """name: the support bot's policy
dataset: suite.jsonl
judge: exact
margin: 0.06
rules:
  - accuracy: 0.9
  - not_worse: 0.06
  - cost: 0.3
  - must_not: "(?i)as an ai"
"""
CONFIG = """# Written by `farthing demo --evals`. The prices are pretended.
state_dir = "state"
[upstream]
url = "{upstream}"
name = "simulated"
retries = 0
[semantic]
mode = "off"
[capture]
enabled = true
[rollout]
steps = [0.3, 1.0]
hold_s = 2
min_requests = 150
[prices.models]
world-large = {{ input_usd_per_mtok = 2, output_usd_per_mtok = 8 }}
world-small = {{ input_usd_per_mtok = 0.5, output_usd_per_mtok = 2 }}
world-hasty = {{ input_usd_per_mtok = 0.2, output_usd_per_mtok = 1 }}
"""
POLICY = """
[[variants]]
name = "{model}"
model = "{model}"
[[routes]]
name = "support"
mode = "serve"
model = "world-large"
variants = ["{model}"]
"""


def run(*, once: bool, seed: int, state: Path | None) -> int:
    """Play it; the exit status: 0 it went as it should, 1 it didn't, 3 something is lacking."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    if any(importlib.util.find_spec(name) is None for name in ("scipy", "yaml")):
        console.print(LACKING, markup=False)
        return 3
    home = Path(tempfile.mkdtemp(prefix="farthing-evals-")) if state is None else state.absolute()
    home.mkdir(parents=True, exist_ok=True)
    try:
        return asyncio.run(Story(console, home, random.Random(seed), seed).play(once=once))
    except NotStarted as fault:
        console.print(str(fault), style="red", markup=False)
        return 3
    finally:
        if state is None:
            shutil.rmtree(home, ignore_errors=True)


@dataclass(slots=True)
class Story:
    """`home`: where files go. `customers`: so many have asked by now."""

    console: Console
    home: Path
    rng: random.Random
    seed: int
    customers: int = 0
    world: World = field(default_factory=lambda: World(load_questions()))
    questions: Sequence[Question] = field(default_factory=load_questions)

    async def play(self, *, once: bool) -> int:
        """All acts. Raises NotStarted."""
        async with AsyncExitStack() as stack:
            upstream, base = await self._servers(stack)
            async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
                self._act("1", "traffic passes, and a share of it is captured (here all of it)")
                right = await self._traffic(client, TRAFFIC)
                self.console.print(f"   {TRAFFIC} requests to world-large, {right / TRAFFIC:.1%} answered right")
                self._act("2", "a suite that looks like it is drawn")
                drawn = ("suite.jsonl", "--size", "400", "--adversarial", "0", "--config", "farthing.toml")
                await self._command("eval", "sample", *drawn)
                self._act("3", "a gate: two cheaper policies are asked every case")
                good = await self._command("gate", "suite.yaml", "--config", "small.toml", "--html", "gate-small.html")
                bad = await self._command("gate", "suite.yaml", "--config", "hasty.toml", "--html", "gate-hasty.html")
                self._act("4", "world-small is rolled out beside world-large; users rate what they get")
                back = await self._roll_out(client, upstream)
                self._act("5", "do the alarms hold what they promise? On made data, with and without a fault")
                silent = self._alarms()
                fine = good == 0 and bad == 1 and back and silent
                self._end(base, good == 0, bad == 1, back, silent)
                if not once and self.console.is_terminal:
                    self.console.print(f"The dashboard stays at {base}/farthing/ until Ctrl-C.")
                    await self._until_interrupted()
                return 0 if fine else 1

    async def _servers(self, stack: AsyncExitStack) -> tuple[str, str]:
        """The world's address, and the proxy's."""
        world, port = free_port(), free_port()
        upstream = f"http://127.0.0.1:{world}"
        config = CONFIG.format(upstream=f"{upstream}/v1")
        files = {
            "farthing.toml": config,
            "small.toml": config + POLICY.format(model="world-small"),
            "hasty.toml": config + POLICY.format(model="world-hasty"),
            "suite.yaml": SUITE,
        }
        for name, text in files.items():
            (self.home / name).write_text(text, "utf-8")
        for name, argv, ready in (
            ("the world", ["-m", "farthing.proxy.demo_world", "--port", str(world)], f"{upstream}/health"),
            ("farthing", ["-m", "farthing.proxy.cli", "serve", "--config", "farthing.toml", "--port", str(port)],
             f"http://127.0.0.1:{port}/readyz"),
        ):  # fmt: skip
            server = await Server.start(name, [sys.executable, *argv], self.home / f"{name.split()[-1]}.log")
            stack.push_async_callback(server.stop)
            await server.ready(ready, READY_S)
        return upstream, f"http://127.0.0.1:{port}"

    # -- acts

    async def _traffic(self, client: httpx.AsyncClient, count: int) -> int:
        """So many customers ask, and some of them rate; how many were answered right."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one() -> bool:
            self.customers += 1
            body = asked(self.rng.choice(self.questions), self.customers)
            rates = self.rng.random() < RATED
            async with gate:
                answer = await client.post("/v1/chat/completions", json=body)
                answer.raise_for_status()
                said = answer.json()["choices"][0]["message"]["content"]
                messages: Any = body["messages"]
                right = said == self.world.right(messages[-1]["content"])
                if rates:
                    word = {"id": answer.headers["x-farthing-id"], "rating": "good" if right else "bad"}
                    await client.post("/farthing/api/feedback", json=word, headers=ADMIN)
                return bool(right)

        return sum(await asyncio.gather(*(one() for _ in range(count))))

    async def _roll_out(self, client: httpx.AsyncClient, upstream: str) -> bool:
        """Whether the candidate was taken back by itself after the world had changed, and not before."""
        await self._command(
            "policy", "promote", "small.toml", "--note", "a quarter of the price", "--config", "farthing.toml"
        )
        calm = 2
        for lap in range(MOST_ROLLED_OUT // 100):
            if lap == calm:
                async with httpx.AsyncClient(trust_env=False) as http:
                    await http.post(f"{upstream}/world", json={"regressed": True})
                self.console.print("   [yellow]The provider changes world-small, under the same name and price.[/]")
            right = await self._traffic(client, 100)
            told = (await client.get("/farthing/api/policy")).json()
            going = told["candidate"]
            if going is None:
                break
            share = f"{going['share']:.0%} of requests are the candidate's"
            self.console.print(f"   {self.customers:,} requests so far, the last hundred {right} right; {share}")
        incidents = (await client.get("/farthing/api/incidents")).json()["incidents"]
        found = [one for one in incidents if one["kind"] == "rollback"]
        for one in found:
            self.console.print(f"   [bold]{one['what']}[/]: {one['why']}", soft_wrap=True)
        return lap >= calm and bool(found)

    def _alarms(self) -> bool:
        """A table; whether every alarm was as rare as promised, and most faults were caught."""
        import numpy as np

        from farthing.proxy.demo_stats import simulated

        found = simulated(np.random.default_rng(self.seed))
        table = Table("", "caught", "false alarms", "may be", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for one in found:
            table.add_row(
                one.name, f"{one.caught} of {one.faulty}", f"{one.false} of {one.sound}", f"{one.promised:.0%}"
            )
        self.console.print(table)
        # So many false alarms come by chance once in a thousand runs where the promise holds.
        return all(one.caught >= 0.8 * one.faulty and one.false <= 9 for one in found)

    # -- the stage

    def _act(self, number: str, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{number}[/] · {title} · simulated", align="left")

    async def _command(self, *argv: str) -> int:
        """One of farthing's own commands, as it would be typed; its exit status."""
        self.console.print(f"[dim]$ farthing {' '.join(argv)}[/]", soft_wrap=True)
        self.console.file.flush()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "farthing.proxy.cli", *argv, cwd=self.home,
            stderr=None if self.console.is_terminal else asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await child.wait()

    def _end(self, base: str, shipped: bool, blocked: bool, back: bool, silent: bool) -> None:
        self.console.print()
        self.console.rule("[bold]what was to be shown", align="left")
        for fine, text in (
            (shipped, "the good policy passed the gate"),
            (blocked, "the bad one was blocked"),
            (back, "the regression that no test beforehand could know was taken back by itself"),
            (silent, "the alarms caught what was wrong, and were silent where nothing was"),
        ):
            self.console.print(f"   {'[green]yes[/]' if fine else '[red]no [/]'}  {text}")
        (self.home / "told.json").write_text(
            json.dumps({"shipped": shipped, "blocked": blocked, "rolled_back": back, "alarms": silent})
        )

    async def _until_interrupted(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return
