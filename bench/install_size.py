"""How large an installation is: `python -m bench.install_size [--extra NAME ...]`, in bytes on the disk.

farthing by itself is installed into an environment of its own; for each extra, what pip would add to that is installed
beside it. Bytes of the files, bytecode left out; pip itself doesn't count. Downloads what isn't in pip's cache. Writes
docs/benchmarks.md. Without --extra: all but those that need torch, which are some gigabytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from bench.machine import facts, place
from bench.report import Report, publish, show
from bench.servers import ROOT

__all__ = ["Size", "size_of"]

LARGE = ("sentence-transformers", "llmlingua")
RESULTS = ROOT / "bench" / "results"


class Size(NamedTuple):
    """Files and bytes under a folder."""

    files: int
    bytes: int


def size_of(folder: Path) -> Size:
    """Every file but bytecode and what belongs to pip."""
    found = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not path.relative_to(folder).parts[0].startswith("pip")
    ]
    return Size(len(found), sum(found))


def pip(python: Path, *words: str) -> str:
    """What pip says. Raises RuntimeError: it failed."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if ran.returncode:
        raise RuntimeError(f"pip {words[0]} failed: {ran.stderr.strip().splitlines()[-1:]}")
    return ran.stdout


def base(folder: Path) -> tuple[Path, Size, int]:
    """The environment's Python, what farthing and its dependencies take there, and how many packages they are."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--no-compile", ".")
    packages = next((folder / "lib").glob("python*/site-packages"))
    count = sum(not one.name.startswith(("pip-", "setuptools-")) for one in packages.glob("*.dist-info"))
    return python, size_of(packages), count


def extra(python: Path, name: str, folder: Path) -> tuple[Size, int]:
    """What an extra adds."""
    told = pip(python, "install", "--dry-run", "--report", "-", f".[{name}]")
    added = [f"{one['metadata']['name']}=={one['metadata']['version']}" for one in json.loads(told)["install"]]
    added = [one for one in added if not one.startswith("farthing==")]
    if added:
        pip(python, "install", "--no-compile", "--no-deps", "--target", str(folder), *added)
    return size_of(folder) if added else Size(0, 0), len(added)


def main(arguments: list[str] | None = None) -> int:
    """Install, count, write."""
    known = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", choices=known, help="only this one; may be given again")
    parser.add_argument("--no-docs", action="store_true")
    given = parser.parse_args(arguments)
    wanted = given.extra or [name for name in known if name not in LARGE]
    report = Report("install", "Size of an installation", ["what", "packages", "files", "bytes", "MB"])
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as name:
        folder = Path(name)
        python, size, count = base(folder / "base")
        add(report, "farthing", size, count)
        for one in wanted:
            add(report, f"[{one}] adds", *extra(python, one, folder / one))
        machine = facts(place(folder))
    left = [one for one in known if one not in wanted]
    if left:
        report.notes.append(f"Not installed: {', '.join(left)}.")
    report.notes.append("The semantic stage, with its model, is part of farthing itself. Bytecode isn't counted.")
    show(report, Console(width=120))
    words = " ".join(["python -m bench.install_size", *(arguments if arguments is not None else sys.argv[1:])])
    told = {key: machine[key] for key in ("system", "python", "commit")}
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    publish(report, told, words, when, RESULTS, None if given.no_docs else ROOT / "docs" / "benchmarks.md")
    return 0


def add(report: Report, what: str, size: Size, packages: int) -> None:
    """A row, and its raw figures."""
    report.rows.append([what, str(packages), f"{size.files:,}", f"{size.bytes:,}", f"{size.bytes / 1e6:,.0f}"])
    report.raw.append({"what": what, "packages": packages, **size._asdict()})


if __name__ == "__main__":
    sys.exit(main())
