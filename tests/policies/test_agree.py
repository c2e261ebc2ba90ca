"""When are two answers the same? By kind of answer, with the traps of each."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.policies import agree_measured
from farthing.policies.agree import agree, agree_bytes, refuses
from farthing.policies.agree_measured import comparator
from farthing.policies.answer import Answer, Call
from farthing.policies.opinion import Agreement
from tests.fakes.examples import examples
from tests.policies.test_answer import chat, delta, sse

LIKE = {"often": "frequently", "frequently": "frequently", "buy": "purchase"}


def embed(texts: Sequence[str]) -> np.ndarray:
    """Bags of words, synonyms and plurals as one: texts with the same words in any order have one vector."""
    rows = np.full((len(texts), 256), 1e-4, np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            word = LIKE.get(word, word).removesuffix("s")
            rows[row, hashlib.sha256(word.encode()).digest()[0]] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def of(a: str, b: str) -> str:
    found = agree(Answer(a), Answer(b), embed)
    turned = agree(Answer(b), Answer(a), embed)
    assert (found.agreement, found.by) == (turned.agreement, turned.by), "it must be symmetric"
    return f"{found.agreement} {found.by}"


WORKED = "He has 3 boxes of 6.\n3 * 6 = 18\n#### 18"
NILE = "The Nile is 6,650 km long. It flows north through Egypt. Farmers often use its water."


@pytest.mark.parametrize(
    ("a", "b", "opinion"),
    [
        ("Rome", "Rome", "same bytes"),
        ("", "", "same bytes"),
        # JSON
        ('{"a": 1, "b": [1.0, true]}', '```json\n{"b": [1, true], "a": 1.00}\n```', "same json"),
        ('{"a": 1}', '{"a": true}', "different json"),
        ('{"a": 1}', '{"a": "1"}', "different json"),
        ('{"a": 0.1}', '{"a": 0.10000000000000000001}', "different json"),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', "different json"),
        ('{"a": 1}', '{"a": 1, "b": null}', "different json"),
        ('{"a": 1}', "a is 1", "unsure json"),
        ('{"a": 1}', '{"a": 1, "a": 1}', "unsure json"),
        ('{"n": 1, "why": "because it was the first of all those seen"}',
         '{"n": 1, "why": "since it was the first one of all that were seen"}', "unsure json"),
        ('{"n": 1, "why": "because it was the first of all those seen"}',
         '{"n": 2, "why": "since it was the first one of all that were seen"}', "different json"),
        # labels and short answers
        ("card_arrival", "Card arrival.", "same label"),
        ("**refund**", "The answer is: refund", "same label"),
        ("the Beatles", "Beatles", "same label"),
        ("card_arrival", "card_delivery", "different label"),
        ("Paris", "London", "different label"),
        ("Paris", "Paris, France", "unsure label"),
        ("NYC", "New York City", "unsure label"),
        ("Paris", "Not Paris", "unsure label"),
        # yes and no
        ("Yes", "**Yes.**", "same polarity"),
        ("Yes", "No", "different polarity"),
        ("Yes.", "Yes, the Romans built it.", "same polarity"),
        ("Yes.", "Yes, but only on Mondays.", "unsure polarity"),
        ("Yes, the Romans built it in stone.", "No, the Greeks built it in stone.", "different polarity"),
        # numbers
        (WORKED, "The answer is **18**.", "same number"),
        (WORKED, "\\boxed{18}", "same number"),
        (WORKED, "18.00", "same number"),
        (WORKED, "So that makes 3 * 6 = 18 apples.", "same number"),
        (WORKED, "#### 19", "different number"),
        (WORKED, "The answer is -18.", "different number"),
        ("$1,200", "1200 dollars", "same number"),
        ("1.5 million", "1,500,000", "same number"),
        ("5 km", "5 miles", "different number"),
        ("5", "5 km", "same number"),
        ("5 apples", "5 pears", "unsure number"),
        ("1821", "Napoleon died in 1821.", "same number"),
        ("1821", "Napoleon died in 1815.", "different number"),
        ("18", "18 in the UK", "same number"),
        # code
        ("```py\nif a:\n    b(1)\n```", "```\nif a:\n  b( 1 )\n\n```", "same code"),
        ("```\nif a:\n    b()\n    c()\n```", "```\nif a:\n    b()\nc()\n```", "different code"),
        ("```\nx = a < 1\n```", "```\nx = a > 1\n```", "different code"),
        ("```\nx = 'a'\n```", "```\nx = 'b'\n```", "different code"),
        ("```\nx = y\n```", "```\nz = y\n```", "unsure code"),
        ("```\nx = 1\n```", "Set x to one.", "unsure code"),
        ("Never do this:\n```\nx = 1\n```", "Always do this:\n```\nx = 1\n```", "unsure code"),
        # prose
        (NILE, NILE.replace("6,650", "**6650**").replace(" It ", "\n- It "), "same prose"),
        (NILE, f"Sure! Here's the answer:\n\n{NILE}\n\nI hope this helps!", "same prose"),
        (NILE, "Farmers often use its water. The Nile is 6,650 km long. It flows north through Egypt.", "same prose"),
        (NILE, NILE.replace("often", "frequently"), "same prose"),
        (NILE, NILE.replace("6,650", "6,605"), "different prose"),
        (NILE, NILE.replace("km", "miles"), "different prose"),
        (NILE, NILE.replace("north", "south"), "unsure prose"),
        (NILE, NILE.replace("Egypt", "Sudan"), "different prose"),
        (NILE, NILE.replace("It flows", "It doesn't flow"), "different prose"),
        (NILE, NILE.replace("water", "sand"), "unsure prose"),
        (NILE, NILE.replace(" It flows north through Egypt.", ""), "unsure prose"),
        (NILE, "Whales sing. They dive deep and breathe air. Nobody knows how old they become.", "different prose"),
        ("It isn't safe to drink this water at all, ever.", "It is not safe to drink this water at all, ever.",
         "same prose"),
        ("It can't be opened from the outside by anybody.", "It can be opened from the outside by anybody.",
         "different prose"),
    ],
)  # fmt: skip
def test_kinds(a: str, b: str, opinion: str) -> None:
    assert of(a, b) == opinion


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.", "I cannot assist with this request.", "I’m unable to do that.",
        "Unfortunately, I don't have access to live data.", "As an AI language model, I cannot provide that.",
        "**I'm not able to share this.**", "Sorry, I won't write that.", "I don't know.",
    ],
)  # fmt: skip
def test_a_refusal_is_never_an_answer(text: str) -> None:
    assert refuses(Answer(text))
    assert of(text, "Rome") == "different refusal"
    assert of(text, "I can't comply with that request, I'm afraid.") == "unsure refusal"


@pytest.mark.parametrize(
    "text", ["I can't thank you enough!", "No, you can't help it.", "Sorry is a word of five letters.", "I know.", ""]
)
def test_what_only_sounds_like_one_is_none(text: str) -> None:
    assert not refuses(Answer(text))


def test_the_api_may_say_that_it_refuses() -> None:
    refused = Answer("", refusal="No.")

    assert agree(refused, Answer("Rome")).by == "refusal"
    assert agree(Answer("", finish="refusal"), Answer("")).agreement is Agreement.DIFFERENT


@pytest.mark.parametrize(
    ("cut", "whole", "agreement"),
    [
        (Answer("one two three", finish="length"), Answer("one two three four"), "same"),
        (Answer("one two three fo", finish="length"), Answer("one two three four"), "unsure"),
        (Answer("one two three", finish="length"), Answer("one two four three"), "unsure"),
        (Answer("Yes", finish="length"), Answer("Yes, but only on Mondays"), "unsure"),
        (Answer("one two three four", finish="length"), Answer("one two three"), "unsure"),
        (Answer("", finish="length"), Answer(""), "unsure"),
        (Answer("", finish="length"), Answer("one"), "unsure"),
        (Answer("The answer is 4", finish="length"), Answer("The answer is 42"), "unsure"),
        (Answer("one two three", finish="length"), Answer("one two three four", finish="length"), "same"),
    ],
)
def test_what_was_cut_is_judged_only_as_far_as_it_goes(cut: Answer, whole: Answer, agreement: str) -> None:
    assert agree(cut, whole, embed).agreement == agreement
    assert agree(whole, cut, embed).agreement == agreement


def calling(*calls: tuple[str, object], text: str = "") -> Answer:
    return Answer(text, tuple(Call(name, arguments) for name, arguments in calls), finish="calls")


@pytest.mark.parametrize(
    ("a", "b", "agreement"),
    [
        (calling(("f", '{"a":1,"b":2}')), calling(("f", '{ "b": 2.0, "a": 1 }')), "same"),
        (calling(("f", '{"a":1}')), calling(("f", {"a": 1})), "same"),
        (calling(("f", "")), calling(("f", "{}")), "same"),
        (calling(("f", '{"a":1}')), calling(("f", '{"a":2}')), "different"),
        (calling(("f", '{"a":1}')), calling(("g", '{"a":1}')), "different"),
        (calling(("f", "{}")), calling(("f", "{}"), ("f", "{}")), "different"),
        (calling(("f", "{}"), ("g", "{}")), calling(("g", "{}"), ("f", "{}")), "unsure"),
        (calling(("f", '{"a":')), calling(("f", '{"a":1}')), "unsure"),
        (calling(("f", "{}")), Answer("Rome"), "different"),
        (calling(("f", "{}"), text="Let me look."), calling(("f", "{ }")), "same"),
        (calling(("f", "{}"), text="I book 2 seats."), calling(("f", "{ }"), text="I book 3 seats."), "unsure"),
    ],
)
def test_tool_calls(a: Answer, b: Answer, agreement: str) -> None:
    assert agree(a, b, embed).agreement == agreement
    assert agree(b, a, embed).agreement == agreement


def test_a_closed_set_makes_labels_surely_different() -> None:
    labels = frozenset({"top up failed", "top up limits"})

    assert agree(Answer("top up failed"), Answer("Top up limits."), labels=labels).agreement is Agreement.DIFFERENT
    assert agree(Answer("top up failed"), Answer("top up"), labels=labels).agreement is Agreement.UNSURE
    assert agree(Answer("top up failed"), Answer("Label: Top-up failed"), labels=labels).agreement is Agreement.SAME


def test_without_an_embedder_only_the_same_words_are_the_same() -> None:
    assert agree(Answer(NILE), Answer(NILE.replace("6,650", "6650"))).agreement is Agreement.SAME
    assert agree(Answer(NILE), Answer(NILE.replace("often", "frequently"))).agreement is Agreement.UNSURE


def test_beyond_the_models_window_is_unsure() -> None:
    def refuse(texts: Sequence[str]) -> np.ndarray:
        raise ValueError("too long")

    found = agree(Answer(NILE), Answer(NILE.replace("often", "frequently")), refuse)

    assert found.agreement is Agreement.UNSURE


def test_bytes_of_every_shape_are_compared_and_the_worst_choice_counts() -> None:
    stream = sse(delta(content="Rome"), delta("stop"))
    two = sse(delta(content="Rome"), delta("stop"), delta("stop", index=1, content="Oslo"))
    other = sse(delta(content="Rome"), delta("stop"), delta("stop", index=1, content="Bern"))

    assert agree_bytes(stream, chat({"content": "Rome"})).agreement is Agreement.SAME
    assert agree_bytes(stream, two).agreement is Agreement.DIFFERENT
    assert agree_bytes(two, other).agreement is Agreement.DIFFERENT
    assert agree_bytes(b"junk", b"junk").agreement is Agreement.SAME
    assert agree_bytes(b"junk", b"other junk").agreement is Agreement.UNSURE
    assert agree_bytes(chat({"content": None, "audio": {"data": "AA"}}), chat({"content": None, "audio": {"data":
                       "BB"}})).agreement is Agreement.UNSURE  # fmt: skip


words = st.text(st.characters(), max_size=80)


@settings(max_examples=examples(200), deadline=None)
@given(words, words)
def test_no_text_makes_it_raise_and_it_is_symmetric(a: str, b: str) -> None:
    one, other = agree(Answer(a), Answer(b), embed), agree(Answer(b), Answer(a), embed)

    assert one.agreement is other.agreement
    assert agree(Answer(a), Answer(a), embed).agreement is not Agreement.DIFFERENT


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


objects = st.dictionaries(st.text(max_size=3), values, max_size=3)


@settings(max_examples=examples(150), deadline=None)
@given(objects, objects)
def test_json_is_the_same_where_its_values_are(a: dict[str, object], b: dict[str, object]) -> None:
    one, other = json.dumps(a), json.dumps(dict(reversed(b.items())), indent=1)
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)

    assert agree(Answer(one), Answer(other)).agreement == ("same" if same else "different")


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(-9999, 9999), st.integers(-9999, 9999))
def test_final_numbers(a: int, b: int) -> None:
    found = agree(Answer(f"First I add.\n#### {a:,}"), Answer(f"The answer is {b}."))

    assert found.agreement == ("same" if a == b else "different")


HOSTILE = [
    "(" * 20_000, "a." * 20_000, "```" * 5_000, "9," * 20_000, "= 1" * 10_000, "I'm sorry " * 4_000, "\\boxed{" * 5_000,
    "The answer is " * 3_000, "- " * 20_000, "so, " * 9_000, "```\n" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_takes_no_long_time(text: str) -> None:
    """Linear patterns: each of these takes some tens of ms; quadratic ones would take minutes."""
    import time

    began = time.process_time()
    agree(Answer(text), Answer(text + "x"), embed)

    assert time.process_time() - began < 3


def test_every_comparator_that_may_say_same_has_its_measured_error() -> None:
    for by in ("json", "calls", "code", "number", "polarity", "label", "prose"):
        found = agree_measured.MEASURED[by]
        assert found.differing >= 50
        assert 0 < found.false_same_upper < 0.1
        assert agree_measured.false_same(by) == (0 if by in agree_measured.PROVED else found.false_same_upper)
    assert agree_measured.false_same("bytes") == 0
    assert agree_measured.false_same("a new one") == 1
    assert agree_measured.MADE_ON


def test_it_can_be_used_without_anything_of_the_semantic_cache() -> None:
    """Compression and evaluation compare answers too, with nothing of a cache near."""
    code = "import farthing.policies.agree, sys; print(*sorted(n for n in sys.modules if n.startswith('farthing.')))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    rooms = {name.split(".")[1] for name in shown}
    policies = {name.split(".")[2] for name in shown if name.startswith("farthing.policies.")}
    assert rooms == {"policies", "proxy"}
    assert {name for name in policies if not name.startswith("agree")} == {"answer", "opinion"}


def said(text: str) -> bytes:
    return chat({"role": "assistant", "content": text})


@pytest.mark.parametrize(
    ("full", "compressed", "wrong"),
    [
        (said("The total is 18.\n#### 18"), said("The answer is 18"), False),
        (said("The total is 18.\n#### 18"), said("The answer is 19"), True),
        (said('{"city": "Rome", "days": 3}'), said('{"days": 3, "city": "Rome"}'), False),
        (said("Ask the desk; it opens at nine."), said("The desk, open from nine, will tell you."), True),
        (said("Yes."), b"an error", True),
    ],
)
def test_an_answer_to_a_shorter_prompt_is_wrong_unless_it_says_the_same(
    full: bytes, compressed: bytes, wrong: bool
) -> None:
    assert agree_bytes(full, compressed).wrong is wrong


def test_the_chains_error_is_that_of_the_worst_comparator_that_judges() -> None:
    judging = {name: found for name, found in agree_measured.MEASURED.items() if name in ("prose", "label", "code")}
    assert comparator().false_same >= max(found.false_same_upper for found in judging.values())
    assert comparator().false_same < agree_measured.MEASURED["json"].false_same_upper  # equal values are proved
