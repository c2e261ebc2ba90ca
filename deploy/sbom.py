"""A bill of materials of farthing as it is installed here, as CycloneDX JSON: `python deploy/sbom.py [EXTRA ...]`.

What farthing needs, and what that needs, from the installed packages' own metadata; what only tests need is left out.
Two runs in one environment give the same bytes. Source: CycloneDX 1.6, JSON; the package URL specification.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement

__all__ = ["bill", "needed"]


def needed(name: str, extras: Iterable[str] = ()) -> dict[str, tuple[Distribution, set[str]]]:
    """Each package with the names of those that it needs, by canonical name; the one asked for among them.

    Raises PackageNotFoundError: it isn't installed. What it needs and isn't installed is left out.
    """
    found: dict[str, tuple[Distribution, set[str]]] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(name, extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (canonical(name), extra) in seen:
            continue
        seen.add((canonical(name), extra))
        try:
            here = distribution(name)
        except PackageNotFoundError:
            if not found:
                raise
            continue
        _, needs = found.setdefault(canonical(name), (here, set()))
        for text in here.requires or ():
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                needs.add(canonical(one.name))
                todo += [(one.name, wanted) for wanted in ("", *one.extras)]
    return found


def bill(name: str, extras: Iterable[str] = ()) -> dict[str, Any]:
    """The document."""
    found = needed(name, extras)
    own = canonical(name)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**_component(found[own][0]), "type": "application"}},
        "components": [_component(here) for at, (here, _) in sorted(found.items()) if at != own],
        "dependencies": [
            {"ref": _url(here), "dependsOn": sorted(_url(found[need][0]) for need in needs if need in found)}
            for _, (here, needs) in sorted(found.items())
        ],
    }


def canonical(name: str) -> str:
    """A package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _url(here: Distribution) -> str:
    return f"pkg:pypi/{canonical(here.metadata['Name'])}@{here.version}"


def _component(here: Distribution) -> dict[str, Any]:
    told = here.metadata
    part = {"type": "library", "bom-ref": _url(here), "name": canonical(told["Name"]), "version": here.version,
            "purl": _url(here)}  # fmt: skip
    if (licence := told.get("License-Expression")) is not None:
        return part | {"licenses": [{"expression": licence}]}
    named = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or () if line.startswith("License :: ")]
    return part | ({"licenses": [{"license": {"name": one}} for one in sorted(named)]} if named else {})


if __name__ == "__main__":
    json.dump(bill("farthing", sys.argv[1:]), sys.stdout, indent=1)
    sys.stdout.write("\n")
