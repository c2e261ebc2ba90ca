"""Several farthings over one Redis or Valkey behind nginx as it is shipped: one command, whose children they are.

    python -m bench.crowd --port 9100 --upstream 9000 --store redis://127.0.0.1:6379/0 --count 3 --folder FOLDER

Until it is told to stop. Its processor time is nginx's and the farthings'; the store is somebody else's.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bench.machine import Place
from bench.servers import ROOT, Running, farthing, module, started, state_of

__all__ = ["balanced", "command", "main", "replica"]

SHIPPED = ROOT / "deploy" / "nginx" / "nginx.conf"
_SETTINGS = {"SEMANTIC__MODE": "off"}


def command(port: int, upstream: int, store: str, count: int, here: Place) -> list[str]:
    """The command that runs it."""
    given = ["--port", port, "--upstream", upstream, "--store", store, "--count", count, "--cores", here.measured]
    return module("crowd", *map(str, given), "--folder", str(here.folder / "crowd"))


def balanced(port: int, farthings: Sequence[int], folder: Path) -> tuple[str, str]:
    """nginx.conf as shipped, but for its address and its places; and the list of farthings that it includes."""
    text = SHIPPED.read_text("utf-8")
    for shipped, here in (("listen 8080;", f"listen 127.0.0.1:{port};"), ("/tmp/nginx", f"{folder}/nginx")):
        if shipped not in text:
            raise ValueError(f"{SHIPPED.name} has no {shipped!r} any more")
        text = text.replace(shipped, here)
    return f"daemon off;\n{text}", "".join(
        f"server 127.0.0.1:{one} max_fails=1 fail_timeout=2s;\n" for one in farthings
    )


def replica(
    name: str, upstream: int, store: str, secret: str, here: Place
) -> contextlib.AbstractContextManager[Running]:
    """One farthing of several. `secret`: theirs, without which none finds what another has stored."""
    state = state_of(name, here)
    state.mkdir(parents=True, exist_ok=True)
    (state / "secret").write_text(f"{secret}\n")
    return farthing(name, upstream, here, _SETTINGS | {"STORE__URL": store})


def main(arguments: Sequence[str]) -> None:
    """Start them, and wait for SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True, help="port of the one upstream")
    parser.add_argument("--store", required=True, help="URL of the Redis or Valkey")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--cores", default="0", help="as taskset lists them")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args(arguments)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    given.folder.mkdir(parents=True, exist_ok=True)
    here = Place(given.folder, given.cores, given.cores)
    secret = secrets.token_hex(32)
    with contextlib.ExitStack() as stack:
        farthings = [
            stack.enter_context(replica(f"replica {number}", given.upstream, given.store, secret, here))
            for number in range(given.count)
        ]
        conf, upstreams = balanced(given.port, [one.port for one in farthings], given.folder)
        (given.folder / "nginx.conf").write_text(conf, "utf-8")
        (given.folder / "upstreams.conf").write_text(upstreams, "utf-8")
        run = ["nginx", "-p", str(given.folder), "-c", str(given.folder / "nginx.conf"), "-e", "stderr"]
        stack.enter_context(started("nginx", run, given.port, given.folder, core=given.cores, ready="/readyz"))
        told.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
