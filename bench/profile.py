"""Where the time goes: `python -m bench.profile hit|miss|stream`. Needs py-spy (`pip install py-spy`), wrk and nginx.

farthing by its real command line under load, looked at 500 times a second from outside; nothing is put into it. Writes
a profile for speedscope and a flame graph into bench/results, and prints which functions the samples were in.
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
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.hot import DISTINCT_HITS, learn, warm
from bench.load import window
from bench.machine import Place, on_core, place
from bench.servers import ROOT, DidNotStart, Running, farthing
from bench.streams import drive, spread, until
from bench.upstream import fast, streaming

__all__ = ["busiest"]

RESULTS = ROOT / "bench" / "results"
SHOWN = 25
WAITING = ("Condition.wait (threading.py)", "wait (threading.py)", "_worker (thread.py)")


def busiest(profile: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(function, its own share, its share with what it called) of a speedscope file's samples, busiest first.

    Threads that only wait for work don't count.
    """
    frames = [f"{one['name']} ({Path(one.get('file') or '').name})" for one in profile["shared"]["frames"]]
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    whole = 0.0
    for thread in profile["profiles"]:
        for stack, weight in zip(thread["samples"], thread["weights"], strict=True):
            if not stack or frames[stack[-1]] in WAITING:
                continue
            whole += weight
            own[frames[stack[-1]]] += weight
            for name in {frames[number] for number in stack}:
                below[name] += weight
    return [(name, weight / whole, below[name] / whole) for name, weight in own.most_common()]


@contextlib.contextmanager
def watched(server: Running, here: Place, out: Path, kind: str) -> Iterator[None]:
    """py-spy looks at the server while the block runs, and writes `out` at its end. Raises DidNotStart: it can't."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if spy is None:
        raise DidNotStart("py-spy isn't installed: pip install py-spy")
    log = here.folder / f"spy-{kind}.log"
    command = [spy, "record", "--rate", "500", "--format", kind, "--output", str(out), "--pid", str(server.pid)]
    with log.open("wb") as output:
        looking = subprocess.Popen(on_core(here.load, command), stdout=output, stderr=subprocess.STDOUT)
    try:
        time.sleep(0.5)  # it looks up where everything is
        yield
    finally:
        looking.send_signal(signal.SIGINT)
        try:
            status = looking.wait(60)
        except subprocess.TimeoutExpired:
            looking.kill()
            status = looking.wait()
    if status:
        raise DidNotStart(f"py-spy can't look (as root, or with kernel.yama.ptrace_scope 0): {log.read_text()[-300:]}")


def loaded(what: str, here: Place, seconds: int, outs: Mapping[str, Path]) -> None:
    """One kind of load on one farthing, watched once for each form of profile. Raises DidNotStart, RuntimeError."""
    off = {"SEMANTIC__MODE": "off"}
    slow = streaming(here, chunks=100, first_ms=10, gap_ms=10) if what == "stream" else fast(here)
    serials = itertools.count()
    with slow as upstream, farthing("farthing watched", upstream.port, here, off) as ours:
        if what == "hit":
            learn(ours, here, "prof")
        elif what == "miss":
            warm(ours, here, "spyw", 1)
        for number, (kind, out) in enumerate(outs.items()):
            with watched(ours, here, out, kind):
                if what == "stream":
                    drive(ours.port, until(serials, seconds), 50, spread)
                    continue
                name, distinct = ("prof", DISTINCT_HITS) if what == "hit" else (f"spy{number}", 0)
                told = window(ours, 64, seconds, here, name, distinct)
                if told.errors:
                    raise RuntimeError(f"{told.errors} of {told.requests} requests failed")


def main(arguments: list[str] | None = None) -> int:
    """Watch, write, print; 2 where it can't."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hit", "miss", "stream"))
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    RESULTS.mkdir(parents=True, exist_ok=True)
    scope, flames = (RESULTS / f"profile-{given.what}.{ending}" for ending in ("speedscope.json", "svg"))
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        here = place(Path(folder))
        try:
            loaded(given.what, here, given.seconds, {"speedscope": scope, "flamegraph": flames})
        except (DidNotStart, RuntimeError, OSError) as error:
            console.print(str(error), markup=False)
            return 2
    table = Table("function", "own", "with what it calls", title=f"{given.what}: where {given.seconds} s of load went")
    for name, own, below in busiest(json.loads(scope.read_text("utf-8")))[:SHOWN]:
        table.add_row(name, f"{own:.1%}", f"{below:.1%}")
    console.print(table)
    console.print(f"{scope.relative_to(ROOT)} and {flames.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
