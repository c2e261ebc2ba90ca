"""The digest by which two indexes are compared, and what is ahead of a log."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.digest import Ahead, Digest, stamp_of


@dataclass(frozen=True)
class Entry:
    entry_key: str
    scope: str = "s"
    text: str = "t"
    expires_s: float = 600.0


keys = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(first=keys, second=keys)
def test_two_digests_are_equal_just_where_the_entries_are(first: list[str], second: list[str]) -> None:
    one, other = Digest(), Digest()
    for key in first:
        one.add(stamp_of(Entry(key)))
    for key in second:
        other.add(stamp_of(Entry(key)))

    assert (one.after(0) == other.after(0)) is (set(first) == set(second))


def test_each_part_of_an_entry_counts_and_the_order_of_changes_does_not() -> None:
    others = [Entry("b"), Entry("a", scope="z"), Entry("a", text="z"), Entry("a", expires_s=600.1)]
    stamps = {stamp_of(one) for one in [Entry("a"), *others]}

    assert len(stamps) == 5
    digest = Digest()
    for one in others:
        digest.add(stamp_of(one))
    for one in others[::-1]:
        digest.drop(stamp_of(one))
    assert digest.after(0) == Digest().after(0) == (0, "0" * 16)


def test_what_expires_until_the_minute_is_left_out() -> None:
    digest = Digest()
    digest.add(stamp_of(Entry("soon", expires_s=119.0)))
    digest.add(stamp_of(Entry("late", expires_s=120.0)))
    only = Digest()
    only.add(stamp_of(Entry("late", expires_s=120.0)))

    assert digest.after(0)[0] == 2
    assert digest.after(1) == only.after(1)
    assert digest.after(2)[0] == 0


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
def test_ahead_tells_what_the_log_says_whatever_goes_out_meanwhile(seed: int, steps: int) -> None:
    """One writes and follows, another writes too; the log orders both. At every place the digest is the log's own."""
    draw = random.Random(seed)
    log: list[tuple[str, Entry | None, bool]] = []
    waiting: list[tuple[str, Entry | None]] = []
    held: dict[str, Entry] = {}
    said: dict[str, Entry] = {}
    digest, ahead, read = Digest(), Ahead(), 0

    def change(key: str, entry: Entry | None) -> None:
        if key in held:
            digest.drop(stamp_of(held.pop(key)))
        if entry is not None:
            held[key] = entry
            digest.add(stamp_of(entry))

    for step in range(steps):
        key = draw.choice("abc")
        entry = Entry(key, text=f"{step}") if draw.random() < 0.7 else None
        match draw.choice(["mine", "theirs", "send", "read"]):
            case "mine":
                ahead.mine(key, stamp_of(held[key]) if key in held else None)
                change(key, entry)
                waiting.append((key, entry))
            case "theirs":
                log.append((key, entry, False))
            case "send":
                log += [(one, what, True) for one, what in waiting]
                waiting = []
            case _ if read < len(log):
                at, what, own = log[read]
                read += 1
                said.pop(at, None)
                said |= {} if what is None else {at: what}
                if own:
                    ahead.arrived([at])
                    ahead.said(at, None if what is None else stamp_of(what))
                elif not ahead.said(at, None if what is None else stamp_of(what)):
                    change(at, what)
                wanted = Digest()
                for one in said.values():
                    wanted.add(stamp_of(one))
                pairs = ahead.pairs(lambda key: stamp_of(held[key]) if key in held else None)
                assert digest.after(0, pairs) == wanted.after(0)


def test_a_key_with_two_changes_under_way_waits_for_both() -> None:
    ahead = Ahead()
    ahead.mine("a", None)
    ahead.mine("a", stamp_of(Entry("a")))
    ahead.arrived(["a"])
    assert "a" in ahead
    ahead.arrived(["a", "never under way"])
    assert "a" not in ahead
