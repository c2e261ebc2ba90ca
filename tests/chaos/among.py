"""The faults of one replica's own machine, among three over one Valkey: its disk, its files, its clock, its life.

What is injected is what alone.py injects; what is claimed is of all three. The replica is the first of them, but where
all are killed in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.chaos.alone import _faketime, _off_s
from tests.chaos.measured import row_ids
from tests.chaos.own_files import DISK, checkpointed, fill, noise, ready_said, relieve, salvaged, sound
from tests.chaos.places import Cluster, three
from tests.chaos.scene import Fault, On, Setting
from tests.fakes.valkey import ValkeyProcess

__all__ = ["AMONG"]

Three = Cluster[ValkeyProcess]
Scene = On[Three]
_DAY_S = 86_400


# -- its disk


@contextlib.contextmanager
def _one_on_small_disk(home: Path) -> Iterator[Three]:
    """The first one's state directory is a file system of 12 MB, where we may mount one; else it is as the others'."""
    state = home / "replica0"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(state)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        with three(home) as cluster:
            yield cluster
    finally:
        if mounted:
            subprocess.run(["umount", str(state)], check=True)


async def _disk_full(scene: Scene) -> None:
    one = scene.on.replicas[0]
    scene.notes["how"] = fill(one)
    await scene.hold()
    scene.notes["ready_said"] = [await asyncio.to_thread(ready_said, each.url) for each in scene.on.replicas]
    relieve(one)


# -- its files


async def _files_garbled(scene: Scene) -> None:
    """While it is down every third page of its ledger becomes noise, and the middle of every other file but its secret.

    It must start all the same, and begin a new ledger; what was in the old one is salvaged then.
    """
    one, rng = scene.on.replicas[0], random.Random(3)
    await asyncio.sleep(0.5)  # what was answered is on disk by then
    scene.kills.append((0, one.kill()))
    if not checkpointed(one.state / "ledger.db"):
        raise AssertionError("somebody else has the ledger open")
    scene.rows |= row_ids([one.state])
    files = sorted(path for path in one.state.rglob("*") if path.is_file() and path.stat().st_size)
    scene.notes["damaged"] = [noise(path, rng) for path in files if path.name != "secret"]
    await scene.hold()
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(one.start), 2)
    scene.notes["moved_aside"] = sorted(path.name.split("-")[0] for path in one.state.glob("*corrupt*"))
    scene.notes["salvaged"] = await asyncio.to_thread(salvaged, one.state)


# -- its clock


@contextlib.contextmanager
def _one_with_own_clock(home: Path) -> Iterator[Three]:
    """The first one's wall clock is what a file says (alone.py); the others' and the server's are right."""
    clock = home / "clock"
    clock.write_text("+0\n", "ascii")
    fake = {"LD_PRELOAD": _faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "0"}
    cluster = three(home)
    cluster.replicas[0].env |= fake | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with cluster:
        yield cluster


async def _clock_jumps(scene: Scene) -> None:
    """A day and an hour ahead, beyond every entry's time to live; then two days back; then right again."""
    clock = scene.on.home / "clock"
    for offset_s in (_DAY_S + 3600, -_DAY_S):
        clock.write_text(f"{offset_s:+d}\n", "ascii")
        await asyncio.sleep(scene.hold_s / 2)
        scene.notes.setdefault("clock_was_off_by_s", []).append(_off_s(scene.on.replicas[0].state))
    clock.write_text("+0\n", "ascii")


# -- their lives


async def _killed_in_turn(times: int, scene: Scene) -> None:
    """SIGKILL to one after the other at a random moment while it writes, and start it on the same files."""
    rng, slowest_s, kills = random.Random(9), 0.0, times if scene.longer <= 1 else 60
    for at in range(kills):
        number = at % len(scene.on.replicas)
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        scene.kills.append((number, scene.on.replicas[number].kill()))
        slowest_s = max(slowest_s, await asyncio.to_thread(scene.on.replicas[number].start))
    states = [replica.state for replica in scene.on.replicas]
    checks = [sound(state / "ledger.db") for state in states]
    scene.notes |= {"kills": kills, "slowest_start_s": round(slowest_s, 2), "checks": checks}
    scene.notes["moved_aside"] = sum(len(list(state.glob("*corrupt*"))) for state in states)
    if scene.notes["moved_aside"] or set(checks) != {"ok"}:
        raise AssertionError(f"a kill damaged a file: {scene.notes}")


AMONG = (
    Setting(
        Fault("one of three: disk full", "all answer; its rows wait in memory and are written later", _disk_full, 2),
        _one_on_small_disk,
        short=False,
    ),
    Setting(
        Fault(
            "one of three: ledger and other files damaged while it is down",
            "it starts, its ledger moved aside; the others serve",
            _files_garbled,
        ),
        three,
        short=False,
    ),
    Setting(
        Fault(
            "one of three: clock jumps 25 h ahead, then 2 days back",
            "what has expired by its clock is a miss for it; nothing else",
            _clock_jumps,
            hold_s=3,
        ),
        _one_with_own_clock,
        lambda: "" if _faketime() else "libfaketime is not installed (Debian: apt install faketime)",
        short=False,
    ),
    Setting(
        Fault(
            "three killed (SIGKILL) in turn while they write, again and again",
            "the others serve; all opens, no half entry",
            partial(_killed_in_turn, 6),
        ),
        three,
    ),
)
