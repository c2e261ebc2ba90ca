"""The emergency switch: a file, and a word that holds where no file can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from farthing.proxy.clock import FakeClock
from farthing.proxy.state import Switch
from tests.fakes.proxying import proxied
from tests.fakes.upstream import scripted
from tests.wire.test_lanes import policy


def test_a_file_turns_all_off_and_its_removal_on(tmp_path: Path) -> None:
    clock = FakeClock()
    one, other = Switch(tmp_path, clock), Switch(tmp_path, clock)
    one.set(off=True)
    assert (one(), other()) == (True, False)
    clock.advance(0.25)
    assert (one(), other()) == (True, True)
    one.path.unlink()
    clock.advance(0.25)
    assert (one(), other()) == (False, False)


def test_what_was_said_holds_until_the_file_says_the_same(tmp_path: Path) -> None:
    clock, folder = FakeClock(), tmp_path / "state"
    folder.write_text("no folder: nothing can be written")
    switch = Switch(folder, clock)
    with pytest.raises(OSError):
        switch.set(off=True)
    switch.say(off=True)
    clock.advance(10)
    assert switch()

    folder.unlink()
    switch.set(off=True)
    clock.advance(1)
    assert switch()
    switch.path.unlink()
    clock.advance(1)
    assert not switch()


async def test_the_admin_call_works_without_the_disk(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        switch = proxy.services.state.switch
        switch.path = tmp_path / "lock" / "OFF"  # below a file
        assert await policy(proxy, "off") == {"switched_off": True}
