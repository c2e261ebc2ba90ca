"""The Dockerfile, as far as it can be followed without a Docker: its shape by a parser, its steps in a directory.

`pytest -m image` builds and runs it where docker or podman is; FARTHING_TEST_BASE names another base.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser

from tests.fakes.proxying import proxied
from tests.fakes.upstream import scripted
from tests.fakes.valkey import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    copy = tmp_path_factory.mktemp("docker")
    (copy / "Dockerfile").write_text((ROOT / "Dockerfile").read_text("utf-8"), "utf-8")  # the parser may write
    found: list[dict[str, Any]] = DockerfileParser(str(copy)).structure
    return [step for step in found if step["instruction"] != "COMMENT"]


def last_stage(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    begins = [at for at, step in enumerate(steps) if step["instruction"] == "FROM"]
    assert len(begins) == 3
    return steps[begins[-1] :]


def test_the_image_is_not_roots_and_its_volume_belongs_to_its_user(steps: list[dict[str, Any]]) -> None:
    told = {step["instruction"]: step["value"] for step in last_stage(steps)}
    assert told["USER"] == "10001:10001"
    order = [step["instruction"] for step in last_stage(steps)]
    assert order.index("USER") > max(at for at, name in enumerate(order) if name in ("RUN", "COPY"))
    made = next(step["value"] for step in last_stage(steps) if step["instruction"] == "RUN")
    assert re.search(rf"install -d -m 0700 -o 10001 -g 10001 .*{told['VOLUME']}$", made)
    assert json.loads(told["ENTRYPOINT"]) + json.loads(told["CMD"]) == ["farthing", "serve"]
    assert "curl" not in (ROOT / "Dockerfile").read_text("utf-8")


def test_every_base_is_the_pinned_one(steps: list[dict[str, Any]]) -> None:
    base = next(step["value"] for step in steps if step["instruction"] == "ARG")
    assert re.fullmatch(r"BASE=python:\d+\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    froms = [step["value"].split()[0] for step in steps if step["instruction"] == "FROM"]
    assert froms == ["${BASE}"] * 3


def test_what_is_copied_from_here_is_there_and_let_in(steps: list[dict[str, Any]]) -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    for step in steps:
        if step["instruction"] == "COPY" and "--from" not in step["value"]:
            source = step["value"].split()[0]
            assert (ROOT / source).exists()
            assert not any(source == one or source.startswith(f"{one}/") for one in ignored)


def test_what_the_last_stage_takes_is_what_the_stages_before_leave(steps: list[dict[str, Any]]) -> None:
    names = {step["value"].split()[2] for step in steps if step["instruction"] == "FROM" and " AS " in step["value"]}
    taken = {name for step in steps for name in re.findall(r"--from=(\S+)", step["value"])}
    assert taken == names == {"wheel", "environment"}


def test_the_wheel_is_built_from_what_the_context_has(steps: list[dict[str, Any]], tmp_path: Path) -> None:
    """Replays the first stage: the checkout without what .dockerignore names, and its build command."""
    names = wheel_of(sys.executable, steps, tmp_path)
    assert "farthing/proxy/cli.py" in names
    assert any(name.startswith("farthing/proxy/static/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "deploy/"))]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_locked_tools_build_the_same_wheel_and_nothing_else_is_installed(
    steps: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Replays the first stage in an environment of its own, its installing too; asks the package index."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "tools")], check=True)
    python = str(tmp_path / "tools" / "bin" / "python")
    copied, installs = first_stage(steps, "COPY")[0], first_stage(steps, "RUN")[0]
    assert copied == "deploy/build.lock /"
    command = [python, *shlex.split(installs)[1:]]
    command[command.index("/build.lock")] = str(ROOT / "deploy" / "build.lock")
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert wheel_of(python, steps, theirs) == wheel_of(sys.executable, steps, ours)


def first_stage(steps: list[dict[str, Any]], instruction: str) -> list[str]:
    """What comes after an instruction each time that it stands in the first stage."""
    begins = [at for at, step in enumerate(steps) if step["instruction"] == "FROM"]
    return [step["value"] for step in steps[begins[0] : begins[1]] if step["instruction"] == instruction]


def wheel_of(python: str, steps: list[dict[str, Any]], folder: Path) -> list[str]:
    """The names in the wheel that the first stage's last command makes of the context."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    ignored = [one.removesuffix("/") for one in (ROOT / ".dockerignore").read_text("utf-8").split() if "*" not in one]
    source = folder / "src"
    for name in filter(None, listed.split("\0")):
        if any(name == one or name.startswith(f"{one}/") for one in ignored) or not (ROOT / name).exists():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [python, *shlex.split(first_stage(steps, "RUN")[-1])[1:]]
    assert "--no-isolation" in command
    command[command.index("/wheels")] = str(folder)
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return sorted(wheel.namelist())


async def test_the_health_check_tells_a_live_farthing_from_none(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        assert await checked(proxy.url.rpartition(":")[2]) == 0
    assert await checked(str(free_port())) == 1


async def checked(port: str) -> int:
    import asyncio

    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(ROOT / "deploy" / "healthcheck.py")), env={"FARTHING_SERVER__PORT": port}
    )
    return await asyncio.wait_for(child.wait(), 20)


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_the_image_is_built_and_does_what_it_should() -> None:
    base = os.environ.get("FARTHING_TEST_BASE")
    command = [sys.executable, str(ROOT / "deploy" / "try_image.py"), *(["--base", base] if base else [])]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode == 3:
        pytest.skip(ran.stderr.strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr
