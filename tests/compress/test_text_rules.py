"""The rules for texts under recoding: never longer in tokens, at rest after one pass, each with a stated loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from farthing.compress.recode import recode
from farthing.compress.recode_ansi import AnsiRule
from farthing.compress.recode_log import LogRule
from farthing.compress.reduce_html import HtmlRule
from farthing.compress.rule import Rule
from farthing.proxy.tokens import Tokenizer
from tests.fakes.examples import examples
from tests.fakes.hostile_texts import BAD_TEXTS, any_text, texts_of

RULES: tuple[Rule, ...] = (AnsiRule(), LogRule(), HtmlRule())
TOKENIZER = Tokenizer()


def check(text: str) -> None:
    done = recode(text, TOKENIZER.count, RULES)
    if done is not None:
        assert done.tokens_after == TOKENIZER.count(done.text) < TOKENIZER.count(text) == done.tokens_before
        assert recode(done.text, TOKENIZER.count, RULES) is None


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_texts_are_never_made_longer(text: str) -> None:
    check(text)
    check("2026-03-01T10:00:00Z \x1b[31mup\x1b[0m\n" * 30 + text)
    check("<html>" + "<p>Words of a page.</p>" * 30 + text)


@given(any_text())
@settings(max_examples=examples(50))
def test_any_text_is_never_made_longer(text: str) -> None:
    check(text)


PIECES = [
    "2026-03-01T10:00:00Z up\n",
    "2026-03-01T10:00:01Z \x1b[31mdown\x1b[0m  \n",
    "<p>word</p>",
    "│ a │\n",
    "┌─┐\n",
    "└─┘\n",
]


@given(texts_of(*PIECES))
@settings(max_examples=examples(50))
def test_any_mixture_is_never_made_longer(text: str) -> None:
    check(text)
    check("<html>" + text * 9)


def test_coloured_logs_take_both_rules() -> None:
    text = "".join(f"2026-03-01T10:00:{s:02}Z \x1b[32mINFO\x1b[0m step {s * 7}\n" for s in range(60))

    done = recode(text, TOKENIZER.count, RULES)

    assert done is not None
    assert sorted(done.rules) == ["ansi", "log"]
    assert done.tokens_after < 0.5 * done.tokens_before


def test_a_log_with_a_colour_here_and_there_is_a_log() -> None:
    text = "".join(f"2026-03-01T10:00:{s:02}Z INFO step {s * 7}\n" for s in range(60)) + "\x1b[31mfailed\x1b[0m\n"

    done = recode(text, TOKENIZER.count, RULES)

    assert done is not None
    assert done.rules == ("log",)


def test_each_rule_says_what_it_loses() -> None:
    assert {rule.name: bool(rule.loss) for rule in RULES} == {"ansi": True, "log": False, "html": True}
