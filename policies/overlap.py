"""Which routes can meet the same request although neither holds all that the other does: their order decides, and
whoever wrote them may not know. Pure.

Rules of this file:
1. A route that is narrower than the one below it is what an order is for, and one below a wider one never gets a
   request (routes.py: `never_matched`).
2. Nor is one told of that is narrower in kind: it asks for all kinds of things that the one below asks for and more, or
   for a tag or tenant where that one takes any.
3. Two patterns meet where some name fits both; of `[...]` beside `[...]` that is taken for granted.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from farthing.policies.routes import Conditions, contains

__all__ = ["meet", "narrower_in_kind", "overlapping"]


def overlapping(conditions: Sequence[Conditions]) -> list[tuple[int, tuple[int, ...]]]:
    """(later, those earlier) for each route that shares requests with earlier ones in part."""
    found = []
    for later, below in enumerate(conditions):
        above = [
            place
            for place, one in enumerate(conditions[:later])
            if _share(one, below)
            and not contains(below, one)
            and not contains(one, below)
            and not narrower_in_kind(one, below)
        ]
        if above:
            found.append((later, tuple(above)))
    return found


def narrower_in_kind(one: Conditions, other: Conditions) -> bool:
    """Whether `one` was surely meant to come before `other`."""
    if (one.tag and not other.tag) or (one.tenant and not other.tenant):
        return True
    return _kinds(one) > _kinds(other)


def _kinds(of: Conditions) -> set[str]:
    asked = {
        "model": of.model, "tag": of.tag, "tenant": of.tenant, "endpoint": of.endpoint, "tools": of.tools is not None,
        "images": of.images is not None, "length": of.min_tokens_in or of.max_tokens_in,
    }  # fmt: skip
    return {name for name, said in asked.items() if said}


def meet(one: str, other: str) -> bool:
    """Whether some name fits both patterns; an empty one fits all."""
    return not (one and other) or _meet(_pieces(one), _pieces(other))


def _share(one: Conditions, other: Conditions) -> bool:
    """Whether a request can meet both."""
    ends = {one.endpoint, other.endpoint}
    if len(ends) == 2 and ("" not in ends or "embeddings" in ends):
        return False
    if {one.tools, other.tools} == {True, False} or {one.images, other.images} == {True, False}:
        return False
    endless = float("inf")
    if one.min_tokens_in > (other.max_tokens_in or endless) or other.min_tokens_in > (one.max_tokens_in or endless):
        return False
    if not (one.tenant.startswith(other.tenant) or other.tenant.startswith(one.tenant)):
        return False
    return meet(one.model, other.model) and _tags_meet(one.tag, other.tag)


def _tags_meet(one: str, other: str) -> bool:
    """A request has several tags, of each name one value."""
    names = one.partition("=")[0], other.partition("=")[0]
    return names[0] != names[1] or meet(one, other)


def _pieces(pattern: str) -> tuple[str, ...]:
    """Characters, `?`, `*`, and `[...]` as one piece."""
    pieces, at = [], 0
    while at < len(pattern):
        end = pattern.find("]", at + 2 + pattern.startswith("!", at + 1)) if pattern[at] == "[" else -1
        pieces.append(pattern[at : end + 1] if end > 0 else "[[]" if pattern[at] == "[" else pattern[at])
        at = end + 1 if end > 0 else at + 1
    return tuple(pieces)


def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """By the places that both can have reached after the same characters."""
    seen, todo = set(), [(0, 0)]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        a, b = place
        left, right = one[a : a + 1], other[b : b + 1]
        if not left and not right:
            return True
        if left == ("*",):
            todo.append((a + 1, b))
        if right == ("*",):
            todo.append((a, b + 1))
        if left and right and _alike(left[0], right[0]):
            todo.append((a + (left != ("*",)), b + (right != ("*",))))
    return False


def _alike(one: str, other: str) -> bool:
    """Whether one character fits both pieces."""
    if one in "*?" or other in "*?" or (len(one) > 1 and len(other) > 1):
        return True
    return fnmatchcase(other, one) if len(one) > 1 else fnmatchcase(one, other)
