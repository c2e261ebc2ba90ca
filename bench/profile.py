"""Where the time goes: `python -m bench.profile hit|miss|stream`. Needs py-spy (`pip install py-spy`), wrk and nginx.

farthing by its real command line under load, looked at 500 times a second from outside; nothing is put into it. Writes
a profile for speedscope and a flame graph into bench/results, and prints which functions the samples were in. py-spy
starts farthing as its child, since a process may look into its own children everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
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

from bench.hot import DISTINCT_HITS, learn
from bench.load import window
from bench.machine import Place, on_core, place
from bench.servers import ROOT, DidNotStart, Running, free_port, get
from bench.streams import drive, fresh, spread
from bench.upstream import fast, streaming

__all__ = ["busiest"]

RESULTS = ROOT / "bench" / "results"
SHOWN = 25


def busiest(profile: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(function, its own share, its share with what it called) of a speedscope file's samples, busiest first."""
    frames = [f"{one['name']} ({Path(one.get('file') or '').name})" for one in profile["shared"]["frames"]]
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    whole = 0.0
    for thread in profile["profiles"]:
        for stack, weight in zip(thread["samples"], thread["weights"], strict=True):
            if not stack:
                continue
            whole += weight
            own[frames[stack[-1]]] += weight
            for name in {frames[number] for number in stack}:
                below[name] += weight
    return [(name, weight / whole, below[name] / whole) for name, weight in own.most_common()]


@contextlib.contextmanager
def watched(upstream_port: int, here: Place, out: Path, kind: str) -> Iterator[Running]:
    """farthing under py-spy, whose profile is in `out` when the block has ended. Raises DidNotStart."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{_path()}")
    if spy is None:
        raise DidNotStart("py-spy isn't installed: pip install py-spy")
    port = free_port()
    command = [spy, "record", "--rate", "500", "--format", kind, "--output", str(out), "--"]
    command += [sys.executable, "-m", "farthing.proxy.cli", "serve", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1", "--state", str(here.folder / f"spied-{kind}")]
    log = here.folder / f"spied-{kind}.log"
    with log.open("wb") as output:
        spied = subprocess.Popen(
            on_core(here.measured, command),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={"PATH": _path(), "FARTHING_SEMANTIC__MODE": "off", "FARTHING_LOG__LEVEL": "warning"},
        )
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                get(f"http://127.0.0.1:{port}/readyz")
                break
            if spied.poll() is not None or time.monotonic() > end:
                raise DidNotStart("\n".join(log.read_text("utf-8", "replace").splitlines()[-15:]))
            time.sleep(0.1)
        yield Running("farthing", spied.pid, port)
    finally:
        spied.send_signal(signal.SIGINT)  # it stops looking, writes, and ends its child
        with contextlib.suppress(subprocess.TimeoutExpired):
            spied.wait(60)
        if spied.poll() is None:
            spied.kill()
            spied.wait()


def _path() -> str:

    return os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")


def loaded(what: str, here: Place, seconds: int, out: Path, kind: str) -> None:
    """One kind of load on a farthing that is watched."""
    if what == "stream":
        with (
            streaming(here, chunks=100, first_ms=10, gap_ms=10) as upstream,
            watched(upstream.port, here, out, kind) as ours,
        ):
            drive(ours.port, fresh(iter(range(10**9)), 20 * seconds), 50, spread)
        return
    with fast(here) as upstream, watched(upstream.port, here, out, kind) as ours:
        if what == "hit":
            learn(ours, here, "prof")
        told = window(
            ours, 64, seconds, here, "prof" if what == "hit" else "spy0", DISTINCT_HITS if what == "hit" else 0
        )
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
            loaded(given.what, here, given.seconds, scope, "speedscope")
            loaded(given.what, here, given.seconds, flames, "flamegraph")
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
