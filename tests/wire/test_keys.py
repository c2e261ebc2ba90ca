"""Virtual keys on the wire: who gets in, what goes upstream, and where a key must never be seen."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from farthing.proxy.clock import FakeClock, SystemRandomness
from farthing.proxy.config import load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.keys import KeyBudget, VirtualKey, made
from farthing.proxy.keys_file import FileKeys
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_budgets import receiver

KEYED: dict[str, Any] = {"auth__virtual_keys": True, "upstream__api_key": "sk-operator"}
DEEP = b'"x": ' + b"[" * 201 + b"]" * 201 + b', "model": "m", "model": "gpt-4o"'
Give = Callable[..., Awaitable[tuple[str, VirtualKey]]]


@asynccontextmanager
async def keys_in(state_dir: Path) -> Any:
    """Gives keys as the command line does, from another connection."""
    store = FileKeys(state_dir / "keys.db")

    async def give(name: str = "ann", now_s: float = 1.0, **more: Any) -> tuple[str, VirtualKey]:
        secret, record = made(SystemRandomness(), now_s, name=name, **more)
        await store.add(record)
        return secret, record

    give.store = store  # type: ignore[attr-defined]
    try:
        yield give
    finally:
        await store.close()


def shown(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_only_good_keys_get_in_and_the_reason_is_for_their_holders(up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock()
    async with keys_in(tmp_path) as give:
        good, _ = await give()
        expiring, _ = await give("bob", expires_s=clock.now_s() + 60)
        revoked, record = await give("eve")
        async with proxied(up.url, tmp_path, clock=clock, **KEYED) as proxy:
            assert (await proxy.post(chat(), **shown(good))).status_code == 200
            assert (await proxy.post(chat(), **shown(expiring))).status_code == 200
            assert (await proxy.post(chat(), **shown(revoked))).status_code == 200
            await give.store.revoke(record.id, clock.now_s())
            clock.advance(61)
            answers = {
                "expired": await proxy.post(chat(), **shown(expiring)),
                "revoked": await proxy.post(chat(), **shown(revoked)),
                "forged": await proxy.post(chat(), **shown("fk-" + "0" * 40)),
                "none": await proxy.post(chat(), Authorization=""),
            }
            assert {one.status_code for one in answers.values()} == {401}
            said = {name: one.json()["error"]["message"] for name, one in answers.items()}
            assert "has expired" in said["expired"]
            assert "was revoked" in said["revoked"]
            assert said["forged"] == said["none"]
            assert (await proxy.post(chat(), **shown(good))).status_code == 200


async def test_no_header_with_a_key_goes_upstream(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give:
        secret, _ = await give()
        styled = {"auth__virtual_keys": True, "upstream__style": "openai"}
        for settings in (KEYED, {"auth__virtual_keys": True}, styled):
            for optimising in ({}, {"cache__mode": "off", "compress__tidy": False}):
                async with proxied(up.url, tmp_path, **settings, **optimising) as proxy:
                    for headers in (
                        shown(secret),
                        {"x_api_key": secret, "Authorization": ""},
                        {**shown(secret), "x_my_token": f"Token {secret}", "Cookie": f"a=b; k={secret}"},
                    ):
                        answer = await proxy.post(chat(f"{settings}{optimising}{headers}"), **headers)
                        assert answer.status_code == 200, answer.text
                    assert (await proxy.client.get("/v1/models", headers=shown(secret))).status_code == 200
        sent = [str(call.headers) for call in up.calls]
        assert len(sent) == 24
        assert not any(secret in headers for headers in sent)
        with_operators = [headers for headers in sent if "sk-operator" in headers]
        assert len(with_operators) == 8


async def test_a_header_that_no_provider_reads_is_no_place_for_a_key(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give, proxied(up.url, tmp_path, **KEYED) as proxy:
        secret, _ = await give()
        assert (await proxy.post(chat(), Authorization="", x_my_token=secret)).status_code == 401
    assert up.calls == []


async def test_a_key_is_never_in_log_ledger_or_metrics(up: ScriptedUpstream, tmp_path: Path) -> None:
    log = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(log), cache_logger_on_first_use=False)
    try:
        async with keys_in(tmp_path) as give:
            secret, record = await give(budgets=[KeyBudget(1, "day")], models=["m"])
            other, _ = await give("bob", tenant="acme")
            forged = "fk-" + "ab" * 20
            settings: dict[str, Any] = {"budgets": [{"name": "k", "usd": 1, "of": "key", "alerts": [0.000001]}]}
            async with proxied(up.url, tmp_path, **KEYED, **settings) as proxy:
                for one in (secret, other, forged):
                    await proxy.post(chat("hello"), **shown(one))
                    await proxy.post(chat("hello") | {"model": "x"}, **shown(one))
                    await proxy.post(b"no json", **shown(one))
                up.script(Script(reset=True))
                await proxy.post(chat("broken"), **shown(other))
                texts = [(await proxy.client.get(path)).text for path in ("/metrics", "/readyz", "/farthing/api/keys",
                                                                           "/farthing/api/budgets")]  # fmt: skip
                assert record.ending in texts[2]
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(False)
    files = b"".join(path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file())
    everything = "".join([*texts, log.getvalue()]).encode() + files
    assert b"budget threshold" in everything
    for one in (secret, other, forged):
        assert one.encode() not in everything
        assert one.removeprefix("fk-").encode() not in everything
    assert record.digest not in "".join(texts)


async def test_revoking_is_in_force_within_a_second_even_for_hits(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give, proxied(up.url, tmp_path, **KEYED) as proxy:
        secret, record = await give()
        await asyncio.sleep(0.8)
        for _ in range(5):
            answer = await proxy.post(chat(), **shown(secret))
            assert answer.status_code == 200
        assert answer.headers["x-farthing-cache"] == "hit-exact"
        await give.store.revoke(record.id, 5.0)
        for _ in range(20):  # traffic goes on meanwhile
            await proxy.post(chat(), **shown(secret))
            await asyncio.sleep(0.05)
        assert (await proxy.post(chat(), **shown(secret))).status_code == 401
        fresh, _ = await give("new")
        await asyncio.sleep(1)
        assert (await proxy.post(chat(), **shown(fresh))).status_code == 200


async def test_tenancy_is_the_keys_whatever_the_client_says(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give, proxied(up.url, tmp_path, **KEYED) as proxy:
        acme, _ = await give("ann", tenant="acme")
        also, _ = await give("bob", tenant="acme")
        other, _ = await give("eve", tenant="other")
        alone, _ = await give("dan")
        await asyncio.sleep(0.8)

        async def cache(secret: str, **headers: str) -> str:
            answer = await proxy.post(chat(), **shown(secret), **headers)
            assert answer.status_code == 200
            return answer.headers["x-farthing-cache"]

        assert await cache(acme) == "miss"
        assert await cache(also) == "hit-exact"
        assert await cache(other) == "miss"
        assert await cache(alone) == "miss"
        lying = {"x_tenant": "acme", "x_farthing_tenant": "acme", "x_farthing_user": "acme"}
        assert await cache(other, **lying) == "hit-exact"  # of its own tenant
        rows = await proxy.rows(5)
        assert rows[0]["tenant"] == rows[1]["tenant"]
        assert len({row["tenant"] for row in rows}) == 3
        assert rows[2]["tenant"] == rows[4]["tenant"]


async def test_a_key_is_for_its_models(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give, proxied(up.url, tmp_path, **KEYED) as proxy:
        free, _ = await give("ann", tenant="t")
        bound, _ = await give("bob", tenant="t", models=["gpt-*"])
        await asyncio.sleep(0.8)
        assert (await proxy.post(chat(), **shown(free))).status_code == 200

        refused = await proxy.post(chat(), **shown(bound))  # its tenant has that answer; it is none for this key
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "model_not_allowed"
        assert (await proxy.post(chat() | {"model": "gpt-4o"}, **shown(bound))).status_code == 200
        routed = await proxy.post(chat() | {"model": "gpt-4o"}, **shown(bound), x_farthing_route="m")
        assert routed.status_code == 403
        assert (await proxy.post(b"--no json--", **shown(bound))).status_code == 403
        count = len(up.calls)
        for said in (b'"model": "m", "model": "gpt-4o"', b'"mod\\u0065l": "m", "model": "gpt-4o"', DEEP):
            twice = b"{" + said + b', "messages": []}'
            answer = await proxy.post(twice, **shown(bound))  # who reads the first one and who the last?
            assert (answer.status_code, len(up.calls)) == (403, count), twice[:60]
        assert (await proxy.client.get("/v1/models", headers=shown(bound))).status_code == 200


async def test_a_keys_own_budget(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give, proxied(up.url, tmp_path, **KEYED, cache__mode="off") as proxy:
        poor, record = await give("ann", budgets=[KeyBudget(6 * 10**8, "day")])
        rich, _ = await give("bob")
        await asyncio.sleep(0.8)
        statuses = [(await proxy.post(chat(max_tokens=30), **shown(poor))).status_code for _ in range(8)]
        assert statuses[0] == 200
        assert statuses[-1] == 402
        assert (await proxy.post(chat(max_tokens=30), **shown(rich))).status_code == 200
        told = (await proxy.client.get("/farthing/api/budgets")).json()["budgets"]
        assert [one["name"] for one in told] == [f"key.{record.id}.day"]
        assert told[0]["refused"] == statuses.count(402)


async def test_thresholds_of_a_keys_own_budget_are_told(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with receiver() as (url, got), keys_in(tmp_path) as give:
        secret, record = await give("ann", budgets=[KeyBudget(6 * 10**8, "day"), KeyBudget(10**12, "week", False)])
        settings: dict[str, Any] = {"alerts__webhook": url, "alerts__key_budgets": [0.1], "cache__mode": "off"}
        async with proxied(up.url, tmp_path, **KEYED, **settings) as proxy:
            while (await proxy.post(chat(max_tokens=30), **shown(secret))).status_code == 200:
                pass
            while len(proxy.services.state.tasks):
                await asyncio.sleep(0.05)
    assert [(event["budget"], event["share"], event["subject"]) for event, _, _ in got] == [
        (f"key.{record.id}.day", 0.1, "ann")
    ]


async def test_client_keys_of_the_configuration_stay_good(up: ScriptedUpstream, tmp_path: Path) -> None:
    import hashlib

    client = {"name": "old", "sha256": hashlib.sha256(b"old-key").hexdigest()}
    async with proxied(up.url, tmp_path, **KEYED, auth__client_keys=[client]) as proxy:
        assert (await proxy.post(chat(), **shown("old-key"))).status_code == 200
        assert (await proxy.post(chat(), **shown("other"))).status_code == 401
    assert up.calls[0].headers["Authorization"] == "Bearer sk-operator"


async def test_keys_can_be_switched_on_by_a_reload(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with keys_in(tmp_path) as give, proxied(up.url, tmp_path) as proxy:
        secret, _ = await give()
        assert (await proxy.post(chat())).status_code == 200
        config: Any = proxy.running.services.config
        auth = config.auth.model_copy(update={"virtual_keys": True})
        await proxy.running.reload(config.model_copy(update={"auth": auth}))
        assert (await proxy.post(chat())).status_code == 401
        assert (await proxy.post(chat(), **shown(secret))).status_code == 200


def test_virtual_keys_close_an_open_relay() -> None:
    flags = {"server.host": "0.0.0.0", "upstream.api_key": "sk"}
    with pytest.raises(ConfigFault, match="virtual_keys"):
        load(None, {}, flags)
    assert load(None, {}, flags | {"auth.virtual_keys": True}).auth.virtual_keys


async def test_the_admin_api_lists_keys(proxy: Proxied) -> None:
    assert (await proxy.client.get("/farthing/api/keys")).json() == {"asked_for": False, "keys": [], "store": "off"}
    told = (await proxy.client.get("/farthing/api/budgets")).json()
    assert told == {"budgets": [], "rate_limits": [], "store": "off"}


async def test_a_route_may_name_a_tenant_of_virtual_keys(up: ScriptedUpstream, tmp_path: Path) -> None:
    routed = {
        "variants": [{"name": "small", "model": "cheap"}],
        "routes": [{"name": "sales", "mode": "serve", "tenant": "sales", "variants": ["small"]}],
    }
    async with keys_in(tmp_path) as give:
        sales, _ = await give("ann", tenant="sales")
        other, _ = await give("bob", tenant="legal")
        async with proxied(up.url, tmp_path, **KEYED, **routed) as proxy:
            for secret in (sales, other):
                await proxy.post(chat(), **shown(secret))
    assert [call.json["model"] for call in up.calls] == ["cheap", "m"]
