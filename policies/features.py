"""What is watched of one request and one answer: classes and yes-or-no, never words. Pure; for a sample, when nobody
waits.

Source of the languages' word lists: proxy/lexicon.py.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farthing.policies.answer import read
from farthing.proxy.lexicon import LANGUAGE_WORDS

__all__ = ["LANGUAGES", "SCRIPTS", "Answered", "Asked", "answered", "asked", "confidence", "language"]

SCRIPTS = (
    "arabic", "bengali", "chinese", "cyrillic", "devanagari", "greek", "hebrew", "japanese", "korean", "tamil", "thai",
)  # fmt: skip
LANGUAGES = (*sorted(LANGUAGE_WORDS), *SCRIPTS, "latin", "other", "none")
"""What `language` may say. 'latin': Latin letters, of no language that is known; 'none': no letters."""

_READ_CHARS = 1_000
_WORDS = re.compile(r"[^\W\d_]+")
_OF_NAME = {"cjk": "chinese", "hiragana": "japanese", "katakana": "japanese", "hangul": "korean"}


@dataclass(frozen=True, slots=True)
class Asked:
    """`tools`: it offers some. `wants_json`: a JSON answer is asked for by the API's own field. `turns`: how many."""

    language: str
    tools: bool
    wants_json: bool
    turns: int


@dataclass(frozen=True, slots=True)
class Answered:
    """`broken_json`: JSON was asked for and this is none. `cut`: at its length limit. `empty`: neither text nor calls.
    `confidence`: the geometric mean of its tokens' probabilities; None where they weren't given."""

    refused: bool
    empty: bool
    cut: bool
    broken_json: bool
    confidence: float | None = None


def language(text: str) -> str:
    """One of LANGUAGES, by the script of most letters and, for Latin ones, common words. Reads 1,000 characters."""
    text = text[:_READ_CHARS]
    if text.isascii():
        return _latin(text) if any(map(str.isalpha, text)) else "none"
    counts = Counter(_script(char) for char in text if char.isalpha())
    if not counts:
        return "none"
    # Japanese is written with Chinese characters too: a few kana tell.
    if counts["japanese"] * 5 >= counts["chinese"] > 0:
        return "japanese"
    most = counts.most_common(1)[0][0]
    return _latin(text) if most == "latin" else most if most in SCRIPTS else "other"


def asked(payload: Mapping[str, Any]) -> Asked:
    """Of a request's body; never raises for anything that JSON can hold."""
    turns = payload.get("messages", payload.get("input", payload.get("prompt")))
    listed = turns if isinstance(turns, list) else [turns]
    tools = payload.get("tools") or payload.get("functions")
    return Asked(language(_last_said(listed)), bool(tools), _wants_json(payload), len(listed))


def answered(body: bytes, *, wants_json: bool = False) -> Answered | None:
    """Of an answer, whole or a stream; None where it isn't understood. Of several choices the first. Never raises."""
    from farthing.policies.agree import refuses  # with the first answer, in the ledger's thread

    choices = read(body)
    if not choices:
        return None
    one = choices[0]
    said = one.text.strip()
    empty = not (said or one.calls or one.refusal or one.other)
    refused = refuses(one)
    broken = wants_json and not one.calls and not refused and one.finish != "length" and not _is_json(said)
    return Answered(refused, empty, one.finish == "length", broken, confidence(body))


def confidence(body: bytes) -> float | None:
    """exp of the mean log-probability of a whole chat answer's tokens, in (0, 1]; None where they aren't given."""
    if b'"logprob"' not in body or body.lstrip()[:1] != b"{":
        return None
    try:
        tokens = json.loads(body)["choices"][0]["logprobs"]["content"]
        found = [float(token["logprob"]) for token in tokens]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
    mean = sum(found) / len(found) if found else math.nan
    return math.exp(min(0.0, mean)) if math.isfinite(mean) else None


def _latin(text: str) -> str:
    words = [word.lower() for word in _WORDS.findall(text)]
    scores = sorted((sum(map(listed.__contains__, words)), name) for name, listed in LANGUAGE_WORDS.items())
    (second, _), (best, name) = scores[-2:]
    return name if best > second else "latin"


def _script(char: str) -> str:
    if char.isascii():
        return "latin"
    word = unicodedata.name(char, "unknown").partition(" ")[0].partition("-")[0].lower()
    return _OF_NAME.get(word, word)


def _last_said(turns: Sequence[Any]) -> str:
    """The text of the last turn that is the user's, or that says no role."""
    for turn in reversed(turns):
        if isinstance(turn, str):
            return turn
        if isinstance(turn, dict) and turn.get("role", "user") == "user" and (said := _text(turn.get("content"))):
            return said
    return ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def _wants_json(payload: Mapping[str, Any]) -> bool:
    form = payload.get("response_format")
    if form is None and isinstance(text := payload.get("text"), dict):
        form = text.get("format")
    return isinstance(form, dict) and form.get("type") in ("json_object", "json_schema")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
