"""Tables as rows: every way of writing them, the equal cells back, the text around them as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.compress.recode import recode
from farthing.compress.recode_json import JsonRows
from farthing.compress.recode_table import Tables, decode_tables
from farthing.compress.table_blocks import Table, find_tables
from farthing.proxy.tokens import Tokenizer
from tests.fakes.examples import examples
from tests.fakes.like_objects import damaged
from tests.fakes.table_texts import WAYS, table_texts, written

TABLES = Tables()
TOKENIZER = Tokenizer()
ROWS = [["site", "variety", "year", "yield per acre"]] + [
    [f"site {n}", "Glabron" if n < 9 else "Velvet", "1931", str(n * 7.5)] for n in range(20)
]
SHORT = "\n".join(
    [
        "Table, 20 rows; name=value in the head: so in each row; a line after #: variety of the rows below it",
        "site,#variety,year=1931,yield per acre",
        "#Glabron",
        *(f"site {n},{n * 7.5}" for n in range(9)),
        "#Velvet",
        *(f"site {n},{n * 7.5}" for n in range(9, 20)),
    ]
)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_writing_a_table_gives_the_same_rows(way: str) -> None:
    text = f"The harvest:\n\n{written(way, ROWS)}\nThat is all.\n"
    short = TABLES.encode(text)

    assert short == f"The harvest:\n\n{_aligned(way)}\n\nThat is all.\n"
    assert TABLES.restores(text, short)
    assert TABLES.encode(short) is None


def _aligned(way: str) -> str:
    """Of these, only the Markdown table says how its columns are aligned: by the length of their names."""
    return SHORT.replace("below it", "below it; aligned -c-r") if way == "markdown" else SHORT


def test_a_row_that_differs_says_so_at_its_end() -> None:
    rows = [["id", "state", "size"], *([f"n{n}", "ready" if n != 7 else "broken, badly", str(n)] for n in range(30))]
    short = TABLES.encode(written("csv", rows))

    assert short is not None
    lines = short.split("\n")
    assert lines[0] == "Table, 30 rows; name=value in the head: so in each row that says no other at its end"
    assert lines[1] == "id,state=ready,size"
    assert lines[9] == 'n7,7,state="broken, badly"'


def test_a_print_of_pandas_has_a_column_without_a_name() -> None:
    rows = [["", "state", "size"], *([str(n), "ready for use", str(n)] for n in range(30))]
    short = TABLES.encode(written("right", rows))

    assert short is not None and short.split("\n")[1:3] == ['"",state=ready for use,size', "0,0"]


def test_padded_columns_may_lack_cells_where_they_stand_apart() -> None:
    rows = [["NAME", "STATUS", "RESTARTS"], *([f"pod-{n}", "Running" if n % 2 else "", "12345"] for n in range(30))]
    text = written("left", rows)

    assert [table.rows[0] for _, _, table in find_tables(text)] == [("pod-0", "", "12345")]


NO_TABLES = [
    "",
    "one line, with commas, three",
    "a, b\nc, d\n",
    "\n".join(["x = 1    # one", "yy = 2   # two", "zzz = 3  # three", "w = 4    # four"]),
    "\n".join(f'  "key{n}": {n},' for n in range(20)),
    "\n".join(f"2026-01-0{n}  INFO  started" for n in range(1, 9)),
    "\n".join(["def f(a,b):", "    g(a,b)", "    h(b,a)", "    i(a,a)", "    j(b,b)"]),
    "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 |\n| 3 | 4 |\n| 5 | 6 |\n",
    "a,b,c\n1,2\n3,4,5\n6,7,8\n9,9,9\n",
    "a,a\n1,2\n3,4\n5,6\n",
]


@pytest.mark.parametrize("text", NO_TABLES, ids=range(len(NO_TABLES)))
def test_what_is_ragged_or_code_or_prose_is_no_table(text: str) -> None:
    assert list(find_tables(text)) == []
    assert TABLES.encode(text) is None


def test_a_table_decodes_without_the_text() -> None:
    table = Table(tuple(ROWS[0]), tuple(map(tuple, ROWS[1:])))

    assert decode_tables(f"a\n{SHORT}\nb") == ["a\n", table, "\nb"]
    with pytest.raises(ValueError, match="fewer rows"):
        decode_tables(SHORT.removesuffix("\nsite 19,142.5"))


@given(text=table_texts())
@settings(max_examples=examples(300), deadline=None)
def test_every_form_decodes_to_equal_tables(text: str) -> None:
    short = TABLES.encode(text)
    if short is None:
        return
    parts = decode_tables(short)
    tables = [table for _, _, table in find_tables(text)]

    assert TABLES.restores(text, short)
    assert [part for part in parts if isinstance(part, Table)] == [t for t in tables if t in parts]
    around = [part for part in parts if isinstance(part, str)]
    assert text.startswith(around[0]) and text.endswith(around[-1])
    assert TABLES.encode(text) == short


@given(text=st.one_of(damaged(table_texts()), st.text(alphabet='ab,|-: \t\n"\r+#=\ud800', max_size=200)))
@settings(max_examples=examples(300), deadline=None)
def test_it_never_raises_and_never_errs(text: str) -> None:
    short = TABLES.encode(text)

    assert short is None or TABLES.restores(text, short)
    assert TABLES.restores(text, text + "x") is False


@given(text=table_texts(), data=st.data())
@settings(max_examples=examples(200), deadline=None)
def test_damaged_rows_are_refused_or_unequal(text: str, data: st.DataObject) -> None:
    short = TABLES.encode(text)
    if short is None:
        return
    broken = data.draw(damaged(st.just(short)))
    try:
        parts = decode_tables(broken)
    except ValueError:
        assert not TABLES.restores(text, broken)
    else:
        assert TABLES.restores(text, broken) == (parts == decode_tables(short))


@given(text=table_texts().filter(lambda text: text.isprintable() or "\ud800" not in text))
@settings(max_examples=examples(60), deadline=None)
def test_chosen_by_tokens_it_is_never_longer_and_comes_to_rest(text: str) -> None:
    rules = [JsonRows(), TABLES]
    found = recode(text, TOKENIZER.count, rules)
    if found is None:
        return

    assert found.tokens_after == TOKENIZER.count(found.text) < found.tokens_before == TOKENIZER.count(text)
    assert recode(found.text, TOKENIZER.count, rules) is None
