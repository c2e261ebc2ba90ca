"""LiteLLM's proxy as a peer: installed on demand in an environment of its own, one process, no key, no database.

`FARTHING_BENCH_LITELLM` names an environment that already has it. Versions 1.82.7 and 1.82.8 are shut out:
they were not published by its authors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.machine import Place
from bench.peers import NotInstalled, environment, version
from bench.servers import Running, free_port, started

__all__ = ["NotInstalled", "installed", "proxy"]

# By itself it keeps no conversation of more than four messages.
CACHE = "  cache: true\n  cache_params:\n    type: local\n    max_messages: 1000\n"
REQUIREMENT = "litellm[proxy]!=1.82.7,!=1.82.8"


def installed(*, install: bool = True) -> Path:
    """The environment's folder; `install`: made where it isn't there (700 MB, a few minutes). Raises NotInstalled."""
    return environment("litellm", REQUIREMENT, install=install)


@contextlib.contextmanager
def proxy(upstream_port: int, here: Place, *, install: bool = True, cache: bool = False) -> Iterator[Running]:
    """LiteLLM before the upstream; `cache`: with its cache in memory. Raises NotInstalled, DidNotStart."""
    venv = installed(install=install)
    config = here.folder / f"litellm{'-cache' * cache}.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: gpt-4o-mini\n"
        "    litellm_params:\n"
        "      model: openai/gpt-4o-mini\n"
        f"      api_base: http://127.0.0.1:{upstream_port}/v1\n"
        "      api_key: sk-bench\n"
        "litellm_settings:\n"
        "  telemetry: false\n"
        + ("  cache: true\n  cache_params:\n    type: local\n    max_messages: 1000\n" if cache else ""),
        "utf-8",
    )
    port = free_port()
    command = [str(venv / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    # Its own price list, not one fetched at start; no debug log; no key, which it asks for unless told otherwise: it
    # listens on the loopback interface only, and checking a key would only make it slower.
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    name = f"LiteLLM {version(venv, 'litellm')}{', its cache on' * cache}"
    command += ["--num_workers", "1"]
    alive = "/health/liveliness"
    with started(name, command, port, here.folder, core=here.measured, ready=alive, env=env, timeout_s=150) as running:
        yield running
