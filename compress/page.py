"""The text of a HTML page as its elements come by: headings, lists, code, tables; what isn't content is dropped. Pure.

`Page` takes start tags, end tags and texts in the order of the document, as a parser calls them, and keeps no tree:
work and memory are linear in the page whatever is nested in what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DROPPED", "Page", "dropped"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


DROPPED = _names(
    "title script style noscript template svg canvas iframe object embed audio video map nav footer aside "
    "select datalist button dialog"
)
_DROPPED_ROLES = _names("navigation banner contentinfo search complementary menu menubar dialog")
_VOID = _names("area base br col embed hr img input link meta param source track wbr")
_PARAGRAPHS = _names(
    "p div section article main header blockquote figure figcaption address details summary fieldset form body html "
    "dl ul ol table hr center h1 h2 h3 h4 h5 h6 pre"
)
_LINES = _names("li dt dd tr caption legend")
_HEADINGS = {f"h{n}": "#" * n + " " for n in range(1, 7)}
_BLANKS = re.compile(r"[ \t\n\r\f\v]+")
_DEEPEST_LIST = 8
_ANCHORS = frozenset("¶#§🔗")


def dropped(tag: str, attributes: Mapping[str, str]) -> bool:
    """Whether an element and all that it holds isn't content."""
    return (
        tag in DROPPED
        or attributes.get("role", "") in _DROPPED_ROLES
        or "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
    )


@dataclass(slots=True)
class _Box:
    """Text that is being gathered: the page's, or that of a cell.

    `links`: targets to be named at the end of the line. `gap`: line ends due before the next text.
    """

    parts: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    gap: int = 0
    space: bool = False

    def text(self) -> str:
        self.name_links()
        return "".join(self.parts)

    def name_links(self) -> None:
        self.parts += [f" <{link}>" for link in self.links]
        self.links.clear()


@dataclass(slots=True)
class _Table:
    """`row`: the cells so far; `head`: whether the row's cells are all heads."""

    rows: int = 0
    row: list[str] = field(default_factory=list)
    head: bool = True


class Page:
    """The reduced text of one page. `start`, `end`, `data` and `close` are what lxml calls a parser target."""

    def __init__(self) -> None:
        self._boxes = [_Box()]
        self._tables: list[_Table] = []
        self._lists: list[int] = []  # the next number of an ordered list, 0 for an unordered one
        self._links: list[tuple[str, int]] = []  # target, and how many parts the box had at its start
        self._known: set[str] = set()
        self._mark = ""  # stands before the next text: of a heading, of a list's item
        self._pre = 0
        self._dropped = 0
        self._title: list[str] | None = None  # the first title's text; it is written where the page has no heading
        self._in_title = self._headed = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if tag == "title" and self._title is None and not self._dropped:
            self._title, self._in_title = [], True
        if self._dropped or dropped(tag, attributes):
            self._dropped += tag not in _VOID
            return
        self._break(self._gap(tag))
        if tag in _HEADINGS:
            self._mark = _HEADINGS[tag]
            self._headed = True
        elif tag == "pre":
            self._pre += 1
            if self._pre == 1:
                self._write("```")
                self._break(1)
        elif tag in ("ul", "ol"):
            self._lists.append(int(tag == "ol"))
        elif tag == "li":
            self._item()
        elif tag == "a":
            self._links.append((attributes.get("href", ""), len(self._boxes[-1].parts)))
        elif tag == "br":
            self._break(1)
        elif tag == "img":
            if alt := _BLANKS.sub(" ", attributes.get("alt", "")).strip():
                self._write(f"[image: {alt}]")
        elif tag == "table":
            self._tables.append(_Table())
        elif tag in ("td", "th") and self._tables:
            self._tables[-1].head &= tag == "th"
            self._boxes.append(_Box())

    def end(self, tag: str) -> None:
        """An element ends."""
        self._in_title &= tag != "title"
        if self._dropped:
            self._dropped -= tag not in _VOID
            return
        if tag == "pre" and self._pre:
            self._pre -= 1
            if not self._pre:
                box = self._boxes[-1]
                box.gap = int(not box.parts[-1].endswith("\n"))
                self._write("```")
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif tag == "a" and self._links:
            self._link(*self._links.pop())
        elif tag in ("td", "th") and self._tables and len(self._boxes) > 1:
            self._tables[-1].row.append(self._boxes.pop().text().strip())
        elif tag == "tr" and self._tables:
            self._row(self._tables[-1])
        elif tag == "table" and self._tables:
            self._row(self._tables.pop())
        if tag in _HEADINGS or tag == "li":
            self._mark = ""  # of one without words
        self._break(self._gap(tag))

    def data(self, text: str) -> None:
        """Text between tags."""
        if self._dropped:
            if self._in_title and self._title is not None:
                self._title.append(text)
            return
        if self._pre:
            begins = self._boxes[-1].parts[-1:] == ["```"]
            self._write(text.removeprefix("\n") if begins else text)
            return
        words = _BLANKS.sub(" ", text)
        box = self._boxes[-1]
        if words[:1] == " ":
            box.space = True
            words = words[1:]
        if words:
            ends = words[-1] == " "
            self._write(words.rstrip(" "))
            box.space = ends

    def close(self) -> str:
        """The page's text, whatever is still open."""
        while len(self._boxes) > 1:
            inner = self._boxes.pop().text().strip()
            self._break(1)
            self._write(inner)
        text = self._boxes[0].text().strip("\n")
        title = _BLANKS.sub(" ", "".join(self._title or ())).strip()
        return f"# {title}\n\n{text}" if title and not self._headed else text

    def _gap(self, tag: str) -> int:
        """The line ends before and after an element: a blank line around paragraphs, but not within code and lists."""
        if tag in _PARAGRAPHS:
            return 1 if self._pre or (tag in ("ul", "ol") and self._lists) else 2
        return int(tag in _LINES)

    def _break(self, lines: int) -> None:
        if not lines:
            return
        box = self._boxes[-1]
        box.name_links()
        box.gap = max(box.gap, lines)
        box.space = False

    def _write(self, text: str) -> None:
        """Text after the line ends or the blank that are due before it."""
        if not text:
            return
        box = self._boxes[-1]
        if box.parts:
            box.parts.append("\n" * box.gap or " " * box.space)
        if self._mark:
            box.parts.append(self._mark)
            self._mark = ""
        box.parts.append(text)
        box.gap, box.space = 0, False

    def _item(self) -> None:
        depth = min(len(self._lists), _DEEPEST_LIST)
        number = self._lists[-1] if self._lists else 0
        self._mark = "  " * (depth - 1) + (f"{number}. " if number else "- ")
        if number:
            self._lists[-1] += 1

    def _link(self, target: str, start: int) -> None:
        """A link's target, once, where it can be followed from anywhere; the anchors beside headings go."""
        box = self._boxes[-1]
        words = box.parts[start : start + 4]
        if target.startswith("#") and "".join(words).strip() in _ANCHORS:
            del box.parts[start:]
        elif target.startswith(("http://", "https://")) and target not in self._known and words:
            self._known.add(target)
            box.links.append(target)

    def _row(self, table: _Table) -> None:
        """A row in one line, its cells between bars; where a cell has lines of its own, the cells one after another."""
        cells, head = table.row, table.head
        table.row, table.head = [], True
        if not any(cells):
            return
        self._break(1)
        if any("\n" in cell for cell in cells):
            for cell in cells:
                self._break(1)
                self._write(cell)
        else:
            self._write("|".join(cell.replace("|", "\\|") for cell in cells))
            if head and not table.rows and len(cells) > 1:
                self._break(1)
                self._write("|".join("-" * len(cells)))
        table.rows += 1
