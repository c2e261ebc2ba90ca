"""What names a person or opens a door, taken out of captured texts before anything reaches a disk.

Rules of this file: pure but for the time that it takes. What can't be looked through within its bound is not passed
on: the caller leaves the whole record out. Each finding becomes `[kind-digest]`, with a digest under a local secret:
two texts that differ in a name alone still differ, and nobody without the secret can guess the name from it.

Patterns find much and not all: names of people, addresses of houses and what stands in pictures are not found.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import regex

from farthing.proxy.clock import Clock

__all__ = ["KINDS", "Kind", "Redactor", "Unredacted", "compiled"]

Kind = Literal["key", "email", "card", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are looked for: a card's number would else be taken for a telephone's."""

_LONGEST_CHARS = 4_000_000  # of one text


class Unredacted(Exception):
    """A text could not be looked through within the bound of time or length."""


def _luhn(digits: str) -> bool:
    """Whether the check digit fits (ISO/IEC 7812-1, annex B)."""
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(digit - 9 if digit > 9 else digit for digit in doubled)) % 10 == 0


def _is_card(text: str) -> bool:
    digits = "".join(char for char in text if char.isdigit())
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and _luhn(digits)


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 or sum(map(bool, text.split(":"))) >= 3  # `a::b` is more often a name in a program


_DATE = regex.compile(r"(?:19|20)[0-9]{2}[-. ](?:0[1-9]|1[0-2])[-. ][0-3][0-9]\b")


def _is_phone(text: str) -> bool:
    """7 to 15 digits (E.164), and no date."""
    return 7 <= sum(map(str.isdigit, text)) <= 15 and not _DATE.match(text)


def _always(text: str) -> bool:
    return True


class Finding(NamedTuple):
    """How one kind is found. `hints`: a text without any of these holds none, or () for `hint`: likewise a pattern;
    both are many times faster than `pattern`. `is_one`: whether what the pattern found is one."""

    pattern: str
    is_one: Callable[[str], bool]
    hints: tuple[str, ...] = ()
    hint: str = ""


_KEY_HINTS = (
    *(f"{word}{joint}" for word in ("sk", "pk", "rk", "xai", "live", "test") for joint in "-_"),
    *("PRIVATE KEY", "earer", "EARER", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat"),
    *("hf_", "xox", "AIza", "eyJ"),
)
_FOUND: Mapping[Kind, Finding] = {
    "key": Finding(
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,20000}+(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
        r"|(?<![\w-])(?:sk|pk|rk|gsk|xai|sk_live|sk_test|rk_live)[-_][\w-]{16,}+"
        r"|(?i:\bbearer)\s{1,4}+[\w.~+/-]{16,}+=*+"
        r"|(?<!\w)(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)"
        r"|(?<!\w)(?:gh[pousr]_\w{36,}+|github_pat_\w{40,}+|glpat-[\w-]{20,}+|hf_\w{30,}+|xox[abprs]-[\w-]{10,}+)"
        r"|(?<!\w)AIza[\w-]{35}"
        r"|(?<!\w)eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}+",
        _always,
        hints=_KEY_HINTS,
    ),
    "email": Finding(r"(?<![\w.%+-])[\w.%+-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}", _always, hints=("@",)),
    "card": Finding(r"(?<![\d])\d(?:[ -]?\d){12,18}(?!\d)", _is_card, hint=r"\d[ -]?\d\d?[ -]?\d\d?[ -]?\d"),
    "ip": Finding(
        r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)|(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])",
        _is_ip,
        hint=r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:",
    ),
    "phone": Finding(
        r"(?<![\w.])\+\d(?:[ ().\-/]{0,2}\d){6,14}(?!\w)"
        r"|(?<![\w.+-])(?:\(0?\d{1,5}\)|0?\d{2,5})[ ./-]{1,2}\d{2,5}(?:[ .-]\d{2,5}){1,4}(?![\w-])",
        _is_phone,
        hint=r"\+\d|\d\)?[ ./-]{1,2}\d\d",
    ),
}


def compiled(name: str, pattern: str) -> regex.Pattern[str]:
    """An operator's own pattern. Raises ValueError: it is none, or finds what is empty."""
    try:
        found = regex.compile(pattern)
        empty = found.search("", timeout=0.1) is not None
    except (regex.error, TimeoutError) as error:
        raise ValueError(f"the pattern {name!r} is not usable: {error}") from None
    if empty:
        raise ValueError(f"the pattern {name!r} matches an empty text")
    return found


class _Step:
    """One kind, ready to be looked for."""

    __slots__ = ("_hint", "_hints", "is_one", "kind", "pattern")

    def __init__(self, kind: str, found: Finding) -> None:
        self.kind = kind
        self.pattern = regex.compile(found.pattern)
        self.is_one = found.is_one
        self._hints = found.hints
        self._hint = regex.compile(found.hint) if found.hint else None

    def may_find(self, text: str, left_s: float) -> bool:
        """Whether it is worth looking. Raises TimeoutError."""
        if self._hint is not None:
            return self._hint.search(text, timeout=left_s, concurrent=True) is not None
        return not self._hints or any(hint in text for hint in self._hints)


class Redactor:
    """Takes findings out of JSON values. `own`: further patterns, by name. `budget_s`: for one record.

    `found`: how many of each kind. Belongs to one thread.
    """

    def __init__(
        self,
        kinds: Iterable[Kind],
        own: Sequence[tuple[str, str]],
        secret: bytes,
        clock: Clock,
        budget_s: float = 1.0,
    ) -> None:
        chosen = frozenset(kinds)
        self._steps = [_Step(kind, found) for kind, found in _FOUND.items() if kind in chosen]
        self._steps += [_Step(name, Finding(compiled(name, pattern).pattern, _always)) for name, pattern in own]
        self._secret = secret
        self._clock = clock
        self._budget_s = budget_s
        self._until_tick = 0.0
        self.found: Counter[str] = Counter()

    def clean(self, *values: Any) -> list[Any]:
        """The values, with every text and every name in them looked through. Raises Unredacted, RecursionError."""
        if not self._steps:
            return list(values)
        self._until_tick = self._clock.tick_s() + self._budget_s
        return [self._value(value) for value in values]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {self._text(name): self._value(item) for name, item in value.items()}
        return value

    def _text(self, text: str) -> str:
        if len(text) < 6 or text.startswith("data:"):
            return text  # too short for any of them; a picture or a sound
        if len(text) > _LONGEST_CHARS:
            raise Unredacted(f"a text of {len(text)} characters")
        for step in self._steps:
            left_s = self._until_tick - self._clock.tick_s()
            if left_s <= 0:
                raise Unredacted(f"no time left for {step.kind}")
            try:
                if step.may_find(text, left_s):
                    text = step.pattern.sub(partial(self._mark, step), text, timeout=left_s, concurrent=True)
            except TimeoutError:
                raise Unredacted(f"no time left for {step.kind}") from None
        return text

    def _mark(self, step: _Step, match: regex.Match[str]) -> str:
        text: str = match[0]
        if not text or not step.is_one(text):
            return text
        self.found[step.kind] += 1
        told = f"{step.kind}:{text}".encode("utf-8", "surrogatepass")
        return f"[{step.kind}-{hmac.new(self._secret, told, 'sha256').hexdigest()[:8]}]"
