"""Runs gates for the proxy: before a promotion, and by themselves. Each in a process of its own, so that no request
waits.

The child is `farthing gate SUITE --config - --json`: it reads the candidate's configuration, keys included, from its
standard input, and nothing of it reaches a disk. STATE/gates.jsonl has one line for each run.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import BaseModel, SecretStr

from farthing.proxy import tied
from farthing.proxy.clock import Clock
from farthing.proxy.config import Config
from farthing.proxy.incidents import append, tail
from farthing.proxy.versions import policy_version

__all__ = ["FILE", "GateRuns", "child_of", "given_of"]

FILE = "gates.jsonl"
_KEPT = 100
_SAID_CHARS = 400

log = structlog.get_logger("farthing.gates")


def given_of(value: Any) -> Any:
    """What was set in a configuration, as plain values that make it again; secrets in clear: for a pipe only."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {fields[name].alias or name: given_of(getattr(value, name)) for name in sorted(value.model_fields_set)}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {str(key): given_of(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [given_of(inner) for inner in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


async def child_of(command: Sequence[str], config: Config, timeout_s: float) -> tuple[int, bytes, str]:
    """Run a command that reads `config` from its standard input: exit status, output, the end of what it complained of.

    Raises TimeoutError: it took longer than `timeout_s`, and was ended.
    """
    child = await asyncio.create_subprocess_exec(
        *tied.command(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("FARTHING_")},
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await child.communicate(orjson.dumps(given_of(config)))
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, out, err.decode("utf-8", "replace").strip()[-_SAID_CHARS:]


@dataclass(slots=True)
class GateRuns:
    """`folder`: of the state. `latest`: the last runs, newest last. One suite runs at a time."""

    folder: Path
    clock: Clock
    latest: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    running: str = ""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.latest.extend(tail(self.folder / FILE, frozenset(("ts", "suite", "verdict")))[-_KEPT:])

    async def blocks(self, config: Config, suite: str) -> str:
        """For a promotion: why the candidate may not ship; '' where it may."""
        told = await self.run(config, Path(suite), "a promotion")
        return "" if told["verdict"] == "ship" else f"{told['verdict']}: {told['why']}"

    async def run(
        self, config: Config, suite: Path, trigger: str, seen: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Run a suite, and keep its line: {"ts", "suite", "trigger", "policy", "verdict", "why", "rules", "took_s",
        "seen"}. `seen`: what it depends on, as it is now.

        The verdict is 'failed' where the run itself failed; `why` then says how. Never raises for the child's sake.
        """
        async with self._turn:
            begun = self.clock.now_s()
            self.running = suite.name
            try:
                verdict, why, rules = await self._child(config, suite)
            finally:
                self.running = ""
            line = {
                "ts": begun,
                "suite": str(suite),
                "trigger": trigger,
                "policy": policy_version(config),
                "verdict": verdict,
                "why": why,
                "rules": rules,
                "took_s": self.clock.now_s() - begun,
                "seen": dict(seen or {}),
            }
            self.latest.append(line)
            log.info("gate", suite=suite.name, verdict=verdict, trigger=trigger, why=why)
            try:
                await asyncio.to_thread(append, self.folder / FILE, orjson.dumps(line) + b"\n")
            except OSError as error:
                log.error("a gate's verdict can't be written", error=error.strerror)
            return line

    async def _child(self, config: Config, suite: Path) -> tuple[str, str, list[Any]]:
        gates = config.gates
        command = [sys.executable, "-m", "farthing.proxy.cli", "gate", str(suite), "--config", "-", "--json"]
        command += ["--key-env", gates.key_env, "--max-usd", str(gates.max_usd), "--learnt", str(self.folder)]
        try:
            status, out, err = await child_of(command, config, config.gates.timeout_s)
        except TimeoutError:
            return "failed", f"it took longer than {gates.timeout_s:g} s", []
        if status not in (0, 1):
            return "failed", err, []
        try:
            told = orjson.loads(out)
            bad = [f"{one['rule']} ({one['found']})" for one in told["rules"] if one["verdict"] != "ship"]
            return told["verdict"], "; ".join(bad)[:_SAID_CHARS], told["rules"]
        except (ValueError, KeyError, TypeError):
            return "failed", "its answer can't be read", []
