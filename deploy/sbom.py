"""A bill of materials of what the image installs, as CycloneDX JSON: `python deploy/sbom.py [LOCK]`.

Names, versions, hashes and who needs whom are the lock's (deploy/requirements.lock); `hashes` are of all files that the
lock lets pip take, one for each system. Licences are what packages say of themselves that are installed beside this
Python in the lock's very version; `make sbom` runs it in an environment made from the lock. What the Dockerfile takes
out again has the scope `excluded`. Exit status 1: the lock has something that isn't a name, a version and hashes.
Two runs give the same bytes. Source: CycloneDX 1.6, JSON; the package URL specification.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

__all__ = ["CannotDescribe", "Locked", "bill", "licences_here", "locked"]

ROOT = Path(__file__).resolve().parent.parent
HOLDS = {"", 'platform_system != "Windows"'}  # the markers that hold in the image for certain
LONGEST_LICENCE = 80

Licences = Callable[[str, str], list[dict[str, Any]]]


class CannotDescribe(Exception):
    """A line of the lock that no bill can be made of; the message has it."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A package as the lock has it. `wanted_by`: canonical names, and the project's own."""

    name: str
    version: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]


def locked(text: str) -> list[Locked]:
    """The packages of a lock that `make lock` has made, by name. Raises CannotDescribe."""
    found: dict[str, Locked] = {}
    for block in re.split(r"\n(?=[^\s#])", re.sub(r"\A(#.*\n|\n)*", "", text)):
        head, *lines = block.splitlines() or [""]
        named = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!-]+)(?: ; (.*))? \\", head)
        pinned = [re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", line) for line in lines]
        if named is None:
            raise CannotDescribe(f"not a name, a version and hashes: {head}")
        if (marker := named[3] or "") not in HOLDS:
            raise CannotDescribe(f"{named[1]}: whether the image has it hangs on {marker}")
        if strange := [
            line for line, one in zip(lines, pinned, strict=True) if not one and line.strip() and line.strip()[0] != "#"
        ]:
            raise CannotDescribe(f"{named[1]}: not a hash: {strange[0].strip()}")
        hashes = tuple(sorted(one[1] for one in pinned if one))
        if not hashes or canonical(named[1]) in found:
            raise CannotDescribe(f"{named[1]}: " + ("twice" if hashes else "no hash"))
        via = [
            line.strip().removeprefix("#").removeprefix(" via").strip() for line in lines if line.startswith("    #")
        ]
        wanted_by = tuple(sorted({canonical(one.split()[0]) for one in via if one}))
        found[canonical(named[1])] = Locked(canonical(named[1]), named[2], hashes, wanted_by)
    return [found[name] for name in sorted(found)]


def bill(
    name: str, version: str, licence: str, parts: Iterable[Locked], removed: Iterable[str], licences: Licences
) -> dict[str, Any]:
    """The document. Raises CannotDescribe: somebody needs a package whom the lock doesn't have."""
    own = {"type": "application", "bom-ref": _url(name, version), "name": name, "version": version,
           "purl": _url(name, version), "licenses": [{"expression": licence}]}  # fmt: skip
    parts, gone = list(parts), set(removed)
    urls = {name: own["bom-ref"]} | {one.name: _url(one.name, one.version) for one in parts}
    needs: dict[str, list[str]] = {url: [] for url in urls.values()}
    for one in parts:
        for who in one.wanted_by:
            if who not in urls:
                raise CannotDescribe(f"{one.name}: {who} needs it, and isn't in the lock")
            needs[urls[who]].append(urls[one.name])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": [_component(one, one.name in gone, licences(one.name, one.version)) for one in parts],
        "dependencies": [{"ref": url, "dependsOn": sorted(those)} for url, those in sorted(needs.items())],
    }


def licences_here(name: str, version: str) -> list[dict[str, Any]]:
    """What a package that is installed beside this Python says of its licence; nothing where it is another version."""
    try:
        told = distribution(name).metadata
    except PackageNotFoundError:
        return []
    if told["Version"] != version:
        return []
    if (expression := told.get("License-Expression")) is not None:
        return [{"expression": expression}]
    named = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or () if line.startswith("License :: ")]
    said = (told.get("License") or "").strip()
    if not named and said:
        named = [said.splitlines()[0][:LONGEST_LICENCE]]  # some have its whole text there
    return [{"license": {"name": one}} for one in sorted(named)]


def taken_out(dockerfile: str) -> list[str]:
    """Packages that the image's build uninstalls again."""
    return [name for line in re.findall(r" uninstall --yes ([^\n\\&]+)", dockerfile) for name in line.split()]


def canonical(name: str) -> str:
    """A package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _url(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _component(one: Locked, gone: bool, licences: list[dict[str, Any]]) -> dict[str, Any]:
    url = _url(one.name, one.version)
    part = {"type": "library", "bom-ref": url, "name": one.name, "version": one.version, "purl": url,
            "scope": "excluded" if gone else "required",
            "hashes": [{"alg": "SHA-256", "content": each} for each in one.hashes]}  # fmt: skip
    return part | ({"licenses": licences} if licences else {})


def main(arguments: list[str]) -> int:
    """Print it, and on the error stream what has no licence; the exit status."""
    lock = Path(arguments[0]) if arguments else ROOT / "deploy" / "requirements.lock"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    removed = taken_out((ROOT / "Dockerfile").read_text("utf-8"))
    try:
        parts = locked(lock.read_text("utf-8"))
        made = bill(project["name"], project["version"], project["license"], parts, removed, licences_here)
    except CannotDescribe as fault:
        sys.stderr.write(f"{lock.name}: {fault}\n")
        return 1
    json.dump(made, sys.stdout, indent=1)
    sys.stdout.write("\n")
    if nameless := [one["name"] for one in made["components"] if "licenses" not in one]:
        sys.stderr.write(f"no licence is known here of {', '.join(nameless)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
