"""The faults of three farthings over one Valkey, each injected while clients go on asking."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.chaos.load import Load, loading
from tests.chaos.measured import Line, Moments, line_of, row_ids
from tests.chaos.places import Cluster

__all__ = ["FAULTS", "Fault", "measure"]

CALM_S, AFTER_S = 1.5, 2.5


@dataclass(slots=True)
class Scene:
    """A fault while it is on. `killed`: tell when a replica was killed; `ended`: tell when the fault is over, where
    that isn't when the function returns; `notes`: what else was seen."""

    cluster: Cluster
    hold_s: float
    killed: dict[int, float] = field(default_factory=dict)
    ended: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    async def hold(self) -> None:
        """Let the fault last."""
        await asyncio.sleep(self.hold_s)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done, and what is promised. `paired`: each request is sent past the proxy too, to compare; `hold_s`: how
    long it lasts."""

    name: str
    promise: str
    inject: Callable[[Scene], Awaitable[None]]
    hold_s: float = 1.5
    paired: bool = False


_SEEDS = itertools.count(int(time.time()) % 100_000 * 1000)


async def measure(cluster: Cluster, fault: Fault, *, longer: float = 1.0) -> Line:
    """Calm, the fault, and calm again, under load all the while. `longer`: times as long as in the short form."""
    load = Load(cluster.urls, next(_SEEDS), direct=cluster.direct if fault.paired else "")
    async with loading(load):
        await asyncio.sleep(CALM_S * longer)
        scene = Scene(cluster, fault.hold_s * longer)
        began = time.monotonic()
        await fault.inject(scene)
        moments = Moments(began, scene.ended or time.monotonic(), scene.killed)
        await asyncio.sleep(AFTER_S * longer)
    await asyncio.sleep(0.5)  # ten times ledger.flush_ms
    ids = await asyncio.to_thread(row_ids, [replica.state for replica in cluster.replicas])
    line = line_of(fault.name, fault.promise, load.asked, ids, moments, range(3), scene.notes)
    for one in load.asked:
        if one.failed or one.wrong:
            line.notes.setdefault("examples", []).append(f"{one.prompt!r} {one.status} {one.errors[-1:]}")
    return line


async def _valkey_killed(scene: Scene) -> None:
    scene.cluster.valkey.kill()
    await scene.hold()
    await asyncio.to_thread(scene.cluster.valkey.start)


async def _valkey_stopped(scene: Scene) -> None:
    scene.cluster.valkey.freeze()
    await scene.hold()
    scene.cluster.valkey.thaw()


async def _valkey_restarted(scene: Scene) -> None:
    scene.cluster.valkey.kill()
    await asyncio.to_thread(scene.cluster.valkey.start)


async def _flushed(scene: Scene) -> None:
    scene.cluster.valkey.command("FLUSHALL")


async def _full(scene: Scene) -> None:
    valkey = scene.cluster.valkey
    valkey.command("CONFIG SET maxmemory-policy noeviction")
    valkey.command("CONFIG SET maxmemory 1")
    await scene.hold()
    valkey.command("CONFIG SET maxmemory 0")


async def _garbled(scene: Scene) -> None:
    """Every entry's value is cut, garbled or another's, again and again."""
    from redis.asyncio import Redis

    end, changed = time.monotonic() + scene.hold_s, 0
    async with Redis.from_url(scene.cluster.valkey.url) as raw:
        while time.monotonic() < end:
            names = [name async for name in raw.scan_iter(match="farthing:e:*", count=500)]
            values = [value for value in [await raw.get(name) for name in names] if value]
            for at, name in enumerate(names):
                value = values[at % len(values)]
                middle = len(value) // 2
                bad = (value[:middle], value[:middle] + b"\0" + value[middle + 1 :], values[at - 1], b"")[at % 4]
                await raw.set(name, bad, px=60_000)
                changed += 1
            await asyncio.sleep(0.05)
    scene.notes["values_changed"] = changed


async def _linked(mode: str, which: tuple[int, ...], scene: Scene) -> None:
    links = scene.cluster.links
    await asyncio.to_thread(links.become, mode, which)
    await scene.hold()
    await asyncio.to_thread(links.become, "pass", which)


async def _replica_killed(scene: Scene) -> None:
    replica = scene.cluster.replicas[0]
    scene.killed[0] = time.monotonic()
    replica.kill()
    await scene.hold()
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(replica.start), 2)


async def _replica_stopped(scene: Scene) -> None:
    replica = scene.cluster.replicas[0]
    replica.signal(signal.SIGSTOP)
    await scene.hold()
    replica.signal(signal.SIGCONT)


async def _replica_restarted(scene: Scene) -> None:
    replica = scene.cluster.replicas[0]
    scene.notes["exit_status"] = await asyncio.to_thread(replica.stop)
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(replica.start), 2)


async def _upstream_killed(scene: Scene) -> None:
    scene.cluster.upstream.kill()
    await scene.hold()
    await asyncio.to_thread(scene.cluster.upstream.start)


async def _upstream_stopped(scene: Scene) -> None:
    scene.cluster.upstream.signal(signal.SIGSTOP)
    await scene.hold()
    scene.cluster.upstream.signal(signal.SIGCONT)


async def _upstream_slow(scene: Scene) -> None:
    upstream = scene.cluster.upstream
    await asyncio.to_thread(upstream.wait_s, 0.5)
    await scene.hold()
    await asyncio.to_thread(upstream.wait_s, 0.01)


_PLAIN = "answers come from the upstream; none fails, none waits longer than the store's deadline"
_VALKEY, _UPSTREAM = Cluster.TO_VALKEY, Cluster.TO_UPSTREAM

FAULTS = (
    Fault("Valkey killed, later started empty", _PLAIN, _valkey_killed),
    Fault("Valkey stopped (SIGSTOP)", _PLAIN, _valkey_stopped),
    Fault("Valkey killed and started at once", _PLAIN, _valkey_restarted, hold_s=0),
    Fault("Valkey emptied (FLUSHALL)", "misses, then hits again", _flushed, hold_s=0),
    Fault("Valkey's memory full, noeviction", "what is stored is served; what is new isn't stored", _full),
    Fault("values in Valkey cut, garbled, exchanged", "such an entry is a miss", _garbled),
    Fault("network to Valkey slow (200 ms each way)", _PLAIN, partial(_linked, "slow 0.2", _VALKEY)),
    Fault("network to Valkey cut (resets)", _PLAIN, partial(_linked, "cut", _VALKEY)),
    Fault("partition from Valkey (nothing arrives)", _PLAIN, partial(_linked, "hole", _VALKEY)),
    Fault("one replica partitioned from Valkey", _PLAIN, partial(_linked, "hole", (0,))),
    Fault("a replica killed (SIGKILL), later started", "costs what it had under way; the others serve", _replica_killed),
    Fault("a replica stopped (SIGSTOP)", "what it has waits; the others serve", _replica_stopped),
    Fault("a replica restarted (SIGTERM)", "what it has is answered; the others serve", _replica_restarted),
    Fault("upstream killed, later started", "hits are served; else as direct", _upstream_killed, paired=True),
    Fault("upstream stopped (SIGSTOP)", "hits are served; else as direct", _upstream_stopped, paired=True),
    Fault("upstream slow (0.5 s)", "hits are not slower; else as direct", _upstream_slow, paired=True),
    Fault(
        "network to the upstream cut (resets)",
        "hits are served; else as direct",
        partial(_linked, "cut", _UPSTREAM),
        paired=True,
    ),
    Fault(
        "partition from the upstream",
        "hits are served; else as direct",
        partial(_linked, "hole", _UPSTREAM),
        paired=True,
    ),
)  # fmt: skip
