"""Logs in short form: decoded to the same characters, whatever comes in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.log_form import HEADER, decode_log
from farthing.compress.recode_log import LogRule, encode_log
from tests.fakes.hostile_texts import BAD_TEXTS, any_text, texts_of
from tests.fakes.steps import steps

RULE = LogRule()


def body(short: str | None) -> list[str]:
    assert short is not None
    header, *lines = short.split("\n")
    assert header == HEADER
    return lines


def restored(text: str) -> str | None:
    """The short form of the text, which must decode to it."""
    short = RULE.encode(text)
    if short is not None:
        assert decode_log(short) == text
        assert RULE.restores(text, short)
        assert RULE.encode(short) is None
    return short


def test_a_time_is_said_once_and_each_line_keeps_what_differs() -> None:
    text = "\n".join(f"2026-03-01T10:00:{s:02}.{s * 37 % 1000:03}Z api[{s}]: got {s} rows" for s in range(40))

    assert body(restored(text))[:3] == [
        "@ 2026-03-01T10:00:…Z …",
        "00.000 api[0]: got 0 rows",
        "01.037 api[1]: got 1 rows",
    ]


def test_a_line_of_another_kind_stands_whole_between_the_others() -> None:
    lines = [f"2026-03-01 10:00:{s:02},000 INFO worker step {s}" for s in range(60)]
    lines[50] = "2026-03-01 10:00:50,000 ERROR worker lost its lease id=7f3a"
    lines[51:51] = ["Traceback (most recent call last):", '  File "a.py", line 3, in run', "KeyError: 'x'"]

    short = body(restored("\n".join(lines)))

    assert "| 2026-03-01 10:00:50,000 ERROR worker lost its lease id=7f3a" in short
    assert '  File "a.py", line 3, in run' in short
    assert "51,000 51" in short


def test_the_words_of_a_message_stay_together() -> None:
    lines = [f"2026-03-01 10:00:{s:02} {'WARN' if s % 2 else 'INFO'} worker step {s}" for s in range(60)]

    assert "07 WARN worker step 7" in body(restored("\n".join(lines)))


TABLES = {
    "markdown": "| temp | date |\n|---|---|\n"
    + "".join(f"| {n} | 2010/10/04 {n % 24:02}:00:00 |\n" for n in range(60)),
    "csv": "date,temp\n" + "".join(f"2010/10/04 {n % 24:02}:00:00,{n}\n" for n in range(60)),
    "padded": "Temps:\n\ntemp   date\n" + "".join(f"{n:4}   2010/10/04 {n % 24:02}:00:00\n" for n in range(60)),
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_with_times_is_no_log(text: str) -> None:
    assert restored(text) is None


def test_minutes_are_said_once_only_where_hours_are() -> None:
    text = "".join(f"2010-10-{n // 24 + 1:02} {n % 24:02}:00:{n * 7 % 60:02} up {n * 37 % 91}\n" for n in range(240))

    assert "00:00:00 0" in body(restored(text))


FORMATS = {
    "iso": "2026-03-01T10:{m:02}:{s:02}.123Z web-1 api[77]: INFO request {n} done",
    "offset": "2026-03-01T10:{m:02}:{s:02}+01:00 web-1 api: INFO request {n} done",
    "log4j": "2026-03-01 10:{m:02}:{s:02},123 [main] INFO  com.example.Api - request {n} done",
    "syslog": "Mar  1 10:{m:02}:{s:02} web-1 sshd[77]: request {n} done",
    "apache": '10.0.0.{n} - - [01/Mar/2026:10:{m:02}:{s:02} +0000] "GET /v1/{n} HTTP/1.1" 200 {n}',
    "nginx": "2026/03/01 10:{m:02}:{s:02} [error] 77#77: *{n} open() failed",
    "klog": "I0301 10:{m:02}:{s:02}.123456       1 main.go:{n}] synced",
    "bracket": "[2026-03-01 10:{m:02}:{s:02}] app.INFO: request {n} done",
    "colon": "update-alternatives 2026-03-01 10:{m:02}:{s:02}: link group {n} updated",
    "one second": "2026-03-01 10:{m:02}:00 status half-configured lib{n}:amd64",
    "numbered host": "web-{m}  | 2026-03-01T10:{m:02}:{s:02}.5Z GET /x/{n} 200",
    "level first": "INFO  2026-03-01 10:{m:02}:{s:02} request {n} done",
    "search": "src/compress/recode_log.py:{n}:    return line({n})",
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_usual_formats_lose_a_sixth_of_their_characters_or_more(form: str) -> None:
    text = "\n".join(form.format(m=n // 40, s=n * 7 % 60, n=n) for n in range(90))

    short = restored(text)

    assert short is not None
    assert len(short) - len(HEADER) < len(text) * 5 / 6


def test_repeated_frames_are_counted() -> None:
    frames = ['  File "a.py", line 3, in lvl', "    return lvl(k - 1)"]
    text = "\n".join(["Traceback (most recent call last):", *frames * 47, "KeyError: 'x'"])

    assert body(restored(text)) == [
        "Traceback (most recent call last):",
        *frames,
        "@ the 2 lines above, 46 times more",
        "KeyError: 'x'",
    ]


def test_a_trace_that_comes_again_is_named_by_its_first_line() -> None:
    trace = ["Traceback (most recent call last):", *(f'  File "m{i}.py", line {i}, in f{i}' for i in range(70))]
    text = "\n".join([*trace, "KeyError: 'x'", "", "then", *trace, "KeyError: 'y'"])

    assert body(restored(text))[71:] == [
        "KeyError: 'x'",
        "",
        "then",
        trace[0],
        "@ then the same 70 lines as after the last line like this one",
        "KeyError: 'y'",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "plain prose\nof two lines", "a\nb\nc\nd\ne", "1\n2\n3\n4\n5", "12:00:00 once\n" * 3, HEADER + "\n@ a…\n1"],
)
def test_what_has_nothing_in_common_is_left_alone(text: str) -> None:
    assert encode_log(text) is None


@pytest.mark.parametrize(
    "short",
    [
        "",
        "x",
        HEADER,
        f"{HEADER}\n@ nothing known",
        f"{HEADER}\n@ the 1 line above, 2 times more",
        f"{HEADER}\na\n@ the 0 lines above, 2 times more",
        f"{HEADER}\na\n@ the 2 lines above, 2 times more",
        f"{HEADER}\na\n@ then the same 1 lines as after the last line like this one",
        f"{HEADER}\na\na\n@ then the same 3 lines as after the last line like this one",
        f"{HEADER}\n@ a…b…\n1",
    ],
)
def test_what_is_no_short_form_decodes_to_nothing(short: str) -> None:
    assert decode_log(short) is None


def test_a_short_form_that_would_fill_the_memory_is_refused() -> None:
    bomb = "\n".join([HEADER, "x" * 1000, *["@ the 1 line above, 9999999 times more"] * 9])

    assert decode_log(bomb) is None


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_texts_are_left_alone_or_come_back(text: str) -> None:
    restored(text)


@given(any_text())
def test_any_text_is_left_alone_or_comes_back(text: str) -> None:
    restored(text)


LINES = [
    "2026-03-01T10:00:00.123Z api[1]: INFO up\n",
    "2026-03-01T10:00:01.123Z api[2]: INFO up\n",
    "2026-03-01T10:01:01Z api[2]: WARN  up\n",
    "2026-03-01T10:00:59,5+01:00\n",
    "a/b.py:12: x\n",
    "a/b.py:13-y\n",
    "7 starts with a digit\n",
    "@ 2026…\n",
    "@ the 1 line above, 2 times more\n",
    "| kept\n",
    "  File x\n" * 20,
    HEADER + "\n",
    "10:00:00",
]


@given(texts_of(*LINES))
def test_lines_of_logs_in_any_order_are_left_alone_or_come_back(text: str) -> None:
    restored(text)


@given(any_text())
def test_the_decoder_never_raises(text: str) -> None:
    decode_log(f"{HEADER}\n@ a…b…\n{text}")


@given(st.integers(0, 2**32))
def test_the_same_text_gives_the_same_short_form(seed: int) -> None:
    rng = random.Random(seed)
    text = "\n".join(rng.choice(LINES) for _ in range(30))

    assert encode_log(text) == encode_log(text)


PATHOLOGICAL = {
    "two lines taking turns": lambda n: "2026-03-01T10:00:00Z a\n2026-03-01T10:01:00Z a\n" * n,
    "one line": lambda n: "same line\n" * n,
    "blocks that nearly repeat": lambda n: "\n".join(f"line {i % 97} of {i % 89}" for i in range(2 * n)),
    "long lines": lambda n: ("12:00:00 " * n + "\n") * 6,
    "colons": lambda n: "a:" * n + "\n" * 6 + "1:" * n,
    "copies of copies": lambda n: "\n".join(str(i & (i >> 3)) + " some words that fill the line" for i in range(n)),
}


@pytest.mark.parametrize("make", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_twice_the_text_is_at_most_little_more_than_twice_the_work(make: object) -> None:
    assert callable(make)
    small, large = make(2000), make(4000)

    assert steps(lambda: restored(large)) <= 2.2 * steps(lambda: restored(small)) + 2000
    restored(make(40_000))
