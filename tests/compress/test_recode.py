"""The chooser: by tokens, never without a decoder's word, and it comes to rest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from farthing.compress.recode import recode
from farthing.compress.rule import Rule


@dataclass(frozen=True)
class Swap:
    """A rule that writes one word for another; `honest`: whether its decoder finds the text again."""

    name: str
    long: str
    short: str
    honest: bool = True
    loss: str = ""

    def encode(self, text: str) -> str | None:
        return text.replace(self.long, self.short) if self.long in text else None

    def restores(self, text: str, short: str) -> bool:
        return self.honest and short.replace(self.short, self.long) == text


A, B = Swap("a", "aaaa", "x"), Swap("b", "bb", "y")

CASES: list[tuple[str, list[Rule], str | None, tuple[str, ...]]] = [
    ("aaaa bb", [A, B], "x y", ("a", "b")),
    ("bb aaaa", [B, A], "y x", ("a", "b")),
    ("nothing", [A, B], None, ()),
    ("aaaa", [], None, ()),
    ("aaaa", [Swap("liar", "aaaa", "x", honest=False)], None, ()),
    ("aaaa", [Swap("longer", "aaaa", "xxxxx")], None, ()),
    ("aaaa", [Swap("same", "aaaa", "aaaa")], None, ()),
    ("aaaa", [Swap("first", "aaaa", "x"), Swap("second", "aaaa", "y")], "x", ("first",)),
    ("aaaa", [Swap("less", "aaaa", "xx"), Swap("more", "aaaa", "y")], "y", ("more",)),
    ("aaaa", [Swap("one", "aaaa", "bbb"), Swap("two", "bbb", "y")], "y", ("one", "two")),
]


@pytest.mark.parametrize(("text", "rules", "expected", "names"), CASES)
def test_each_step_is_the_one_that_saves_most(
    text: str, rules: list[Rule], expected: str | None, names: tuple[str, ...]
) -> None:
    found = recode(text, len, rules)

    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.text, found.rules, found.tokens_before, found.tokens_after) == (
            *(expected, names),
            *(len(text), len(expected)),
        )
        assert sum(found.saved) == len(text) - len(expected)
        assert len(found.saved) == len(names)
        assert recode(found.text, len, rules) is None


def test_fewer_characters_that_cost_tokens_are_refused() -> None:
    assert recode("aaaa", lambda text: 1 if text == "aaaa" else 2, [A]) is None


def test_next_to_nothing_is_not_worth_another_form() -> None:
    text = "aaaa" + "." * 120

    assert recode(text, len, [A]) is None
    assert recode(text, len, [A], least_share=0.0) is not None


def test_rules_that_never_come_to_rest_change_nothing() -> None:
    counts = iter(range(1000, 0, -100))

    class Growing(Swap):
        def encode(self, text: str) -> str | None:
            return text + "a"

        def restores(self, text: str, short: str) -> bool:
            return True

    assert recode("a", lambda text: next(counts), [Growing("growing", "", "")]) is None
