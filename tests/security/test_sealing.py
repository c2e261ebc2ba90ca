"""Stored answers at rest: nobody reads them without a key, no key is a miss and no error, and keys can be changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.codec import decode, encode, peek
from farthing.cache.entry import Entry
from farthing.proxy.config import effective, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.seal import SealedElsewhere, Sealer
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess

ONE, TWO = "11" * 32, "22" * 32
SAID = "the-merger-is-on"


def sealer(*keys: str) -> Sealer:
    return Sealer([bytes.fromhex(key) for key in keys], os.urandom)


def entry(body: bytes) -> Entry:
    return Entry(
        key="a" * 32, scope="t", endpoint="chat", model_requested="m", model_served="m", shape="whole",
        content_type="application/json", body=body, usage=None, stored_s=1.0, expires_s=9.0, tags=(("team", "x"),),
    )  # fmt: skip


@settings(deadline=None)
@given(st.binary(max_size=20_000))
def test_what_was_sealed_opens_with_its_key_alone(body: bytes) -> None:
    raw = encode(entry(body), sealer(ONE))

    assert decode(raw, sealer(ONE)) == decode(raw, sealer(TWO, ONE)) == entry(body)
    assert peek(raw) == peek(encode(entry(body)))
    for seal in (None, sealer(TWO)):
        with pytest.raises(SealedElsewhere):
            decode(raw, seal)


def test_it_is_deflated_before_it_is_sealed() -> None:
    assert len(encode(entry(b"again and again " * 1000), sealer(ONE))) < 2000


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_bit_is_a_miss(at: int, flip: int) -> None:
    raw = bytearray(encode(entry(b"x" * 300), sealer(ONE)))
    raw[at % len(raw)] ^= flip
    assert decode(bytes(raw), sealer(ONE)) is None


def test_a_body_does_not_open_under_another_entrys_header() -> None:
    """Whoever may write to the store, but has no key, can't give one request's answer to another."""
    seal = sealer(ONE)
    sealed = seal.close(b"answer", b"header one")
    assert seal.open(sealed, b"header one") == b"answer"
    with pytest.raises(ValueError, match="changed"):
        seal.open(sealed, b"header two")


def test_two_of_one_text_have_nothing_in_common() -> None:
    seal = sealer(ONE)
    assert seal.close(b"answer", b"")[8:] != seal.close(b"answer", b"")[8:]


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


@pytest.fixture(params=["file", "redis"])
def where(request: pytest.FixtureRequest, valkey: ValkeyProcess) -> dict[str, Any]:
    """Nothing stays in memory, so that each hit is read."""
    valkey.command("FLUSHALL")
    at = {"store__url": valkey.url, "store__deadline_ms": 5000} if request.param == "redis" else {}
    return {"store__memory_bytes": 0, **at}


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with scripted() as upstream:
        upstream.default = Script(says=SAID)
        yield upstream


async def served(
    up: ScriptedUpstream, state_dir: Path, where: dict[str, Any], *keys: str, asks: int = 1, **more: Any
) -> list[str]:
    """How the same request is answered by a farthing with these keys."""
    given: dict[str, Any] = dict(more)
    if keys:
        given |= {"store__encryption_key": keys[0], "store__encryption_old_keys": list(keys[1:])}
    async with proxied(up.url, state_dir, **where, **given) as proxy:
        answers = [await proxy.post(chat()) for _ in range(asks)]
        assert all(SAID in answer.text for answer in answers)
        return [answer.headers["x-farthing-cache"] for answer in answers]


async def test_keys_can_be_changed_and_old_ones_only_open(
    up: ScriptedUpstream, tmp_path: Path, where: dict[str, Any]
) -> None:
    assert await served(up, tmp_path, where, ONE, asks=2) == ["miss", "hit-exact"]
    assert await served(up, tmp_path, where, TWO, ONE) == ["hit-exact"]
    assert await served(up, tmp_path, where, TWO, asks=2) == ["miss", "hit-exact"]  # the old one was taken away: a miss
    assert await served(up, tmp_path, where, TWO) == ["hit-exact"]


async def test_no_key_is_a_miss_and_is_told_once(
    up: ScriptedUpstream, tmp_path: Path, where: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    await served(up, tmp_path, where, ONE)
    capfd.readouterr()
    assert await served(up, tmp_path, where) == ["miss"]
    said = "".join(capfd.readouterr())
    assert said.count("sealed under a key that is not here") == 1
    assert "checksum" not in said and "stage failed" not in said


async def test_what_was_stored_in_the_open_is_still_served(
    up: ScriptedUpstream, tmp_path: Path, where: dict[str, Any]
) -> None:
    assert await served(up, tmp_path, where) == ["miss"]
    assert await served(up, tmp_path, where, ONE) == ["hit-exact"]


async def test_no_answer_stands_on_the_disk(up: ScriptedUpstream, tmp_path: Path) -> None:
    await served(up, tmp_path, {"store__memory_bytes": 0}, ONE)
    held = b"".join(file.read_bytes() for file in tmp_path.glob("answers.db*"))
    assert SAID.encode() not in held and ONE.encode() not in held and bytes.fromhex(ONE) not in held


async def test_a_key_file_has_the_current_key_first(up: ScriptedUpstream, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    state_dir = tmp_path / "s"
    keys.write_text(f"{ONE}\n")
    where: dict[str, Any] = {"store__memory_bytes": 0, "store__encryption_key_file": keys}
    assert await served(up, state_dir, where) == ["miss"]
    keys.write_text(f"{TWO}\n{ONE}\n\n")
    assert await served(up, state_dir, where) == ["hit-exact"]
    for bad in ("", "tooshort", ONE + "0\n", "\xff"):
        keys.write_text(bad, "latin-1")
        with pytest.raises(ConfigFault, match="encryption_key_file"):
            await served(up, state_dir, where)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"store.encryption_key": "sk-hush"}, "64 hex digits"),
        ({"store.encryption_key": ONE, "store.encryption_old_keys": ["hush"]}, "64 hex digits"),
        ({"store.encryption_old_keys": [ONE]}, "set encryption_key too"),
        ({"store.encryption_key": ONE, "store.encryption_key_file": "k"}, "holds all keys"),
    ],
)
def test_what_is_no_key_is_said_and_not_repeated(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigFault, match=said) as caught:
        load(None, {}, given)
    assert "hush" not in str(caught.value) and ONE not in str(caught.value)


def test_keys_come_from_the_environment_and_are_never_shown() -> None:
    config = load(None, {"FARTHING_STORE__ENCRYPTION_KEY": ONE, "FARTHING_STORE__ENCRYPTION_OLD_KEYS": f'["{TWO}"]'})
    assert config.store.encryption_key is not None
    assert ONE not in str(effective(config)) and TWO not in str(effective(config)) and ONE not in repr(config)


def test_without_a_key_the_library_is_not_asked_for() -> None:
    code = "import farthing.proxy.app, sys; print('cryptography' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
