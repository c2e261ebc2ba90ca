"""A partition as the kernel makes it: Valkey in a network namespace of its own, and the wire to it pulled.

Unlike a silent TCP link, connections that are begun meanwhile get no answer at all, and those that stand see their
segments sent again. Needs root and `ip` (Debian: iproute2). Source: ip-netns(8), veth(4).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.places import Cluster
from tests.chaos.scene import Fault, On, Setting
from tests.fakes.valkey import ValkeyProcess

__all__ = ["NAMESPACED"]


class Apart(Cluster[ValkeyProcess]):
    """Three farthings whose Valkey is in another network. `name`: the namespace's, and its end of the wire."""

    def __init__(self, home: Path, name: str, host: str) -> None:
        valkey = ValkeyProcess("--protected-mode", "no", host=host, within=("ip", "netns", "exec", name))
        super().__init__(home, valkey)
        self.name = name

    def wire(self, state: str) -> None:
        """`down` pulls it at the far end, so that nobody here is told; `up` puts it back."""
        _ip("netns", "exec", self.name, "ip", "link", "set", self.name, state)


@contextlib.contextmanager
def _apart(home: Path) -> Iterator[Apart]:
    number = os.getpid() % 250
    name, near = f"fchaos{number}", f"fnear{number}"
    here, there = (f"10.213.{number}.{end}" for end in (1, 2))
    _ip("netns", "add", name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", name, "netns", name)
        _ip("addr", "add", f"{here}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("netns", "exec", name, "ip", "addr", "add", f"{there}/30", "dev", name)
        _ip("netns", "exec", name, "ip", "link", "set", name, "up")
        with Apart(home, name, there) as apart:
            yield apart
    finally:
        _ip("netns", "delete", name)  # takes the wire with it


async def _pulled(scene: On[Apart]) -> None:
    await asyncio.to_thread(scene.on.wire, "down")
    await scene.hold()
    await asyncio.to_thread(scene.on.wire, "up")


def _needs() -> str:
    if os.geteuid() or not shutil.which("ip"):
        return "a network namespace needs root and ip (Debian: iproute2)"
    made = subprocess.run(["ip", "netns", "add", "fchaostry"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    _ip("netns", "delete", "fchaostry")
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


NAMESPACED = Setting(
    Fault(
        "partition from Valkey (network namespace)",
        "answers come from the upstream; none fails, none waits longer than the store's deadline",
        _pulled,
        hold_s=2,
    ),
    _apart,
    _needs,
)
