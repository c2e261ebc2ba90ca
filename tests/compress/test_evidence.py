"""Whether there is anything to choose by."""

from __future__ import annotations

import json

import pytest

from farthing.compress.bm25 import Words
from farthing.compress.evidence import can_choose
from farthing.compress.question import read_question
from farthing.compress.split import split
from tests.compress.test_split import LOG

ROWS = json.dumps(
    [
        {"code": 100 + i, "name": f"E{word.upper()}", "text": f"{word} {other} is not there"}
        for i, (word, other) in enumerate(
            zip(
                ["space", "memory", "peer", "folder", "device", "pipe", "socket", "thread"],
                ["left", "free", "reached", "empty", "known", "open", "bound", "alive"],
                strict=True,
            )
        )
    ]
)
PROSE = "\n\n".join(
    f"{word} was a town of the north. It had a wall and a market, and a road led from there to the sea. "
    f"In later years the {word} road was paved."
    for word in ["Oakham", "Ashby", "Corby", "Melton", "Stamford"]
)


@pytest.mark.parametrize(
    "text, question, can",
    [
        (ROWS, "What does EPIPE mean?", True),
        (ROWS, "Which code is 'pipe open is not there'?", True),
        (ROWS, "What is code 103?", True),
        (ROWS, "when is a peer reached", True),
        (ROWS, "What is it when RAM is exhausted?", False),
        (ROWS, "Which code?", False),
        (ROWS, "Which one has the highest code?", True),
        (ROWS, "Which one is the longest?", False),
        (ROWS, "Which of them failed?", True),
        (PROSE, "Which town was Corby near?", True),
        (PROSE, "Welche Stadt lag am Meer?", False),
        (PROSE, "Which road?", False),
        (LOG, "What happened?", True),
    ],
)
def test_what_can_be_chosen_by(text: str, question: str, can: bool) -> None:
    found = split(text)
    words = Words()

    assert can_choose(read_question(question), found, [words.terms(unit.text) for unit in found.units]) is can
