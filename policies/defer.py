"""Requests that may wait: which go together into a batch, and when. Pure.

A batch has one endpoint and one model (OpenAI API reference, Batch); how many requests and bytes it may have is its
provider's to say (proxy/batch_ways.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Group", "Rules", "Waiting", "ready"]


@dataclass(frozen=True, slots=True)
class Rules:
    """When a batch is sent: `flush_s` after its first request, or when it is full. `min_s`: requests that may wait for
    less aren't kept at all. `max_inputs`: of embeddings, in all its requests. OpenAI takes 50,000 (API reference,
    Batch); their vectors are held in memory when they come, and 5,000 of 3,072 numbers as text are 330 MB.
    """

    min_s: float = 3600.0
    flush_s: float = 60.0
    max_items: int = 10_000
    max_bytes: int = 32 * 2**20
    max_inputs: int = 5_000


class Group(NamedTuple):
    """What may share a batch. `account`: whose the provider's batch will be. `kind`: of batch API; `path`, `model`: as
    the upstream is called. `hurried`: they may wait for less than the provider may take, so that their batch may have
    to be broken off, which the others' must not be."""

    account: str
    upstream: str
    path: str
    model: str
    hurried: bool = False
    kind: str = "openai"


class Waiting(NamedTuple):
    """One request that waits. Seconds since the epoch; `size`: bytes of its body; `inputs`: texts to embed."""

    id: str
    group: Group
    size: int
    since_s: float
    deadline_s: float
    inputs: int = 0


def ready(waiting: Iterable[Waiting], rules_of: Callable[[Group], Rules], now_s: float) -> list[list[Waiting]]:
    """The batches to be sent now, each oldest first. Cost: n log n in what waits."""
    groups: dict[Group, list[Waiting]] = {}
    for one in waiting:
        groups.setdefault(one.group, []).append(one)
    found: list[list[Waiting]] = []
    for group, members in groups.items():
        rules = rules_of(group)
        members.sort(key=lambda one: one.since_s)
        batch: list[Waiting] = []
        size = inputs = 0
        for one in members:
            beyond = size + one.size > rules.max_bytes or inputs + one.inputs > rules.max_inputs
            if batch and (beyond or len(batch) >= rules.max_items):
                found.append(batch)
                batch, size, inputs = [], 0, 0
            batch.append(one)
            size, inputs = size + one.size, inputs + one.inputs
        full = len(batch) >= rules.max_items or size >= rules.max_bytes or inputs >= rules.max_inputs
        if batch and (full or now_s - batch[0].since_s >= rules.flush_s):
            found.append(batch)
    return found
