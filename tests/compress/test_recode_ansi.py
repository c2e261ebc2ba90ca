"""Terminal output as plain text: what is shown in the end is the same, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given

from farthing.compress.recode_ansi import AnsiRule
from farthing.compress.screen import shown
from tests.fakes.hostile_texts import BAD_TEXTS, any_text, texts_of
from tests.fakes.steps import steps

RULE = AnsiRule()

ESC = "\x1b"
LINK = f"{ESC}]8;;https://a.example/p{ESC}\\the page{ESC}]8;;{ESC}\\"


def recoded(text: str) -> str | None:
    short = RULE.encode(text)
    if short is not None:
        assert RULE.restores(text, short)
        assert RULE.encode(short) in (None, short)
        assert ESC not in short
    return short


SHOWN = [
    (f"{ESC}[1;31mred{ESC}[0m plain", "red plain"),
    (f"{ESC}[38;5;196mx{ESC}[38:2::1:2:3my{ESC}[m", "xy"),
    (f"{ESC}]0;title\x07text", "text"),
    (f"see {LINK}!", "see the page <https://a.example/p>!"),
    (f"{ESC}[1mcollecting ... {ESC}[0m{ESC}[1m\rcollected 5 items{ESC}[0m", "collected 5 items"),
    (f"{ESC}]8;id=1;https://a.example/p\x07x{ESC}]8;;\x07{ESC}[0m", "x <https://a.example/p>"),
    (f"{ESC}]8;;file://host/a\x07a{ESC}]8;;\x07", "a"),
    (f"{ESC}[?25lhidden cursor{ESC}[?25h", "hidden cursor"),
    ("bell\x07", "bell"),
    ("end   \nnext\t\n", "end\nnext\n"),
    ("dos\r\nends\r\n", "dos\nends\n"),
    ("10%\r55%\r100%\ndone\n", "100%\ndone\n"),
    ("Downloading 1 MB\rDownloading 12 MB\rDownloading 9 MB\nok", "Downloading 9 MBB\nok"),
    (f"Downloading 1 MB\r{ESC}[KDone\nok", "Done\nok"),
    ("|\r/\r-\r\\\r \nok", "\nok"),
    (f"a\nb\n{ESC}[2A{ESC}[Kpulled\n{ESC}[Bnext", "pulled\nb\nnext"),
    (f"one{ESC}[2Dxy{ESC}[1Gz", "zxy"),
    (f"abc{ESC}[1K.{ESC}[3D", "   ."),
    (f"a\nb\nc{ESC}[2F{ESC}[J.", "."),
    ("abc\b\bX\n", "aXc\n"),
    (f"界x\r{ESC}[Cy", " yx"),
    (f"界x\r{ESC}[2Cy", "界y"),
    (f"e\u0301x\r{ESC}[Cy", "e\u0301y"),
    (f"a\tb\r{ESC}[8Cc", "a       c"),
]


@pytest.mark.parametrize(("text", "plain"), SHOWN)
def test_what_a_terminal_shows_in_the_end(text: str, plain: str) -> None:
    assert recoded(text) == plain


UNKNOWN = [
    f"{ESC}[2J{ESC}[Htop",
    f"{ESC}[5;5Hplace",
    f"{ESC}[?1049hother screen",
    f"{ESC}[3;20rscrolling",
    f"{ESC}7saved{ESC}8",
    f"cut off {ESC}[31",
    f"cut off {ESC}]8;;http://a",
    "mac\rline\rends",
    "first line\rsecond line\rand so on\n",
    "1,2\r3,4\r5,6\r",
    f"far{ESC}[9999C" * 3000 + "\n",
    "e" + "\u0301" * 500 + "\r\x1b[K",
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_depends_on_things_unknown_is_left_alone(text: str) -> None:
    assert recoded(text) is None or text.startswith("far")
    assert len(recoded(text) or "") <= 8 * len(text) + 70_000


RICH = """\
┏━━━━━━┳━━━━━━━┓
┃ name ┃ count ┃
┡━━━━━━╇━━━━━━━┩
│ a b  │     1 │
│ c    │    22 │
└──────┴───────┘
after"""
MYSQL = """\
+----+-------+
| id | name  |
+----+-------+
|  1 | x     |
|  2 |       |
+----+-------+"""
WRAPPED = """\
╔════╦═══════╗
║ id ║ text  ║
╠════╬═══════╣
║ 1  ║ long  ║
║    ║ text  ║
╟────╫───────╢
║ 2  ║ short ║
╚════╩═══════╝"""
PANEL = """\
╭──────────────╮
│ def f():     │
│     return 1 │
╰──────────────╯"""
TABLES = [
    (RICH, "name|count\n-|-\na b|1\nc|22\nafter"),
    (MYSQL, "id|name\n-|-\n1|x\n2|"),
    (WRAPPED, "id|text\n-|-\n1|long\n|text\n-|-\n2|short"),
    (PANEL, "def f():\n    return 1"),
    (f"{RICH}\n{PANEL}\n{PANEL}", "name|count\n-|-\na b|1\nc|22\nafter" + "\ndef f():\n    return 1" * 2),
    (f"{WRAPPED}\n{PANEL}", "id|text\n-|-\n1|long\n|text\n-|-\n2|short\ndef f():\n    return 1"),
]


@pytest.mark.parametrize(("text", "tight"), TABLES)
def test_drawn_tables_keep_their_cells(text: str, tight: str) -> None:
    assert recoded(text) == tight


UNDRAWN = [
    "├── src\n│   └── a.py\n└── b.py",
    "+---+\n| a|b |\n| c |\n+---+",
    "╭─ Title ─╮\n│ text    │\n╰─────────╯",
    "│ a │\n│ b │",
    "+1+\n+2+\n+3+",
    "┌──┬──┐\n│ a|b │ c │\n└──┴──┘",
    "+ added |\n+ more |\n+ third |",
    "||\n||\n||",
]


@pytest.mark.parametrize("text", UNDRAWN)
def test_what_is_no_table_stays_as_it_is_drawn(text: str) -> None:
    assert recoded(text) is None


WRONG = [
    (RICH, "name|count\n-|-\na b|1\nc|2\nafter"),
    (RICH, "name|count\n-|-\nc|22\na b|1\nafter"),
    (RICH, "name|count\n-|-\na b|1\nafter"),
    (RICH, "name|count\n-|-\na b|1\nc|22\nafter\nmore"),
    (f"{ESC}[1mred", "rod"),
    ("a\rb", "b"),
    ("x", f"{ESC}[mx"),
]


@pytest.mark.parametrize(("text", "short"), WRONG)
def test_a_wrong_text_doesnt_restore(text: str, short: str) -> None:
    assert not RULE.restores(text, short)


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_texts_are_left_alone_or_shown(text: str) -> None:
    recoded(text)


@given(any_text())
def test_any_text_is_left_alone_or_shown(text: str) -> None:
    recoded(text)


@given(
    texts_of(RICH, MYSQL, f"{ESC}[31m", f"{ESC}[K", f"{ESC}[2A", f"{ESC}[5C", LINK, "\r", "\b", "│", "┌──┐", "界", "%")
)
def test_any_terminal_output_is_left_alone_or_shown(text: str) -> None:
    recoded(text)


@given(texts_of("word ", "| a | b |\n", "  ", "\n"))
def test_without_escapes_only_blanks_at_line_ends_and_drawn_tables_go(text: str) -> None:
    short = recoded(text)
    if short is not None and "\r" not in text and "\b" not in text and "\x07" not in text and "+" not in text:
        assert short.split("\n") == [line.rstrip(" \t") for line in text.split("\n")] or ESC in text


PATHOLOGICAL = {
    "redraws": lambda n: "".join(f"{i}%\r" for i in range(n)) + "\n",
    "cursor up and down": lambda n: f"a\n{ESC}[A{ESC}[Kb\n" * n,
    "erased to the left": lambda n: "x" * n + f"{ESC}[1K" * n,
    "far moves": lambda n: f"{ESC}[9999Cx\n" * n,
    "open titles": lambda n: f"{ESC}]0;" * n,
    "open parameters": lambda n: f"{ESC}[1" + ";1" * n,
    "combining": lambda n: "\r\x1b[K" + "\u0301" * n,
    "bars": lambda n: "┌┐\n" + "│a│\n" * n + "└┘",
    "rules": lambda n: "+-+\n" * n,
    "rows of tight rules": lambda n: "+-+\n" + "|-|\n" * n + "+-+",
}


@pytest.mark.parametrize("make", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_twice_the_text_is_at_most_little_more_than_twice_the_work(make: object) -> None:
    assert callable(make)
    small, large = make(1500), make(3000)

    assert steps(lambda: recoded(large)) <= 2.2 * steps(lambda: recoded(small)) + 2000
    recoded(make(30_000))


def test_the_screen_of_nothing_is_one_empty_line() -> None:
    assert shown("") == [""]
