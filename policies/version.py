"""What a policy's version is called, and how two of them differ. Pure.

A version is named after its content: the same values have the same name on every machine, and a name never comes to
mean something else. Values are those in force, so a section left out and one that spells its defaults are one version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["SECTIONS", "Change", "differences", "version_of"]

SECTIONS = ("cache", "semantic", "compress", "prompt_cache", "variants", "routes", "aliases")
"""The parts of a configuration that a policy is made of: those that optimise."""
_DIGITS = 12


class Change(NamedTuple):
    """One value that differs. `path`: dotted, list items by their `name` or place. None: it isn't there."""

    path: str
    before: Any
    after: Any


def version_of(sections: Mapping[str, Any]) -> str:
    """`p-` and twelve hex digits of the content's SHA-256. `sections`: plain JSON values; key order means nothing."""
    text = json.dumps(sections, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"p-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What has to change to come from one to the other, in the order of `after`; what is gone stands where it was."""
    old, new = dict(_flat("", before)), dict(_flat("", after))
    paths = _merged(old, new)
    return [
        Change(path, old.get(path), new.get(path))
        for path in paths
        # where something came into an empty table or list, that is told, and not that it was empty
        if old.get(path) != new.get(path) and not any(other.startswith((f"{path}.", f"{path}[")) for other in paths)
    ]


def _merged(old: Iterable[str], new: Mapping[str, Any]) -> list[str]:
    """All paths in the order of `new`, those of `old` alone behind the one that they stood behind."""
    gone: dict[str, list[str]] = {}
    last = ""
    for path in old:
        if path in new:
            last = path
        else:
            gone.setdefault(last, []).append(path)
    return [*gone.get("", ()), *(one for path in new for one in (path, *gone.get(path, ())))]


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    """Leaves by path; an empty table or list is a leaf."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in _flat(f"{path}.{key}" if path else str(key), inner)]
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return [leaf for label, one in _labelled(value) for leaf in _flat(f"{path}[{label}]", one)]
    return [(path, value)] if path else []


def _labelled(items: list[Any]) -> list[tuple[str, Any]]:
    """Each with its name where all have different ones, so that one put in front doesn't change all the others."""
    names = [one.get("name") for one in items if isinstance(one, Mapping)]
    if len(names) == len(items) and len(set(map(str, names))) == len(items) and all(names):
        return [(str(name), one) for name, one in zip(names, items, strict=True)]
    return [(str(number), one) for number, one in enumerate(items)]
