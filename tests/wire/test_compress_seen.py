"""What operators see of compression: counters by rule, and GET /farthing/api/compress; no word of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from farthing.proxy.compress_counts import LEFT, MODES
from tests.fakes.proxying import Proxied, proxied, quiet
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_compress import LOOSE, SAYS, UNPROVEN, body, said, told, until_recoded

MARK = {"cache_control": {"type": "ephemeral"}}


async def counted(proxy: Proxied) -> dict[tuple[str, ...], float]:
    """The counters of compression at /metrics, by name and labels."""
    text = (await proxy.client.get("/metrics")).text
    return {
        (
            sample.name.removeprefix("farthing_compress_").removesuffix("_total"),
            *sorted(sample.labels.values(), key=lambda label: label in MODES),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("farthing_compress_")
    }


async def seen(proxy: Proxied) -> dict[str, Any]:
    answer = await proxy.client.get("/farthing/api/compress")
    assert answer.status_code == 200, answer.text
    assert "order_id" not in answer.text and "Which of my orders" not in answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def up(up: ScriptedUpstream) -> ScriptedUpstream:
    up.default.says = SAYS
    return up


async def test_what_rules_took_adds_up_to_what_the_ledger_says_was_not_sent(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    turns = told()
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(turns))
        await proxy.rows(1)
        first = await counted(proxy)
        later = [*turns, {"role": "assistant", "content": SAYS}, {"role": "user", "content": "Why?"}]
        await proxy.post(body(later))
        rows = await proxy.rows(2)
        both, api = await counted(proxy), await seen(proxy)

    lacked = sum(row["tokens_in_original"] - row["tokens_in_sent"] for row in rows)
    assert sum(value for (name, *_), value in both.items() if name == "tokens_saved") == lacked > 0
    assert first["texts", "rows", "sent"] == both["texts", "rows", "sent"] == 1
    assert both["tokens_saved", "rows", "replayed"] == first["tokens_saved", "rows", "sent"] > 0
    assert set(api) == {
        "tidy", "recode", "squeeze", "unproven", "max_worse", "confidence", "shadows_usd_today", "shadow_daily_usd",
        "saved_usd_today", "rules", "left", "count", "routes",
    }  # fmt: skip
    (by_rule,) = [one for one in api["rules"] if one["rule"] == "rows"]
    assert by_rule["sent"] == {"tokens": first["tokens_saved", "rows", "sent"], "texts": 1}
    assert by_rule["observed"] == {"tokens": 0, "texts": 0}
    (route,) = api["routes"]
    assert route["serves"] == "recode"
    assert route["tokens"] == {"sent": 2 * by_rule["sent"]["tokens"], "observed": 0}
    assert float(api["saved_usd_today"]["recode"]) == pytest.approx(
        sum(row["saved_compress_usd"] for row in rows) / 1e12
    )
    assert (api["tidy"], api["recode"], api["squeeze"], api["unproven"]) == ("on", "serve unproven", "off", True)


async def test_what_is_watched_is_no_saving(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.wait_s = 0.3
    async with proxied(up.url, tmp_path) as proxy:
        proxy.services.state.tokenizer.count("loads the ranks", "m")
        await proxy.post(body(told()))
        await quiet(proxy)
        (row,) = await proxy.rows(1)
        found, api = await counted(proxy), await seen(proxy)
    (observed,) = [one for one in said(row) if one.startswith("observed")]
    assert observed == f"observed: rows would save {found['tokens_saved', 'rows', 'observed']:.0f} tokens"
    assert found["texts", "tidy", "sent"] == 1
    assert found["tokens_saved", "tidy", "sent"] == row["tokens_in_original"] - row["tokens_in_sent"]
    assert found["left", "observing"] == 1
    assert not [key for key in found if key[-1] == "replayed" or key[1:] == ("rows", "sent")]
    (route,) = api["routes"]
    assert (route["serves"], route["tokens"]["sent"]) == ("", 0)
    assert route["tokens"]["observed"] == found["tokens_saved", "rows", "observed"]
    (step,) = route["steps"]
    assert (step["name"], step["labels"], step["needed"], step["reason"]) == ("recode", 0, None, "nothing compared yet")


async def test_why_messages_were_left_is_counted(up: ScriptedUpstream, tmp_path: Path) -> None:
    lost = [*told(1), {"role": "assistant", "content": SAYS}, {"role": "user", "content": "Why?"}]
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(lost))
        await proxy.post(body(told(2, **MARK)))
        await proxy.post(body(told(3), model="of-unknown-price"))
        await proxy.post(body(lost))
        await proxy.rows(4)
        found = await counted(proxy)
    assert {name: found.get(("left", name)) for name in ("lost", "frozen", "does_not_pay")} == dict.fromkeys(
        ("lost", "frozen", "does_not_pay"), 1
    )
    assert {key[1] for key in found if key[0] == "left"} <= set(LEFT)


async def test_a_failed_request_saved_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.status = 400
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(told()))
        await proxy.rows(1)
        found = await counted(proxy)
    assert not [key for key in found if key[0] == "tokens_saved"]


async def test_a_routes_way_to_its_proof_is_told_and_survives_a_restart(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await proxy.post(body(told()))
        await quiet(proxy)
        begun = await seen(proxy)
        await until_recoded(proxy, up)
        proved = await seen(proxy)
        found = await counted(proxy)
    (step,) = begun["routes"][0]["steps"]
    assert step["labels"] == 1 and step["needed"] > 1 and step["bound"] is None and not step["serving"]
    assert begun["shadows_usd_today"] > 0 and begun["shadow_daily_usd"] == 5
    (route,) = proved["routes"]
    assert route["serves"] == "recode"
    assert route["route"]["name"].startswith("m ") and len(route["route"]["tenant"]) == 8
    (step,) = route["steps"]
    assert step["serving"] and step["needed"] is None and step["bound"] <= 0.25 and step["wrong"] == 0
    assert found["left", "not_proved"] > 2
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        again = await seen(proxy)
    assert [one["serves"] for one in again["routes"]] == ["recode"]
    assert again["routes"][0]["steps"] == route["steps"]
    assert again["rules"] == []


async def test_the_latest_route_stands_first_and_a_hundred_at_most(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, cache__mode="off") as proxy:
        for number in (*range(101), 50):
            await proxy.post(body(told(count=3), model=f"m{number}"))
        api = await seen(proxy)
    assert [one["route"]["name"].split()[0] for one in api["routes"][:3]] == ["m50", "m100", "m99"]
    assert (len(api["routes"]), api["count"]) == (100, 101)


async def test_compression_is_for_the_admin_alone(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, server__admin_token="secret-of-the-house") as proxy:
        assert (await proxy.client.get("/farthing/api/compress")).status_code == 401


async def test_what_is_on_stands_in_readyz(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **UNPROVEN, compress__squeeze="observe") as proxy:
        state = (await proxy.client.get("/readyz")).json()
    assert (state["tidy"], state["recode"], state["squeeze"]) == (True, "serve unproven", "observe")


@pytest.mark.parametrize("squeeze", [{"unproven": True}, {"shadow_daily_usd": 1, "shadow_share": 0.001}, None])
async def test_recoding_is_watched_beside_squeeze(
    up: ScriptedUpstream, tmp_path: Path, squeeze: dict[str, Any] | None
) -> None:
    up.default.wait_s = 1.0
    compress = {"squeeze": "observe"} if squeeze is None else {"squeeze": "serve", **squeeze}
    async with proxied(up.url, tmp_path, compress=compress) as proxy:
        proxy.services.state.tokenizer.count("loads the ranks", "m")
        await proxy.post(body(told()))
        await quiet(proxy)
        (row,) = await proxy.rows(1)
        found = await counted(proxy)
    assert found["texts", "rows", "observed"] == 1
    assert found["left", "observing"] >= 1
    assert any(one.startswith("observed") and "rows would save" in one for one in said(row))
