"""Peers that are compared with: each installed on demand, in an environment of its own under bench/results.

`FARTHING_BENCH_<NAME>` names an environment that already has one. uv installs them, in seconds where pip takes minutes;
pip does where uv can't, for pip knows a mirror that is only in pip's own settings.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["NotInstalled", "environment", "node_package", "version"]

_RESULTS = Path(__file__).resolve().parent / "results"


class NotInstalled(Exception):
    """Why a peer can't be compared here."""


def environment(name: str, requirement: str, *, install: bool = True, program: str = "") -> Path:
    """The folder of the peer's environment, whose program is called `program`, or `name`; made where it isn't there.

    Raises NotInstalled: it can't be, or may not be (`install`).
    """
    venv = _folder(name, "venv")
    if (venv / "bin" / (program or name)).exists():
        return venv
    python, wanted = str(venv / "bin" / "python"), requirement.split()
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)], install)
    # By uv beside a run that measures no time. By pip, which takes minutes with all of it, at a peer's own start.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    try:
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        _run([*uv, *wanted], install)
    except NotInstalled:
        _run([*pip, "--no-compile", *wanted], install)
    return venv


def version(venv: Path, package: str) -> str:
    """The version that an environment has."""
    asked = [str(venv / "bin" / "python"), "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def node_package(name: str, package: str, *, install: bool = True) -> Path:
    """The folder of a package for Node, `package` with or without a version; fetched by npm where it isn't there, none
    of its scripts run. Raises NotInstalled: it can't be, or may not be (`install`)."""
    prefix = _folder(name, "node")
    found = prefix / "node_modules" / f"@{package.removeprefix('@').partition('@')[0]}"
    if not (found / "package.json").exists():
        prefix.mkdir(parents=True, exist_ok=True)
        _run(
            ["npm", "install", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix", str(prefix), package], install
        )
    return found


def _folder(name: str, kind: str) -> Path:
    return Path(os.environ.get(f"FARTHING_BENCH_{name.upper()}") or _RESULTS / f"{name}-{kind}")


def _run(command: list[str], install: bool) -> None:
    if not install:
        raise NotInstalled("not installed, and a quick run doesn't install it")
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"not installed: {error.__class__.__name__}") from None
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if "ERROR" in line or "npm error" in line]
        raise NotInstalled(f"not installed: {(lines or ran.stderr.splitlines() or ['no reason given'])[-1]}")
