"""What a text says: each signal in a table, and no text that breaks or stalls it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.text import READ_CHARS, normalise, signals
from tests.fakes.examples import examples


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5 apples", ("5",)),
        ("1,200.50 or 1200.50", ("1200.50", "1200.50")),
        ("it is -7 outside, not 7", ("-7", "7")),
        ("what is 5 - 3", ("5", "3")),
        ("pages 5-3", ("5", "3")),
        ("five apples", ("5",)),
        ("twenty-five or twenty five", ("25", "25")),
        ("two hundred and six thousand", ("206000",)),
        ("a thousand and five", ("1005",)),
        ("two and three", ("2", "3")),
        ("a hundred and five, 5 hundred", ("105", "500")),
        ("one hundred and five", ("105",)),
        ("5 million, 5k", ("5000000", "5000")),
        ("Python 3.10, not 3.1", ("3.10", "3.1")),
        ("the 2nd and the second and the third", ("2.", "2.", "3.")),
        ("twice a dozen", ("2x", "12")),
        ("which one", ()),
        ("one hundred", ("100",)),
        ("٤٢ and ４２", ("42", "42")),
        ("none here", ()),
    ],
)
def test_numbers(text: str, numbers: tuple[str, ...]) -> None:
    assert signals(text).numbers == numbers


@pytest.mark.parametrize(
    ("text", "quantities"),
    [
        ("5 kg, 5kg, 5 kilograms", ("5 kg",) * 3),
        ("$5.50 and 5 dollars and 5 USD", ("5.50 usd", "5 usd", "5 usd")),
        ("€1,000", ("1000 eur",)),
        ("5%, 5 percent", ("5 %", "5 %")),
        ("-7 °C or 20°F", ("-7 °c", "20 °f")),
        ("60 km/h", ("60 km/h",)),
        ("8 GB", ("8 gb",)),
        ("5 apples", ()),
    ],
)
def test_quantities(text: str, quantities: tuple[str, ...]) -> None:
    assert signals(text).quantities == quantities


@pytest.mark.parametrize(
    ("text", "dates", "times"),
    [
        ("on 2024-05-03", ("2024-05-03",), ()),
        ("on 3 May 2024, May 3rd, 2024 and the 3rd of May 2024", ("2024-05-03",) * 3, ()),
        ("May 3rd", ("-05-03",), ()),
        ("in Sept. 2023", ("2023-09",), ()),
        ("you may go in May", ("may",), ()),
        ("on Monday and on tuesday", ("monday", "tuesday"), ()),
        ("at 15:30, 3:30 pm and 3:30pm", (), ("15:30",) * 3),
        ("at 7 o'clock, 12 am, noon", (), ("7:00", "0:00", "12:00")),
        ("2024-05-03T10:00Z", ("2024-05-03",), ("10:00",)),
        ("03/05/2024", ("03/05/2024",), ()),
    ],
)
def test_dates_and_times_have_one_form_and_are_no_numbers(
    text: str, dates: tuple[str, ...], times: tuple[str, ...]
) -> None:
    found = signals(text)

    assert (found.dates, found.times, found.numbers) == (dates, times, ())


def test_relative_dates() -> None:
    assert signals("What changed Yesterday, and next  week?").relative == ("yesterday", "next week")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Flights from Paris to Rome", ("paris", "rome")),
        ("Is Ada's laptop at IBM?", ("ada", "ibm")),
        ("Vitamin A or vitamin C", ("A", "c")),
        ("Should US and us differ", ("US",)),
        ("First sentence. Second sentence", ()),
        ("Hi there. I think I am right", ()),
        ("say it in german", ("german",)),
        ("WHERE IS MY CARD", ("card",)),
    ],
)
def test_names(text: str, names: tuple[str, ...]) -> None:
    assert signals(text).names == names


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("what does my_var do", ("my_var",)),
        ("call parseUrl() now", ("parseUrl",)),
        ("use os.path.join here", ("os.path.join",)),
        ("in `foo  bar`, ok", ("foo bar",)),
        ("see https://a.example/b?c=1.", ("https://a.example/b?c=1",)),
        ("(see https://a.example/b), www.a.example!", ("https://a.example/b", "www.a.example")),
        ("https://a.example/Mercury_(planet)", ("https://a.example/Mercury_(planet)",)),
        ("mail ada@example.org, please", ("ada@example.org",)),
        ("open /etc/hosts", ("/etc/hosts",)),
        ("order A-123 and B7", ("A-123", "B7")),
        ("C++ or C#", ("C++", "C#")),
        ("a plain sentence. Nothing else", ()),
    ],
)
def test_identifiers(text: str, code: tuple[str, ...]) -> None:
    assert signals(text).code == code


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I can cancel", 0),
        ("I can't cancel", 1),
        ("I can’t cancel", 1),
        ("do not, never, without", 3),
        ("everything except that", 1),
        ("i dont know", 1),
        ("NOT this", 1),
    ],
)
def test_negations(text: str, count: int) -> None:
    assert signals(text).negations == count


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("at least 5", "bounds", (">=",)),
        ("over 5, under 6", "bounds", (">", "<")),
        ("prices increased", "poles", ("+increase",)),
        ("prices are decreasing", "poles", ("-increase",)),
        ("how many miles in a kilometre", "units", ("mi", "km")),
        ('say "good morning"', "quotes", ("good morning",)),
        ("it's the dogs' bowl", "quotes", ()),
        ("so 🙂 then ≤", "symbols", ("🙂", "≤")),
        ("how many are there", "question", "how many"),
        ("How come it fails?", "question", "why"),
        ("Is it free?", "question", "yes/no"),
        ("tell me", "question", ""),
        ("Wie kann ich das und nicht die Karte", "language", "de"),
        ("How do I do this with my card", "language", "en"),
        ("Comment puis-je le faire avec une carte dans le magasin", "language", "fr"),
        ("x", "language", ""),
    ],
)
def test_the_rest(text: str, field: str, value: object) -> None:
    assert getattr(signals(text), field) == value


def test_pairs_know_which_side_is_which() -> None:
    assert signals("from paris to rome").pairs & {("pari", "rom")}
    assert signals("eat before swimming").pairs == signals("swim after eating").pairs


def test_scripts_and_homoglyphs() -> None:
    found = signals("p\u0430ypal 東京")

    assert found.mixed == ("p\u0430ypal",)
    assert found.foreign == ("p\u0430ypal", "東京")
    assert found.scripts == {"latin", "cyrillic", "cjk"}
    assert signals("café naïve").foreign == ()


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        ("\u0410pple and B\u03bfb", ("\u0430pple", "b\u03bfb")),
        ("API-ключ, 日本語API, 5μm, α-helix", ()),
        ("café über Ærø", ()),
        ("\u0391\u0430", ("\u03b1\u0430",)),
    ],
)
def test_words_of_look_alike_alphabets(text: str, mixed: tuple[str, ...]) -> None:
    assert signals(text).mixed == mixed


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("pass\u200bword\ufeff \u202ereset", "password reset"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("a\x00b\td", "a b d"),
        ("don’t “do” it", 'don\'t "do" it'),
        ("cafe\u0301", "café"),
        ("\ud800x", "?x"),
        ("  a \r\n\n b ", "a\n\nb"),
        ("\u00ad\u200d", ""),
    ],
)
def test_normalise(text: str, plain: str) -> None:
    assert normalise(text) == plain


@settings(max_examples=examples(150), deadline=None)
@given(st.text(st.characters(), max_size=80))
def test_any_text_has_signals_and_normalising_twice_changes_nothing(text: str) -> None:
    plain = normalise(text)

    assert normalise(plain) == plain
    assert signals(text) == signals(plain)
    plain.encode()


PIECES = [
    "a", "1", "1,", "'", '"', "`", "``` ", "a'", "a.", "a_", "- 1", "<", "$1", "May 1 ", "1 million", "one hundred ",
    "http://", "a@", "x to y ", ".", "12:", "🙂", "\u200b", "ﷺ", "a\u0301", "aа", "\ud800", "\n", "A a ", "a::",
    "«", "東京", "n't ", "1°", "up to ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_bounded_on_hostile_text(piece: str) -> None:
    text = (piece * READ_CHARS)[: 10 * READ_CHARS]
    began = time.process_time()

    found = signals(text)

    # 20 to 80 ms where measured; a quadratic pattern takes many seconds.
    assert time.process_time() - began < 1.5
    assert found.cut == (len(text) > READ_CHARS)
