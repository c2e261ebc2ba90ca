"""What telemetry costs a hit: processor time of the process that answers, with OTLP off and on, side by side.

    nice -n 15 python -m bench.otlp_cost
    nice -n 15 python -m bench.otlp_cost --baseline ../main/.venv/bin/farthing    with another build beside it

One connection, hits of 64 prompts, load by wrk; the collector takes everything and reads nothing. Servers take turns.
'The answering process' is that process alone; 'with its children' has the process that sends in it, until both rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench.hot import series
from bench.load import window
from bench.machine import Place, place
from bench.servers import Running, farthing, free_port, started
from bench.upstream import fast

PROMPTS = 64


class Turn(NamedTuple):
    """One window: microseconds of processor time a request, and the median latency."""

    own_us: float
    family_us: float
    p50_ms: float
    per_s: float


class Sink(BaseHTTPRequestHandler):
    """Takes whatever is posted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read it, and say that all is well."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """A collector's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def own_s(pid: int) -> float:
    """Processor seconds of this process and its threads, without its children."""
    text = Path(f"/proc/{pid}/stat").read_text()
    user, system = text[text.rindex(")") + 2 :].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def turn(server: Running, seconds: int, here: Place, name: str) -> Turn:
    """One window of hits."""
    before = own_s(server.pid)
    one = window(server, 1, seconds, here, name, PROMPTS)
    if one.errors:
        raise RuntimeError(f"{server.name}: {one.errors} of {one.requests} failed")
    return Turn((own_s(server.pid) - before) * 1e6 / one.requests, one.cpu_us, one.p50_ms, one.per_s)


def another(
    command: Path, upstream_port: int, here: Place, env: dict[str, str]
) -> contextlib.AbstractContextManager[Running]:
    """Another build of farthing, with spans and metrics."""
    port = free_port()
    words = [str(command), "serve", "--port", str(port), "--upstream", f"http://127.0.0.1:{upstream_port}/v1"]
    words += ["--state", str(here.folder / "baseline.state")]
    named = {"FARTHING_LOG__LEVEL": "warning"} | {f"FARTHING_{name}": value for name, value in env.items()}
    return started("other build, on", words, port, here.folder, core=here.measured, ready="/readyz", env=named)


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser(prog="python -m bench.otlp_cost", description=__doc__)
    given.add_argument("--baseline", type=Path, help="the command of another build, measured with telemetry on")
    given.add_argument("--rounds", type=int, default=6)
    given.add_argument("--seconds", type=int, default=3)
    asked = given.parse_args()
    off = {"SEMANTIC__MODE": "off"}
    turns: dict[str, list[Turn]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder,
        sink() as collector,
        contextlib.ExitStack() as stack,
    ):
        here = place(Path(folder))
        upstream = stack.enter_context(fast(here))
        on = off | {"OTLP__ENDPOINT": collector}
        kinds = {"off": off, "metrics": on | {"OTLP__SPANS": "false"}, "spans and metrics": on}
        kinds["and content"] = on | {"OTLP__CONTENT": "true"}
        servers = [stack.enter_context(farthing(name, upstream.port, here, env)) for name, env in kinds.items()]
        if asked.baseline is not None:
            servers.append(stack.enter_context(another(asked.baseline, upstream.port, here, on)))
        names = series()
        prompts = next(names)
        for server in servers:
            turn(server, 1, here, prompts)  # fills the cache
        for number in range(asked.rounds):
            for server in servers if number % 2 else servers[::-1]:
                turns.setdefault(server.name, []).append(turn(server, asked.seconds, here, prompts))
    titles = ("OTLP", "the answering process, CPU µs a hit", "least", "with its children", "p50 ms", "hits/s")
    table = Table(*titles, title=f"hits, one at a time; load average {os.getloadavg()[0]:.1f}")
    for name in (server.name for server in servers):
        each = turns[name]
        own, family, p50, per_s = (median(column) for column in zip(*each, strict=True))
        least = min(one.own_us for one in each)
        table.add_row(name, f"{own:.0f}", f"{least:.0f}", f"{family:.0f}", f"{p50:.3f}", f"{per_s:,.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
