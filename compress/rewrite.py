"""Other texts in a body's places, every other byte as it was. Pure.

Only the string literals that change are replaced. A literal that doesn't decode to the string that the payload holds
means that body and payload disagree: then nothing at all is changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from farthing.compress.places import Path, Place
from farthing.proxy.jsontext import element_spans, members, splice

__all__ = ["Rewritten", "Span", "rewrite"]

Span = tuple[int, int]


class Rewritten(NamedTuple):
    """`texts`: how many were replaced, 0 where body and payload disagree. `spans`: in the original body, of the string
    literals that were replaced."""

    body: bytes
    texts: int = 0
    spans: tuple[Span, ...] = ()


def rewrite(body: bytes, payload: dict[str, Any], texts: Mapping[Place, str]) -> Rewritten:
    """The body with these texts in their places; the same object where there is nothing to do.

    `payload`: the body decoded; `texts`: of places in it, none of which overlap. Cost: linear in the body.
    """
    strings: dict[Path, list[tuple[Place, str]]] = {}
    for place, text in texts.items():
        strings.setdefault(place.path, []).append((place, text))
    if not strings:
        return Rewritten(body)
    edits: list[tuple[int, int, bytes]] = []
    try:
        spans = _spans(body, list(strings))
        for path, changes in strings.items():
            start, end = spans[path]
            literal = body[start:end]
            before = json.loads(literal)
            if before != _at(payload, path):
                return Rewritten(body)
            edits.append((start, end, _literal(_changed(before, changes), raw=not literal.isascii())))
    except (ValueError, KeyError, IndexError, TypeError):
        return Rewritten(body)
    return Rewritten(splice(body, edits), len(texts), tuple((start, end) for start, end, _ in edits))


def _at(payload: Any, path: Path) -> Any:
    for step in path:
        payload = payload[step]
    return payload


def _changed(string: str, changes: list[tuple[Place, str]]) -> str:
    """The string with its places' new texts. Raises ValueError: they overlap, or hold other text than was seen."""
    pieces: list[str] = []
    at = 0
    for place, text in sorted(changes, key=lambda change: change[0].start):
        if place.start < at or string[place.start : place.end] != place.text:
            raise ValueError("places overlap, or don't hold what was seen")
        pieces += (string[at : place.start], text)
        at = place.end
    return "".join((*pieces, string[at:]))


def _spans(body: bytes, paths: list[Path], depth: int = 0, start: int = 0) -> dict[Path, Span]:
    """The spans in `body` of the values at `paths`, which share their first `depth` steps, in one pass.

    Raises ValueError or KeyError: body and payload disagree.
    """
    groups: dict[str | int, list[Path]] = {}
    for path in paths:
        groups.setdefault(path[depth], []).append(path)
    spans: dict[str | int, Span]
    if isinstance(paths[0][depth], int):
        spans = dict(enumerate(element_spans(body, (start, len(body)))))
    else:
        spans = {member.key: (member.start, member.end) for member in members(body, start)}
    found: dict[Path, Span] = {}
    for step, group in groups.items():
        if len(group[0]) == depth + 1:
            found[group[0]] = spans[step]
        else:
            found |= _spans(body, group, depth + 1, spans[step][0])
    return found


def _literal(text: str, *, raw: bool) -> bytes:
    """`text` as a JSON string; `raw`: other characters than ASCII as they are, else escaped."""
    return orjson.dumps(text) if raw or text.isascii() else json.dumps(text).encode()
