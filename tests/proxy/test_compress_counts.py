"""Counting by rule: shares add up, labels are bounded, and what a metric shows is what was counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.decided import FROZEN, LOST, Decision
from farthing.compress.decided_store import Settled, Why
from farthing.compress.forms import Form, forms_of, shorten
from farthing.policies.reuse import RouteKey
from farthing.proxy.compress_counts import MODES, RULES, CompressCounts, Use, used
from farthing.proxy.metrics import LABELLED, Metrics
from tests.proxy.test_metrics import value

USES = st.builds(Use, st.sampled_from([*RULES, "of tomorrow"]), st.sampled_from(MODES), st.integers(-5, 10**6))


@given(st.lists(USES), st.integers(0, 10**6), st.integers(0, 9))
def test_what_rules_did_not_take_tidying_did(uses: list[Use], rest: int, tidied: int) -> None:
    counts = CompressCounts()
    uses = [Use(rule, mode, max(0, tokens)) for rule, mode, tokens in uses if mode != "observed"]
    lacked = sum(use.tokens for use in uses) + rest
    counts.sent(uses, tidied, lacked)
    assert sum(counts.tokens.values()) == lacked
    assert sum(counts.texts.values()) == len(uses) + tidied


@given(st.lists(USES))
def test_labels_are_bounded_and_counters_never_fall(uses: list[Use]) -> None:
    counts, before = CompressCounts(), 0
    for use in uses:
        counts.add([use])
        now = sum(counts.tokens.values())
        assert now >= before
        before = now
    assert {rule for rule, _ in counts.tokens} <= set(RULES)


def test_a_decision_that_was_not_used_did_nothing() -> None:
    shortened = Decision(("short", None), ("rows", "log"), (7, 3))
    assert used([LOST, FROZEN, Decision(), shortened], "sent") == [Use("rows", "sent", 7), Use("log", "sent", 3)]


@pytest.mark.parametrize(
    ("why", "label"),
    [(Why.AWAY, "store_away"), (Why.UNKEPT, "store_away"), (Why.GONE, "lost"), (Why.MARKED, "frozen"), (Why.NONE, "")],
)
def test_every_reason_has_a_label(why: Why, label: str) -> None:
    counts = CompressCounts()
    counts.kept([Settled(Decision(), why=why)])
    assert dict(counts.left) == ({label: 1} if label else {})


def test_routes_are_bounded_and_the_latest_used_stays() -> None:
    counts = CompressCounts()
    for number in range(1_000):
        counts.met(RouteKey("t", str(number)))
    counts.met(RouteKey("t", "0")).sent += 5
    counts.met(RouteKey("t", "new"))
    assert len(counts.routes) == 1_000
    assert [route.name for route in reversed(counts.routes)][:3] == ["new", "0", "999"]
    assert counts.routes[RouteKey("t", "0")].sent == 5
    assert RouteKey("t", "1") not in counts.routes


def test_counters_are_shown_with_their_labels() -> None:
    counts, metrics = CompressCounts(), Metrics()
    counts.sent([Use("rows", "replayed", 40)], 2, 50)
    counts.left["lost"] += 3
    metrics.watch(lambda: dict(counts.values()))
    assert value(metrics, "compress_tokens_saved_total", rule="rows", mode="replayed") == 40
    assert value(metrics, "compress_tokens_saved_total", rule="tidy", mode="sent") == 10
    assert value(metrics, "compress_texts_total", rule="tidy", mode="sent") == 2
    assert value(metrics, "compress_left_total", reason="lost") == 3
    shown = {name for name in LABELLED if name.startswith("compress_")}
    assert {key.partition(":")[0] for key, _ in counts.values()} == shown


def quarters(text: str) -> int:
    return -(-len(text) // 4)


LINES = "\n".join(
    f"2026-01-01 10:00:{i % 60:02d} INFO \x1b[32mworker\x1b[0m job {i} done in {i * 7 % 90} ms" for i in range(200)
)


@pytest.mark.parametrize("form", forms_of(recode=True, squeeze_to=0.3))
@pytest.mark.parametrize("count", [len, quarters])
def test_each_rules_share_adds_up_to_what_the_text_lacks(form: Form, count: Callable[[str], int]) -> None:
    short = shorten(LINES, "Why did job 123 fail?", form, count)
    assert short is not None
    assert len(short.saved) == len(short.rules) > 0
    assert sum(short.saved) == short.tokens_before - short.tokens_after > 0
