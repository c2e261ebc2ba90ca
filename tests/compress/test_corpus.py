"""Bad input of every kind through every form: unchanged or shorter, equal where promised, never an exception."""

from __future__ import annotations

import json
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.compress.forms import RECODE, Form, Short, rules_with, shorten
from farthing.compress.rule import Rule
from farthing.compress.tidy import tidied_text
from farthing.proxy.tokens import Tokenizer
from tests.fakes.broken_texts import hostile_texts, long_texts
from tests.fakes.examples import examples
from tests.fakes.hostile_texts import BAD_TEXTS, any_text
from tests.fakes.json_texts import json_texts

QUESTION = "Why did order 17 fail?"
ROW = '{"order_id": 17, "state": "failed", "total": 1.50}'
LOG = "2026-01-01T10:00:00Z INFO worker-1 job 17 done in 3 ms\r\n"
PAGE = f"<html><body>{'<div>' * 3000}<p>Order 17 failed.</p></body></html>"
HALF_TABLE = "| id | state |\n|---|---|\n" + "| 17 | failed |\n" * 40 + "| 18 | fai"

CORPUS = {
    "duplicate keys": "[" + ",".join(['{"a": 1, "a": 2, "b": "xyzxyzxyz"}'] * 30) + "]",
    "huge integers": "[" + ",".join([f'{{"n": {"9" * 400}, "m": -0, "e": 1e400}}'] * 20) + "]",
    "NaN": "[" + ",".join(['{"a": NaN, "b": Infinity, "c": "xyz"}'] * 30) + "]",
    "deep nesting": "[" * 5000 + "]" * 5000,
    "deep objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "byte order mark": "\ufeff[" + ",".join([ROW] * 30) + "]",
    "mixed line ends": "[\r\n" + ",\r".join([ROW] * 30) + "\n]",
    "half JSON": "[" + ",".join([ROW] * 30),
    "JSON and more": "[" + ",".join([ROW] * 30) + "] trailing words",
    "lone surrogates": "[" + ",".join(['{"a": "\\ud800", "b": "xyzxyzxyz"}'] * 30) + "]",
    "raw surrogates": "\ud800 order 17 failed\n" * 60,
    "half a table": HALF_TABLE,
    "table of bars": "|" * 3000,
    "ragged CSV": "a,b,c\n" + "1,2\n1,2,3,4\n" * 60,
    "quotes that don't end": 'a,b\n"1,2\n' * 60,
    "log with binary": (LOG + "\x00\x01\xff\x1b[31mred\x1b[0m\x07\n") * 40,
    "log without an end": LOG * 60 + "2026-01-01T10:00",
    "carriage returns": "10%\r20%\r30%\r" * 200,
    "unknown escapes": "\x1b]8;;\x1b[999999999C" * 60 + "text " * 60,
    "HTML bomb": PAGE,
    "attributes": "<html><body><p " + "a=1 " * 20_000 + ">Order 17 failed.</p></body></html>",
    "open tags": "<html><body>" + "<b>" * 20_000 + "Order 17 failed.",
    "right to left": "الطلب ١٧ فشل. " * 60,
    "combining": "e\u0301\u0301\u0301" * 300,
    "emoji": "👩‍👩‍👧‍👦 " * 200,
    "zero width": "\u200b\u200d\u2060" * 300,
    "one long line": "x" * 200_000,
    "white space": " \t\n" * 5000,
    "our own head": "JSON as rows; #1 order_id,state\n" * 30,
    "our own log head": "[Log in short form, nothing left out: ...]\n@ …\n" * 30,
    "our own notice": "[3 of 80 lines shown]\n" + LOG * 60,
    "our own reference": "[The 12 lines from “a” to “b” of message 3 above, again.]\n" * 30,
    "our own marker": "[PNG image in base64, 18 tokens, left out: fetch_removed gives it, handle 7f3a09c2]\n" * 30,
    "base64 that isn't": "QUJD" * 1000,
    "code": "```python\nprint(17)\n```\n" * 60,
    "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-order 17\n+order 18\n" * 40,
}


@lru_cache(maxsize=1)
def forms() -> tuple[Form, ...]:
    everything = rules_with(html=True)
    return RECODE, Form("html", everything), Form("squeeze", everything, 0.3), Form("bare", (), 0.5)


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return Tokenizer()


def count(text: str) -> int:
    return tokenizer().count(text, "gpt-4o-mini")


def check(text: str, question: str = QUESTION) -> None:
    for form in forms():
        short = shorten(text, question, form, count)
        if short is None:
            continue
        assert count(short.text) == short.tokens_after < count(text)
        assert short.rules
        assert shorten(text, question, form, count) == short
        if form.keep is None:
            restored(text, short, form.rules)


def restored(text: str, short: Short, rules: tuple[Rule, ...]) -> None:
    """Each rule's step gives the value of the one before it back."""
    known = {rule.name: rule for rule in rules}
    step = tidied_text(text) or text
    for name in short.rules:
        made = known[name].encode(step)
        assert made is not None
        assert known[name].restores(step, made)
        step = made
    assert step == short.text


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus(name: str) -> None:
    check(CORPUS[name])
    check(CORPUS[name], "")


@pytest.mark.parametrize("number", range(len(BAD_TEXTS)))
def test_bad_texts(number: int) -> None:
    check(BAD_TEXTS[number] * 8)


@settings(deadline=None, max_examples=examples(60))
@given(st.one_of(hostile_texts(), long_texts(), any_text(), json_texts()), st.sampled_from([QUESTION, "", "How many?"]))
def test_any_text(text: str, question: str) -> None:
    check(text, question)
    check(json.dumps([{"text": text, "n": number} for number in range(12)], indent=1), question)
