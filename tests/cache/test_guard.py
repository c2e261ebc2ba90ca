"""The guard: pairs that must not share an answer, rewordings that may, and what must never be matched at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.guard import disagreement, unmatchable
from farthing.proxy.text import READ_CHARS, signals
from tests.fakes.examples import examples


def verdict(one: str, other: str) -> str:
    reason = disagreement(signals(one), signals(other))
    assert disagreement(signals(other), signals(one)) == reason
    return reason


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("What is 15% of 80?", "What is 50% of 80?", "numbers differ"),
        ("Subtract 5 from 3", "Subtract 3 from 5", "numbers differ"),
        ("a table for two", "a table for three", "numbers differ"),
        ("Is it -5 there?", "Is it 5 there?", "numbers differ"),
        ("Is 3.10 supported?", "Is 3.1 supported?", "numbers differ"),
        ("How far is 5 km?", "How far is 5 miles?", "quantities differ"),
        ("a $5 fee", "a €5 fee", "quantities differ"),
        ("Are you open on 3 May?", "Are you open on 4 May?", "dates differ"),
        ("Are you open on Monday?", "Are you open on Sunday?", "dates differ"),
        ("Call me at 3 pm", "Call me at 3 am", "times differ"),
        ("the price next week", "the price last week", "relative dates differ"),
        ("how many feet in a mile", "how many yards in a mile", "units differ"),
        ("rooms for at least 4", "rooms for at most 4", "bounds differ"),
        ("Explain my_var", "Explain my_val", "identifiers differ"),
        ("Open https://a.example/x", "Open https://a.example/y", "identifiers differ"),
        ("Is C++ fast?", "Is C# fast?", "identifiers differ"),
        ('Translate "yes please" now', 'Translate "no thanks" now', "quotations differ"),
        ("I feel 🙂 about it", "I feel 😡 about it", "symbols differ"),
        ("Can I cancel it?", "Can't I cancel it?", "negation differs"),
        ("food with nuts", "food without nuts", "negation differs"),
        ("Flights from Paris to Rome", "Flights from Rome to Paris", "names differ"),
        ("Who founded IBM?", "Who founded SAP?", "names differ"),
        ("Netflix or Hulu", "netflix or disney", "names differ"),
        ("Tell US customers about it", "Tell us customers about it", "names differ"),
        ("Say it in german", "Say it in french", "names differ"),
        ("Vitamin A dose", "Vitamin C dose", "names differ"),
        ("Who painted it?", "When did they paint it?", "questions differ"),
        ("How much is it?", "How many are there?", "questions differ"),
        ("Why is it down?", "Is it down?", "questions differ"),
        ("How do I increase my limit?", "What must I do to get my limit decreased?", "direction differs"),
        ("flights from rome", "flights to rome", "roles differ"),
        ("turn euros into yen notes", "turn yen into euros notes", "units differ"),
        ("does the dog bite the man", "does the man bite the dog", "word order differs"),
        ("Is Java like JavaScript?", "Is JavaScript like Java?", "word order differs"),
        ("is my_var bigger than 5", "is 5 bigger than my_var", "word order differs"),
        ("move `a` to the left of b", "move b to the left of `a`", "word order differs"),
        ("rooms in paris to rome", "rome to paris and paris to rome", "roles differ"),
        ("is the shop open", "was the shop open", "one place differs"),
        ("turn the radio on", "turn the radio off", "one place differs"),
        ("how do I close my account", "how do I close her account", "one place differs"),
        ("recipe for apple pie", "recipe for cherry pie", "one place differs"),
        ("cancel my order please", "cancel my online order please", "one place differs"),
        ("are these claims founded", "tell me whether they are unfounded claims", "negation differs"),
        ("你好吗 朋友", "你好吗 敌人", "words in another script differ"),
        ("log in to paypal", "log in to p\u0430ypal", "words in another script differ"),
        ("Wie kann ich die Karte sperren?", "Wie kann ich meine Karte sperren?", "language not covered"),
        ("How do I do it with a card?", "Comment je le fais avec une carte dans une banque?", "languages differ"),
    ],
)
def test_what_must_not_share_an_answer(one: str, other: str, reason: str) -> None:
    assert verdict(one, other) == reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "I forgot my password, how can it be reset?"),
        ("How tall is the Eiffel Tower?", "What is the height of the Eiffel Tower?"),
        ("How can I get a refund?", "how do i get a refund"),
        ("Could you please tell me where my card is?", "where's my card"),
        ("In Java how do I sort lists", "how do I sort lists in Java?"),
        ("What's 5 kg in pounds?", "what is 5 kilograms in pounds"),
        ("a fee of $1,200", "a fee of $1200"),
        ("Open on 3 May 2024?", "open on 2024-05-03"),
        ("pass\u200bword reset", "password reset"),
        ("Twenty-five euros to dollars", "25 euros to dollars"),
        ("你好吗 朋友", "你好吗，朋友"),
        ("In JavaScript how do I sort lists", "how do I sort lists in JavaScript?"),
        ("How do I reset my password?", "how can I reset my password"),
    ],
)
def test_what_may(one: str, other: str) -> None:
    assert verdict(one, other) == ""


@settings(max_examples=examples(100), deadline=None)
@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=60))
def test_it_is_symmetric_and_a_text_agrees_with_itself(one: str, other: str) -> None:
    verdict(one, other)

    assert verdict(one, one) == ""


# Words that the rules look at, so that random texts of them reach every rule; random characters seldom do.
WORDS = """
    paris rome Paris Rome to from than before after by the is was not no increase decrease cat dog founded unfounded
    who why how when 5 five kg more less my her on off a_b `x` JavaScript US us Monday . ?"""
LOADED = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=8)


@settings(max_examples=examples(300), deadline=None)
@given(LOADED, st.data())
def test_it_is_symmetric_where_the_rules_bite(words: list[str], drawn: st.DataObject) -> None:
    doubled = words + words[::-1]
    other = drawn.draw(st.one_of(st.permutations(words), st.just(doubled), LOADED))

    verdict(" ".join(words), " ".join(other))


@pytest.mark.parametrize("end", [".", "?", "!", "...", "?!", " ?", ",", ";", ")", "  \n"])
@pytest.mark.parametrize(
    "text",
    [
        "how do I reset my password",
        "see https://a.example/b",
        "visit www.a.example",
        "what is my_var",
        "it costs $5",
        "use version 3.10",
        "call me at 3 pm",
        "is it on 3 May 2024",
        "learn C++",
        "mail ada@example.org",
        "is it 20°C",
        'say "good morning"',
    ],
)
def test_the_last_mark_and_the_first_capital_say_nothing(text: str, end: str) -> None:
    assert verdict(text, text + end) == ""
    assert verdict(text, f"  {text[0].upper()}{text[1:]}{end}") == ""


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["What is {} plus tax?", "Send {} units", "{}"]))
def test_another_number_is_another_question(one: int, other: int, frame: str) -> None:
    assert bool(verdict(frame.format(one), frame.format(other))) == (one != other)


def test_a_text_that_was_not_read_to_its_end_agrees_with_nothing() -> None:
    long = "word " * READ_CHARS

    assert disagreement(signals(long), signals(long)) == "too long to compare"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t\u200b\x00", "empty"),
        ("🙂🙂🙂🙂🙂", "no words"),
        ("12345 67890", "no words"),
        ("?!?!?!?!?!", "no words"),
        ("\ud800\ud801", "no words"),
        ("ok", "too short"),
        ("continue", "too short"),
        ("What is the weather in Rome?", "freshness"),
        ("Who is the current president?", "freshness"),
        ("What happened TODAY in Rome?", "freshness"),
        ("events this weekend in Rome", "freshness"),
        ("the lat\u200best version of it", "freshness"),
        ("tell me another one please", "chance asked for"),
        ("Surprise me with a story", "chance asked for"),
        ("pick a random number for me", "chance asked for"),
        ("give me one more, please", "chance asked for"),
        ("tell me a different joke please", "chance asked for"),
        ("do that one again for me", "chance asked for"),
        ("log in to p\u0430ypal please", "mixed script"),
        ("log in to P\u0430ypal, please", "mixed script"),
        ("reset my \u0391pple password", "mixed script"),
        ("Где мой API ключ для входа?", ""),
        ("日本語でAPIを説明してください", ""),
        ("how wide is a 5μm gap", ""),
        ("word " * READ_CHARS, "too long"),
        ("How do I reset my password?", ""),
        ("日本の首都はどこですか。", ""),
    ],
)
def test_what_is_never_matched(text: str, reason: str) -> None:
    assert unmatchable(text) == reason


@settings(max_examples=examples(100), deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_it_never_raises(text: str) -> None:
    assert isinstance(unmatchable(text), str)
