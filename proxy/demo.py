"""`farthing demo`: a real small model, the proxy before it, a real workload, and what was saved. No key, no internet.

Rules of this file: the proxy runs through its own command line, the savings come out of its own ledger through
`farthing report`, and nothing is shown that this run didn't measure. Where the model is not installed, a simulated
upstream answers, and every screen says 'simulated'; the first act's semantic hits are 'unproven' wherever they are
named. The second act (demo_reuse.py) has a farthing of its own, which serves only what it has proved.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from farthing.proxy import simulated as simulated_upstream
from farthing.proxy import small_model
from farthing.proxy.clock import SystemClock
from farthing.proxy.demo_replay import LOOK_UPS, Answered, Plan, Tally, judge, median_and_p95, plan, replay
from farthing.proxy.demo_reuse import CONFIDENCE, MAX_WRONG, SecondAct, budget, rewordings
from farthing.proxy.demo_servers import NotStarted, Server, free_port
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.traffic import load_questions

__all__ = ["run"]

THRESHOLD = 0.85  # cosine; low enough that natural rewordings hit on this workload. A choice, not a proved bound
PRICED_AS = "gpt-4o-mini"
PRICE_LINES = ('input_usd_per_mtok = "0.15"', 'cached_usd_per_mtok = "0.075"', 'output_usd_per_mtok = "0.60"')
COMPRESS = """[compress]
recode = "serve"
unproven = true
provider_cache = "none"  # the model next door bills nobody for what it reads
latency_usd_per_s = 0

"""
CAPTURE = """[capture]
enabled = true  # the workload is a public data set and made transactions: nobody's words

"""
TRACE = "trace.jsonl"
SWEEP = "semantic.threshold=0.75:0.95:0.05"
READY_S = 60.0
PLAIN_EVERY = 25
KINDS = (
    ("miss", "from the upstream"),
    ("hit-exact", "exact hit"),
    ("hit-semantic", "semantic hit (unproven)"),
    ("joined", "joined an identical request"),
    ("bypass", "bypassed the cache"),
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Which model answers. `label`: what stands on every screen; empty for the real one."""

    name: str
    module: str
    model: str
    label: str


REAL = Upstream("small-model", "farthing.proxy.small_model", small_model.MODEL, "")
SIMULATED = Upstream("simulated", "farthing.proxy.simulated", simulated_upstream.MODEL, "simulated")


def run(*, requests: int, seed: int, once: bool, simulated: bool, state: Path | None, port: int) -> int:
    """Run the demo on standard output; the exit status: 0 done, 1 some requests failed, 2 usage, 3 can't start.

    On a terminal it serves on until Ctrl-C, so that the dashboard can be looked at, unless `once`. `state`: kept
    where given, else a temporary directory of which a finished run leaves its trace and its configuration. `port`: the
    proxy's, 0 for any free one. 130: interrupted.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    if requests < 1 or not 0 <= port <= 65_535:
        console.print("--requests must be at least 1, --port 0 to 65535")
        return 2
    if importlib.util.find_spec("openai") is None:
        console.print("The demo asks through the official OpenAI client, which is not installed:", markup=False)
        console.print("  pip install 'farthing[demo]'", markup=False)
        return 3
    home = Path(tempfile.mkdtemp(prefix="farthing-demo-")) if state is None else state.absolute()
    demo: Demo | None = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        lacking = "" if simulated else small_model.missing()
        demo = Demo(console, SIMULATED if simulated or lacking else REAL, home, port)
        demo.introduce(requests, seed, lacking)
        rng = random.Random(seed)
        planned = plan(load_questions(), requests, rng)
        return asyncio.run(until_signalled(demo, planned, rewordings(load_questions(), rng), once))
    except OSError as error:
        console.print(f"can't use {home}: {error.strerror}", markup=False)
        return 3
    finally:
        if state is None:
            clear(home, demo.leaves if demo is not None else ())


async def until_signalled(demo: Demo, planned: Plan, reworded: Sequence[str], once: bool) -> int:
    """The demo's status. The first SIGINT, SIGTERM or SIGHUP ends it in order; a second one kills the servers."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def signalled() -> None:
        if demo.ending:
            demo.kill()
        else:
            demo.ending = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signalled)
    try:
        return await demo.play(planned, reworded, once)
    except NotStarted as fault:
        demo.console.print(f"[red]{escape(str(fault))}[/red]")
        return 3
    except asyncio.CancelledError:
        if not demo.ending:
            raise
        task.uncancel()
        demo.console.print("stopped")
        return 0 if demo.told else 130


class Demo:
    """One run. `told`: the results are out; `ending`: a signal has come; `leaves`: files to be looked at later."""

    def __init__(self, console: Console, upstream: Upstream, home: Path, port: int) -> None:
        self.console = console
        self.ending = False
        self.told = False
        self.leaves: tuple[Path, ...] = ()
        self._upstream = upstream
        self._home = home
        self._port = port
        self._servers: list[Server] = []

    def introduce(self, requests: int, seed: int, lacking: str) -> None:
        """Say what will run, on what, and what it can't show."""
        self._rule("farthing demo")
        if self._upstream is REAL:
            self._say(
                "Upstream   SmolLM2-135M-Instruct, a real small language model, on this machine: no key, no internet"
            )
        else:
            self._say(
                "Upstream   [yellow]simulated: no model, invented answers and latencies[/yellow]; no key, no internet"
            )
        if lacking:
            self._say(f"           because {lacking}. For the real one:")
            for line in small_model.INSTALL:
                self._say(f"             {escape(line)}")
        self._say(f"Workload   {requests} requests for 200 questions of bank customers (BANKING77, PolyAI, CC BY 4.0),")
        self._say(
            f"           drawn with Zipf's popularity (exponent 1, seed {seed}): popular questions repeat, and the"
        )
        self._say("           saving follows from how often they do")
        self._say(f"Prices     pretended: as if the model were {PRICED_AS}")
        self._say(
            f"Semantic   served [yellow]unproven[/yellow] from a cosine of {THRESHOLD} on: no error bound is proved;"
        )
        self._say(
            f"Compress   the last {LOOK_UPS} requests carry made transactions as a tool's result, which are recoded,"
        )
        self._say("           [yellow]unproven[/yellow] as well: the rows decode to the equal value")
        self._say("           after that a second act, in which nothing is served before its bound is proved")
        if (self._home / "ledger.db").exists():
            self._say(
                f"State      {escape(str(self._home))} holds earlier runs: their answers hit, the report counts them"
            )
        self.console.print()

    async def play(self, planned: Plan, reworded: Sequence[str], once: bool) -> int:
        """Start the servers, replay, tell, in two acts; serve on where a terminal looks. Raises NotStarted."""
        async with AsyncExitStack() as stack:
            model_url = f"http://127.0.0.1:{free_port()}"
            self._port = self._port or free_port()
            base = f"http://127.0.0.1:{self._port}"
            unproven = f"unproven = true\nthreshold = {THRESHOLD}\n"
            config = self._configure("demo.toml", self._home, model_url, unproven, COMPRESS + CAPTURE)
            await self._serve(
                stack,
                "the model" if self._upstream is REAL else "the simulated upstream",
                ["-m", self._upstream.module, "--port", model_url.rpartition(":")[2]],
                model_url + "/health",
            )
            await self._serve(
                stack,
                "farthing",
                ["-m", "farthing.proxy.cli", "serve", "--config", str(config), "--port", str(self._port)],
                base + "/readyz",
            )
            self._say(f"farthing listens on {base}/v1, its dashboard on {base}/farthing/ while this runs")
            tally = await self._replay(base, planned)
            self._tell(tally)
            await self._report(config)
            self.told = True
            second, failed = await self._second_act(stack, model_url, reworded, len(planned))
            await self._leave_trace(config)
            if self.console.is_terminal and not once:
                self._say(f"Dashboard  {base}/farthing/ of the first act, {second}/farthing/ of the second;")
                self._say("           served until Ctrl-C …")
                owner = TaskGroup()
                ending = [owner.spawn(server.ended()) for server in self._servers]
                done, _ = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
                raise NotStarted(f"one of the servers ended by itself, with status {done.pop().result()}")
            self._say("Dashboard  ends with this run; on a terminal `farthing demo` without --once keeps it open")
            return 1 if tally.failed or failed else 0

    async def _second_act(
        self, stack: AsyncExitStack, model_url: str, reworded: Sequence[str], requests: int
    ) -> tuple[str, int]:
        """A route goes from observe to serve, or not. Its proxy's address, and how many requests failed."""
        self._rule("from observe to serve", unproven=False)
        base = f"http://127.0.0.1:{(port := free_port())}"
        # Always a new state: what an earlier run has proved is not this run's to show.
        home = Path(tempfile.mkdtemp(prefix="second-", dir=self._home))
        proving = f"max_wrong = {MAX_WRONG}\nconfidence = {CONFIDENCE}\n"
        config = self._configure("second.toml", home, model_url, proving)
        argv = ["-m", "farthing.proxy.cli", "serve", "--config", str(config), "--port", str(port)]
        await self._serve(stack, "the second farthing", argv, base + "/readyz", log="second.log")
        act = SecondAct(self.console, base, self._upstream.model, self._upstream.label, SystemClock())
        most, team_most = budget(requests)
        act.introduce(most)
        if self.console.is_terminal:
            self._say(f"Watch it on {base}/farthing/ under 'Near-duplicates'")
        return base, await act.play(reworded, most, team_most)

    def kill(self) -> None:
        """Kill what still runs."""
        for server in self._servers:
            server.signal(signal.SIGKILL)

    def _configure(self, name: str, state: Path, model_url: str, semantic: str, more: str = "") -> Path:
        """Write a proxy's configuration, as a user would; its path. `semantic`: lines of that section."""
        source = f"demo: priced as if it were {PRICED_AS}" + (", simulated" if self._upstream is SIMULATED else "")
        path = self._home / name
        path.write_text(
            "# Written by `farthing demo`. The prices are pretended.\n"
            f"state_dir = {quoted(str(state))}\n\n"
            f'[server]\nhost = "127.0.0.1"\ndrain_s = 2\n\n'
            f"[upstream]\nname = {quoted(self._upstream.name)}\nurl = {quoted(model_url + '/v1')}\n"
            "# llama.cpp's server closes connections after a stream without saying so; asking twice costs nothing\n"
            "retry_after_send = true\n\n"
            f'[semantic]\nmode = "serve"\n{semantic}'
            "show_texts = true  # the questions are a public data set\n"
            "deadline_ms = 500  # the model next door keeps all processors busy\n\n"
            f"{more}"
            f"[prices.models.{quoted(self._upstream.model)}]\n"
            + "\n".join(PRICE_LINES)
            + f"\nsource = {quoted(source)}\n\n"
            + examples(),
            "utf-8",
        )
        return path

    async def _serve(
        self, stack: AsyncExitStack, name: str, argv: Sequence[str], ready_url: str, log: str = ""
    ) -> None:
        path = self._home / (log or f"{name.split()[-1]}.log")
        server = await Server.start(name, [sys.executable, *argv], path, clean_environment())
        self._servers.append(server)
        stack.push_async_callback(server.stop)
        with self.console.status(f"starting {name} …"):
            await server.ready(ready_url, READY_S)

    async def _replay(self, base: str, planned: Plan) -> Tally:
        import openai

        tally = Tally()
        total = len(planned)
        async with openai.AsyncOpenAI(
            base_url=base + "/v1", api_key="none-needed", max_retries=0, timeout=60.0
        ) as client:
            if not self.console.is_terminal:

                def plainly(answered: Answered) -> None:
                    tally.add(answered)
                    if len(tally.answers) % PLAIN_EVERY == 0 or len(tally.answers) == total:
                        self._say(f"{len(tally.answers)}/{total} requests: {standing(tally)}")

                await replay(client, self._upstream.model, planned, SystemClock(), plainly)
                return tally
            words = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=False))
            columns = (BarColumn(16), MofNCompleteColumn(), TimeElapsedColumn(), words)
            with Progress(*columns, console=self.console, expand=True) as progress:
                bar = progress.add_task("", total=total)

                def moving(answered: Answered) -> None:
                    tally.add(answered)
                    progress.update(bar, advance=1, description=self._labelled(standing(tally)))

                await replay(client, self._upstream.model, planned, SystemClock(), moving)
        return tally

    def _tell(self, tally: Tally) -> None:
        """What the client saw: counts, latencies, and whose answers the semantic hits got."""
        self.console.print()
        self._rule("what the client saw")
        table = Table(box=None, pad_edge=False)
        for heading in ("", "requests", "median ms", "95th percentile ms"):
            table.add_column(heading, justify="left" if not heading else "right")
        for kind, words in KINDS:
            values = tally.latencies_ms(kind)
            if values:
                median, p95 = median_and_p95(values)
                table.add_row(words, str(len(values)), f"{median:.1f}", "" if p95 is None else f"{p95:.1f}")
        self.console.print(table)
        self.console.print("Times until the last byte of the answer, streams and whole answers together.", style="dim")
        if tally.failed:
            first = next(answered.error for answered in tally.answers if answered.error)
            self.console.print(f"{tally.failed} requests failed; the first: {first}", style="red", markup=False)
        if tally.counts["hit-semantic"]:
            judged = judge(tally.answers)
            self._say(
                f"Semantic hits (unproven): {judged.same} got an answer to a question of their own intent, "
                f"{judged.other} of another intent, {judged.untold} can't be told."
            )
        self.console.print()

    async def _report(self, config: Path) -> None:
        """`farthing report` on the run's own ledger, through its own command line."""
        self._rule("what the ledger says")
        await self._farthing("report", "--config", str(config))
        self.console.print()

    async def _leave_trace(self, config: Path) -> None:
        """The first act's traffic as a file, through `farthing capture export`; and what to do with it."""
        trace = self._home / TRACE
        await self._farthing("capture", "export", str(trace), "--config", str(config), quiet=True)
        self.leaves = (trace, config)
        command = f"{typed_command()} replay {shlex.quote(str(trace))} --config {shlex.quote(str(config))}"
        self._say("Replay     the first act's requests and answers, under its own settings and under others:")
        self._say(f"           {escape(command)}")
        self._say(f"           {escape(command)} --sweep {SWEEP}")

    async def _farthing(self, *argv: str, quiet: bool = False) -> None:
        """One of farthing's own commands. Raises NotStarted."""
        self.console.file.flush()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "farthing.proxy.cli", *argv),
            cwd=self._home,
            env=clean_environment(),
            stderr=asyncio.subprocess.DEVNULL if quiet else None,
        )
        try:
            status = await child.wait()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if status:
            raise NotStarted(f"farthing {argv[0]} ended with status {status}")

    def _rule(self, title: str, *, unproven: bool = True) -> None:
        hits = "semantic hits unproven" if unproven else "nothing served unproved"
        labels = " · ".join(word for word in (title, self._upstream.label, hits) if word)
        self.console.rule(f"[bold]{labels}[/bold]", align="left")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _labelled(self, text: str) -> str:
        return f"[yellow]{self._upstream.label}[/yellow] {text}" if self._upstream.label else text


def standing(tally: Tally) -> str:
    """The running counts in one line; money as the answers' headers tell it."""
    counts = tally.counts
    return (
        f"exact {counts['hit-exact']}, semantic (unproven) {counts['hit-semantic']}, joined {counts['joined']}, "
        f"upstream {counts['miss']}, saved ${tally.saved_usd:.6f}"
        + (f", failed {tally.failed}" if tally.failed else "")
    )


def examples() -> str:
    """Every feature of routes, spend and versions as a commented example, for the end of a configuration."""
    return resources.files("farthing.proxy").joinpath("examples", "policies.toml").read_text("utf-8")


def clean_environment() -> dict[str, str]:
    """This program's environment without what would reconfigure the proxy."""
    return {k: v for k, v in os.environ.items() if not k.startswith("FARTHING_") and k != "OPENAI_BASE_URL"}


def clear(home: Path, leaves: Sequence[Path]) -> None:
    """Remove a folder, or all of it but these files."""
    if not leaves:
        shutil.rmtree(home, ignore_errors=True)
        return
    for path in home.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path not in leaves:
            path.unlink(missing_ok=True)


def typed_command() -> str:
    """What this program was started by, where that can be typed again: `.venv/bin/farthing` in a checkout."""
    return sys.argv[0] if Path(sys.argv[0]).stem == "farthing" else "farthing"


def quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are valid in it."""
    return orjson.dumps(text).decode()
