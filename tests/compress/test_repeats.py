"""Lines that stand in an earlier message: referred to, restored exactly, never by a reference that could mislead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.repeats import decode_repeats, encode_repeats
from tests.fakes.hostile_texts import BAD_TEXTS, any_text, texts_of
from tests.fakes.steps import steps


def count(text: str) -> int:
    return len(text) // 4


def restored(text: str, earlier: list[str], least_tokens: int = 20) -> str | None:
    short = encode_repeats(text, earlier, count, least_tokens)
    if short is not None:
        assert decode_repeats(short, earlier) == text
        assert count(short) < count(text)
        assert encode_repeats(short, earlier, count, least_tokens) is None
    return short


FILE = "\n".join(f"    line {i} of the file, with some words in it" for i in range(30))


def test_a_text_read_twice_is_named_by_its_message_and_its_first_and_last_words() -> None:
    assert restored(FILE, ["You are helpful.", "Read it.", FILE]) == (
        "[The 30 lines from “line 0 of the file, with some words in it” to "
        "“line 29 of the file, with some words in it” of message 3 above, again.]"
    )


def test_what_changed_between_two_reads_stands_in_full() -> None:
    after = FILE.replace("line 15 of", "line 15, edited, of")

    short = restored(after, [FILE])

    assert short is not None
    assert short.split("\n")[1] == "    line 15, edited, of the file, with some words in it"
    assert len(short.split("\n")) == 3


def test_a_long_paragraph_is_a_line() -> None:
    paragraph = "A paragraph of one line that is long enough to be worth a reference. " * 5

    assert restored(f"Intro.\n{paragraph}\nOutro.", ["a", f"Other.\n{paragraph}"]) == (
        "Intro.\n[The line “A paragraph of one line that is long enough to be worth” of message 2 above, again.]\n"
        "Outro."
    )


def test_the_earliest_of_equal_places_is_named_and_the_longest_of_all() -> None:
    first, longer = "\n".join(FILE.split("\n")[:10]), FILE

    assert "message 1 above" in (restored(first, [first, longer, first]) or "")
    assert "message 2 above" in (restored(longer, [first, longer, longer]) or "")


def test_a_block_begins_at_its_first_line_that_reads_like_no_other() -> None:
    block = "{\n{\n" + FILE

    short = restored(block, ["{\n" + block])

    assert short is not None
    assert short.startswith("{\n{\n[The 30 lines from “line 0")


AMBIGUOUS = "\n".join(["the same line over and over again, of some length"] * 20)


@pytest.mark.parametrize(
    ("text", "earlier"),
    [
        (FILE, []),
        (FILE, ["something else"]),
        (AMBIGUOUS, [AMBIGUOUS]),
        ("short", ["short"]),
        ("a\nb\nc", ["a\nb\nc"]),
        ("“quoted” " + "words ” " * 40, ["“quoted” " + "words ” " * 40]),
        (FILE + "\n[The line “a b c d e f g” of message 1 above, again.]", [FILE]),
        (FILE.replace(" words", "  words"), [FILE]),
        (FILE.replace("\n", "\r\n"), [FILE]),
    ],
)
def test_what_cant_be_named_for_sure_stays(text: str, earlier: list[str]) -> None:
    assert restored(text, earlier) is None


@pytest.mark.parametrize(
    "short",
    [
        "[The line “line 3 of the file, with some words in it” of message 2 above, again.]",
        "[The line “the same line over and over again, of some length” of message 3 above, again.]",
        "[The line “no such line” of message 1 above, again.]",
        "[The 31 lines from “line 0 of the file, with some words in it” to “x” of message 1 above, again.]",
        "[The 2 lines from “line 0 of the file, with some words in it” to “x” of message 1 above, again.]",
        "[The 9999999 lines from “line 0 of the file, with some words in it” to “” of message 9999999 above, again.]",
    ],
)
def test_a_reference_that_cant_be_followed_decodes_to_nothing(short: str) -> None:
    assert decode_repeats(f"a\n{short}\nb", [FILE, "", AMBIGUOUS]) is None


def test_what_was_written_stays_while_the_conversation_grows() -> None:
    texts = [FILE, "ok", FILE.replace("5", "five"), "fine", FILE, FILE[:700] + "\n" + FILE]
    seen: list[str] = []
    for text in texts:
        seen.append(restored(text, seen) or text)

    for length in range(len(texts)):
        again: list[str] = []
        for text in texts[:length]:
            again.append(restored(text, again) or text)
        assert again == seen[:length]


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_texts_are_left_alone_or_come_back(text: str) -> None:
    restored(text, [text, FILE])
    restored(FILE + text, [FILE, text])


PIECES = [
    FILE + "\n",
    FILE[:400],
    "\n",
    "“",
    "”",
    "[The line “",
    "” of message 1 above, again.]",
    AMBIGUOUS,
    "\r\n",
    " ",
]


@given(st.lists(st.one_of(texts_of(*PIECES), any_text()), max_size=5), st.one_of(texts_of(*PIECES), any_text()))
def test_any_text_after_any_texts_is_left_alone_or_comes_back(earlier: list[str], text: str) -> None:
    restored(text, earlier)
    decode_repeats(text, earlier)


PATHOLOGICAL = {
    "one text many times": lambda n: ([FILE] * (n // 30), FILE * (n // 30)),
    "blank lines": lambda n: (["\n" * n], "\n" * n),
    "one line": lambda n: ([AMBIGUOUS * (n // 20)], AMBIGUOUS * (n // 20)),
    "nearly the same": lambda n: (
        ["\n".join(f"line number {i}" for i in range(n))],
        "\n".join(f"line number {i - i % 3 // 2}" for i in range(n)),
    ),
    "one long line": lambda n: (["word " * n], "word " * n + "x"),
    "brackets": lambda n: (["[The "], "[The line “" * n),
}


@pytest.mark.parametrize("make", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_twice_the_text_is_at_most_little_more_than_twice_the_work(make: object) -> None:
    assert callable(make)

    def work(n: int) -> int:
        earlier, text = make(n)
        return steps(lambda: encode_repeats(text, earlier, count))

    assert work(3000) <= 2.2 * work(1500) + 2000
    earlier, text = make(60_000)
    restored(text, earlier)
