"""A HTML page as the text that a reader would see, in the plainest Markdown. It can't be undone: keep the original.

What goes: tags and attributes, scripts, styles, pictures without words; what isn't the page's content by its own markup
(nav, footer, aside, forms' choices and buttons, roles of navigation, search and banner, what is hidden); emphasis; the
targets of relative links, and of absolute ones after the first time. What stays: every other word in its order,
headings, lists, code blocks as they are, tables as tight tables. A title is only written where the page has no heading.

Parsed by lxml, as events without a tree. Why lxml (extra `html`): BSD, no dependencies, 12 MB, and of the fast parsers
measured the one that hostile pages can't blow up. Those that build HTML5's tree make 1.5 GB of 80 kB of open formatting
elements. What lxml is slow at, thousands of attributes in one tag, is looked for first.

Sources: HTML Living Standard (elements and their meaning), WAI-ARIA 1.2 (roles).
"""

from __future__ import annotations

import re
from typing import Any

from farthing.compress.page import Page, dropped

__all__ = ["HtmlRule", "reduce_html"]

_MOST_CHARS = 4_000_000
_FEWEST_CHARS = 200
_PAGE = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--[^>]{0,500}-->\s*)?(?:<!doctype\s+html|<html[\s>])", re.IGNORECASE
)
_FRAGMENT = re.compile(
    r"\s*<(?:head|body|div|p|table|ul|ol|dl|h[1-6]|section|article|main|header|span|center|font)[\s>]", re.IGNORECASE
)
_CLOSING = re.compile(
    r"</(?:div|p|table|ul|ol|dl|h[1-6]|section|article|main|header|span|td|li|a|center|font)>", re.IGNORECASE
)
_FEWEST_CLOSING = 8
_TAG = re.compile(r"<[a-zA-Z]")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_LONG_TAG_CHARS, _MOST_ATTRIBUTES = 4096, 512
_END = "\ue0d7"  # a private character after the page: if it doesn't come out, the parser gave up before
_WORD = re.compile(r"\w+")


class HtmlRule:
    """HTML pages as plain Markdown; needs the extra `html`."""

    name = "html"
    loss = (
        "markup, scripts, styles, navigation and other matter outside the content, emphasis, targets of relative links"
    )

    def encode(self, text: str) -> str | None:
        """The page's text; None for what isn't a page, or is one that can't be read to its end."""
        return reduce_html(text)

    def restores(self, text: str, short: str) -> bool:
        """Whether every word of the page's content stands in `short`, in order; read by another way than `encode`."""
        words = _content(text)
        at = 0
        for word in _WORD.findall(words) if words is not None else [_END]:
            at = short.find(word, at)
            if at < 0:
                return False
            at += len(word)
        return True


def reduce_html(text: str) -> str | None:
    """The page's text in plain Markdown; None for what isn't a page, or is one that can't be read to its end.

    Raises ImportError where the extra `html` isn't installed: the operator's fault.
    """
    if not _is_page(text):
        return None
    reduced = _parsed(text, Page())
    if not isinstance(reduced, str) or not reduced.endswith(_END):
        return None
    return reduced.removesuffix(_END).rstrip()


def _is_page(text: str) -> bool:
    """Whether a text is HTML of a size and form that is safe to parse. Linear."""
    if not _FEWEST_CHARS <= len(text) <= _MOST_CHARS or "\0" in text or _END in text:
        return False
    start = text.removeprefix("\ufeff")[:2000]
    if not _PAGE.match(start):
        closing = sum(1 for _, _ in zip(_CLOSING.finditer(text), range(_FEWEST_CLOSING), strict=False))
        if not _FRAGMENT.match(start) or closing < _FEWEST_CLOSING:
            return False
    return not any(_many_attributes(piece) for piece in text.split(">") if len(piece) > _LONG_TAG_CHARS)


def _many_attributes(piece: str) -> bool:
    tag = _TAG.search(piece)
    if tag is None:
        return False
    bare = _QUOTED.sub("", piece[tag.start() :])
    return len(bare.split()) + bare.count("/") > _MOST_ATTRIBUTES


def _parsed(text: str, target: Any = None) -> Any:
    """What the parser makes of a page; None where its characters can't be encoded."""
    from lxml import etree

    parser = etree.HTMLParser(target=target, encoding="utf-8", no_network=True, remove_pis=True)
    try:
        parser.feed((text.removeprefix("\ufeff") + f"<i>{_END}</i>").encode())
        return parser.close()
    except (UnicodeEncodeError, etree.ParserError):
        return None


def _content(text: str) -> str | None:
    """The words of a page's content by way of the parser's tree."""
    root = _parsed(text)
    if root is None:
        return None
    from lxml import etree

    texts: list[str] = []
    outside = 0
    for event, element in etree.iterwalk(root, events=("start", "end", "comment")):
        if event == "comment" or not isinstance(element.tag, str):
            texts.append("" if outside else element.tail or "")
            continue
        if event == "start":
            outside += bool(outside) or dropped(element.tag, element.attrib)
            texts.append("" if outside else element.text or "")
        else:
            outside -= bool(outside)
            texts.append("" if outside else element.tail or "")
    return " ".join(texts).replace(_END, "")
