"""What a route's texts share is found, and dividing by it loses and confuses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.template import LEAST_CHARS, MOST_CHARS, Parts, Templates, wall_of
from tests.fakes.examples import examples

RULES = (
    "You answer our customers' questions. Be brief and polite. Never promise what the terms don't say. If unsure,\n"
    "say so. Answer in the customer's language. Give no legal advice; name the page of the terms that you rely on.\n\n"
)
PAPER = (
    "The lift on platform 3 is closed from Monday on. Use the one on platform 5 and the subway.\n"
    "Guide dogs travel free of charge! Bicycles need a ticket: 6 euros a day, 9 at weekends.\n"
    "Lost things are kept for 30 days at the counter in the main hall; bring your passport.\n"
)
OTHER = PAPER.replace("30 days", "60 days")
STATIONS = PAPER.replace("platform 3", "platform 4").replace("subway", "bridge").replace("Bicycles", "Tandems")
QUESTIONS = (
    "How long are lost things kept?",
    "Where is the lift?",
    "May my dog come along?",
    "What does a bicycle cost at weekends?",
    "Is there a subway?",
    "Who runs the counter?",
)


def taught(texts: Iterable[str], route: str = "r") -> Templates:
    templates = Templates()
    for text in texts:
        templates.divide(route, text)
    return templates


def test_instructions_in_front_are_found_once_four_texts_share_them() -> None:
    templates = Templates()
    parts = [templates.divide("r", RULES + question) for question in QUESTIONS]

    assert [one.whole for one in parts] == [True, True, True, False, False, False]
    assert [(one.prefix, one.varying) for one in parts[3:]] == [(RULES, question) for question in QUESTIONS[3:]]


def test_a_document_behind_the_question_is_found() -> None:
    texts = [f"{question}\n\nAnswer from this text:\n{PAPER}" for question in QUESTIONS]
    parts = taught(texts).divide("r", texts[0])

    assert (parts.prefix, parts.varying) == ("", QUESTIONS[0])
    assert parts.suffix == f"\n\nAnswer from this text:\n{PAPER}"


def test_both_sides() -> None:
    texts = [f"{RULES}{question}\n\n{PAPER}" for question in QUESTIONS]
    parts = taught(texts).divide("r", texts[2])

    assert parts == Parts(RULES, QUESTIONS[2], f"\n\n{PAPER}")


def test_several_documents_under_one_instruction_each_have_their_own_wall() -> None:
    texts = [f"{RULES}{paper}\n{question}" for paper, question in product((PAPER, STATIONS), QUESTIONS)]
    templates = taught(texts)
    mine, theirs = (templates.divide("r", f"{RULES}{paper}\n{QUESTIONS[0]}") for paper in (PAPER, STATIONS))

    assert mine.prefix == f"{RULES}{PAPER}\n" and theirs.prefix == f"{RULES}{STATIONS}\n"
    assert mine.varying == theirs.varying == QUESTIONS[0]
    assert wall_of("s", mine) != wall_of("s", theirs)


def test_documents_that_differ_near_their_end_differ_in_what_varies() -> None:
    templates = taught(f"{RULES}{paper}\n{question}" for paper, question in product((PAPER, OTHER), QUESTIONS))
    mine, theirs = (templates.divide("r", f"{RULES}{paper}\n{QUESTIONS[0]}") for paper in (PAPER, OTHER))

    assert mine.prefix == theirs.prefix != ""
    assert "30 days" in mine.varying and "60 days" in theirs.varying


def test_a_document_seen_once_stays_in_the_varying_part() -> None:
    texts = [f"{RULES}{PAPER}\n{question}" for question in QUESTIONS]
    parts = taught(texts).divide("r", f"{RULES}{OTHER}\n{QUESTIONS[0]}")

    assert parts.prefix.startswith(RULES) and "60 days" in parts.varying
    assert parts.varying.endswith(QUESTIONS[0])


@pytest.mark.parametrize("greeting", ["Hello! ", "A question: ", "Quick one.\n"])
def test_how_some_questions_begin_is_not_common(greeting: str) -> None:
    """Texts branch where the question begins, though several go on alike."""
    texts = [RULES + question for question in QUESTIONS] + [RULES + greeting + one for one in QUESTIONS[:4]]

    assert taught(texts).divide("r", RULES + greeting + QUESTIONS[0]).prefix == RULES


def test_one_off_texts_and_repeats_prove_nothing() -> None:
    templates = Templates()
    for _ in range(20):
        assert templates.divide("r", RULES + PAPER + QUESTIONS[0]).whole
    for number in range(20):
        assert templates.divide("r", f"{number}. " + PAPER.replace(" ", f" {number}") + QUESTIONS[1]).whole


def test_routes_know_nothing_of_each_other() -> None:
    templates = taught(RULES + question for question in QUESTIONS)

    assert templates.divide("another", RULES + QUESTIONS[0]).whole
    assert not templates.divide("r", RULES + QUESTIONS[0]).whole


def test_looking_leaves_no_trace() -> None:
    templates = taught(RULES + question for question in QUESTIONS[:3])
    before = len(templates)
    for _ in range(3):
        assert not templates.divide("r", RULES + QUESTIONS[3], learn=False).whole
    assert len(templates) == before
    assert templates.divide("another", RULES + QUESTIONS[3], learn=False).whole


@pytest.mark.parametrize("text", ["", "short", "x" * LEAST_CHARS, "a. " * MOST_CHARS, "word " * 100, "\n" * 5000])
def test_short_endless_and_borderless_texts_vary_as_a_whole(text: str) -> None:
    templates = Templates()
    for number in range(6):
        assert templates.divide("r", f"{text}{number}").whole


@pytest.mark.parametrize(
    ("slots", "joint"),
    [
        (["12", "123", "1234", "12345", "1"], " "),
        (["12", "123", "1234", "12345", "1"], ": "),
        (["3.1", "3.14", "3.141", "3.1415", "3"], "\n"),
        (["not", "note", "noted", "notes", "no"], "\n"),
        (["a.b", "a.bc", "a.bcd", "a.bcde", "a"], "; "),
    ],
)
def test_no_token_is_cut_at_a_border(slots: list[str], joint: str) -> None:
    texts = [f"{RULES}Where is order{joint}{slot}" for slot in slots]
    templates = taught(texts)
    for text, slot in zip(texts, slots, strict=True):
        parts = templates.divide("r", text)
        assert parts.varying.split()[-1] == slot
        assert not parts.prefix or parts.prefix[-1].isspace()
        assert not parts.suffix or parts.suffix[0].isspace()


@pytest.mark.parametrize("at", ["first", "inside", "last"])
def test_a_slot_inside_the_common_part_is_a_wall_or_varies(at: str) -> None:
    """One number is another in a part that is common otherwise: equal parts never mean equal walls."""

    def text(number: int, question: str) -> str:
        first, inside, last = (number if at == one else 7 for one in ("first", "inside", "last"))
        return f"Customer {first}. {RULES}Tariff {inside}: {PAPER}Contract {last}.\n{question}"

    templates = taught(text(number, question) for number in (1, 2, 3) for question in QUESTIONS)
    seen: dict[tuple[str, str], str] = {}
    for number, question in product((1, 2, 3, 4), QUESTIONS):
        whole = text(number, question)
        parts = templates.divide("r", whole)
        assert parts.prefix + parts.varying + parts.suffix == whole
        assert seen.setdefault((wall_of("s", parts), parts.varying), whole) == whole


def test_a_template_that_changes_gets_another_wall() -> None:
    templates = taught(RULES + question for question in QUESTIONS)
    old = templates.divide("r", RULES + QUESTIONS[0])
    changed = RULES.replace("brief", "thorough")
    walls = {wall_of("s", templates.divide("r", changed + question)) for question in QUESTIONS}

    assert wall_of("s", old) not in walls
    assert templates.divide("r", changed + QUESTIONS[0]).prefix == changed
    assert templates.divide("r", RULES + QUESTIONS[0]) == old


def test_memory_is_bounded_and_what_is_used_stays() -> None:
    templates = Templates(most_counts=400)
    for number in range(300):
        templates.divide("r", RULES + f"{QUESTIONS[number % 6]} {number}")
        templates.divide("r", "".join(f"{number} {line} is new. " for line in range(20)))
        assert len(templates) <= 500
    assert templates.divide("r", RULES + "And now?").prefix == RULES


PIECES = st.sampled_from([RULES, PAPER, OTHER, "12", "1", "2", " ", "\n", ". ", ": ", "a", "é", "\ud800", *QUESTIONS])
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=25))
def test_equal_walls_and_equal_varying_parts_mean_equal_texts(texts: list[str]) -> None:
    """Whatever was learnt, before or after: a place stands for one text."""
    templates, seen = Templates(), dict[tuple[str, str], str]()
    for text in [*texts, *texts]:
        parts = templates.divide("r", text)
        assert parts.prefix + parts.varying + parts.suffix == text
        assert parts.whole or parts.varying.strip()
        place = ("s" if parts.whole else wall_of("s", parts), parts.varying)
        assert seen.setdefault(place, text) == text


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(TEXTS, max_size=20))
def test_what_is_learnt_depends_on_what_was_shown_alone(texts: list[str]) -> None:
    assert [taught(texts).divide("r", text) for text in texts] == [taught(texts).divide("r", text) for text in texts]


def test_walls_tell_their_parts_apart() -> None:
    walls = {
        wall_of(scope, Parts(prefix, "v", suffix)) for scope in ("", "a", "ab") for prefix in ("", "a", "b", "ab")
        for suffix in ("", "a", "b", "ab")
    }  # fmt: skip
    assert len(walls) == 48
