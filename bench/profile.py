"""Where the time goes: `python -m bench.profile hit|miss|stream` or `--write`. Needs py-spy (`pip install py-spy`), wrk
and nginx.

farthing by its real command line under load, looked at 500 times a second from outside; nothing is put into it. Writes
a profile for speedscope and a flame graph into bench/results, and prints which functions the samples were in. `--write`
does so for all three and for a start, and writes tables of what was being done into docs/benchmarks.md; it takes some
four minutes, since each load is looked at when the ledger rolls rows up, a minute after the start.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.hot import DISTINCT_HITS, learn, series, warm
from bench.load import window
from bench.machine import Place, facts, on_core, place, settle
from bench.profile_shares import by_library, by_part, by_start, samples, shares, side_by_side
from bench.report import replace_section, table
from bench.servers import ROOT, DidNotStart, Running, farthing, free_port, get
from bench.start import from_bytecode, one_start
from bench.streams import drive, fresh, spread, until
from bench.upstream import fast, streaming
from farthing.proxy.ledger_upkeep import ROLL_EVERY_S

__all__ = ["busiest", "section"]

RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
SHOWN = 25
LOADS = ("hit", "miss", "stream")
LATER_S, BEYOND_S = 0.6, 4  # when it begins to look, and how much longer the load lasts
STREAM_CHUNKS = 100


def busiest(profile: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(function, its own share, its share with what it called) of a speedscope file's samples, busiest first.

    Threads that only wait for work don't count.
    """
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    whole = 0.0
    for _, stack, weight in samples(profile):
        named = [f"{one.name} ({Path(one.file).name})" for one in stack]
        whole += weight
        own[named[-1]] += weight
        for name in set(named):
            below[name] += weight
    return [(name, weight / whole, below[name] / whole) for name, weight in own.most_common()]


def spying() -> str:
    """py-spy's program. Raises DidNotStart: it isn't there."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if spy is None:
        raise DidNotStart("py-spy isn't installed: pip install py-spy")
    return spy


@contextlib.contextmanager
def watched(server: Running, here: Place, out: Path, kind: str, seconds: int) -> Iterator[None]:
    """py-spy looks at the server for so long, from a moment after the block was entered, and writes `out`, with what
    processor time each thread had in the block. That must keep the server busy for longer. Raises DidNotStart: it
    can't."""
    before_s = threads_s(server.pid)
    log = here.folder / f"spy-{kind}.log"
    spy = [spying(), "record", "--rate", "500", "--duration", str(seconds), "--format", kind, "--output", str(out)]
    later = ["sh", "-c", f'sleep {LATER_S}; exec "$@"', "sh", *spy, "--pid", str(server.pid)]
    with log.open("wb") as output:
        looking = subprocess.Popen(on_core(here.load, later), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        try:
            status = looking.wait(60)
        except subprocess.TimeoutExpired:
            looking.kill()
            status = looking.wait()
    if status:
        raise DidNotStart(f"py-spy can't look (as root, or with kernel.yama.ptrace_scope 0): {log.read_text()[-300:]}")
    if kind == "speedscope":
        used_s = {tid: now_s - before_s.get(tid, 0.0) for tid, now_s in threads_s(server.pid).items()}
        out.write_text(json.dumps(json.loads(out.read_text("utf-8")) | {"cpu_s": used_s}), "utf-8")


def threads_s(pid: int) -> dict[str, float]:
    """The processor seconds that each thread of a process has had, by its number."""
    found = {}
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = file.read_text("utf-8").rpartition(")")[2].split()
            found[file.parent.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def loaded(
    what: str, here: Place, seconds: int, outs: Mapping[str, Path], rolled_up: bool = False
) -> tuple[float, int]:
    """One kind of load on one farthing: once by itself, then watched once for each form of profile; the processor
    seconds of the former, and how many requests it had.

    `rolled_up`: it is watched when the ledger rolls up the rows of the former, a minute after the start, so that the
    watched requests have as much of that on their bill as any. It is watched under load alone, since whom py-spy stops
    while it waits seems busy. Raises DidNotStart, RuntimeError.
    """
    off = {"SEMANTIC__MODE": "off"}
    slow = streaming(here, chunks=STREAM_CHUNKS, first_ms=10, gap_ms=10) if what == "stream" else fast(here)
    serials, names, begun_s = itertools.count(), series(), time.monotonic()
    repeated = next(names)
    with slow as upstream, farthing("farthing watched", upstream.port, here, off) as ours:

        def load(seconds: int) -> int:
            if what == "stream":
                return len(drive(ours.port, until(serials, seconds), 50, spread))
            name, distinct = (repeated, DISTINCT_HITS) if what == "hit" else (next(names), 0)
            told = window(ours, 64, seconds, here, name, distinct)
            if told.errors:
                raise RuntimeError(f"{told.errors} of {told.requests} requests failed")
            return told.requests

        if what == "hit":
            learn(ours, here, repeated)
        elif what == "miss":
            warm(ours, here, next(names), 1)
        else:
            drive(ours.port, fresh(serials, 10), 10, spread)
        before_s = settle(ours.pid, 20.0)  # the tokenizer's ranks, which the first request loads
        count = load(seconds)
        used_s = settle(ours.pid) - before_s
        for kind, out in outs.items():
            if rolled_up:
                time.sleep(max(0.0, begun_s + ROLL_EVERY_S - seconds / 2 - time.monotonic()))
            with watched(ours, here, out, kind, seconds):
                load(seconds + BEYOND_S)
    return used_s, count


def begun(here: Place, out: Path) -> None:
    """A start of farthing, from bytecode that one before it wrote, watched from its first moment until it is ready.

    Raises DidNotStart.
    """
    port, log = free_port(), here.folder / "spy-start.log"
    serve = [sys.executable, "-m", "farthing.proxy.cli", "serve", "--port", str(port), "--state"]
    env = from_bytecode(here.folder / "bytecode", os.environ)
    env |= {"FARTHING_LOG__LEVEL": "warning", "FARTHING_SEMANTIC__MODE": "off"}
    spy = [spying(), "record", "--rate", "200", "--format", "speedscope", "--output", str(out), "--"]
    with fast(here) as upstream, log.open("wb") as output:
        one_start(upstream.port, here, "off", 0)
        serve += [str(here.folder / "start-off"), "--upstream", f"http://127.0.0.1:{upstream.port}/v1"]
        looking = subprocess.Popen(
            on_core(here.load, [*spy, *on_core(here.measured, serve)]),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=ROOT,
        )
        try:
            ready = until_ready(port, looking)
        finally:
            looking.send_signal(signal.SIGINT)  # it writes what it saw, and ends whom it started
            try:
                status = looking.wait(60)
            except subprocess.TimeoutExpired:
                looking.kill()
                status = looking.wait()
    if status or not ready:
        raise DidNotStart(f"py-spy can't look at a start: {log.read_text()[-300:]}")


def until_ready(port: int, looking: subprocess.Popen[bytes]) -> bool:
    """Wait until farthing is; False: whoever started it has ended, or it took two minutes."""
    end = time.monotonic() + 120
    while looking.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            get(f"http://127.0.0.1:{port}/readyz")
            return True
        time.sleep(0.05)
    return False


def section(
    profiles: Mapping[str, Mapping[str, Any]], costs: Mapping[str, tuple[float, int]], facts_: str, load: float
) -> str:
    """The section of the page. `profiles`: speedscope files by load, and `start`; `costs`: processor seconds and
    requests of each load; `load`: the machine's load average before it."""
    loads = [name for name in LOADS if name in profiles]
    lines = [facts_, ""]
    heads = ["what it was doing", *loads]
    for rule, first in ((by_part, heads), (by_library, ["whose code", *loads])):
        columns = {name: shares(samples(profiles[name]), rule) for name in loads}
        lines += [*table(first, side_by_side(columns)), ""]
    if "start" in profiles:
        found = {"start": shares(samples(profiles["start"]), by_start)}
        lines += [*table(["what a start does", "share"], side_by_side(found, 0.01)), ""]
    each = ", ".join(f"{name} {costs[name][0] * 1e6 / costs[name][1]:,.0f} µs" for name in loads)
    counts = ", ".join(f"{name} {sum(1 for _ in samples(profiles[name])):,}" for name in profiles)
    lines += [
        f"- Processor time a request (a stream is one request of {STREAM_CHUNKS} chunks), just before and not being "
        f"looked at: {each}. A part's microseconds are about its share of that.",
        "- What the samples of a thread weigh together is the processor time that it had. A sample is counted once: a "
        "thread that does one thing is that thing, else the innermost frame of farthing "
        "or aiohttp says what is done; compiled code counts for the Python that called it. The rules are in "
        "`bench/profile_shares.py`.",
        f"- Samples: {counts}. Load average of the machine before: {load:.1f}.",
    ]
    return "\n".join(lines)


def profiled(seconds: int, console: Console) -> str:
    """Every load and a start, as the page's section. Raises DidNotStart, RuntimeError, OSError."""
    load = os.getloadavg()[0]
    profiles: dict[str, Any] = {}
    costs: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        here = place(Path(folder))
        known = facts(here)
        for what in (*LOADS, "start"):
            console.print(f"profile: {what}", markup=False, highlight=False)
            out, own = RESULTS / f"profile-{what}.speedscope.json", replace(here, folder=here.folder / what)
            own.folder.mkdir()
            if what == "start":
                begun(own, out)
            else:
                costs[what] = loaded(what, own, seconds, {"speedscope": out}, rolled_up=True)
            profiles[what] = json.loads(out.read_text("utf-8"))
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    how = "`python -m bench.profile --write`, " + when + ". " + "; ".join(f"{k}: {v}" for k, v in known.items()) + "."
    return section(profiles, costs, how, load)


def main(arguments: list[str] | None = None) -> int:
    """Watch, write, print; 2 where it can't."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=LOADS)
    parser.add_argument("--write", action="store_true", help="all of them and a start, as tables in docs/benchmarks.md")
    parser.add_argument("--no-docs", action="store_true", help="with --write: print, but leave the page alone")
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args(arguments)
    if (given.what is None) != given.write:
        parser.error("either one kind of load, or --write for all")
    console = Console(width=None if sys.stdout.isatty() else 120)
    RESULTS.mkdir(parents=True, exist_ok=True)
    try:
        if given.write:
            text = profiled(given.seconds, console)
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            if not given.no_docs:
                page = DOCUMENT.read_text("utf-8")
                DOCUMENT.write_text(replace_section(page, "profiles", text), "utf-8")
            return 0
        scope, flames = (RESULTS / f"profile-{given.what}.{ending}" for ending in ("speedscope.json", "svg"))
        with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
            loaded(given.what, place(Path(folder)), given.seconds, {"speedscope": scope, "flamegraph": flames})
    except (DidNotStart, RuntimeError, OSError) as error:
        console.print(str(error), markup=False)
        return 2
    shown = Table("function", "own", "with what it calls", title=f"{given.what}: where {given.seconds} s of load went")
    for name, own, below in busiest(json.loads(scope.read_text("utf-8")))[:SHOWN]:
        shown.add_row(name, f"{own:.1%}", f"{below:.1%}")
    console.print(shown)
    console.print(f"{scope.relative_to(ROOT)} and {flames.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
