"""What a question names, and whether it needs everything."""

from __future__ import annotations

import pytest
from hypothesis import given

from farthing.compress.question import read_question
from farthing.compress.units import Kind
from tests.fakes.broken_texts import hostile_texts


@pytest.mark.parametrize(
    "question, kind, whole",
    [
        ("Summarise this.", "prose", True),
        ("List all the cities that are named", "prose", True),
        ("Translate it into French", "lines", True),
        ("How many people live in Paris?", "prose", False),
        ("How many people live in Paris?", "rows", True),
        ("What is the average latency?", "lines", True),
        ("Which orders are late?", "rows", True),
        ("List the identifier of every order in the result, in order.", "rows", True),
        ("Which order failed?", "rows", False),
        ("Which sensor has the lowest battery?", "table", False),
        ("What must be done in order to win?", "prose", False),
        ("What is the theory of everything?", "prose", False),
        ("What is the most serious problem in this log?", "lines", False),
        ("how often did it restart", "lines", True),
        ("Wie viele Kunden wohnen in Berlin?", "rows", True),
        ("Fass den Text bitte zusammen.", "prose", True),
        ("Combien de clients habitent à Paris ?", "table", True),
        ("¿Cuántos pedidos hay?", "rows", True),
        ("Сколько заказов в Москве?", "rows", True),
        ("北京有多少订单？", "rows", True),
        ("Wer wohnt in Berlin?", "rows", False),
        ("谁住在北京？", "rows", False),
    ],
)
def test_what_needs_everything(question: str, kind: Kind, whole: bool) -> None:
    assert read_question(question).needs_all(kind) is whole


def test_names_and_numbers() -> None:
    asked = read_question(
        'For ord_8f3a2c91 of "Blue Bird Ltd", who is Carol Ann Smith, and was it 14 days on 2026-01-02?'
    )

    assert asked.literals == ("ord_8f3a2c91", "blue bird ltd", "14", "2026-01-02")
    assert "carol ann smith" in asked.names
    assert not asked.trouble and not asked.extreme


@pytest.mark.parametrize(
    "question, flag",
    [("Why did it crash?", "trouble"), ("Which is the longest?", "extreme"), ("When did he leave?", "numeric")],
)
def test_flags(question: str, flag: str) -> None:
    assert getattr(read_question(question), flag)
    assert not getattr(read_question("Name of the owner"), flag)


@given(hostile_texts())
def test_any_text_can_be_asked(text: str) -> None:
    asked = read_question(text)

    assert all(literal for literal in asked.literals)
