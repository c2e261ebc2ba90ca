"""What a shorter prompt lacks is found, whatever kind it is of; and a model's draft is read and asked for again."""

import pytest

from farthing.compress.prompt_kept import Loss, lost
from farthing.compress.prompt_model import again, first, taken

LONG = """You help guests of the Hotel Miramar. Check-out is at 11:00, at most 4 guests a room.
Never share a guest's room number. If a guest wants a late check-out, offer it for $30.
Greet them with "Welcome back" and {guest_name}. See https://example.com/rules for more.

```
{"room": 12}
```"""
GOOD = """Help guests of the Hotel Miramar. Check-out: 11:00, at most 4 guests a room.
Never share a guest's room number. If a guest wants late check-out, offer it for $30.
Greet: "Welcome back", {guest_name}. See https://example.com/rules.

```
{"room": 12}
```"""


def test_nothing_is_lost_in_a_good_draft() -> None:
    assert lost(LONG, GOOD) == ()
    assert lost(LONG, LONG) == ()


@pytest.mark.parametrize(
    ("there", "instead", "kind"),
    [
        ("$30", "a fee", "number"),
        ("Hotel Miramar", "hotel", "name"),
        ('"Welcome back"', "a welcome", "quotation"),
        ("{guest_name}", "their name", "placeholder"),
        ("https://example.com/rules", "our site", "address"),
        ('{"room": 12}', '{"room": 13, "was": 12}', "code"),
        ("Never share a guest's room number.", "Share a guest's room number.", "rule"),
        ("Never share a guest's room number.", "", "rule"),
        ("If a guest wants late check-out, offer it for $30.", "Late check-out: $30.", "rule"),
    ],
)
def test_what_a_draft_loses_is_named(there: str, instead: str, kind: str) -> None:
    draft = GOOD.replace(there, instead)
    assert draft != GOOD
    assert kind in {loss.kind for loss in lost(LONG, draft)}


def test_numbers_in_words_and_in_digits_are_one() -> None:
    assert lost("At most five guests.", "At most 5 guests.") == ()


def test_a_negation_elsewhere_is_no_excuse() -> None:
    long = "Do not offer discounts to resellers. Do not mention competitors by name."
    assert [loss.kind for loss in lost(long, "Do not mention competitors by name.")] == ["rule"]


def test_the_second_request_names_what_is_missing() -> None:
    body = again("m", "LONG PROMPT", 99, "short", [Loss("number", "17")])
    assert body["messages"][:2] == first("m", "LONG PROMPT", 99)["messages"]
    assert body["messages"][2] == {"role": "assistant", "content": "short"}
    assert "number: 17" in body["messages"][3]["content"]
    assert body["temperature"] == 0 and body["max_tokens"] == 99


@pytest.mark.parametrize(
    ("answer", "original", "draft"),
    [
        (" Be brief. \n", "Be very brief.", "Be brief."),
        ("```text\nBe brief.\n```", "Be very brief.", "Be brief."),
        ("```\nx\n```", "```\nx = 1\n```", "```\nx\n```"),
    ],
)
def test_a_draft_is_taken_out_of_an_answer(answer: str, original: str, draft: str) -> None:
    assert taken(answer, original) == draft
