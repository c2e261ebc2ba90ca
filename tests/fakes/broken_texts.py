"""Hostile texts for property tests of lossy compression: pieces of every kind, broken ones too, in any order."""

from __future__ import annotations

import json

from hypothesis import strategies as st

__all__ = ["PRECIOUS", "hostile_texts", "long_texts"]

# What must come out as it went in, wherever it stands between spaces.
PRECIOUS = (
    '"to be, or not"',
    "`rm -rf /tmp/x`",
    "https://a.example/b?c=d&e=%20f#g",
    "/usr/lib/python3/x.py",
    "C:\\Windows\\system32\\drivers",
    "src/main/App.kt",
    "ord_8f3a2c91",
    "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "2026-03-01T09:00:00.182Z",
    "10.9.204.218:8443",
    "1.234,56",
    "12 %",
    "$3.50",
    "-127",
    "1e-9",
    "0x7ffd",
    "fooBar.baz()",
    "std::vector",
    "snake_case_name",
    "me@example.org",
    "--dry-run=true",
    "#4017",
    "NASA",
    "“curly words”",
    "«guillemets»",
)
_PROSE = (
    "The committee met in the old house by the river.",
    "It was late; nobody came.",
    "He said so, e.g. to Mr. Smith.",
    "这是一个句子。第二个句子！",
    "Ёлка стоит в углу.",
    "Is it so? Yes!",
)
_JUNK = (
    "",
    " ",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\t",
    "\x00",
    "\ud800",
    "\udfff",
    "\ufeff",
    "\u2028",
    "\x1b[31m",
    '"',
    "'",
    "`",
    "```",
    "~~~",
    "``` ```",
    "“",
    "|",
    "| a | b |",
    "|---|",
    "{",
    "}",
    "[1,",
    '{"a": [1, 2, 3]}',
    "<b>",
    "<" * 30,
    "a" * 300,
    "_" * 50,
    "1." * 40,
    "(((((",
    "\\" * 9,
    "- ",
    "1. item",
    "    indented",
    "diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+b\n",
    'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    g()\nValueError: 3\n',
    "2026-03-01T09:00:00Z INFO up",
    "ERROR down",
    "Title:",
    "# Heading",
    "a,b,c",
    "[doc v2, updated 2026-01-15]",
)


def hostile_texts() -> st.SearchStrategy[str]:
    """Any of it, joined by anything."""
    piece = st.one_of(st.sampled_from(_JUNK + _PROSE + PRECIOUS), st.text(max_size=6))
    return st.lists(st.tuples(piece, st.sampled_from(["", " ", "\n", "\n\n", ". "])), max_size=60).map(
        lambda pairs: "".join(a + b for a, b in pairs)
    )


def long_texts() -> st.SearchStrategy[str]:
    """Texts long enough to be squeezed: logs, tables, JSON rows and passages, whole or broken by hostile pieces."""
    words = st.sampled_from(["alpha", "beta", "delta", "node-29", "error", "42", "2026-01-02", "value", "😀", "naïve"])
    phrase = st.lists(words, min_size=2, max_size=9).map(" ".join)
    lines = st.lists(phrase, min_size=12, max_size=40)
    log = lines.map(lambda found: "\n".join(f"2026-03-01T09:00:{i % 60:02d}Z {line}" for i, line in enumerate(found)))
    table = lines.map(lambda found: "key,text,number\n" + "\n".join(f"k{i},{line},{i}" for i, line in enumerate(found)))
    rows = lines.map(lambda found: json.dumps([{"id": i, "text": x} for i, x in enumerate(found)], indent=1))
    passage = "[doc {0}]\nIt has {1}. They say so. Then {1}!"
    prose = lines.map(lambda found: "\n\n".join(passage.format(i, line) for i, line in enumerate(found)))
    whole = st.one_of(log, table, rows, prose)
    return st.one_of(whole, st.tuples(whole, hostile_texts(), st.integers(0, 2000)).map(_broken))


def _broken(parts: tuple[str, str, int]) -> str:
    whole, hostile, place = parts
    return whole[:place] + hostile + whole[place:]
