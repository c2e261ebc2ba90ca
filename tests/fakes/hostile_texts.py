"""Texts that break careless text code: every kind of character, line end and repetition, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["BAD_TEXTS", "any_text", "texts_of"]

BAD_TEXTS = [
    "",
    "\n",
    "\n" * 50,
    "\ufeff2026-03-01T10:00:00Z a\n" * 5,
    "a\r\nb\nc\rd\r\r\n\n\r" * 9,
    "\x00\x01\x02\x7f\x80\xff" * 40,
    "\x1b" * 30,
    "\x1b[" * 30,
    "\x1b[31" + ";1" * 4000,
    "\x1b]8;;http://a.example/" + "a" * 900,
    "\ud800\udfff lone \udc00 surrogates \ud83d\n" * 9,
    "e\u0301\u200d\u202e\u2066 \U0001f469\u200d\U0001f467 \u3000\u2028\u2029\x85\x0b\x0c\n" * 9,
    "<" * 500,
    "<div>" * 3000,
    "<a <b <c " * 500,
    "&#x110000;&#xd800;&amp" * 200,
    "…@ | [\n" * 20,
    "| | @ a…b…\n" * 20,
    "@ the 1 line above, 9 times more\n" * 20,
    "data:;base64," * 100,
    "A" * 20_000,
    "0123456789abcdef" * 2000,
    " " * 5000 + "\n",
    "\t \t \n" * 500,
    "12:00:00" * 500,
]

_PIECES = st.one_of(
    st.text(max_size=12),
    st.characters(exclude_categories=()).map(str),
    st.sampled_from(["\n", "\r\n", "\r", "\ud800", "\x1b[", "\x1b[2K", "…", "| ", "@ ", "\t", "  ", "\u3000"]),
)


def texts_of(*more: str) -> st.SearchStrategy[str]:
    """Texts put together from `more` and from pieces that are hard to handle."""
    piece = st.one_of(st.sampled_from(more), st.sampled_from(more), _PIECES) if more else _PIECES
    return st.lists(piece, max_size=60).map("".join)


def any_text() -> st.SearchStrategy[str]:
    """Texts of any characters at all, lone surrogates among them."""
    return st.text(st.characters(exclude_categories=()), max_size=300)
