"""Policies beside each other: what one of them does must not make another one wrong. The books are the meter's."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import chat, quiet
from tests.fakes.upstream import Script
from tests.wire.test_routes import house, meter, why

HARD = {"name": "all", "usd": "0.00018"}


async def spent(proxy: Any) -> Decimal:
    """What the only budget's account says, in dollars."""
    await quiet(proxy)
    (one,) = (await proxy.client.get("/farthing/api/budgets")).json()["budgets"]
    return sum((Decimal(str(subject["spent_usd"])) for subject in one["subjects"]), Decimal(0))


@pytest.mark.parametrize("name", ["mini", "mini-there", "quick", "cheap-alias"])
@pytest.mark.parametrize("by_header", [True, False])
async def test_budgets_know_the_price_of_what_a_request_names(tmp_path: Path, name: str, by_header: bool) -> None:
    """By a model's, a variant's or an alias's name, in the header or the body: reserved at its price, none refused."""
    aliases = {"quick": "mini", "cheap-alias": "mini-there"}
    settings: dict[str, Any] = {"aliases": aliases, "spend__unpriced": "refuse", "cache__mode": "off"}
    async with house(tmp_path, [{"model": "nobody", "variants": ["big"]}], budgets=[HARD], **settings) as at:
        asked, headers = (chat(), {"x_farthing_route": name}) if by_header else (chat() | {"model": name}, {})
        answer = await at.proxy.post(asked | {"max_tokens": 10}, **headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "mini"
        # 100 tokens at $2 a million are more than the budget, whatever name they go by.
        refused = await at.proxy.post(asked | {"max_tokens": 100}, **headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")
        assert await spent(at.proxy) * 10**12 == meter(*at.ups)
        await at.books(2)


@pytest.mark.parametrize("name", ["mini", "mini-there", "quick", "cheap-alias"])
async def test_no_other_name_leads_round_a_models_budget(tmp_path: Path, name: str) -> None:
    only = HARD | {"of": "model", "only": ["mini"]}
    aliases = {"quick": "mini", "cheap-alias": "mini-there"}
    async with house(tmp_path, [], budgets=[only], aliases=aliases) as at:
        for asked, headers in ((chat(), {"x_farthing_route": name}), (chat() | {"model": name}, {})):
            refused = await at.proxy.post(asked | {"max_tokens": 100}, **headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")


async def test_a_variant_whose_answer_breaks_off_before_its_first_byte_leads_on(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}]) as at:
        at.cheap.default = Script(cut_after=0)
        answer = await at.proxy.post(chat())
        streamed = await at.proxy.post(chat("and now", stream=True))
        rows = await at.proxy.rows(2)
    assert [why(row)[-1] for row in rows] == [["route", "failed", "mini-there: reset"]] * 2
    assert sum(row["cost_usd"] for row in rows) > meter(at.default)  # what was sent in vain may be billed
    assert (answer.status_code, answer.json()["model"]) == (200, "m")
    assert streamed.text.endswith("data: [DONE]\n\n")
