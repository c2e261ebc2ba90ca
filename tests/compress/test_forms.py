"""Forms from gentle to bold, and which of several ways to shorten a text is taken."""

from __future__ import annotations

import json

from farthing.compress.forms import RECODE, RULES, Form, described, forms_of, rules_with, shorten

LINES = [
    f"2026-01-01T10:{i // 60:02d}:{i % 60:02d}Z INFO worker-{i % 4} job {i} done in {i * 7 % 90} ms" for i in range(200)
]
LOG = "\n".join(LINES)
WHY = "What did job 123 do?"


def count(text: str) -> int:
    return len(text)


def test_forms_go_from_gentle_to_bold() -> None:
    names = [form.name for form in forms_of(recode=True, squeeze_to=0.3)]
    assert names == ["recode", "squeeze-0.7", "squeeze-0.5", "squeeze-0.3"]
    assert [form.name for form in forms_of(recode=True, squeeze_to=None)] == ["recode"]
    bare = forms_of(recode=False, squeeze_to=0.6)
    assert [(form.name, form.rules) for form in bare] == [("squeeze-0.7", ()), ("squeeze-0.6", ())]
    assert forms_of(recode=False, squeeze_to=None) == ()


def test_single_words_are_the_last_step() -> None:
    forms = forms_of(recode=True, squeeze_to=0.5, words=lambda text, share: text)
    assert [form.name for form in forms][-2:] == ["squeeze-0.5", "words-0.5"]
    assert forms[-1].keep == 0.5


def test_what_a_decision_depends_on_is_the_same_in_every_process() -> None:
    assert described(RECODE) == ("recode", ("ansi", "rows", "table", "log"), None, 0)
    assert "0x" not in repr([described(form) for form in forms_of(recode=True, squeeze_to=0.3)])


def test_html_is_reduced_only_where_asked() -> None:
    assert "html" not in [rule.name for rule in RULES]
    assert "html" in [rule.name for rule in rules_with(html=True)]


def test_a_bolder_form_is_shorter_and_names_what_it_did() -> None:
    recoded, squeezed = (shorten(LOG, WHY, form, count) for form in (RECODE, Form("squeeze", keep=0.3)))
    assert recoded is not None
    assert squeezed is not None
    assert recoded.rules == ("log",)
    assert squeezed.rules[0] == "squeeze"
    assert squeezed.tokens_after < recoded.tokens_after < recoded.tokens_before == count(LOG)
    assert "job 123" in squeezed.text
    assert squeezed.removed
    assert not recoded.removed


def test_a_text_keeps_the_tokens_that_it_must() -> None:
    least = int(0.6 * count(LOG))
    short = shorten(LOG, WHY, Form("squeeze", (), 0.1, least), count)
    assert short is not None
    assert 0.5 * count(LOG) < short.tokens_after < 0.7 * count(LOG)
    assert shorten(LOG, WHY, Form("squeeze", (), 0.1, 2 * count(LOG)), count) is None


def test_lines_of_an_earlier_message_are_named_where_that_is_shorter() -> None:
    short = shorten(LOG, WHY, RECODE, count, ["hello", LOG])
    assert short is not None
    assert short.rules == ("repeats",)
    assert "message 2" in short.text
    assert shorten(LOG, WHY, Form("bare", (), 0.5), count, [LOG]) != short


def test_single_words_go_only_where_the_text_is_no_records() -> None:
    prose = " ".join(f"The town of Nr{i} lies on a river and its mill was built in {1700 + i}." for i in range(60))

    def words(text: str, share: float) -> str:
        return text.replace("The ", "")

    short = shorten(prose, "When was the mill of Nr17 built?", Form("words", keep=0.3, words=words), count)
    assert short is not None
    assert "words" in short.rules
    assert "1717" in short.text
    assert "The " not in short.text
    rows = json.dumps([{"id": i, "The name": "The x"} for i in range(60)])
    short = shorten(rows, "What is 17?", Form("words", keep=0.3, words=words), count)
    assert short is None or "words" not in short.rules


def test_short_texts_are_left_alone() -> None:
    assert shorten("a,b\n" * 40, WHY, RECODE, count) is None
