"""How long a request is, before anybody counts its tokens: a middle estimate, and one that is seldom too low. Pure.

Rules of this file:
1. The middle estimate (conditions, prices) is a token for four bytes of UTF-8: an ASCII character is one, a letter of
   Cyrillic, Greek or Arabic two, a Chinese or Thai one three.
2. The upper one (does it fit a window?) weighs small letters and spaces as a quarter more than that, all other ASCII
   (capitals, digits, marks: code, tables, logs) as `_DENSE`, and characters beyond by their bytes. No token is less
   than a byte, so bytes bound it. It is worked out only where the answer isn't plain without it.
3. What is no text has a flat price: an image by OpenAI's tiles and Anthropic's size, a document by its pages, of which
   nothing but the size is known, audio by its length at usual rates.

Sources: OpenAI's guide to images (gpt-4o: 85 in low detail, else 85 + 170 for each of up to 8 tiles of 512),
Anthropic's "Vision" (at most about 1,600 an image) and "PDF support" (1,500 to 3,000 a page, at most 100 pages).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ROOM", "Size"]

BYTES_PER_TOKEN = 4
ROOM = 1.25
"""What the upper estimate is of the middle one, at least."""
_DENSE = 0.8  # tokens of an ASCII character that is no small letter and no space
_EACH, _EACH_BYTE = -0.3, 0.5  # of a character beyond ASCII: 0.7 with two bytes, 1.2 with three, 1.7 with four
_PLAIN = b"abcdefghijklmnopqrstuvwxyz "
_PLAIN_OR_BEYOND = _PLAIN + bytes(range(128, 256))
_TURN = 4  # tokens round a message, of the upper estimate
_LOW, _IMAGE, _IMAGE_MOST = 85, 765, 1600
_PAGE, _PAGE_MOST, _PAGE_BYTES, _PAGE_BYTES_LEAST = 1500, 3000, 50_000, 25_000
_PAGES, _PAGES_MOST = 10, 100  # of a document that is only referred to
_AUDIO_PER_KB, _AUDIO_PER_KB_MOST = 1, 8


class Size:
    """Grows as texts and parts are added to it; `within` remembers what it worked out. Not for several threads."""

    __slots__ = ("_most", "_texts", "bytes", "flat", "flat_most")

    def __init__(self) -> None:
        self.bytes = self.flat = self.flat_most = 0
        self._texts: list[str] = []
        self._most: float | None = None

    @property
    def tokens(self) -> int:
        """The middle estimate; 1 or more."""
        return self.bytes // BYTES_PER_TOKEN + 1 + self.flat

    def text(self, text: str) -> None:
        """A text more."""
        self.bytes += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        self._texts.append(text)

    def texts(self, texts: Sequence[str]) -> None:
        """Many texts more."""
        if all(map(str.isascii, texts)):
            self.bytes += sum(map(len, texts))
            self._texts += texts
        else:
            for text in texts:
                self.text(text)

    def turns(self, count: int) -> None:
        """So many messages more, round what they say."""
        self.flat_most += count * _TURN

    def counted(self, tokens: int) -> None:
        """So many tokens, counted by the client."""
        self.flat += tokens
        self.flat_most += tokens

    def image(self, part: Mapping[str, Any]) -> None:
        """An image, whatever its real size. `part`: may ask for low detail."""
        told = part.get("image_url")
        low = part.get("detail") == "low" or (type(told) is dict and told.get("detail") == "low")
        self.flat += _LOW if low else _IMAGE
        self.flat_most += _LOW if low else _IMAGE_MOST

    def document(self, part: Mapping[str, Any]) -> None:
        """A document: text where it is one, else its pages by its size; one that is only referred to may have many."""
        held = next((one for name in ("file", "source") if type(one := part.get(name)) is dict), part)
        data = held.get("file_data") or held.get("data")
        if type(data) is not str or not data:
            self.flat += _PAGES * _PAGE
            self.flat_most += _PAGES_MOST * _PAGE_MOST
            return
        kind = str(held.get("media_type") or (data[5:40] if data.startswith("data:") else ""))
        if held.get("type") == "text":
            self.text(data)
        elif kind.startswith("text/"):
            self.flat += len(data) * 3 // 16
            self.flat_most += len(data) * 3 // 4
        else:
            size = len(data) * 3 // 4
            self.flat += (size // _PAGE_BYTES + 1) * _PAGE
            self.flat_most += (size // _PAGE_BYTES_LEAST + 1) * _PAGE_MOST

    def audio(self, part: Mapping[str, Any]) -> None:
        """Sound in the request."""
        held = part.get("input_audio")
        data = held.get("data") if type(held) is dict else None
        if type(data) is str:
            kilobytes = len(data) * 3 // 4096
            self.flat += kilobytes * _AUDIO_PER_KB
            self.flat_most += kilobytes * _AUDIO_PER_KB_MOST

    def within(self, tokens: float) -> bool:
        """Whether the upper estimate is at most so many tokens."""
        if self.bytes + self.flat_most <= tokens:
            return True
        least = self.tokens * ROOM
        if least > tokens:
            return False
        if self._most is None:
            said = 1 + min(float(self.bytes), sum(map(_weight, self._texts)))
            self._most = max(least, said + self.flat_most)
        return self._most <= tokens


def _weight(text: str) -> float:
    """The upper estimate of a text's tokens."""
    said = text.encode(errors="surrogatepass")
    if text.isascii():
        dense = len(said.translate(None, _PLAIN))
        return (len(said) - dense) * ROOM / BYTES_PER_TOKEN + dense * _DENSE
    dense = len(said.translate(None, _PLAIN_OR_BEYOND))
    plain = len(said) - len(said.translate(None, _PLAIN))
    beyond = len(said) - dense - plain
    characters = len(text) - dense - plain
    return plain * ROOM / BYTES_PER_TOKEN + dense * _DENSE + characters * _EACH + beyond * _EACH_BYTE
