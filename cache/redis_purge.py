"""What a purge does with names that it has met in Redis. An entry and its pieces go in one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from farthing.cache.codec import Labels, peek
from farthing.cache.redis_names import Names
from farthing.cache.store import Selector

__all__ = ["Run", "purge_names"]

Run = Callable[[Callable[[Any], Awaitable[Any]]], Awaitable[Any]]
"""Does one step with redis-py's client. Raises StoreFault."""

# Covers the labels of any entry but those with very long tags; those are then read whole.
_LABELS_BYTES = 1024


async def purge_names(run: Run, names: Names, met: Sequence[bytes], selector: Selector) -> list[str]:
    """Remove those of the entries that the selector matches, and all pieces that no entry has: their labels can't be
    read, and nobody else would find them. Pieces that are being written are such, and then aren't kept. The entries'
    keys. Raises StoreFault."""
    entries = [name for name in met if name.startswith(names.entries.encode())]
    await _purge_loose(run, names, [name for name in met if not name.startswith(names.entries.encode())])
    if not entries:
        return []
    looks = [("GETRANGE", name, 0, _LABELS_BYTES - 1) for name in entries]
    starts: list[bytes] = await run(partial(_each, commands=looks))
    matching: list[tuple[bytes, str]] = []
    for name, start in zip(entries, starts, strict=True):
        if not start:
            continue
        labels = peek(start) or await _labels(run, name)
        if labels is None or selector.matches(labels):  # what can't be read can't be served: away with it
            matching.append((name, labels.key if labels else name.decode(errors="replace")))
    gone = [("UNLINK", name, names.pieces_of(name)) for name, _ in matching]
    counts = await run(partial(_each, commands=gone)) if gone else []
    return [key for (_, key), count in zip(matching, counts, strict=True) if count]


async def _purge_loose(run: Run, names: Names, pieces: Sequence[bytes]) -> None:
    of = [(name, names.entry_of(name)) for name in pieces]
    asked = [("EXISTS", entry) for _, entry in of if entry]
    there = iter(await run(partial(_each, commands=asked)) if asked else [])
    gone = [("UNLINK", name) for name, entry in of if not (entry and next(there))]
    if gone:
        await run(partial(_each, commands=gone))


async def _labels(run: Run, name: bytes) -> Labels | None:
    raw: bytes | None = (await run(partial(_each, commands=[("GET", name)])))[0]
    return peek(raw) if raw else None


async def _each(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)  # the cluster client's own unlink can't be queued
    found: list[Any] = await pipe.execute()
    return found
