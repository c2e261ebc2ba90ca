"""The faults of one farthing that keeps everything in SQLite: its disk, its files, its clock, its life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.chaos.limits import LIMITS, Spent, probe, remembered, spent, tells_truly
from tests.chaos.measured import row_ids
from tests.chaos.own_files import DISK, checkpointed, fill, noise, ready_said, relieve, salvaged, sound
from tests.chaos.places import Alone
from tests.chaos.scene import Fault, On, Setting

__all__ = ["ALONE"]

Scene = On[Alone]
_DAY_S = 86_400
_AHEAD_S = _DAY_S + 3600
_CLOCK_SEEN_S = 30.0  # a bound: libfaketime looks once a second, and the load must leave a row


# -- its upstream


def _with_two_addresses(home: Path) -> Alone:
    """A farthing that knows its upstream by two addresses, so that each has a circuit."""
    alone = Alone(home)
    there = alone.upstream.port
    alone.farthing.env["FARTHING_UPSTREAM__REPLICAS"] = json.dumps(
        [f"http://127.0.0.1:{there}/v1", f"http://localhost:{there}/v1"]
    )
    return alone


async def _all_replicas_down(scene: Scene) -> None:
    """All that farthing knows of the upstream is gone, long enough for every circuit to open."""
    with scene.turning():
        scene.on.upstream.kill()
    await scene.hold()
    with scene.turning():
        await asyncio.to_thread(scene.on.upstream.start)


# -- the disk


@contextlib.contextmanager
def _on_small_disk(home: Path) -> Iterator[Alone]:
    """A farthing whose state directory is a file system of 12 MB, where we may mount one; else on the usual disk."""
    state = home / "small"
    state.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(state)], check=False).returncode == 0
    )
    try:
        with Alone(home, state) as alone:
            yield alone
    finally:
        if mounted:
            subprocess.run(["umount", str(state)], check=True)


async def _disk_full(scene: Scene) -> None:
    scene.notes["how"] = fill(scene.on.farthing)
    await scene.hold()
    scene.notes["ready_said"] = await asyncio.to_thread(ready_said, scene.on.farthing.url)
    relieve(scene.on.farthing)


# -- its files


async def _rows_garbled(scene: Scene) -> None:
    """While it is down, answers in its file are cut, garbled and exchanged; half of them stay."""
    farthing = scene.on.farthing
    await asyncio.sleep(0.5)  # what was answered is on disk by then
    _kill(scene)
    with closing(sqlite3.connect(farthing.state / "answers.db")) as db:
        found = db.execute("select id, bytes from bodies").fetchall()
        for at, (number, value) in enumerate(found):
            middle = len(value) // 2
            bad = (value[:middle], value[:middle] + b"\0" + value[middle + 1 :], found[at - 1][1], value)[at % 4]
            db.execute("update bodies set bytes = ? where id = ?", (bad, number))
        db.commit()
    scene.notes["answers_garbled"] = len(found) * 3 // 4
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(farthing.start), 2)


async def _pages_garbled(scene: Scene) -> None:
    """While it runs, every third page of its databases is overwritten with noise; later what is left is salvaged."""
    farthing, rng = scene.on.farthing, random.Random(3)
    paths = [farthing.state / name for name in ("answers.db", "ledger.db")]
    while True:  # what is only in the logs so far is out of reach of the noise
        farthing.signal(signal.SIGSTOP)
        if all(checkpointed(path) for path in paths):
            break
        farthing.signal(signal.SIGCONT)
        await asyncio.sleep(0.01)
    scene.rows |= row_ids([farthing.state])
    for path in paths:
        noise(path, rng)
    farthing.signal(signal.SIGCONT)
    await scene.hold()
    _kill(scene)
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(farthing.start), 2)
    aside = [path for path in farthing.state.glob("*corrupt*") if path.suffix in (".db", ".corrupt")]
    scene.notes["moved_aside"] = sorted(path.name.split("-")[0] for path in aside)
    scene.notes["salvaged"] = "; ".join(await asyncio.to_thread(salvaged, farthing.state))


# -- its clock


def _faketime() -> str:
    """libfaketime's path, or '' where it isn't installed (Debian: faketime)."""
    return next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "")


def _needs_faketime() -> str:
    return "" if _faketime() else "libfaketime is not installed (Debian: apt install faketime)"


@contextlib.contextmanager
def _with_own_clock(home: Path) -> Iterator[Alone]:
    """A farthing whose wall clock is what a file says; its monotonic clock is the kernel's, which can't jump.

    The file is looked at once a second (a duration of 0). Read at each look at any clock, as whoever waits for
    Python's lock does every 5 ms, it was what farthing was busy with, and a first request could take longer than a
    client waits. It has spend limits, which go by the clock.
    """
    clock = home / "clock"
    clock.write_text("+0\n", "ascii")
    fake = {"LD_PRELOAD": _faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "0"}
    with Alone(home, **fake, **LIMITS, FAKETIME_DONT_FAKE_MONOTONIC="1") as alone:
        yield alone


async def _clock_jumps(scene: Scene) -> None:
    """A day and an hour ahead, beyond every entry's time to live; then two days back; then right again."""
    url, before = scene.on.farthing.url, await spent(scene.on.farthing.url)
    for offset_s in (_AHEAD_S, -_DAY_S):
        _set_clock(scene, offset_s)
        await _clock_seen(scene, offset_s)
        if offset_s > 0:
            await probe(url)  # from then on the rate has seen that day
        await asyncio.sleep(scene.hold_s / 2)
        scene.notes.setdefault("clock_was_off_by_s", []).append(_off_s(scene.on.farthing.state))
    _set_clock(scene, 0)
    scene.later += [partial(_knows, scene, before), partial(tells_truly, url)]


async def _started_ahead(scene: Scene) -> None:
    """It is killed and started while its clock is a day and an hour ahead; then the clock is right again."""
    farthing, before = scene.on.farthing, await spent(scene.on.farthing.url)
    _set_clock(scene, _AHEAD_S)
    await _clock_seen(scene, _AHEAD_S)
    _kill(scene)
    scene.notes["ready_after_s"] = round(await asyncio.to_thread(farthing.start), 2)
    await scene.hold()
    _set_clock(scene, 0)
    await _clock_seen(scene, 0)
    scene.later.append(partial(_knows, scene, before))


async def _knows(scene: Scene, before: Spent) -> list[str]:
    """Once its clock is right again, farthing knows what was spent today."""
    await _clock_seen(scene, 0)
    after = await spent(scene.on.farthing.url)
    scene.notes["spent_usd"] = [before.usd, after.usd]
    return remembered(before, after)


def _set_clock(scene: Scene, offset_s: int) -> None:
    (scene.on.home / "clock").write_text(f"{offset_s:+d}\n", "ascii")


async def _clock_seen(scene: Scene, offset_s: int) -> None:
    """Wait until a row says that its clock is off by so much. Raises TimeoutError."""
    async with asyncio.timeout(_CLOCK_SEEN_S):
        while await asyncio.to_thread(_off_s, scene.on.farthing.state) != offset_s:
            await asyncio.sleep(0.05)


def _off_s(state: Path) -> int:
    with closing(sqlite3.connect(f"{(state / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
        at_s: float = ledger.execute("select ts from requests order by rowid desc limit 1").fetchone()[0]
    return round((at_s - time.time()) / 3600) * 3600


# -- its life


async def _killed_again_and_again(scene: Scene) -> None:
    """SIGKILL at a random moment while it writes, and start it on the same files: 20 times, or 200."""
    farthing, rng, slowest_s = scene.on.farthing, random.Random(9), 0.0
    times = round(20 * scene.longer) if scene.longer <= 1 else 200
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        _kill(scene)
        slowest_s = max(slowest_s, await asyncio.to_thread(farthing.start))
    said = farthing.said()
    checks = [sound(farthing.state / name) for name in ("answers.db", "ledger.db")]
    scene.notes |= {"kills": times, "slowest_start_s": round(slowest_s, 2), "checks": checks}
    scene.notes["moved_aside"] = len(list(farthing.state.glob("*corrupt*")))
    scene.notes["checksum_failures"] = said.count("fails its checksum")
    if scene.notes["moved_aside"] or scene.notes["checksum_failures"] or checks != ["ok", "ok"]:
        raise AssertionError(f"a kill damaged a file: {scene.notes}")


def _kill(scene: Scene) -> None:
    scene.kills.append((0, scene.on.farthing.kill()))


_MISS = "such an answer is a miss; everything opens"

ALONE = (
    Setting(
        Fault(
            "all of the upstream's replicas killed, later started",
            "hits are served; else as direct, but for a second's wait",
            _all_replicas_down,
            hold_s=2,
            paired=True,
        ),
        _with_two_addresses,
    ),
    Setting(
        Fault("disk full", "answers go on; rows wait in memory and are written later", _disk_full, hold_s=2),
        _on_small_disk,
    ),
    Setting(Fault("stored answers cut, garbled, exchanged on disk", _MISS, _rows_garbled), Alone),
    Setting(
        Fault("pages of ledger and cache overwritten while it runs", "moved aside and begun anew", _pages_garbled),
        Alone,
    ),
    Setting(
        Fault(
            "clock jumps 25 h ahead, then 2 days back",
            "what has expired is a miss; limits know what was spent, and serve who waited",
            _clock_jumps,
            hold_s=3,
        ),
        _with_own_clock,
        _needs_faketime,
    ),
    Setting(
        Fault("killed, and started while its clock is 25 h ahead", "limits know what was spent", _started_ahead, 2),
        _with_own_clock,
        _needs_faketime,
    ),
    Setting(
        Fault("killed (SIGKILL) while it writes, again and again", "all opens; no half entry", _killed_again_and_again),
        Alone,
    ),
)
