"""A start does nothing that can wait, or that nobody needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import proxied

FAKES = Path(__file__).parent.parent / "fakes"
UPSTREAM = "http://127.0.0.1:9/v1"


def told(code: str, *arguments: str, **env: str) -> Any:
    """What a fresh interpreter prints last, as JSON."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FARTHING_", "PYDANTIC_"))}
    shown = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=clean | env
    )
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout.splitlines()[-1])


SERVED = """
import asyncio, gc, importlib.metadata, json, os, signal, sys

looked = []
importlib.metadata.entry_points = lambda **named: looked.append(named) or ()
import farthing.proxy.cli, farthing.proxy.config

found = {"read": 0}
load = farthing.proxy.config.load

def counted(*given, **named):
    found["read"] += 1
    return load(*given, **named)

def collected(phase, info):
    if phase == "start" and "listens" not in found:
        found["collections"] = found.get("collections", 0) + 1

farthing.proxy.config.load = counted
import farthing.proxy.starting
begin = farthing.proxy.starting.begin
farthing.proxy.starting.begin = lambda environ: (begin(environ), gc.callbacks.append(collected))

import structlog

def processed(logger, name, event):
    if event["event"] == "listening":
        from farthing.proxy.config_prices import ModelPrice

        found["listens"] = True
        found["gc"] = [gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 10_000]
        found["modules"] = [name for name in sys.modules if name.startswith("farthing.")]
        found["prices"] = bool(ModelPrice.__pydantic_complete__)
        found["authorities"] = os.environ.get("SSL_CERT_FILE")
        os.kill(os.getpid(), signal.SIGTERM)
    raise structlog.DropEvent

import farthing.proxy.logs
farthing.proxy.logs.set_up = lambda settings: structlog.configure(processors=[processed])
sys.argv = ["farthing", "serve", "--port", "0", "--upstream", sys.argv[1], "--state", sys.argv[2]]
try:
    farthing.proxy.cli.main()
except SystemExit as ended:
    found["status"] = ended.code
print(json.dumps(found | {"looked": len(looked)}))
"""


def test_a_start_looks_for_no_garbage_reads_once_and_loads_what_is_on(tmp_path: Path) -> None:
    found = told(SERVED, UPSTREAM, str(tmp_path / "s"), FARTHING_SEMANTIC__MODE="off", SSL_CERT_FILE="/some/where.pem")

    assert found["status"] == 0
    assert "collections" not in found
    assert found["gc"] == [True, 5_000, True]  # and again once it listens
    assert found["read"] == 1
    assert found["looked"] == 0  # for plugins
    assert not found["prices"]  # of students, where there are none
    assert found["authorities"] == "/some/where.pem"
    off = ("differences", "embedder", "guard", "index", "reading", "scorer", "semantic", "signals", "thesaurus")
    off += ("vectors", "verifier")
    assert [name for name in off if f"farthing.cache.{name}" in found["modules"]] == []


AIOHTTP = """
import json, os, ssl

made = []
paths = ssl.SSLContext.set_default_verify_paths
ssl.SSLContext.set_default_verify_paths = lambda self: (paths(self), made.append(len(self.get_ca_certs())))[0]
from farthing.proxy.starting import import_aiohttp

import_aiohttp(os.environ)
import aiohttp
print(json.dumps([made, os.environ.get("SSL_CERT_FILE"), bool(aiohttp.ClientSession)]))
"""


@pytest.mark.parametrize("authorities", [str(FAKES / "nobody.pem"), ""])
def test_aiohttp_reads_no_authorities(authorities: str) -> None:
    code = AIOHTTP if authorities else "import os; del os.environ['SSL_CERT_FILE']\n" + AIOHTTP

    made, after, there = told(code, SSL_CERT_FILE=authorities)

    assert not any(made)
    assert (after, there) == (authorities or None, True)


ALERT = """
import asyncio, json, os, ssl, sys
from farthing.proxy.starting import import_aiohttp

import_aiohttp(os.environ)
from aiohttp import web
from pydantic import SecretStr
from farthing.proxy.alerts import Webhook
from farthing.proxy.clock import SystemClock
from farthing.proxy.config_spend import Alerts
from farthing.proxy.tasks import TaskGroup

async def main():
    got = []

    async def take(request):
        got.append(await request.json())
        return web.Response()

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1])
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://localhost:{runner.addresses[0][1]}/"
    tasks = TaskGroup()
    webhook = Webhook(Alerts(webhook=SecretStr(url), tries=1), SystemClock(), lambda call: tasks.spawn(call, "alert"))
    webhook.send({"event": "incident"})
    await tasks.drain(60)
    await runner.cleanup()
    print(json.dumps([len(got), webhook.lost]))

asyncio.run(main())
"""


@pytest.mark.parametrize(("trusted", "arrived"), [("localhost.pem", [1, 0]), ("nobody.pem", [0, 1])])
def test_alerts_go_over_tls_to_whom_is_trusted(trusted: str, arrived: list[int]) -> None:
    assert told(ALERT, str(FAKES / "localhost.pem"), SSL_CERT_FILE=str(FAKES / trusted)) == arrived


async def test_what_is_in_force_is_written_where_it_changed(tmp_path: Path) -> None:
    standing = tmp_path / "policies" / "standing.json"
    async with proxied(UPSTREAM, tmp_path):
        pass
    left = (standing.stat().st_ino, standing.stat().st_mtime_ns)
    async with proxied(UPSTREAM, tmp_path):
        found = (standing.stat().st_ino, standing.stat().st_mtime_ns)
    active = json.loads(standing.read_bytes())["active"]
    async with proxied(UPSTREAM, tmp_path, cache__ttl_s=60):
        changed = json.loads(standing.read_bytes())["active"]

    assert found == left
    assert changed != active


SUPERVISED = """
import gc, json, os, sys
import farthing.proxy.supervise as supervise
from farthing.proxy.starting import begin

async def asked(*given):
    return int(gc.isenabled())

begin(os.environ)
supervise._supervise = asked
print(supervise.supervise(None, None, {}, None))
"""


def test_the_supervisor_of_workers_looks_for_garbage() -> None:
    assert told(SUPERVISED) == 1


WORKER = """
import gc, json, os, sys
import farthing.proxy.worker as worker

class Place:
    read = staticmethod(lambda text: None)

class Config:
    log = None

worker.Place, worker.configured, worker.set_up = Place, lambda place: Config, lambda log: None
import farthing.proxy.starting
import_aiohttp = worker.import_aiohttp
seen = []
worker.import_aiohttp = lambda environ: (import_aiohttp(environ), seen.append("aiohttp" in sys.modules))
import types
sys.modules["farthing.proxy.serve"] = types.SimpleNamespace(work=lambda *given: int(gc.isenabled()))
print(json.dumps([worker.main([""]), seen]))
"""


def test_a_worker_starts_alike() -> None:
    assert told(WORKER) == [0, [True]]
