"""What recurs is found, counted once, and can be put back with a draft in its place."""

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.advise_find import costs_of, find_parts, with_draft
from farthing.proxy.advise_requests import Asked, in_body, read_requests
from farthing.proxy.prices import Rates, Tiered
from tests.fakes.examples import examples

HEAD = "Answer the question from the passage, in one sentence, as a teacher would. " * 4 + "\n\nQuestion: "
TAIL = "\n\n" + "Remember to name the passage, to be brief, and to be friendly with whoever asks you. " * 4


def asked(*pairs: tuple[str, str]) -> list[Asked]:
    bodies = [
        {"model": "m", "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}
        for system, user in pairs
    ]
    return read_requests(json.dumps(bodies), "f")[0]


def texts(body: dict[str, Any]) -> list[str]:
    return [turn["content"] for turn in body["messages"]]


def test_an_exact_system_prompt_is_one_part() -> None:
    requests = asked(*(("Be brief and kind.", f"question {n}") for n in range(3)), ("Another one.", "x"))
    (part,) = find_parts(requests)
    assert (part.kind, part.text, part.requests) == ("system prompt", "Be brief and kind.", (0, 1, 2))


def test_a_template_round_what_users_write_is_two_parts() -> None:
    requests = asked(*(("", f"{HEAD}What is {n}?{TAIL}") for n in ("one", "two", "three", "four", "five")))
    found = {part.kind: part for part in find_parts(requests)}
    assert set(found) == {"beginning of user messages", "end of user messages"}
    assert HEAD.startswith(found["beginning of user messages"].text)
    assert TAIL.endswith(found["end of user messages"].text)
    assert all(len(part.places) == 5 for part in found.values())


def test_a_system_prompt_with_a_date_in_it_is_a_template_though_it_recurs() -> None:
    days = [f"{HEAD}It is day {n}.{TAIL}" for n in range(6)]
    found = find_parts(asked(*((day, f"question {n}") for day in days for n in range(2))))
    assert {part.kind for part in found} == {"beginning of system prompts", "end of system prompts"}
    assert all(len(part.places) == 12 for part in found)


def test_nothing_recurs_in_different_texts() -> None:
    assert find_parts(asked(*((f"System {n}.", f"Question {n}?") for n in range(9)))) == []


def test_the_costs_of_a_part() -> None:
    (part,) = find_parts(asked(*(("Be brief.", f"q {n}") for n in range(4)), ("Other.", "x")))
    flat = Tiered(Decimal(1))
    rates = Rates(Tiered(Decimal(2)), Tiered(Decimal("0.5")), flat, flat, flat, "test")
    costs = costs_of(part, 100, 1000, rates)
    assert (costs.tokens, costs.requests, costs.share) == (100, 4, 0.4)
    assert costs.usd_fresh == pytest.approx(0.2) and costs.usd_cached == pytest.approx(0.05)
    assert costs_of(part, 100, 1000, None).usd_fresh is None


SYSTEMS = st.sampled_from(["", "Be brief.", HEAD + TAIL, HEAD + "It is Monday." + TAIL, HEAD + "It is Friday." + TAIL])
FORMS = st.sampled_from(["{}", HEAD + "{}" + TAIL])
USERS = st.builds(lambda words, form: form.format(words), st.text("ab .?{}", max_size=40), FORMS)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(SYSTEMS, USERS), max_size=24))
def test_parts_are_what_stands_there_and_never_overlap(pairs: list[tuple[str, str]]) -> None:
    requests = asked(*pairs) if pairs else []
    taken: dict[tuple[int, Any], list[tuple[int, int]]] = {}
    for part in find_parts(requests):
        assert len(part.places) >= 2
        for place in part.places:
            text = in_body(requests[place.request].body, place.path)
            assert text[place.start : place.end] == part.text
            taken.setdefault((place.request, place.path), []).append((place.start, place.end))
        first = part.places[0]
        here = [place for place in part.places if place.request == first.request]
        swapped = with_draft(requests[first.request], here, "DRAFT")
        assert with_draft(requests[first.request], here, part.text) == requests[first.request].body
        assert "".join(texts(swapped)).count("DRAFT") == len(here)
    for spans in taken.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in pairwise(spans))
