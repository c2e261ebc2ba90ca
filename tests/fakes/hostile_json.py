"""Any JSON whatever, out of a seed. A strategy of hypothesis draws and notes every leaf by itself, which costs some
twenty times what the code under test does; here it draws a seed and a size, and shrinks these."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["HostileJson"]

_LETTERS = "aZ09 .,:;_-/\\\"'{}[]<>&%\x00\x07\n\r\t\x7f\x85\xa0éßŁж中あ\u200b\u2028\ufeff\ufffd\uffff😀\U0010ffff"
_INTEGERS = (0, 1, -1, 255, 2**31, 2**53 + 1, -(2**63), 2**63, 2**64, 10**30)
_FLOATS = (0.0, -0.0, 1.0, 0.5, -1.5, 1e-7, 5e-324, 1e16, 1.7976931348623157e308)


class HostileJson:
    """Draws from `dice`. `keys`: the names that mean something to whoever reads it. `most`: leaves of one value."""

    def __init__(self, dice: random.Random, keys: Sequence[str], most: int) -> None:
        self._dice, self._keys, self._most = dice, keys, most

    def text(self, most: int) -> str:
        """Of all planes, but without lone surrogates."""
        size = self._dice.randrange(most + 1)
        if self._dice.random() < 0.7:
            return "".join(self._dice.choices(_LETTERS, k=size))
        found = (self._dice.randrange(0x110000) for _ in range(size))
        return "".join(chr(one) for one in found if not 0xD800 <= one < 0xE000)

    def leaf(self) -> Any:
        """A value that holds no other."""
        match self._dice.randrange(8):
            case 0:
                return None
            case 1:
                return self._dice.random() < 0.5
            case 2:
                return self._dice.choice(_INTEGERS)
            case 3:
                return self._dice.randrange(-(10**6), 10**6)
            case 4:
                return self._dice.choice(_FLOATS)
            case 5:
                return self._dice.uniform(-1e3, 1e3) * 10.0 ** self._dice.randrange(-20, 20)
            case _:
                return self.text(20 if self._dice.random() < 0.9 else 400)

    def value(self) -> Any:
        """Anything, of up to `most` leaves."""
        return self._value(self._dice.randrange(self._most + 1))

    def _value(self, leaves: int) -> Any:
        if leaves <= 1 and self._dice.random() < 0.8:
            return self.leaf()
        width = self._dice.randrange(6)
        inner = [self._value(leaves // width) for _ in range(width)]
        if self._dice.random() < 0.4:
            return inner[:4]
        return {self.key(): one for one in inner}

    def key(self) -> str:
        """One that means something, mostly."""
        return self._dice.choice(self._keys) if self._dice.random() < 0.8 else self.text(5)

    def typed(self, kinds: Sequence[str]) -> dict[str, Any]:
        """An object that says it is of one of these kinds."""
        inner = {self.key(): self.value() for _ in range(self._dice.randrange(6))}
        return {**inner, "type": self._dice.choice(kinds)}

    def many(self, one: Callable[[], Any], most: int) -> list[Any]:
        """Up to `most` of them."""
        return [one() for _ in range(self._dice.randrange(most + 1))]
