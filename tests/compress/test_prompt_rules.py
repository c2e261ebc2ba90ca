"""A shorter prompt by rules keeps what binds: by tables, on the data set, and for any text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.compress.prompt_kept import lost
from farthing.compress.prompt_rules import FILLERS, PREFACES, draft
from farthing.compress.prompt_text import guard, pieces
from tests.fakes.examples import examples

LONG_RULE = "Always check the calendar before you promise a visit."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # copies
        ("You are kind and patient.\nBe brief.\nYou are kind and patient.", "You are kind and patient.\nBe brief."),
        (f"{LONG_RULE}\n\n# Visits\n\n{LONG_RULE}", f"{LONG_RULE}\n\n# Visits"),
        ("- Greet guests by title.\n- Smile.\n- greet guests  by title", "- Greet guests by title.\n- Smile."),
        ("Help with the garden today. Help with the garden today.", "Help with the garden today."),
        ("Refunds take 5 days at most.\nRefunds take 5 days at most.", "Refunds take 5 days at most."),
        # phrases
        ("Please note that the shop is closed on holidays.", "The shop is closed on holidays."),
        ("In order to help, read the whole message.", "To help, read the whole message."),
        ("Please answer briefly.", "Answer briefly."),
        ("If unsure, please ask.", "If unsure, ask."),
        ("Be brief.\nThank you in advance for your help!", "Be brief."),
        # decoration and blanks
        ("Some **bold** words.\n\n---\n\nMore words.", "Some bold words.\n\nMore words."),
        ("## Title ##\nText  with   gaps.   \n\n\n\nMore.", "## Title\nText with gaps.\n\nMore."),
    ],
)  # fmt: skip
def test_what_goes(before: str, after: str) -> None:
    assert draft(before).text == after


@pytest.mark.parametrize(
    "text",
    [
        "Refunds take 5 days.\n# Gold\nOffer tea.\n# Silver\nRefunds take 5 days.",  # another heading, another meaning
        "Not refundable.\n# Gold\nNot refundable.",  # too short to stand alone
        "Sell tea.\nThis is what the manager wants.\nSell cake.\nThis is what the manager wants.",
        "Say “please note that we are closed”.",
        'Begin with "Please note that".',
        "Say please when you ask.",
        "```\nprint(1)\nprint(1)\n```",
        "| a | b |\n|---|---|\n| 1  | 2 |\n| 1  | 2 |",
        "\n\n".join(["Input: the quick brown fox jumps.\nOutput: animal words go here."] * 2),
        "<example>\nThe dog ran over the hill.\nThe dog ran over the hill.\n</example>",
        "Answer in **bold** markdown.",
        "Separate answers by ---\n\n---\n\nThanks to all.",
        "Greet {name} kindly, then help.\n# B\nGreet {name} kindly, then help.",
        "Wrapped\nThe manager of the shop decides.\nand wrapped\nThe manager of the shop decides.",
    ],
)
def test_what_stays(text: str) -> None:
    assert draft(text).text == text


def test_near_copies_are_only_flagged() -> None:
    text = "Ask the customer kindly for the booking reference.\nAsk the customer for the booking reference, kindly."
    found = draft(text)
    assert found.text == text
    assert [(flag.line, flag.like_line) for flag in found.flags] == [(2, 1)]


def test_every_cut_says_where_and_why() -> None:
    cut = draft("Be kind to all of them.\nSmile.\nBe kind to all of them.").cuts[0]
    assert (cut.rule, cut.line, cut.before, cut.after) == ("duplicate", 3, "Be kind to all of them.", "")
    assert "line 1" in cut.why


@pytest.mark.parametrize(
    ("sentence", "kept_for"),
    [
        ("Use {name} here.", "placeholder"),
        ("Wait 5 minutes.", "number"),
        ("Wait five minutes.", "number"),
        ("Ask Maria Lopez too.", "name"),
        ("Call get_user_id then.", "code"),
        ('Say "hello there".', "quotation"),
        ("Answer in json.", "format"),
        ("Don't be rude.", "negation"),
        ("You must be kind.", "rule"),
        ("Отвечайте вежливо.", "other language"),
        ("Be kind to customers.", ""),
    ],
)
def test_what_guards_a_sentence(sentence: str, kept_for: str) -> None:
    assert guard(sentence) == kept_for


SENTENCES = st.sampled_from(
    [
        "Never promise a refund above $50.",
        "Please note that orders ship within 3 days.",
        "You are a helpful and friendly assistant.",
        "Ask Maria Lopez about {order_id}.",
        "- If the customer is angry, stay calm.",
        "- Do not share the code `A-17`.",
        "# Heading",
        "```\nx = 1\n```",
        "In order to help, call https://example.com/a first.",
        "Respond in JSON with the key \"team\".",
        "Thank you!",
        "",
        "Wait, don't go yet; each and every order counts",
        "**Bold** words  with   gaps ",
        "---",
    ]
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.one_of(SENTENCES, st.text(max_size=60)), max_size=14), st.sampled_from(["\n", "\n\n", " ", "\r\n"]))
def test_any_text_loses_nothing_that_binds_and_never_grows(parts: list[str], between: str) -> None:
    text = between.join(parts)
    found = draft(text)
    assert len(found.text) <= len(text)
    assert lost(text, found.text) == ()
    words = set(re.findall(r"\w+", found.text.casefold()))
    assert set(re.findall(r"\d+", text)) <= set(re.findall(r"\d+", found.text))
    if not found.cuts:
        assert found.text == text
    for mark in ("$50", "{order_id}", "https://example.com/a", "`A-17`", "x = 1"):
        assert (mark in found.text) == (mark in text)
    added = words - set(re.findall(r"\w+", text.casefold()))
    assert added <= {word for _, into, _ in FILLERS for word in into.split()}


@given(st.text(max_size=300))
def test_pieces_are_disjoint_slices_of_the_text(text: str) -> None:
    end = 0
    for piece in pieces(text):
        assert end <= piece.start < piece.end <= len(text)
        assert text[piece.start : piece.end] == piece.text
        end = piece.end


def test_the_phrases_are_few() -> None:
    assert len(FILLERS) + len(PREFACES) <= 20
