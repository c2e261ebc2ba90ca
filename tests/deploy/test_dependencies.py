"""The bill of materials, and the lock that the image installs from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent


LOCK = ROOT / "deploy" / "requirements.lock"
BUILD = ROOT / "deploy" / "build.lock"
DIGEST = "0" * 64
ONE = f"one==1.0 \\\n    --hash=sha256:{DIGEST}\n    # via farthing (pyproject.toml)\n"


def told(*arguments: Path | str) -> tuple[int, str, str]:
    """The exit status of deploy/sbom.py, and what it wrote to each stream."""
    command = [sys.executable, str(ROOT / "deploy" / "sbom.py"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    return ended.returncode, ended.stdout, ended.stderr


def packages(lock: Path) -> dict[str, str]:
    """What a lock pins, by name."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text("utf-8"), re.MULTILINE))


def test_the_bill_has_each_package_of_the_lock_with_its_files_hashes_and_nothing_else() -> None:
    status, text, _ = told()
    assert status == 0
    found: dict[str, Any] = json.loads(text)
    parts = {one["name"]: one for one in found["components"]}

    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "farthing"
    assert {name: one["version"] for name, one in parts.items()} == packages(LOCK)
    hashes = {digest["content"] for one in parts.values() for digest in one["hashes"]}
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", LOCK.read_text("utf-8")))
    assert parts["aiohttp"]["purl"] == f"pkg:pypi/aiohttp@{parts['aiohttp']['version']}"
    assert {"cryptography", "opentelemetry-sdk"} <= parts.keys(), "the image has these extras"
    gone = {name for name, one in parts.items() if one["scope"] == "excluded"}
    assert gone == {"hf-xet", "huggingface-hub", "fsspec"}, "the Dockerfile takes them out again"
    assert told()[1] == text


def test_the_bill_says_who_needs_whom_as_the_lock_does() -> None:
    needs = {one["ref"].split("/")[1]: one["dependsOn"] for one in json.loads(told()[1])["dependencies"]}
    names = {
        ref.partition("@")[0]: {url.split("/")[1].partition("@")[0] for url in those} for ref, those in needs.items()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (
        project["dependencies"]
        + project["optional-dependencies"]["encryption"]
        + project["optional-dependencies"]["otlp"]
    )
    assert names["farthing"] >= {Requirement(line).name for line in lines}
    assert {"multidict", "yarl"} <= names["aiohttp"]
    assert names["multidict"] == set()


def test_a_licence_is_told_of_the_very_version_that_is_locked_or_not_at_all(tmp_path: Path) -> None:
    here, lock = version("aiohttp"), tmp_path / "a.lock"
    for pinned, known in ((here, True), ("0.0.1", False)):
        lock.write_text(ONE.replace("one==1.0", f"aiohttp=={pinned}"), "utf-8")
        status, text, said = told(lock)
        assert status == 0
        assert ("licenses" in json.loads(text)["components"][0]) is known
        assert ("no licence is known here of aiohttp" in said) is not known


@pytest.mark.parametrize(
    "line",
    [
        "one==1.0\n",
        "one==1.0 \\\n    # via farthing (pyproject.toml)\n",
        f"one>=1.0 \\\n    --hash=sha256:{DIGEST}\n",
        f"one @ file:///one-1.0.whl \\\n    --hash=sha256:{DIGEST}\n",
        f"-e ./one \\\n    --hash=sha256:{DIGEST}\n",
        f"one==1.0 ; python_version < '3' \\\n    --hash=sha256:{DIGEST}\n",
        ONE.replace("sha256", "md5"),
        ONE.replace("farthing (pyproject.toml)", "another"),
        ONE + ONE,
        "--find-links elsewhere\n" + ONE,
    ],
)
def test_what_the_bill_cannot_describe_fails_it(line: str, tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(f"# made by make lock\n{line}", "utf-8")
    status, text, said = told(lock)
    assert (status, text) == (1, "")
    assert said.startswith("a.lock: ")
    lock.write_text(f"# made by make lock\n{ONE}", "utf-8")
    assert told(lock)[0] == 0


def test_the_lock_fits_the_project() -> None:
    locked = packages(LOCK)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    for line in (*project["dependencies"], *project["optional-dependencies"]["encryption"]):
        one = Requirement(line)
        assert SpecifierSet(str(one.specifier)).contains(locked[one.name]), f"{line}: {locked[one.name]}: make lock"


@pytest.mark.parametrize("lock", [LOCK, BUILD], ids=["requirements.lock", "build.lock"])
def test_every_file_of_a_lock_has_a_hash(lock: Path) -> None:
    text = lock.read_text("utf-8").replace(
        "# The following packages are considered to be unsafe in a requirements file:", ""
    )
    blocks = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"https?://|--index-url|--find-links|file:", text)


def test_what_builds_the_wheel_is_locked_with_all_that_it_needs() -> None:
    locked = packages(BUILD)
    system = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    told_of = [line for line in BUILD.with_suffix(".in").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert set(system["requires"]) <= set(told_of)
    for line in told_of:
        one = Requirement(line)
        assert SpecifierSet(str(one.specifier)).contains(locked[one.name]), f"{line}: {locked[one.name]}: make lock"
    image = {"python_version": "3.12", "python_full_version": "3.12.12", "os_name": "posix", "extra": ""}
    for name in locked:
        for line in requires(name) or ():
            one = Requirement(line)
            assert canonicalize_name(one.name) in locked or (
                one.marker is not None and not one.marker.evaluate(image)
            ), f"{name}: {line}"


def test_the_image_installs_nothing_without_its_hash() -> None:
    image = (ROOT / "Dockerfile").read_text("utf-8")
    commands = [
        part.strip() for line in re.findall(r"^(?:RUN| &&) (.*?)\\?$", image, re.MULTILINE) for part in line.split("&&")
    ]
    installs = [one for one in commands if re.search(r"\bpip\b.* install ", one)]
    assert len(installs) == 3
    for one in installs:
        farthing_itself = one.endswith("--no-deps /wheels/*.whl")
        assert farthing_itself or ("--require-hashes" in one and "--only-binary :all:" in one), one
        assert farthing_itself or re.search(r"-r /(build|wheels/requirements)\.lock$", one), one
    (built,) = [one for one in commands if " -m build " in one]
    assert "--no-isolation" in built, "else build fetches setuptools by itself, whichever there is"
