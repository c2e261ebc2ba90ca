"""What may never be cut: every planted piece is found, whatever stands around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.protected import code_blocks, protected
from tests.fakes.broken_texts import PRECIOUS, hostile_texts

WORDS = ["the", "quick", "brown", "fox", "jumps,", "over", "lazy", "dogs.", "and", "(perhaps)", "naps"]
PLAIN = st.lists(st.sampled_from(WORDS), max_size=8)


@given(hostile_texts())
def test_spans_are_in_order_apart_and_within_the_text(text: str) -> None:
    at = 0
    for start, end, _ in protected(text):
        assert at <= start < end <= len(text)
        at = end


@given(PLAIN, st.sampled_from(PRECIOUS), PLAIN, st.sampled_from(["", "\n", "\n\n", " ( ", " \ud800 "]))
def test_what_is_precious_is_protected(before: list[str], piece: str, after: list[str], edge: str) -> None:
    text = f"{' '.join(before)} {edge}{piece} {' '.join(after)}"
    start = text.index(piece)

    assert any(span.start <= start and start + len(piece) <= span.end for span in protected(text))


@given(PLAIN)
def test_ordinary_words_are_free(words: list[str]) -> None:
    assert protected(" ".join(words)) == []


@pytest.mark.parametrize(
    "text, kinds",
    [
        ("a\n```py\nx = 1\n```\nb", ["code"]),
        ("a\n```\nnever closed\nstill code", ["code"]),
        ("a\n~~~\n```\n~~~\nb", ["code"]),
        ("a\n\n    x = 1\n\n    y = 2\nb", ["code"]),
        ("a\n    goes on", []),
        ("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\nthe end", ["diff"]),
        ("see\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n", ["diff"]),
    ],
)
def test_whole_lines_of_code_and_diffs(text: str, kinds: list[str]) -> None:
    assert [span.kind for span in code_blocks(text)] == kinds


def test_a_fence_ends_with_its_own_kind_only() -> None:
    text = "a\n````\n```\ninside\n```\n````\nafter"
    (span,) = code_blocks(text)

    assert text[span.end :] == "after"


@pytest.mark.parametrize(
    "unit", ['"', "`", "'", "_", "a", "1", ".", "/", "a.", "a::", "-", "“", "1.", "```\n", "    x\n", "a@"]
)
def test_a_long_run_of_one_thing_ends(unit: str) -> None:
    text = unit * (200_000 // len(unit))

    assert all(end <= len(text) for _, end, _ in protected(text))
