"""HTML reduced: the words of the content stay, in order; what goes is what the rule says; hostile pages do no harm."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given

from farthing.compress.reduce_html import HtmlRule, reduce_html
from tests.fakes.hostile_texts import BAD_TEXTS, any_text, texts_of
from tests.fakes.steps import steps

RULE = HtmlRule()
FILL = "<p>" + "Words that fill the page. " * 12 + "</p>"
FILLED = "Words that fill the page. " * 11 + "Words that fill the page."


def reduced(body: str, head: str = "") -> str:
    """The reduced body of a page."""
    page = f"<!DOCTYPE html><html><head>{head}</head><body>{body}{FILL}</body></html>"
    short = RULE.encode(page)
    assert short is not None
    assert RULE.restores(page, short)
    assert RULE.encode(short) is None
    assert short.endswith(FILLED)
    return short.removesuffix(FILLED).rstrip()


BODIES = [
    ("<h1>Title</h1><p>One <b>bold</b>\n  word.<p>Two", "# Title\n\nOne bold word.\n\nTwo"),
    ("<h3>Sub <code>x</code></h3>text", "### Sub x\n\ntext"),
    ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "- a\n- b\n  - c\n- d\n\ne"),
    ("<ol><li>a</li><li>b</li></ol><ol><li>c</li></ol>", "1. a\n2. b\n\n1. c"),
    ("<pre><span>def</span> f():\n    return  1\n</pre>", "```\ndef f():\n    return  1\n```"),
    ("<pre><div>a = 1</div><div>  b</div>c<br>d</pre>e", "```\na = 1\n  b\nc\nd\n```\n\ne"),
    ("<h2></h2><ul><li><p>a</p><li></ul>b<pre></pre>", "- a\n\nb\n\n```\n```"),
    ("<dl><dt>term<dd>meaning</dl>", "term\nmeaning"),
    ("a<br>b<hr>c", "a\nb\n\nc"),
    (
        "<table><tr><th>k<th>v</tr><tr><td> a\n b </td><td>1</td></tr><tr><td>x|y<td></tr></table>",
        "k|v\n-|-\na b|1\nx\\|y|",
    ),
    ("<table><tr><td><p>a</p><p>b</p><td>c</table>", "a\n\nb\nc"),
    ("<table><tr><td>a<td><table><tr><td>b<td>c</table></table>", "a|b\\|c"),
    ("see <a href='https://a.example/x'>it</a>, <a href='https://a.example/x'>again</a>.", "see it, again. <https://a.example/x>"),
    ("<a href='/up'>up</a> <a href='#p'>down</a><h2>T<a href='#t'>¶</a></h2>", "up down\n\n## T"),
    ("<img src=a.png alt='a  chart'> <img src=b.png>", "[image: a chart]"),
    ("x&nbsp;y &lt;b&gt; &amp;amp; &#8212; caf\u00e9 \U0001f600", "x\u00a0y <b> &amp; — caf\u00e9 \U0001f600"),
    ("<nav>menu</nav>a<script>alert('x')</script><style>p{}</style><footer>f</footer><aside>s</aside>", "a"),
    ("<div role=navigation>menu<div>deep</div></div><div hidden>h</div><i aria-hidden=true>x</i>b", "b"),
    ("<!-- <p>no</p> -->a<noscript>turn it on</noscript>", "a"),
    ("<header><h1>Kept</h1></header><form>f<select><option>1</select><button>Go</button></form>", "# Kept\n\nf"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "plain"), BODIES)
def test_what_stays_of_a_page(body: str, plain: str) -> None:
    assert reduced(body) == plain


def test_a_title_is_written_where_the_page_has_no_heading() -> None:
    assert reduced("text", "<title>The\n title</title><meta name=a><script>x</script>") == "# The title\n\ntext"
    assert reduced("<h2>Own</h2>text<svg><title>no</title></svg>", "<title>The title</title>") == "## Own\n\ntext"


def test_a_fragment_is_a_page_if_it_is_mostly_markup() -> None:
    assert reduce_html("<div>" + "<p>One paragraph of it.</p>" * 9 + "</div>") == "\n\n".join(
        ["One paragraph of it."] * 9
    )


LEFT = {
    "prose": "Prose about <div> elements. " * 20,
    "few tags": "<p>" + "Words. " * 50,
    "xml": "<?xml version='1.0'?><feed>" + "<entry><p>x</p></entry>" * 20 + "</feed>",
    "svg": "<svg>" + "<a>x</a>" * 50 + "</svg>",
    "markdown": "# Title\n\n" + "<p>x</p>\n" * 50,
    "code": "import React\n" + "<div>x</div>\n" * 50,
    "json": '{"html": "' + "<p>x</p>" * 50 + '"}',
    "short": "<html><body>x</body></html>",
    "too long": "<html>" + "<p>x</p>" * 600_000,
    "surrogate": "<html>" + FILL + "\ud800",
    "nul": "<html>" + FILL + "\0" + FILL,
    "cut off in a comment": "<html>" + FILL + "<!-- open",
    "cut off in a script": "<html>" + FILL + "<script> open",
    "cut off in what is dropped": "<html>" + FILL + "<nav> open",
    "attributes": "<html><p " + "a=1 " * 3000 + ">" + FILL,
    "names": "<html><p " + "/".join(f"a{i}" for i in range(3000)) + ">" + FILL,
}


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT)
def test_what_is_no_page_or_no_safe_one_is_left_alone(text: str) -> None:
    assert RULE.encode(text) is None


@pytest.mark.parametrize(
    "start", ["\ufeff<html>", " \r\n<!doctype HTML>", "<?xml version='1.0'?>\n<!-- x --><html lang=a>"]
)
def test_a_page_is_known_by_its_start(start: str) -> None:
    assert reduce_html(start + FILL) == FILLED


def test_a_page_whose_words_are_missing_or_out_of_order_doesnt_restore() -> None:
    page = f"<html><p>one two three</p><nav>four</nav>{FILL}"

    assert RULE.restores(page, f"one two three {FILLED}")
    assert not RULE.restores(page, f"one three {FILLED}")
    assert not RULE.restores(page, f"two one three {FILLED}")
    assert not RULE.restores("<html>\ud800", "")


def test_a_long_attribute_is_no_attack() -> None:
    image = f"<img alt='a dot' src='data:image/png;base64,{'A/+' * 9000}'>"

    assert reduced(image) == "[image: a dot]"


@pytest.mark.parametrize("text", [f"<html>{FILL}{text}" for text in BAD_TEXTS] + BAD_TEXTS)
def test_bad_texts_are_left_alone_or_reduced(text: str) -> None:
    short = RULE.encode(text)

    assert short is None or RULE.restores(text, short)


TAGS = "html body p div table tr td th ul ol li pre a h1 h2 nav script style b br img title dl dt svg form".split()  # noqa: SIM905
PIECES = [f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]
PIECES += ["<a href='https://a.example'>", "word", " ", "&lt;", "<!--", "-->", "<![CDATA[", "|", "<p hidden>"]


@given(texts_of(*PIECES))
def test_any_soup_of_tags_is_left_alone_or_keeps_its_words(text: str) -> None:
    page = f"<html>{FILL}{text}"
    short = RULE.encode(page)

    assert short is None or RULE.restores(page, short)


@given(any_text())
def test_any_text_is_left_alone_or_keeps_its_words(text: str) -> None:
    test_bad_texts_are_left_alone_or_reduced(text)
    test_bad_texts_are_left_alone_or_reduced(f"<html>{FILL}{text}")


PATHOLOGICAL = {
    "nested": lambda n: "<div>" * n,
    "lists": lambda n: "<ul><li>" * n,
    "tables": lambda n: "<table><tr><td>" * n,
    "open formatting": lambda n: "<div>" + "".join(f"<b a={i}>" for i in range(300)) + "</div>" + "<p>x</p>" * n,
    "links": lambda n: "<a href='#x'>y" * n + "</a>" * n,
    "misnested": lambda n: ("<b>" * 3 + "<p>") * n + "</b>" * n,
    "signs": lambda n: "<" * n + "&amp" * n,
    "comments": lambda n: "<!--" * n,
    "scripts": lambda n: "<script><!--" * n,
    "quotes": lambda n: "<p " + "'\"" * n + ">",
    "deep cells": lambda n: "<table><tr><td>" * 80 + "word " * n,
}


@pytest.mark.parametrize("make", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_twice_the_page_is_at_most_little_more_than_twice_the_work(make: object) -> None:
    assert callable(make)
    small, large = (f"<html>{FILL}{make(n)}" for n in (1500, 3000))

    assert steps(lambda: RULE.encode(large)) <= 2.2 * steps(lambda: RULE.encode(small)) + 2000
    page = f"<html>{FILL}{make(12_000)}"
    tracemalloc.start()
    short = RULE.encode(page)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * len(page)
    assert short is None or RULE.restores(page, short)


def test_reducing_gives_the_same_each_time() -> None:
    rng = random.Random(3)
    page = "<html>" + "".join(rng.choice(PIECES) for _ in range(900)) + FILL

    assert reduce_html(page) == reduce_html(page)
