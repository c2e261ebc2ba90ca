"""Who gets at farthing's own paths, and what is written down of what they did."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.config import load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.forwarded import Trusted
from farthing.proxy.server_tls import ServerTls, trusting
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import ScriptedUpstream, scripted

BOTH = Path(__file__).parent.parent / "fakes" / "localhost.pem"
ADMIN = {"x-farthing-admin": "1"}


# -- the audit log


def entries(state_dir: Path) -> list[dict[str, Any]]:
    path = state_dir / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def change(proxy: Proxied, name: str, asked: Any = None, **headers: str) -> httpx.Response:
    return await proxy.client.post(f"/farthing/api/{name}", json=asked, headers=ADMIN | headers)


async def test_every_change_is_written_down_with_who_and_what_and_no_secret(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, server__admin_token="t0k-hush") as proxy:
        token = {"Authorization": "Bearer t0k-hush"}
        await proxy.post(chat())
        await change(proxy, "policy/off", **token)
        await change(proxy, "policy/on", **token)
        await change(proxy, "cache/purge", {"model": "m", "tags": ["doc=kb-17"]}, **token)
        await change(proxy, "capture/erase", {"user": "ann@example.org"}, **token)
        await change(proxy, "cache/purge", {"nonsense": "sk-hush"}, **token)
        await change(proxy, "policy/promote", {"version": "p-none"}, **token)
        refused = await change(proxy, "policy/off")
        await change(proxy, "cache/stats", {}, **token)
        await change(proxy, "cache/explain", {"request": chat("PROMPT-hush")}, **token)
    found = entries(tmp_path)

    assert [(one["what"], one["status"]) for one in found] == [
        ("policy/off", 200),
        ("policy/on", 200),
        ("cache/purge", 200),
        ("capture/erase", 200),
        ("cache/purge", 400),
        ("policy/promote", 404),
    ]
    assert {(one["who"], one["from"]) for one in found} == {("token", "127.0.0.1")}
    assert found[2]["asked"] == {"model": "m", "tags": "['doc=kb-17']"}
    assert found[3]["asked"]["user"].startswith("user-")
    assert found[4]["asked"] == {}
    assert refused.status_code == 401
    text = (tmp_path / "audit.jsonl").read_text()
    assert "hush" not in text and "ann@" not in text


async def test_a_disk_that_takes_no_audit_stops_no_emergency(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        (tmp_path / "audit.jsonl").mkdir()
        assert (await change(proxy, "policy/off")).json() == {"switched_off": True}


# -- the token


async def test_only_the_whole_token_opens_it(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, server__admin_token="t0ken") as proxy:
        for shown in (
            "",
            "Bearer",
            "Bearer t0ke",
            "Bearer t0ken!",
            "Basic t0ken",
            "Bearer T0KEN",
            "Bearer \xff",
        ):
            answer = await proxy.client.get("/metrics", headers={b"Authorization": shown.encode("latin-1")})
            assert answer.status_code == 401, shown
        assert (await proxy.client.get("/metrics", headers={"Authorization": "Bearer t0ken"})).status_code == 200


# -- proxies in front


def test_only_trusted_proxies_are_believed_and_from_the_end() -> None:
    trusted = Trusted(["10.0.0.0/8", "::1", "127.0.0.1"])

    def client(peer: str, *lines: str) -> str:
        return trusted.client_of(peer, lines, through=bool(lines))

    assert client("203.0.113.9") == "203.0.113.9"
    assert client("203.0.113.9", "127.0.0.1") == ""  # said by a stranger
    assert client("10.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert client("10.0.0.1", "127.0.0.1, 203.0.113.9") == "203.0.113.9"  # the first was written by the client
    assert client("10.0.0.1", "127.0.0.1", "203.0.113.9, 10.0.0.2") == "203.0.113.9"
    assert client("10.0.0.1") == client("10.0.0.1", "") == client("10.0.0.1", "unknown") == ""
    assert client("10.0.0.1", "10.0.0.2") == ""
    assert client("::ffff:10.0.0.1", "[2001:db8::1]:443") == "2001:db8::1"
    assert client("::1", "198.51.100.7:1234") == "198.51.100.7"
    assert Trusted([]).client_of("::ffff:127.0.0.1", ["127.0.0.1"], through=True) == ""


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=4), st.sampled_from(["10.0.0.1", "203.0.113.9", "", "no"]))
def test_nothing_that_a_client_writes_makes_it_another(lines: list[str], stranger: str) -> None:
    trusted = Trusted(["10.0.0.1"])
    behind = [*lines, "203.0.113.9"]  # the trusted proxy adds whom it got it from, in a line of its own or the last
    assert trusted.client_of("10.0.0.1", behind, through=True) == "203.0.113.9"
    if stranger != "10.0.0.1":
        assert trusted.client_of(stranger, lines, through=True) == ""


async def test_a_proxy_on_this_machine_makes_nobody_local(tmp_path: Path) -> None:
    local = {"Host": "localhost"}
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        for name in (
            "X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Proto", "X-Forwarded-Host",
            "X_Forwarded_For",
            "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Envoy-External-Address",
        ):  # fmt: skip
            answer = await proxy.client.get("/farthing/api/summary", headers=local | {name: "127.0.0.1"})
            assert answer.status_code == 403
    async with scripted() as up, proxied(up.url, tmp_path, server__trusted_proxies=["127.0.0.1"]) as proxy:
        said = {"X-Forwarded-For": "127.0.0.1, 203.0.113.9"}
        assert (await proxy.client.get("/farthing/api/summary", headers=local | said)).status_code == 403
        # One that adds nothing is as good as none: it can't be told who asks.
        assert (await proxy.client.get("/farthing/api/summary", headers=local)).status_code == 403


@pytest.mark.parametrize("host", ["evil@127.0.0.1", "127.0.0.1/evil.example", "localhost?.evil.example", "localhost#x"])
async def test_a_host_that_only_seems_to_be_this_machine_is_none(tmp_path: Path, host: str) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        assert (await proxy.client.get("/farthing/api/summary", headers={"Host": host})).status_code == 403
        for good in ("localhost", "127.0.0.1:8080", "[::1]:8080"):
            assert (await proxy.client.get("/farthing/api/summary", headers={"Host": good})).status_code == 200


async def test_the_audit_log_has_the_client_that_a_trusted_proxy_names(tmp_path: Path) -> None:
    given: dict[str, Any] = {"server__trusted_proxies": ["127.0.0.1"], "server__admin_token": "t"}
    async with scripted() as up, proxied(up.url, tmp_path, **given) as proxy:
        said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9", "Authorization": "Bearer t"}
        await change(proxy, "policy/on", **said)
    assert entries(tmp_path)[0]["from"] == "203.0.113.9"


@pytest.mark.parametrize("bad", ["localhost", "10.0.0.1/8", "*"])
def test_a_trusted_proxy_is_an_address_or_a_network(bad: str) -> None:
    with pytest.raises(ConfigFault, match="is no address or network"):
        load(None, {}, {"server.trusted_proxies": [bad]})


# -- TLS


def fresh_pair(where: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody has seen before."""
    where.mkdir(exist_ok=True)
    cert, key = where / "cert.pem", where / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def over_tls(proxy: Proxied, cert: Path) -> httpx.Response:
    async with httpx.AsyncClient(base_url=proxy.url, verify=trusting(cert)) as client:
        return await client.post("/v1/chat/completions", json=chat(stream=True))


async def test_clients_are_served_over_tls_and_a_new_certificate_needs_no_restart(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = fresh_pair(tmp_path / "one")
    newer, newer_key = fresh_pair(tmp_path / "two")
    seen = tmp_path / "seen.pem"
    shutil.copy(cert, seen)
    async with proxied(up.url, tmp_path / "s", server__tls_cert=cert, server__tls_key=key) as proxy:
        assert proxy.url.startswith("https://")
        first = await over_tls(proxy, seen)
        again = await over_tls(proxy, seen)
        with pytest.raises(httpx.ConnectError):
            await over_tls(proxy, newer)
        shutil.copy(newer, cert)
        with pytest.raises(ConfigFault, match="no usable pair"):  # the key is still the old one's
            await proxy.running.reload(proxy.services.config)
        assert (await over_tls(proxy, seen)).status_code == 200
        shutil.copy(newer_key, key)
        await proxy.running.reload(proxy.services.config)
        assert (await over_tls(proxy, newer)).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await over_tls(proxy, seen)

    assert (first.status_code, first.headers["x-farthing-cache"]) == (200, "miss")
    assert (again.status_code, again.headers["x-farthing-cache"]) == (200, "hit-exact")


async def test_what_is_no_tls_and_what_is_too_old_get_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, server__tls_cert=BOTH, server__tls_key=BOTH) as proxy:
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient() as client:
                await client.get(proxy.url.replace("https", "http") + "/healthz")
        assert proxy.running.tls is not None
        assert proxy.running.tls.context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_certificate_without_its_key_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="belong together"):
        load(None, {}, {"server.tls_cert": str(BOTH)})
    for content in ("", "nonsense"):
        (tmp_path / "bad.pem").write_text(content)
        with pytest.raises(ConfigFault, match=r"server\.tls_cert"):
            ServerTls(tmp_path / "bad.pem", tmp_path / "bad.pem")
    with pytest.raises(ConfigFault, match="No such file"):
        ServerTls(tmp_path / "none.pem", tmp_path / "none.pem")


@pytest.fixture
async def up() -> Any:
    async with scripted() as upstream:
        yield upstream
