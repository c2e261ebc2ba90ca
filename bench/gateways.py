"""Other gateways as peers: how each is had and started here, for misses or with its cache on. LiteLLM has its own file.

Each before the same upstream as farthing, one process, nothing but the loopback interface. What can't be installed
raises NotInstalled, with why.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.machine import Place
from bench.peers import NotInstalled, environment, node_package, version
from bench.servers import Running, free_port, started

__all__ = ["PEERS", "cachellm", "gptcache_us", "headroom", "portkey"]

PORTKEY = "@portkey-ai/gateway@1.15.2"
HEADROOM = "headroom-ai[proxy]==0.42.0"
CACHELLM = "cachellm-proxy==0.3.0"
GPTCACHE = "gptcache==0.1.44"


def _portkey(*, install: bool) -> Path:
    return node_package("portkey", PORTKEY, install=install)


def _headroom(*, install: bool) -> Path:
    return environment("headroom_proxy", HEADROOM, install=install, program="headroom")


def _cachellm(*, install: bool) -> Path:
    return environment("cachellm", CACHELLM, install=install)


def _gptcache(*, install: bool) -> Path:
    return environment("gptcache", GPTCACHE, install=install, program="python")


PEERS: tuple[Callable[..., Path], ...] = (_portkey, _headroom, _cachellm, _gptcache)
"""Where each is; fetched where it is missing and may be. Raises NotInstalled."""


@contextlib.contextmanager
def portkey(upstream_port: int, here: Place, *, install: bool) -> Iterator[Running]:
    """Portkey's gateway on Node, told by headers where to go. Raises NotInstalled, DidNotStart."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NotInstalled("not installed: Node and npm aren't there")
    package = _portkey(install=install)
    name = f"Portkey gateway {json.loads((package / 'package.json').read_text('utf-8'))['version']}"
    port = free_port()
    command = [node, str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    headers = f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{upstream_port}/v1\r\n"
    env = {"NODE_ENV": "production"}
    with started(
        name, command, port, here.folder, core=here.measured, ready="/", env=env, timeout_s=60, headers=headers
    ) as running:
        yield running


@contextlib.contextmanager
def headroom(upstream_port: int, here: Place, *, install: bool) -> Iterator[Running]:
    """Headroom's proxy, its optimiser and cache off, so that it only passes on. Raises NotInstalled, DidNotStart."""
    venv = _headroom(install=install)
    port = free_port()
    command = [str(venv / "bin" / "headroom"), "proxy", "--host", "127.0.0.1", "--port", str(port), "--no-optimize"]
    command += ["--no-cache", "--no-rate-limit", "--openai-api-url", f"http://127.0.0.1:{upstream_port}"]
    env = {"HEADROOM_OFFLINE": "1", "HEADROOM_TELEMETRY": "off", "HOME": str(here.folder)}
    name = f"Headroom proxy {version(venv, 'headroom-ai')}, optimiser off"
    with started(
        name, command, port, here.folder, core=here.measured, ready="/livez", env=env, timeout_s=150
    ) as running:
        yield running


@contextlib.contextmanager
def cachellm(upstream_port: int, here: Place, *, install: bool) -> Iterator[Running]:
    """CacheLLM's proxy with its memory back end, told to cache conversations too. Its embedder is the one that needs no
    model: exact hits never reach it. Raises NotInstalled, DidNotStart."""
    venv = _cachellm(install=install)
    port = free_port()
    env = {
        "CACHELLM_PORT": str(port),
        "CACHELLM_BACKEND": "memory",
        "CACHELLM_EMBEDDING_BACKEND": "hash",
        "CACHELLM_CACHE_MULTI_TURN": "true",
        "CACHELLM_PII_GUARD": "false",
        "CACHELLM_DISCOVER_MODELS": "false",
        "CACHELLM_DEFAULT_PROVIDER": "openai",
        "CACHELLM_OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CACHELLM_OPENAI_API_KEY": "sk-bench",
        "CACHELLM_LOG_LEVEL": "ERROR",
        "HOME": str(here.folder),
    }
    command = [str(venv / "bin" / "cachellm"), "serve"]
    name = f"CacheLLM {version(venv, 'cachellm-proxy')}"
    with started(
        name, command, port, here.folder, core=here.measured, ready="/healthz", env=env, timeout_s=60
    ) as running:
        yield running


_GET = """
import json, sys, time, tempfile
from gptcache import Cache
from gptcache.adapter.api import get, put
from gptcache.manager import get_data_manager
from gptcache.processor.pre import get_prompt
texts = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as folder:
    cache = Cache()
    cache.init(pre_embedding_func=get_prompt, data_manager=get_data_manager(data_path=folder + "/map.txt"))
    for text in texts:
        put(text, text, cache_obj=cache)
    assert all(get(text, cache_obj=cache) == text for text in texts)
    took = []
    for _ in range(int(sys.argv[1])):
        begun, used = time.perf_counter(), time.process_time()
        for text in texts:
            get(text, cache_obj=cache)
        took.append((time.process_time() - used, time.perf_counter() - begun))
print(json.dumps([[1e6 * one / len(texts) for one in pair] for pair in took]))
"""


def gptcache_us(texts: list[str], rounds: int, here: Place, *, install: bool) -> list[tuple[float, float]]:
    """Processor and clock microseconds of a `get` in GPTCache's exact form, a map in memory, no HTTP round it; for each
    round over the texts. Raises NotInstalled; RuntimeError: it failed."""
    venv = _gptcache(install=install)
    if not any((venv / "lib").glob("python*/site-packages/gptcache")):
        raise NotInstalled("not installed: its environment is there, but the package isn't")
    command = [str(venv / "bin" / "python"), "-c", _GET, str(rounds)]
    script: dict[str, Any] = {"input": json.dumps(texts), "capture_output": True, "text": True, "timeout": 120}
    ran = subprocess.run(command, cwd=here.folder, check=False, env=_bare(here.folder), **script)
    if ran.returncode:
        raise RuntimeError(f"GPTCache failed: {ran.stderr[-300:]}")
    return [(used, took) for used, took in json.loads(ran.stdout.splitlines()[-1])]


def _bare(home: Path) -> dict[str, str]:
    """An environment in which it may install nothing: it calls pip where an optional package is missing."""
    return {"PATH": str(Path(sys.executable).parent), "HOME": str(home), "PIP_NO_INDEX": "1"}
