"""`farthing cache export` and `import`: stored answers to a file and back, from and into any store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from farthing.cache.archive import Reader
    from farthing.cache.entry import Entry
    from farthing.proxy.config import Config

__all__ = ["add_to"]

_AT_ONCE = 64
_AT_ONCE_BYTES = 8 * 2**20
_DEADLINE_MS = 10_000
"""For one step of a bulk copy, for which an operator waits; requests have `store.deadline_ms`."""

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]


def add_to(app: typer.Typer) -> None:
    """Add both commands to `farthing cache`."""
    app.command("export", epilog="Example: farthing cache export answers.jsonl")(export)
    app.command("import", epilog="Example: farthing cache import answers.jsonl")(import_)


def export(
    file: Annotated[str, typer.Argument(help="Where to; - for standard output. Readable by its owner only.")] = "-",
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Every stored answer as JSON lines that `cache import` takes; a farthing may be running."""
    from farthing.cache.archive import Writer
    from farthing.cache.codec import decode, encode
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.seal import SealedElsewhere
    from farthing.proxy.sealing import sealer

    loaded = _load(config, state)
    clock = SystemClock()
    seal = sealer(loaded.store, SystemRandomness())
    writer = Writer(_secret(loaded))

    async def copy(out: IO[bytes]) -> int:
        left_out = 0
        out.write(writer.head(clock.now_s()))
        async for raw in _all(loaded):
            try:
                entry = decode(raw, seal)
            except SealedElsewhere:
                entry = None
            if entry is None or entry.expires_s <= clock.now_s():
                left_out += 1
            else:
                out.write(writer.line(raw if seal is None else encode(entry)))  # an export is in the open
        out.write(writer.foot())
        return left_out

    import asyncio

    with _to(file) as out, _told():
        left_out = asyncio.run(copy(out))
    said = f", {left_out:,} expired or damaged ones left out" if left_out else ""
    typer.echo(f"{writer.entries:,} stored answers written{said}", err=True)


def import_(
    file: Annotated[Path, typer.Argument(help="What `farthing cache export` wrote.")],
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an archive's answers to the store; later ones that are there stay. Exit 2, and nothing is added, where the
    archive is damaged or of another secret."""
    import asyncio

    loaded = _load(config, state)
    with _told():
        found = asyncio.run(_import(loaded, file))
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{found['added']:,} of {found['read']:,} stored answers added "
        f"({found['expired']:,} had expired, {found['older']:,} were not later than what is there)"
    )


async def _import(config: Config, file: Path) -> dict[str, int]:
    from farthing.cache.archive import Reader
    from farthing.proxy import state
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.errors import ConfigFault
    from farthing.proxy.storing import open_store

    secret = _secret(config)
    # Read twice: the last line vouches for all the others, and an archive need not fit into memory.
    with file.open("rb") as lines:
        whole = Reader(secret)
        for line in lines:
            whole.take(line)
        counts = {"read": whole.end(), "added": 0, "expired": 0, "older": 0}
        lines.seek(0)
        lock = None
        if not config.store.url.get_secret_value():
            try:
                lock = state.claim(config.state_dir)
            except state.Held:
                raise ConfigFault(
                    f"a farthing serves from {config.state_dir} and has its index in memory: stop it, import, start it"
                ) from None
        clock = SystemClock()
        patient = config.store.model_copy(update={"deadline_ms": _DEADLINE_MS})
        store = await open_store(config.model_copy(update={"store": patient}), clock, SystemRandomness())
        try:
            again = Reader(secret)
            for batch in _batches(again, lines):
                now_s = clock.now_s()
                live = [entry for entry in batch if entry.expires_s > now_s]
                there = await store.get_many([entry.key for entry in live], now_s)
                newer = [
                    entry
                    for entry, old in zip(live, there, strict=True)
                    if old is None or old.stored_s < entry.stored_s
                ]
                await store.put_many(newer)
                counts["expired"] += len(batch) - len(live)
                counts["older"] += len(live) - len(newer)
                counts["added"] += len(newer)
            again.end()
        finally:
            await store.close()
            if lock is not None:
                lock.close()
    return counts


def _batches(reader: Reader, lines: IO[bytes]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for line in lines:
        entry = reader.take(line)
        if entry is not None:
            batch.append(entry)
            size += len(entry.body)
        if len(batch) >= _AT_ONCE or size >= _AT_ONCE_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


async def _all(config: Config) -> AsyncIterator[bytes]:
    """Every entry, encoded. Raises StoreFault."""
    url = config.store.url.get_secret_value()
    if not url:
        from farthing.cache.disk_walk import walk

        for raw in walk(config.state_dir / "answers.db"):
            yield raw
        return
    from farthing.cache.store_redis import RedisStore
    from farthing.proxy.clock import SystemClock

    store = RedisStore(url, deadline_ms=_DEADLINE_MS, clock=SystemClock())
    try:
        async for raw in store.walk():
            yield raw
    finally:
        await store.close()


def _secret(config: Config) -> bytes:
    """The one that is there: a new one would vouch for nothing, and find nothing."""
    from farthing.proxy.clock import SystemRandomness
    from farthing.proxy.errors import ConfigFault
    from farthing.proxy.state import local_secret

    if not (config.state_dir / "secret").exists():
        raise ConfigFault(f"there is no {config.state_dir / 'secret'}: name the state directory with --state")
    return local_secret(config.state_dir, SystemRandomness())


@contextmanager
def _to(file: str) -> Iterator[IO[bytes]]:
    """The file, for its owner only, and in its place only once it is whole; - is standard output."""
    from farthing.proxy.errors import ConfigFault

    if file == "-":
        yield sys.stdout.buffer
        return
    path = Path(file)
    partial = path.with_name(path.name + ".part")
    try:
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigFault(f"can't write {file}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _told() -> Iterator[None]:
    """What may go wrong, in the contract's exit statuses: 2 the archive, 3 the store."""
    from farthing.cache.archive import ArchiveFault
    from farthing.proxy.errors import ConfigFault, StoreFault

    try:
        yield
    except (ArchiveFault, OSError) as fault:
        raise ConfigFault(str(fault)) from None
    except StoreFault as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(3) from None


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={"state_dir": state})
