"""What a shorter prompt saves, or costs: by whole prompts, at fresh and at cached prices."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import pytest
from rich.console import Console, RenderableType

from farthing.proxy.advise import Advice, drafted, overview
from farthing.proxy.advise_page import overview_page, part_page
from farthing.proxy.advise_requests import read_requests
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.prices import RateCard
from farthing.proxy.tokens import Tokenizer

RULE = "Always tell the customer who is in charge of their complaint, and stay calm whatever they say.\n"
PRICE = ModelPrice(input_usd_per_mtok=Decimal(1), cached_usd_per_mtok=Decimal("0.1"), output_usd_per_mtok=Decimal(1))


def advised(system: str, model: str = "m") -> Advice:
    turns = [{"role": "system", "content": system}]
    bodies = [{"model": model, "messages": [*turns, {"role": "user", "content": str(n)}]} for n in range(3)]
    requests, skipped = read_requests(json.dumps(bodies), "f")
    card, tokens = RateCard({model: PRICE}), Tokenizer()
    found = overview(requests, skipped, "", tokens, card, 0.0, lambda what, done, total: None)
    ((part, of, costs),) = found.parts
    return drafted(requests, part, of, costs, tokens, card.rates(of, 0.0))


def shown(page: RenderableType) -> str:
    console = Console(width=110, file=io.StringIO())
    with console.capture() as said:
        console.print(page)
    return said.get()


def text(advice: Advice) -> str:
    return " ".join(shown(part_page(1, advice, diff=False)).split())


def test_a_prompt_that_falls_below_the_providers_least_length_may_cost_more() -> None:
    unique = "".join(f"Topic {n} is answered by team {n} in its own words.\n" for n in range(40))
    advice = advised(unique + RULE * 40, "gpt-4o")
    assert advice.costs.tokens > 1024 > advice.tokens_after
    assert advice.money is not None and advice.money.below_minimum
    saved = advice.costs.tokens - advice.tokens_after
    assert advice.money.fresh == pytest.approx(saved / 1000, rel=0.01)
    assert advice.money.cached < 0
    assert "COSTS $" in text(advice) and "below what the provider caches" in text(advice)


def test_a_prompt_that_stays_long_enough_saves_a_tenth_where_it_is_cached() -> None:
    unique = "".join(f"Topic {n} is answered by team {n} in its own words.\n" for n in range(120))
    advice = advised(unique + RULE * 40, "gpt-4o")
    assert advice.money is not None and not advice.money.below_minimum
    assert advice.money.cached == pytest.approx(advice.money.fresh / 10, rel=0.01)


def test_a_prompt_that_has_nothing_to_spare_is_left_alone() -> None:
    advice = advised("".join(f"Topic {n} is answered by team {n}.\n" for n in range(20)))
    assert (advice.verdict, advice.tokens_after) == ("nothing shorter found", advice.costs.tokens)


def test_a_prompt_cant_steer_the_terminal() -> None:
    requests, skipped = read_requests(
        json.dumps([{"model": "m", "messages": [{"role": "system", "content": "\x1b[2J[red]Be brief. " * 20}]}] * 2),
        "f",
    )
    found = overview(requests, skipped, "", Tokenizer(), RateCard({}), 0.0, lambda what, done, total: None)
    said = shown(overview_page(found))
    assert "\x1b" not in said and "[red]" in said
