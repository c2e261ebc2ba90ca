"""The house rules that a machine can check: who may import whom, how long a file may be, where text may not go."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("proxy", "cache", "compress", "policies")
LEAVES = {
    "aliases",
    "clock",
    "errors",
    "exchange",
    "header_facts",
    "jsontext",
    "lexicon",
    "price_rows",
    "price_table",
    "prices",
    "seal",
    "sse",
    "tokens",
    "text",
    "usage",
    "wire",
}
FILES = [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every farthing module that the file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("farthing.") and len(name.split(".")) >= 3}


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name != "proxy"], ids=str)
def test_rooms_import_only_proxys_leaves(path: Path) -> None:
    for name in imported(path):
        _, room, module = name.split(".")[:3]
        assert room == path.parent.name or (room == "proxy" and module in LEAVES), f"{path.name} imports {name}"


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_only_leaves(leaf: str) -> None:
    for name in imported(ROOT / "proxy" / f"{leaf}.py"):
        _, room, module = name.split(".")[:3]
        assert room == "proxy" and module in LEAVES, f"{leaf} imports {name}"


def test_rooms_have_no_sub_packages_and_their_inits_are_empty() -> None:
    for room in ROOMS:
        assert not list((ROOT / room).glob("*/__init__.py"))
        assert (ROOT / room / "__init__.py").read_text("utf-8").strip() == ""


def test_every_file_has_one_idea() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    long = {
        name: n for name in listed.stdout.split() if (n := len((ROOT / name).read_text("utf-8").splitlines())) > 500
    }

    assert long == {}


def test_only_the_task_group_makes_tasks() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(call in path.read_text("utf-8") for call in ("loop().create_task(", "io.create_task(", "ensure_future("))
    }

    assert makers <= {"proxy/tasks.py", "proxy/serve.py"}


def test_importing_the_command_line_is_light() -> None:
    """Heavy libraries load when they are needed, so that `farthing --help` and a first request don't wait for them."""
    heavy = {"faiss", "onnxruntime", "tiktoken", "genai_prices", "numpy", "scipy", "torch", "redis", "openai", "lxml"}
    heavy |= {"opentelemetry", "pyarrow", "requests"}
    code = f"import farthing.proxy.app, sys; print([name for name in {heavy!r} if name in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)

    assert shown.stdout.strip() == "[]"


def test_a_start_imports_nothing_that_only_some_configurations_need() -> None:
    """Each is imported where it is turned on (proxy/needed.py) or asked for, so that every other start is faster."""
    off = ("cache.index_pg", "cache.shared_index", "cache.store_redis", "compress.squeeze", "policies.agree")
    off += ("proxy.experiment_agreed", "proxy.experiment_shared", "proxy.experiments_replicas")
    off += ("proxy.dashboard", "proxy.hub", "proxy.openapi", "proxy.otlp", "proxy.peers", "proxy.route_shadow")
    off += ("proxy.routing", "proxy.stage_routed", "proxy.students")
    off += ("cache.differences", "cache.embedder", "cache.guard", "cache.index", "cache.reading", "cache.scorer")
    off += ("cache.semantic", "cache.signals", "cache.thesaurus", "cache.vectors", "cache.verifier")
    code = "import farthing.proxy.serve, sys; print(*(name for name in sys.modules if name.startswith('farthing.')))"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)

    assert [name for name in off if f"farthing.{name}" in shown.stdout.split()] == []


def test_a_command_imports_only_what_it_needs() -> None:
    """`farthing --help` and `farthing version` need no configuration, so they don't wait for its checks to be made."""
    code = "import farthing.proxy.cli, sys; print(*(name for name in ('asyncio', 'pydantic') if name in sys.modules), "
    code += "*(name for name in sys.modules if name.startswith('farthing.proxy.config')))"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)

    assert shown.stdout.split() == []
