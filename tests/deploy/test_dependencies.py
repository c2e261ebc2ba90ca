"""The bill of materials, and the lock that the image installs from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent.parent


def bill(*extras: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "deploy" / "sbom.py"), *extras]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return found


def test_the_bill_names_what_is_installed_and_needed_and_nothing_else() -> None:
    found = bill()
    parts = {one["name"]: one for one in found["components"]}

    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "farthing"
    assert parts["aiohttp"]["version"] == version("aiohttp")
    assert parts["aiohttp"]["purl"] == f"pkg:pypi/aiohttp@{version('aiohttp')}"
    assert "multidict" in parts  # what is needed by what is needed
    assert not parts.keys() & {"pytest", "cryptography", "farthing", "mypy"}
    assert "cryptography" in {one["name"] for one in bill("encryption")["components"]}
    refs = {one["ref"] for one in found["dependencies"]}
    assert {need for one in found["dependencies"] for need in one["dependsOn"]} <= refs
    assert bill() == found


def test_the_lock_fits_the_project_and_every_file_has_a_hash() -> None:
    text = (ROOT / "deploy" / "requirements.lock").read_text("utf-8")
    locked: dict[str, str] = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    blocks = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    for line in (*project["dependencies"], *project["optional-dependencies"]["encryption"]):
        one = Requirement(line)
        assert SpecifierSet(str(one.specifier)).contains(locked[one.name]), f"{line}: {locked[one.name]}: make lock"
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"https?://|--index-url|--find-links|file:", text)


def test_the_image_installs_nothing_without_its_hash() -> None:
    image = (ROOT / "Dockerfile").read_text("utf-8")
    installs = [line for line in image.splitlines() if " install --no-cache-dir" in line]
    assert any("--require-hashes" in line and "requirements.lock" in line for line in installs)
    assert any("--no-deps" in line and ".whl" in line for line in installs)
