"""The faults of three farthings over one Valkey, each injected while clients go on asking (scene.py)."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import nullcontext
from functools import partial

from tests.chaos.places import Cluster
from tests.chaos.scene import Fault, On
from tests.fakes.valkey import ValkeyProcess

__all__ = [
    "FAULTS",
    "flushed",
    "full",
    "linked",
    "replica_killed",
    "replica_stopped",
    "valkey_killed",
    "valkey_stopped",
]

Scene = On[Cluster[ValkeyProcess]]


async def valkey_killed(scene: Scene) -> None:
    scene.on.valkey.kill()
    await scene.hold()
    await asyncio.to_thread(scene.on.valkey.start)


async def valkey_stopped(scene: Scene) -> None:
    scene.on.valkey.freeze()
    await scene.hold()
    scene.on.valkey.thaw()


async def _valkey_restarted(scene: Scene) -> None:
    scene.on.valkey.kill()
    await asyncio.to_thread(scene.on.valkey.start)


async def flushed(scene: Scene) -> None:
    scene.on.valkey.command("FLUSHALL")


async def full(scene: Scene) -> None:
    valkey = scene.on.valkey
    valkey.command("CONFIG SET maxmemory-policy noeviction")
    valkey.command("CONFIG SET maxmemory 1")
    await scene.hold()
    valkey.command("CONFIG SET maxmemory 0")


async def _garbled(scene: Scene) -> None:
    """Every entry's value is cut, garbled or another's, again and again."""
    from redis.asyncio import Redis

    end, changed = time.monotonic() + scene.hold_s, 0
    async with Redis.from_url(scene.on.valkey.url) as raw:
        while time.monotonic() < end:
            names = [name async for name in raw.scan_iter(match="farthing:e:*", count=500)]
            values = [value for value in [await raw.get(name) for name in names] if value]
            for at, name in enumerate(names if values else []):
                value = values[at % len(values)]
                middle = len(value) // 2
                other = values[(at + 1) % len(values)]
                bad = (value[:middle], value[:middle] + b"\0" + value[middle + 1 :], other, b"")[at % 4]
                await raw.set(name, bad, px=60_000)
                changed += 1
            await asyncio.sleep(0.05)
    scene.notes["values_changed"] = changed


async def linked(mode: str, which: tuple[int, ...], scene: Scene) -> None:
    links = scene.on.links
    turning = scene.turning if mode == "cut" and which == _UPSTREAM else nullcontext
    with turning():
        await asyncio.to_thread(links.become, mode, which)
    await scene.hold()
    with turning():
        await asyncio.to_thread(links.become, "pass", which)


async def replica_killed(scene: Scene) -> None:
    replica = scene.on.replicas[0]
    scene.kills.append((0, replica.kill()))
    await scene.hold()
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(replica.start), 2)


async def replica_stopped(scene: Scene) -> None:
    replica = scene.on.replicas[0]
    replica.signal(signal.SIGSTOP)
    await scene.hold()
    replica.signal(signal.SIGCONT)


async def _replica_restarted(scene: Scene) -> None:
    replica = scene.on.replicas[0]
    status = await asyncio.to_thread(replica.stop)
    if status:
        raise AssertionError(f"told to stop, it ended with {status}: {replica.said()[-2000:]}")
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(replica.start), 2)


async def _upstream_killed(scene: Scene) -> None:
    with scene.turning():
        scene.on.upstream.kill()
    await scene.hold()
    with scene.turning():
        await asyncio.to_thread(scene.on.upstream.start)


async def _upstream_stopped(scene: Scene) -> None:
    scene.on.upstream.signal(signal.SIGSTOP)
    await scene.hold()
    scene.on.upstream.signal(signal.SIGCONT)


async def _upstream_errs(scene: Scene) -> None:
    upstream = scene.on.upstream
    with scene.turning():
        await asyncio.to_thread(upstream.status, 500)
    await scene.hold()
    with scene.turning():
        await asyncio.to_thread(upstream.status, 200)


async def _upstream_slow(scene: Scene) -> None:
    upstream = scene.on.upstream
    await asyncio.to_thread(upstream.wait_s, 0.5)
    await scene.hold()
    await asyncio.to_thread(upstream.wait_s, 0.01)


_PLAIN = "answers come from the upstream; none fails, none waits longer than the store's deadline"
_VALKEY, _UPSTREAM = Cluster.TO_VALKEY, Cluster.TO_UPSTREAM

FAULTS = (
    Fault("Valkey killed, later started empty", _PLAIN, valkey_killed),
    Fault("Valkey stopped (SIGSTOP)", _PLAIN, valkey_stopped),
    Fault("Valkey killed and started at once", _PLAIN, _valkey_restarted, hold_s=0),
    Fault("Valkey emptied (FLUSHALL)", "misses, then hits again", flushed, hold_s=0),
    Fault("Valkey's memory full, noeviction", "what is stored is served; what is new isn't stored", full),
    Fault("values in Valkey cut, garbled, exchanged", "such an entry is a miss", _garbled),
    Fault("network to Valkey slow (200 ms each way)", _PLAIN, partial(linked, "slow 0.2", _VALKEY)),
    Fault("network to Valkey cut (resets)", _PLAIN, partial(linked, "cut", _VALKEY)),
    Fault("partition from Valkey (nothing arrives)", _PLAIN, partial(linked, "hole", _VALKEY)),
    Fault("one replica partitioned from Valkey", _PLAIN, partial(linked, "hole", (0,))),
    Fault("a replica killed (SIGKILL), later started", "the others serve; what it had is asked again", replica_killed),
    Fault("a replica stopped (SIGSTOP)", "what it has waits; the others serve", replica_stopped),
    Fault("a replica restarted (SIGTERM)", "what it has is answered; the others serve", _replica_restarted),
    Fault("upstream killed, later started", "hits are served; else as direct", _upstream_killed, paired=True),
    Fault("upstream stopped (SIGSTOP)", "hits are served; else as direct", _upstream_stopped, paired=True),
    Fault("upstream answers 500", "hits are served; errors are passed on, never stored", _upstream_errs, paired=True),
    Fault("upstream slow (0.5 s)", "hits are not slower; else as direct", _upstream_slow, paired=True),
    Fault(
        "network to the upstream cut (resets)",
        "hits are served; else as direct",
        partial(linked, "cut", _UPSTREAM),
        paired=True,
    ),
    Fault(
        "partition from the upstream",
        "hits are served; else as direct",
        partial(linked, "hole", _UPSTREAM),
        paired=True,
    ),
)  # fmt: skip
