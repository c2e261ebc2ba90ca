"""Requests that may wait: which go together into a batch, and when. Pure.

Sources of the bounds: OpenAI API reference, Batch (one endpoint and one model a batch, at most 50,000 requests and
200 MB, done within 24 hours).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Group", "Rules", "Waiting", "ready"]

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Rules:
    """When a batch is sent: `flush_s` after its first request, or when it is full. `min_s`: requests that may wait for
    less aren't kept at all."""

    min_s: float = 3600.0
    flush_s: float = 60.0
    max_items: int = 10_000
    max_bytes: int = 32 * 2**20


class Group(NamedTuple):
    """What may share a batch. `account`: whose the provider's batch will be. `hurried`: they may wait for less than a
    day, so that their batch may have to be broken off, which the others' must not be."""

    account: str
    upstream: str
    path: str
    model: str
    hurried: bool = False


class Waiting(NamedTuple):
    """One request that waits. Seconds since the epoch; `size`: bytes of its body."""

    id: str
    group: Group
    size: int
    since_s: float
    deadline_s: float


def ready(waiting: Iterable[Waiting], rules: Rules, now_s: float) -> list[list[Waiting]]:
    """The batches to be sent now, each oldest first. Cost: linear in what waits."""
    groups: dict[Group, list[Waiting]] = {}
    for one in waiting:
        groups.setdefault(one.group, []).append(one)
    found: list[list[Waiting]] = []
    for members in groups.values():
        members.sort(key=lambda one: one.since_s)
        batch: list[Waiting] = []
        size = 0
        for one in members:
            if batch and (len(batch) >= rules.max_items or size + one.size > rules.max_bytes):
                found.append(batch)
                batch, size = [], 0
            batch.append(one)
            size += one.size
        full = len(batch) >= rules.max_items or size >= rules.max_bytes
        if batch and (full or now_s - batch[0].since_s >= rules.flush_s):
            found.append(batch)
    return found


def hurried(wait_s: float) -> bool:
    """Whether a request may wait for less than the provider may take."""
    return wait_s < _DAY_S
