"""The sentence that a manager reads is true, whatever the figures are."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.figures_values import CAUSES, Figures, Sums, no_times
from farthing.proxy.report_sentence import headline, mending
from farthing.proxy.report_text import money
from farthing.proxy.report_values import Lacking
from tests.fakes.rows import DOLLAR

NOTHING = dict.fromkeys(CAUSES, 0)


def told(overhead: int = 0, baseline: int = 0, requests: int = 100, unpriced: int = 0, **saved: int) -> str:
    """The sentence over a week; cost is what the savings leave of the baseline."""
    modelled = saved.pop("modelled", 0)
    sums = Sums(
        rows=requests, requests=requests, unpriced=unpriced, modelled=modelled, baseline=baseline,
        cost=baseline - sum(saved.values()), overhead=overhead, saved={**NOTHING, **saved},
    )  # fmt: skip
    return headline(Figures(0.0, 7 * 86_400.0, (), sums, no_times()))


D = DOLLAR


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        ({"baseline": 1130 * D, "exact": 445 * D, "compress": 273 * D},
         "You spent $412.00 in 7 days; without farthing it would have been $1,130.00. "
         "You saved $718.00 (64%); 62% of the saving came from the exact cache."),
        ({"baseline": 10 * D, "compress": 4 * D},
         "You spent $6.00 in 7 days; without farthing it would have been $10.00. "
         "You saved $4.00 (40%); all of the saving came from compression."),
        ({"baseline": 10 * D, "exact": 10 * D},
         "You spent $0 in 7 days; without farthing it would have been $10.00. "
         "You saved $10.00 (100%); all of the saving came from the exact cache."),
        ({"baseline": 10 * D},
         "You spent $10.00 in 7 days; without farthing it would have been the same. Nothing was saved."),
        ({}, "You spent $0 in 7 days; without farthing it would have been the same. Nothing was saved."),
        ({"baseline": 10 * D, "exact": D, "overhead": D},
         "You spent $10.00 in 7 days; without farthing it would have been the same. "
         "What was saved ($1.00) was spent again."),
        ({"baseline": 10 * D, "overhead": 2 * D, "exact": D, "prompt_cache": -D // 2},
         "You spent $11.50 in 7 days; without farthing it would have been $10.00. "
         "farthing cost $1.50 more than it saved; its own calls cost most ($2.00)."),
        ({"baseline": 10 * D, "prompt_cache": -D},
         "You spent $11.00 in 7 days; without farthing it would have been $10.00. "
         "farthing cost $1.00 more than it saved; the provider's prompt cache cost most ($1.00)."),
        ({"baseline": 10 * D, "unpriced": 5, "modelled": 1},
         "You spent $10.00 in 7 days; without farthing it would have been the same. Nothing was saved. "
         "That leaves out 5 requests of unknown price (5%). The baseline is an estimate for 1% of the requests."),
        ({"unpriced": 100}, "No price is known for any of the 100 requests in 7 days."),
        ({"unpriced": 1, "requests": 1}, "No price is known for the only request in 7 days."),
        ({"baseline": 1000 * D, "exact": 999 * D - 1, "compress": 1},
         "You spent $1.00 in 7 days; without farthing it would have been $1,000.00. "
         "You saved $999.00 (more than 99%); more than 99% of the saving came from the exact cache."),
        ({"baseline": 1000 * D, "exact": D},
         "You spent $999.00 in 7 days; without farthing it would have been $1,000.00. "
         "You saved $1.00 (less than 1%); all of the saving came from the exact cache."),
    ],
)  # fmt: skip
def test_the_sentence(figures: dict[str, int], sentence: str) -> None:
    assert told(**figures) == sentence


def test_without_traffic_it_says_what_to_do_and_what_was_spent_anyway() -> None:
    assert told(requests=0).startswith("No requests in 7 days. Point an app's base_url at farthing")
    assert told(requests=0, overhead=D).endswith("farthing's own calls cost $1.00.")


amounts = st.integers(-(10**14), 10**14)


@given(st.integers(0, 10**15), st.integers(0, 10**13), st.fixed_dictionaries(dict.fromkeys(CAUSES, amounts)))
def test_any_sentence_agrees_with_its_own_amounts(baseline: int, overhead: int, saved: dict[str, int]) -> None:
    spent = baseline - sum(saved.values()) + overhead
    sentence = told(baseline=baseline, overhead=overhead, **saved)
    assert sentence.startswith(f"You spent {money(spent)} in 7 days; ")
    assert ("You saved" in sentence) == (spent < baseline)
    assert ("more than it saved" in sentence) == (spent > baseline)
    assert ("would have been the same" in sentence) == (spent == baseline)
    for share in re.findall(r"(\d+)% of the saving", sentence):
        best, whole = max(saved.values()), sum(pico for pico in saved.values() if pico > 0)
        assert "than" in sentence or abs(Decimal(share) - Decimal(100 * best) / whole) <= Decimal("0.5")


def test_mending_is_toml_whatever_the_name() -> None:
    name = 'a"b]\n[x]\\ \x1b[31m'
    text = "\n".join(mending([Lacking(name, 3, 0), Lacking("other", 1, 0)])[1:])
    found = tomllib.loads(text)["prices"]["models"]
    assert list(found.values()) == [{"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}]
    assert "\x1b" not in text
    assert mending([]) == []
