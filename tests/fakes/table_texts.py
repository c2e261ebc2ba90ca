"""Tables in texts for property tests: each way of writing them, with hostile cells and text around them."""

from __future__ import annotations

import csv
import io

from hypothesis import strategies as st

__all__ = ["table_texts", "written"]

_NAMES = st.sampled_from(
    ["id", "name", "a b", "%CPU", "x.y", "Größe", "state", "Memory (MB)", "lower", "a=b", "", "1", "#n", 'q"']
)
_CELLS = st.sampled_from(
    [
        *(
            "1",
            "2.50",
            "x",
            "two words",
            "New York",
            "",
            "-",
            "#",
            "#1",
            "a=b",
            "state=ok",
            "a,b",
            "a;b",
            "a|b",
            'say "x"',
        ),
        *(
            '"',
            "\\",
            "é",
            "日本",
            "NaN",
            "null",
            "2026-01-01",
            " lead",
            "\u2028",
            "; aligned l",
            "a  b",
            "\ud800",
            "\x00",
        ),
    ]
)
_AROUND = st.sampled_from(
    [
        *("", "", "Here:\n\n", "a, b, c\n", "text\r\n", "\n\n", "```\n", "Table, 3 rows\n"),
        *("# h\n", "x  y\n", "{\n", '{"a": 1,\n'),
    ]
)
WAYS = ("csv", "tsv", "semicolons", "markdown", "bare pipes", "grid", "left", "right", "ruled")


def written(way: str, rows: list[list[str]]) -> str:
    """The rows, the first of them the head, written in one of the ways."""
    if way in ("csv", "tsv", "semicolons"):
        out = io.StringIO()
        csv.writer(out, delimiter={"csv": ",", "tsv": "\t", "semicolons": ";"}[way], lineterminator="\n").writerows(
            rows
        )
        return out.getvalue()
    if way in ("left", "right", "ruled"):
        widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
        lines = [
            "".join(c.rjust(w) if way == "right" else c.ljust(w) for c, w in zip(row, widths, strict=True))
            for row in rows
        ]
        rule = ["".join("-" * (w - 2) + "  " for w in widths)] if way == "ruled" else []
        return "\n".join([lines[0], *rule, *lines[1:], ""])
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    if way == "bare pipes":
        return "\n".join([lines[0], "-+-".join("-" * w for w in widths), *lines[1:], ""])
    lines = [f"| {line} |" for line in lines]
    if way == "grid":
        border = "+" + "+".join("-" * (w + 2) for w in widths) + "+"
        return "\n".join([border, lines[0], border, *lines[1:], border, ""])
    marks = [("---", ":--", "--:", ":-:")[len(name) % 4] for name in rows[0]]
    return "\n".join([lines[0], "|" + "|".join(marks) + "|", *lines[1:], ""])


@st.composite
def table_texts(draw: st.DrawFn) -> str:
    """A text with one or two tables in it."""
    text = draw(_AROUND)
    for _ in range(draw(st.integers(1, 2))):
        width, count = draw(st.integers(2, 5)), draw(st.integers(2, 24))
        columns = []
        for name in draw(st.lists(_NAMES, min_size=width, max_size=width)):
            few = draw(st.lists(_CELLS, min_size=1, max_size=5))
            run = draw(st.sampled_from([1, 1, 4, 30]))
            columns.append([name, *(few[place // run % len(few)] for place in range(count))])
        table = written(draw(st.sampled_from(WAYS)), [list(row) for row in zip(*columns, strict=True)])
        if draw(st.integers(0, 9)) == 0:
            table = table.replace("\n", "\r\n")
        text += table + draw(_AROUND)
    return text
