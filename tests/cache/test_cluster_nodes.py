"""What a node says of its cluster: lines as Valkey 9.1 and the specification have them."""

from __future__ import annotations

import pytest

from farthing.cache.cluster_nodes import endpoints, view_of

A, B, C, D, E = (letter * 40 for letter in "abcde")
SAID = f"""\
{A} 127.0.0.1:7000@17000,a.example myself,master - 0 0 1 connected 0-99 200 [150->-{B}] [300-<-{C}]
{B} 127.0.0.1:7001@17001 master - 0 1 2 connected 100-150
{C} 127.0.0.1:7002@17002 slave {B} 0 1 2 connected
{D} [::1]:7003@17003 master - 0 1 3 connected
"""


def test_the_primaries_and_what_they_have() -> None:
    view = view_of(SAID)
    assert view.me == A and view.sound and view.primaries == {A, B, D}
    assert view.dealt == {(A, ((0, 99), (200, 200))), (B, ((100, 150),)), (D, ())}, "moving slots are where they were"
    assert view.places == {A: ("127.0.0.1", 7000), B: ("127.0.0.1", 7001), D: ("[::1]", 7003)}


@pytest.mark.parametrize(("flags", "sound"), [("master,fail?", True), ("master,fail", False), ("master,noaddr", True)])
def test_one_that_has_slots_counts_and_is_down_by_verdict_only(flags: str, sound: bool) -> None:
    view = view_of(SAID.replace(f"{B} 127.0.0.1:7001@17001 master", f"{B} 127.0.0.1:7001@17001 {flags}"))
    assert view.sound is sound and view.primaries == {A, B, D}


@pytest.mark.parametrize("flags", ["master,fail", "master,noaddr", "handshake", "master,handshake"])
def test_one_that_has_none_and_is_down_or_unknown_does_not_count(flags: str) -> None:
    more = f"{E} :0@0 {flags} - 0 0 0 disconnected\n"
    assert view_of(SAID + more) == view_of(SAID)


def test_what_it_says_in_another_order_is_the_same() -> None:
    assert view_of("".join(reversed(SAID.splitlines(keepends=True)))).dealt == view_of(SAID).dealt


@pytest.mark.parametrize(
    "said", ["ERR", f"{A} 127.0.0.1:x@1 master - 0 0 1 connected 0-9", f"{A} h:1@1 master - 0 0 1 c x"]
)
def test_what_is_no_answer_is_none(said: str) -> None:
    with pytest.raises(ValueError):
        view_of(said)


def test_where_clients_are_to_ask() -> None:
    node = [b"10.0.0.1", 7000, A.encode(), [b"hostname", b"a.example"]]
    said = [[0, 99, node, [b"10.0.0.2", 7001, C.encode(), []]], [200, 200, node], [100, 150, [None, 7001, B.encode()]]]
    assert endpoints(said) == {A: ("10.0.0.1", 7000), B: ("", 7001)}
