"""Headroom as a peer: its library call, with its defaults, on whole conversations, in an environment of its own.

This file runs in both environments: imported, it starts itself in Headroom's and hands it the conversations; as a
program, it reads lines of JSON messages and writes lines of what Headroom makes of them. Its optional models aren't
installed. Nothing may be fetched: it counts tokens with the files that LiteLLM's package brings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["REQUIREMENT", "Shortened", "shortened"]

REQUIREMENT = "headroom-ai==0.42.0"


class Shortened(NamedTuple):
    """What became of one conversation, and the processor time that it took, seconds."""

    messages: list[dict[str, Any]]
    cpu_s: float


def shortened(conversations: list[list[dict[str, Any]]], *, install: bool = True) -> list[Shortened]:
    """Every conversation through Headroom. Raises peers.NotInstalled; RuntimeError: it failed."""
    from bench.peers import environment

    venv = environment("headroom", REQUIREMENT, install=install)
    packages = next((venv / "lib").glob("python*/site-packages"))
    told = "".join(json.dumps(messages) + "\n" for messages in conversations)
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as home:
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": home,
            "HF_HUB_OFFLINE": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "TIKTOKEN_CACHE_DIR": str(packages / "litellm" / "litellm_core_utils" / "tokenizers"),
        }
        command = [str(venv / "bin" / "python"), str(Path(__file__).resolve())]
        ran = subprocess.run(command, input=told, capture_output=True, text=True, check=False, env=env, cwd=home)
    if ran.returncode:
        raise RuntimeError(f"Headroom failed: {(ran.stderr.splitlines() or ['no reason given'])[-1]}")
    return [Shortened(*json.loads(line)) for line in ran.stdout.splitlines() if line.startswith("[")]


def main() -> None:
    """In Headroom's environment."""
    from headroom import compress

    for line in sys.stdin:
        messages = json.loads(line)
        before = time.process_time()
        found = compress(messages, model="gpt-4o")
        print(json.dumps([found.messages, time.process_time() - before]), flush=True)


if __name__ == "__main__":
    main()
