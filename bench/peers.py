"""Peers that are compared with: each installed on demand, in an environment of its own under bench/results.

`FARTHING_BENCH_<NAME>` names an environment that already has one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["NotInstalled", "environment"]

_RESULTS = Path(__file__).resolve().parent / "results"


class NotInstalled(Exception):
    """Why a peer can't be compared here."""


def environment(name: str, requirement: str, *, install: bool = True) -> Path:
    """The folder of the peer's environment, whose program is called `name`; made where it isn't there.

    Raises NotInstalled: it can't be, or may not be (`install`).
    """
    venv = Path(os.environ.get(f"FARTHING_BENCH_{name.upper()}") or _RESULTS / f"{name}-venv")
    if (venv / "bin" / name).exists():
        return venv
    if not install:
        raise NotInstalled("not installed, and a quick run doesn't install it")
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", requirement],
    ):
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotInstalled(f"not installed: {error.__class__.__name__}") from None
        if ran.returncode:
            lines = [line for line in ran.stderr.splitlines() if "ERROR" in line]
            raise NotInstalled(f"not installed: {(lines or ran.stderr.splitlines() or ['no reason given'])[-1]}")
    return venv
