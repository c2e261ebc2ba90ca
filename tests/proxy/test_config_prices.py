"""Own prices: dated, by tier, past so much context, and of one's own machines."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from farthing.proxy.config import load
from farthing.proxy.config_prices import Hosted, ModelPrice
from farthing.proxy.prices import RateCard
from farthing.proxy.usage import Usage

TOML = """
[prices.models."m"]
input_usd_per_mtok = 1
cached_usd_per_mtok = 0.1
cache_write_1h_usd_per_mtok = 2
output_usd_per_mtok = 4
request_usd = 0.005
source = "contract 7"

[[prices.models."m".past]]
tokens = 1000
input_usd_per_mtok = 2

[prices.models."m".tiers.flex]
times = 0.5
output_usd_per_mtok = 3

[[prices.models."m".changes]]
valid_from = 2027-01-01
input_usd_per_mtok = 0.9
output_usd_per_mtok = 3.6
source = "contract 8"
"""


def at(year: int, month: int = 6, day: int = 1, hour: int = 0) -> float:
    return datetime(year, month, day, hour, tzinfo=UTC).timestamp()


@pytest.fixture
def card(tmp_path: Path) -> RateCard:
    path = tmp_path / "farthing.toml"
    path.write_text(TOML, "utf-8")
    return RateCard(load(path).prices.models)


@pytest.mark.parametrize(
    ("usage", "at_s", "usd"),
    [
        (Usage(fresh=100, cached=10, output=5), at(2026), "0.005121"),
        (Usage(fresh=1000, output=5), at(2026), "0.00602"),
        (Usage(fresh=1001, cached=1, output=5), at(2026), "0.0070221"),  # past it, what is declared of it alone
        (Usage(fresh=100, output=10, tier="flex"), at(2026), "0.00258"),
        (Usage(fresh=1001, tier="flex"), at(2026), "0.003501"),
        (Usage(cache_write_1h=100), at(2026), "0.0052"),
        (Usage(fresh=100, output=5), at(2026, 12, 31, 23), "0.00512"),
        (Usage(fresh=100, cached=10, output=5), at(2027, 1, 1), "0.000117"),
    ],
)
def test_dates_tiers_and_context_floors(card: RateCard, usage: Usage, at_s: float, usd: str) -> None:
    price = card.price("m", usage, at_s)
    assert price is not None
    assert price.usd == Decimal(usd)
    assert price.source == ("contract 7" if at_s < at(2027, 1, 1) else "contract 8")


def test_a_change_ends_tiers_and_floors_of_the_list_before_it(card: RateCard) -> None:
    assert card.price("m", Usage(fresh=1, tier="flex"), at(2027)) is None
    rates = card.rates("m", at(2027))
    assert rates is not None
    assert rates.fresh.steps == ()


def test_before_its_first_day_the_tables_price_holds() -> None:
    own = ModelPrice(input_usd_per_mtok=Decimal(7), valid_from=date(2026, 12, 1))
    card = RateCard({"gpt-4o-mini": own, "nobodys": own})
    before, after = card.price("gpt-4o-mini", Usage(10**6), at(2026)), card.price("gpt-4o-mini", Usage(10**6), at(2027))
    assert before is not None and after is not None
    assert (before.usd, after.usd) == (Decimal("0.15"), 7)
    assert card.price("nobodys", Usage(1), at(2026)) is None
    assert card.owns("gpt-4o-mini")
    assert {row.source for row in card.rows("gpt-4o-mini")} > {"config"}


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"output_usd_per_mtok": 1},
        {"input_usd_per_mtok": -1},
        {"input_usd_per_mtok": 1, "past": [{"tokens": 0}]},
        {"input_usd_per_mtok": 1, "tiers": {"flex": {"times": -1}}},
        {"input_usd_per_mtok": 1, "changes": [{"input_usd_per_mtok": 1}]},
        {"input_usd_per_mtok": 1, "changes": [{"valid_from": "2027-01-01"}]},
        {"hosted": {"tokens_per_s": 10}},
        {"hosted": {"tokens_per_s": 0, "usd_per_hour": 1}},
        {"hosted": {"tokens_per_s": 10, "usd_per_hour": 1, "usd_per_gpu_second": 1}},
        {"hosted": {"tokens_per_s": 10, "usd_per_hour": 1, "busy": 0}},
        {
            "input_usd_per_mtok": 1,
            "changes": [{"valid_from": day, "input_usd_per_mtok": 1} for day in ("2027-01-01", "2027-01-01")],
        },
        {
            "input_usd_per_mtok": 1,
            "valid_from": "2027-02-01",
            "changes": [{"valid_from": "2027-01-01", "input_usd_per_mtok": 1}],
        },
    ],
)
def test_what_makes_no_price_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelPrice(**declared)


def test_own_machines_cost_more_on_the_average_than_at_full_load() -> None:
    """$3.60 an hour is $0.001 a second: at 500 tokens a second $2 a million, and twice that half of the time idle."""
    hosted = Hosted(
        usd_per_hour=Decimal("3.6"), tokens_per_s=Decimal(500), input_tokens_per_s=Decimal(10_000), busy=Decimal("0.5")
    )
    assert hosted.costs(peak=True) == {"fresh": Decimal("0.1"), "output": Decimal(2)}
    assert hosted.costs() == {"fresh": Decimal("0.2"), "output": Decimal(4)}
    card = RateCard({"llama": ModelPrice(hosted=hosted, cached_usd_per_mtok=Decimal("0.01"))})
    price = card.price("llama", Usage(fresh=1000, cached=1000, output=100), at(2026))
    assert price is not None
    assert price.usd == Decimal("0.0002") + Decimal("0.00001") + Decimal("0.0004")


def test_the_same_machine_by_the_gpu_second_and_by_the_hour() -> None:
    by_gpu = Hosted(usd_per_gpu_second=Decimal("0.0005"), gpus=2, tokens_per_s=Decimal(300))
    by_hour = Hosted(usd_per_hour=Decimal("3.6"), tokens_per_s=Decimal(300))
    assert by_gpu.costs() == by_hour.costs() == dict.fromkeys(("fresh", "output"), Decimal("3.333333333333"))
    assert by_gpu.busy_s(600, 300) == 3


def test_own_prices_of_every_kind_have_a_row_of_it() -> None:
    names = [name for name in ModelPrice.model_fields if name.endswith("_usd_per_mtok")]
    price = ModelPrice(**{name: Decimal(1) for name in names}, search_usd=Decimal("0.01"), request_usd=Decimal("0.02"))
    rows = price.rows()
    assert len({row.bucket for row in rows}) == len(rows) == len(names) + 2
    assert {row.bucket: row.usd for row in rows if row.usd != 1} == {"searches": 10_000, "request": 20_000}
