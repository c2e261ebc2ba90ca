"""The report's figures against a small ledger worked out by hand; unknown prices, losses and hostile texts."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
from contextlib import closing
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import ConfigFault
from farthing.proxy.report import FORMATS, dollars, form_of, money, render, report_on
from farthing.proxy.report_read import read_report
from farthing.proxy.report_values import Report
from farthing.proxy.row import MONEY_COLUMNS, Row
from tests.fakes.rows import DOLLAR, NOW_S, ledger, row

WEEK_S = 7 * 86_400.0
UNKNOWN = dict.fromkeys(MONEY_COLUMNS)


def figured(*rows: Row, by: tuple[str, ...] = (), span_s: float = WEEK_S) -> Report:
    with closing(ledger(":memory:", rows)) as conn:
        return read_report(conn, NOW_S - span_s, NOW_S, by)


HIT = row(id="hit", cache="hit-exact", baseline_usd=3 * DOLLAR, saved_exact_usd=3 * DOLLAR, latency_ms=2.0)
MISS = row(id="miss", baseline_usd=2 * DOLLAR, cost_usd=2 * DOLLAR, overhead_usd=DOLLAR // 4, latency_ms=800.0)
LOSS = row(id="loss", baseline_usd=DOLLAR, cost_usd=DOLLAR + 123 * 10**6, saved_prompt_cache_usd=-123 * 10**6)
UNPRICED = row(id="x", model_requested="house-70b", **UNKNOWN)
UNPROVEN = row(id="u", cache="hit-semantic", cache_reason="unproven", baseline_usd=DOLLAR, saved_semantic_usd=DOLLAR)


@pytest.mark.parametrize(
    ("pico", "shown", "exact"),
    [
        (0, "$0", "0"),
        (1, "$0.00000000000100", "0.000000000001"),
        (123 * 10**6, "$0.000123", "0.000123"),
        (-123 * 10**6, "-$0.000123", "-0.000123"),
        (99 * 10**8, "$0.00990", "0.0099"),
        (5 * 10**10, "$0.0500", "0.05"),
        (DOLLAR, "$1.00", "1"),
        (1_234_567 * DOLLAR + DOLLAR // 2, "$1,234,567.50", "1234567.5"),
    ],
)
def test_money_is_shown_with_the_digits_that_matter(pico: int, shown: str, exact: str) -> None:
    assert (money(pico), dollars(pico)) == (shown, exact)


@given(st.integers(-(10**20), 10**20))
def test_an_amount_never_shows_as_another(pico: int) -> None:
    assert Decimal(dollars(pico)) * DOLLAR == pico
    read = Decimal(money(pico).replace("$", "").replace(",", ""))
    assert (read == 0) == (pico == 0)
    assert (read < 0) == (pico < 0)
    assert abs(read * DOLLAR - pico) <= max(Decimal(abs(pico)) / 100, Decimal(0))


def test_the_sentence_and_the_table_hold_the_ledgers_figures() -> None:
    shown = render(figured(HIT, MISS, LOSS), "table")
    assert max(map(len, render(figured(HIT, MISS, LOSS), "table", width=80).splitlines())) <= 80
    # Spent: 2 + 1.000123 + 0.25 of its own; baseline 6; saved 3 - 0.000123; net of 0.25: 2.749877.
    assert "You spent $3.25 in 7 days; without farthing it would have been $6.00." in shown
    assert cells(shown, "exact cache")[0] == "$3.00"
    assert cells(shown, "provider's prompt cache")[0] == "-$0.000123"
    assert cells(shown, "farthing's own spending")[0] == "-$0.2500"
    assert cells(shown, "net saving")[:2] == ["$2.75", "(45.8%)"]
    assert cells(shown, "hit rate, eligible")[0] == "33.3%"
    assert cells(shown, "sent upstream")[-1] == "2"
    assert max(map(len, shown.splitlines())) <= 100
    assert "unproven" not in shown
    assert "unknown price" not in shown


def cells(shown: str, name: str) -> list[str]:
    """What follows `name` in the first line of a table that has it; the sentence above them may have it too."""
    line = next(line for line in shown.splitlines() if name in line and not line.rstrip().endswith("."))
    return line.partition(name)[2].split()


def test_a_loss_is_said() -> None:
    assert "farthing cost $0.000123 more than it saved" in render(figured(LOSS), "table", width=200)


def test_losses_are_red_and_savings_are_not() -> None:
    figures = figured(LOSS, HIT._replace(model_requested="other"), by=("model",))
    shown = render(figures, "table", colour=True)
    red = [part.partition("\x1b[0m")[0].strip() for part in shown.split("\x1b[31m")[1:]]
    assert [cell for cell in red if cell] == ["-$0.000123"] * 2  # by cause, and of the model's group
    page = render(figures, "html")
    assert page.count('<td class="minus">-$0.000123</td>') == 2
    assert page.count('class="minus"') == 3  # and the bar
    both = render(figured(LOSS, MISS), "table", colour=True)
    assert "\x1b[31m-$0.2501" in both  # the net saving, which is less than nothing


@pytest.mark.parametrize("form", FORMATS)
def test_unknown_prices_are_named_and_never_zero(form: str) -> None:
    shown = render(figured(MISS, UNPRICED, by=("model",)), form, width=200)
    if form == "json":
        found = json_format.loads(shown)
        assert found["total"]["unpriced"] == 1
        (group,) = [each for each in found["groups"] if each["key"] == {"model": "house-70b"}]
        assert group["baseline_usd"] is group["cost_usd"] is group["net_saving_usd"] is None
        assert "1 request of unknown price" in found["notes"][0]
    elif form == "csv":
        rows = {each["model"]: each for each in csv_format.DictReader(io.StringIO(shown))}
        assert rows["house-70b"]["baseline_usd"] == rows["house-70b"]["cost_usd"] == ""
        assert rows["house-70b"]["unpriced"] == "1"
        assert rows["gpt-4o-mini"]["baseline_usd"] == "2"
    else:
        assert "1 request of unknown price: in no amount" in shown
        assert "That leaves out 1 request of unknown price (50%)." in shown
        if form == "table":
            assert cells(shown, "house-70b")[2:5] == ["?", "?", "?"]


def test_only_unknown_prices_make_no_amount_at_all() -> None:
    shown = render(figured(UNPRICED), "table")
    assert "No price is known for the only request in 7 days." in shown
    assert "You spent" not in shown


@pytest.mark.parametrize("form", ["table", "json", "html"])
def test_unproven_hits_are_called_unproven(form: str) -> None:
    assert "1 semantic hit served unproven" in render(figured(HIT, UNPROVEN), form, width=200)


@pytest.mark.parametrize("form", ["table", "json", "html"])
def test_an_empty_ledger_says_what_to_do(form: str) -> None:
    shown = render(figured(span_s=3600.0), form, width=400)
    assert "No requests in 60 minutes. Point an app" in shown
    assert "base_url" in shown


def test_json_and_csv_hold_every_digit() -> None:
    odd = row(baseline_usd=DOLLAR + 1, cost_usd=DOLLAR, saved_compress_usd=1)
    total = json_format.loads(render(figured(odd), "json"))["total"]
    assert (total["baseline_usd"], total["saved_compress_usd"]) == ("1.000000000001", "0.000000000001")
    (line,) = csv_format.DictReader(io.StringIO(render(figured(odd), "csv")))
    assert line["net_saving_usd"] == "0.000000000001"
    assert (line["requests"], line["miss"], line["latency_p95_ms"]) == ("1", "1", "100.0")


HOSTILE = "<script>alert(1)</script>\x1b[31m[red]\u202e"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


def test_hostile_names_mean_nothing() -> None:
    found = figured(row(model_requested=HOSTILE), by=("model",))
    tags = Tags()
    tags.feed(page := render(found, "html"))
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in page
    shown = render(found, "table", width=200)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "</script>\ufffd[31m[red]\ufffd" in shown


@pytest.mark.parametrize("form", FORMATS)
def test_a_name_as_long_as_a_prompt_is_cut(form: str) -> None:
    shown = render(figured(row(model_requested="m" * 1000), by=("model",)), form, width=400)
    assert "m" * 256 in shown.replace("\n", "")
    assert "m" * 257 not in shown.replace("\n", "")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum(a)"])
def test_a_spreadsheet_runs_nothing(name: str) -> None:
    (line,) = csv_format.DictReader(io.StringIO(render(figured(row(user=name), by=("user",)), "csv")))
    assert line["user"] == "'" + name


def test_on_the_page_a_loss_looks_like_a_loss() -> None:
    page = render(figured(HIT, row(id="l", cost_usd=6 * DOLLAR, saved_prompt_cache_usd=-6 * DOLLAR)), "html")
    assert '<tr class="sum minus"><td>net saving</td>' in page
    assert '<div class="good" style="margin-left:66.67%;width:33.33%">' in page
    assert '<div class="minus" style="margin-left:0.00%;width:66.67%">' in page
    assert '<td class="minus">-$6.00</td>' in page
    gain = render(figured(HIT), "html")
    assert '<tr class="sum good"><td>net saving</td>' in gain
    assert '<div class="good" style="margin-left:0.00%;width:100.00%">' in gain


def test_the_page_needs_nothing_from_outside() -> None:
    page = render(figured(HIT, MISS, by=("model",)), "html")
    assert not any(word in page for word in ("http://", "https://", "src=", "href=", "@import", "url("))


def test_the_command_reads_the_ledger_and_says_what_is_wrong(tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", [HIT]).close()
    clock = FakeClock(NOW_S)
    found = report_on(tmp_path / "ledger.db", "7d", ("model",), clock)
    assert "gpt-4o-mini,1," in render(found, "csv")
    for since, by, path in (("x", (), "ledger.db"), ("7d", ("nothing",), "ledger.db"), ("7d", (), "missing.db")):
        with pytest.raises(ConfigFault, match=r"write 90m|can't split|can't read"):
            report_on(tmp_path / path, since, by, clock)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="known: table, json, csv, html"):
        render(figured(), "pdf")
    with pytest.raises(ConfigFault, match="'pdf' is not one of table, json, csv, html"):
        form_of("pdf", None)


@pytest.mark.parametrize(
    ("asked", "name", "form"),
    [("", None, "table"), ("", "a.html", "html"), ("", "a.HTM", "html"), ("", "a.csv", "csv"), ("", "a.json", "json"),
     ("", "a.txt", "table"), ("json", "a.html", "json")],
)  # fmt: skip
def test_a_files_ending_tells_its_format(asked: str, name: str | None, form: str) -> None:
    assert form_of(asked, None if name is None else Path(name)) == form


@pytest.mark.parametrize("form", FORMATS)
def test_the_report_by_compress_names_every_form_and_what_it_saved(form: str) -> None:
    rows = [
        row(id=name, compress=name, baseline_usd=DOLLAR, cost_usd=DOLLAR - cents * DOLLAR // 100,
            saved_compress_usd=cents * DOLLAR // 100, tokens_in_original=1000, tokens_in_sent=1000 - cents)
        for name, cents in (("tidy", 5), ("recode", 40), ("squeeze", 60))
    ]  # fmt: skip
    shown = render(figured(*rows, row(id="plain"), by=("compress",)), form, width=100)
    if form == "csv":
        found = {each["compress"]: each for each in csv_format.DictReader(io.StringIO(shown))}
        assert {name: found[name]["saved_compress_usd"] for name in found} == {
            "": "0", "tidy": "0.05", "recode": "0.4", "squeeze": "0.6"
        }  # fmt: skip
        assert found["recode"]["tokens_saved_recode"] == "40"
    elif form == "json":
        groups = {each["key"]["compress"]: each for each in json_format.loads(shown)["groups"]}
        assert groups["squeeze"]["net_saving_usd"] == "0.6"
        assert groups["squeeze"]["tokens_saved_squeeze"] == 60
    else:
        for words in ("By compress", "(none)", "tidy", "recode", "squeeze", "$0.4000", "compression", "$1.05"):
            assert words in shown
