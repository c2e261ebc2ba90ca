"""What must never be matched with another request, whatever the score says, and why. Pure; no model.

Each reason is one of `REASONS` and goes to the ledger as it stands. Rules of this file:
1. A wrong refusal costs one upstream call, a wrong pass may cost a wrong answer; but a refusal must have a cause in the
   text. A pronoun is none: 'how do I replace my card' has one answer for all. What is refused is asking for the value
   or the state of a record of one's own ('where is my order', 'what is my balance'), or naming one by its number.
2. Lists are closed classes of words in a few languages; where they say nothing, the score and its bound still do.
3. Time is linear in the text: READ_CHARS at most, every repeat in a pattern is bounded.
4. Patterns are compiled when they are first needed, or by `get_ready`: no import pays for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from farthing.proxy.lexicon import CHANCE, FRESH
from farthing.proxy.text import READ_CHARS, mixed_words, normalise, tokens_of

__all__ = ["REASONS", "UNLESS_DIVIDED", "get_ready", "unmatchable", "unmatchable_around", "unmatchable_turn"]

REASONS = (
    "too long",
    "empty",
    "no words",
    "freshness",
    "chance asked for",
    "the asker's own record",
    "mixed script",
    "hidden characters",
    "written to mislead",
    "repeats itself",
    "too short",
    "tool result",
    "not text alone",
)
# Of a whole text, these may be true only of what it shares with others, and no longer once that is known.
UNLESS_DIVIDED = frozenset({"too long", "repeats itself"})
_MIN_WORDS = 2
_MIN_CHARS = 8
# A text of many words with few different ones pulls an embedding wherever its writer wants it.
_STUFFED_WORDS = 40
_STUFFED_SHARE = 0.2
_STUFFED_ONE = 0.3

# Of a text that is only part of one.
_ABOUT_LENGTH = frozenset({"too long", "empty", "no words", "repeats itself", "too short"})
# No pattern below reaches further, so that nothing hides at a seam.
_OVERLAP = 512

_FRESH = (
    r"(?i)\b(?:(?:this|next|last|past|coming) (?:week|weekend|month|year|morning|evening|night|quarter)|right now|"
    r"so far|at the moment|up[- ]to[- ]date|as of|what time is it|what day is it|"
    r"breaking news|live (?:score|result|update|price)s?|(?:the )?weather|"
    # German, French, Spanish, Italian, Portuguese, Dutch, Russian: words that are none in the other languages.
    r"heute|gestern|derzeit|aktuell(?:e[nrs]?)?|neuesten?|aujourd'hui|maintenant|actuellement|dernières nouvelles|"
    r"hoy|ahora|ayer|actualmente|últimas noticias|oggi|adesso|attualmente|hoje|agora|ontem|atualmente|vandaag|"
    r"gisteren|momenteel|сегодня|сейчас|вчера|завтра|погода)\b|"
    r"今天|现在|現在|目前|最新|昨天|明天|今日|明日|昨日|오늘|지금|현재|최신|내일|어제"
)
_NOT_FRESH = r"(?i)\b(?:current accounts?|(?:electric(?:al)?|alternating|direct|eddy|ocean) currents?)\b"
_ALONE = frozenset({"another", "again", "random"})
# When somebody tells what happened to them, these are no question of what is new.
_TOLD = frozenset({"yesterday", "recently"})
_CHANCE = (
    r"(?i)\b(?:(?:one|a few|some) more(?= please|[,.!?]|$)|more (?:ideas|examples|options)|"
    r"something (?:else|different|new)|another (?:joke|story|idea|example|version|option|try|go)|^another one|"
    r"at random|random (?:number|name|word|fact)|"
    r"(?:tell|give|show|write|send) me (?:a|some) (?:different|new)|"
    r"(?:try|do|say|write|generate) (?:it|that|this) again|"
    r"flip a coin|roll (?:a|the|some) di\w{1,2}|pick (?:a|one|any)|surprise me|"
    r"überrasch(?:e|t)? mich|zufällig(?:e[nrs]?)?|noch ein(?:e[nrs]?)?|au hasard|surprends[- ]moi|encore une?|"
    r"sorpréndeme|al azar|otr[ao] más|sorprendimi|a caso|un altr[ao]|surpreenda-me|mais um[ao]?|willekeurig(?:e)?|"
    r"случайн\w{1,4}|ещё один|удиви меня)\b|随机|再来一|もう一つ|ランダム|무작위|하나 더"
)
_NOT_CHANCE = r"(?i)\brandom (?:forests?|access|variables?|walks?|seed|number generators?|effects?)\b"
_RECORD = (
    r"(?:orders?|parcels?|packages?|deliver(?:y|ies)|shipments?|balances?|invoices?|bills?|statements?|transactions?|"
    r"payments?|refunds?|transfers?|appointments?|bookings?|reservations?|tickets?|claims?|applications?|salary|"
    r"payslips?|results?|grades?|scores?|schedules?|calendars?|inbox|e?mails?|messages?|account (?:number|balance)|"
    r"credit score|points|usage|meetings?)"
)
_MINE = rf"(?:the (?:status|state|total|date|amount) of )?(?:my|our) (?:\w{{1,20}} ){{0,2}}{_RECORD}\b"
_OWN_RECORD = (
    rf"(?i)\b(?:where(?:'s| is| are)|when (?:is|are|will|does)|what(?:'s| is| are| was| were)) {_MINE}|"
    rf"^\W*(?:(?:please|hi|hello|can you|could you)[ ,]{{1,2}}){{0,3}}"
    rf"(?:show(?: me)?|tell me|give me|list|track|check|read|look up|summari[sz]e) {_MINE}|"
    rf"\b(?:has|have|did|is|are|was|were|will) {_MINE} (?:\w{{1,12}} ){{0,2}}"
    r"(?:arrived?|ship(?:ped)?|sent|delivered|ready|here|paid|received|processed|confirmed|approved|late|delayed|due)\b|"
    r"\bhow (?:much|many) (?:\w{1,20} ){0,2}(?:do|did|have|am) (?:i|we) (?:still )?(?:owed?|spen[dt]|have left|paid)\b|"
    r"\b(?:do|did|have|am) (?:i|we) (?:any|have any|due|owed) |\bwho am i\b|"
    r"\bwhat(?:'s| is) my (?:name|address|age|birthday|e?mail|number|pin|password|plan|limit)\b"
)
_NAMED_RECORD = (
    r"(?i)\b(?:order|ticket|case|invoice|booking|reservation|account|claim|customer|policy|tracking|reference|ref)"
    r"(?: (?:number|no\.?|id|code))?[ :]{0,2}#?[A-Z]{0,4}-?\d{4,20}\b|"
    r"#\d{4,20}\b|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{2,63}|\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{1,7}\b|"
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b|(?<!\w)\+\d{1,3}[ -]?\d{2,4}(?:[ -]?\d{2,4}){2,4}\b"
)
_MISLEADING = (
    r"(?i)\b(?:(?:ignor|disregard|forget|overlook)(?:e|ing)? (?:all |any |the |every |small |minor |these |my |your )"
    r"{0,3}(?:differen\w{1,6}|previous|above|preceding|prior|earlier|instructions?|details?|numbers?|negations?)|"
    r"(?:treat|consider|count|regard) .{1,60}?\bas (?:the same|identical|equivalent|a match|equal)|"
    r"same answer (?:as (?:before|last time|always|every)|to (?:every|any|all))|"
    r"semantically (?:identical|equivalent|similar)|cache (?:hit|key|entry|poison\w{0,5})|from now on|"
    r"(?:every|any|all) (?:other |future |following )questions?\b.{0,40}\banswer|"
    r"ignorier\w{0,4} (?:alle |die )?(?:unterschiede|anweisungen)|"
    r"ignore[rz]? (?:toutes )?les (?:différences|instructions)|ignora (?:todas )?las (?:diferencias|instrucciones))\b|"
    r"忽略.{0,6}(?:差异|区别|指令)"
)
# Marks that change the order of writing, tag characters; and invisible ones inside a Latin word.
_HIDDEN = (
    r"[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]|"
    r"[A-Za-z][\u00ad\u200b-\u200f\u2060-\u2064\ufeff]{1,64}[A-Za-z]"
)
# Cyrillic and Greek letters that look like Latin ones; a word of nothing else, among Latin words, is in disguise.
# Source: Unicode Technical Standard 39, confusables (the common cases).
_CONFUSABLE = frozenset("асеорхуіѕјһԁԛԝӏАВСЕНІЈКМОРЅТХУΑΒΕΖΗΙΚΜΝΟΡΤΥΧοναρυικ")


def get_ready() -> None:
    """Compile the patterns, so that no request waits for it. Cost: a hundredth of a second of a processor, once."""
    for pattern in (
        _FRESH,
        _NOT_FRESH,
        _CHANCE,
        _NOT_CHANCE,
        _OWN_RECORD,
        _NAMED_RECORD,
        _MISLEADING,
        _HIDDEN,
        _COMMAND,
    ):
        _compiled(pattern)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def unmatchable(text: str, *, records: bool = True) -> str:
    """Why `text` must never be matched with another, '' where it may. O(len(text)) up to a bound; never raises.

    `records`: refuse what asks for a record of one's own; False for routes whose answer doesn't depend on it, as where
    messages are only classified.
    """
    if len(text) > READ_CHARS:
        return "too long"
    plain = normalise(text)
    if not plain:
        return "empty"
    words, _ = tokens_of(plain)
    if not any(char.isalpha() for word in words for char in word):
        return "no words"
    folded = {word.lower() for word in words}
    if _compiled(_FRESH).search(plain) or _asks_what_is_new(plain, folded):
        return "freshness"
    if _compiled(_CHANCE).search(plain) or _asks_for_chance(plain, folded):
        return "chance asked for"
    if records and (_compiled(_OWN_RECORD).search(plain) or _compiled(_NAMED_RECORD).search(plain)):
        return "the asker's own record"
    if mixed_words(plain) or _disguised(words):
        return "mixed script"
    if _compiled(_HIDDEN).search(text.encode("utf-8", "replace").decode()):
        return "hidden characters"
    if _compiled(_MISLEADING).search(plain):
        return "written to mislead"
    if _stuffed(words):
        return "repeats itself"
    if len(plain) < _MIN_CHARS or (len(words) < _MIN_WORDS and plain.isascii()):
        return "too short"
    return ""


def unmatchable_around(common: str) -> str:
    """The same for what stands word for word around a varying part (cache/template.py), of any length.

    What is wrong with a question's own length or words doesn't count here; what makes an answer age, or somebody's own,
    does.
    """
    for start in range(0, len(common), READ_CHARS - _OVERLAP):
        reason = unmatchable(common[start : start + READ_CHARS])
        if reason and reason not in _ABOUT_LENGTH:
            return reason
    return ""


def unmatchable_turn(message: Mapping[str, Any]) -> str:
    """The same for the last message as it came: a tool's result, or more than text, is matched with nothing.

    Source: OpenAI chat and Responses, Anthropic messages (`role`, `type`, `content` parts).
    """
    if message.get("role") in ("tool", "function") or message.get("tool_call_id") is not None:
        return "tool result"
    if message.get("type") in ("function_call_output", "computer_call_output", "custom_tool_call_output"):
        return "tool result"
    content = message.get("content")
    if isinstance(content, list):
        kinds = {part.get("type") if isinstance(part, Mapping) else None for part in content}
        if "tool_result" in kinds:
            return "tool result"
        if kinds - {"text", "input_text"}:
            return "not text alone"
    return ""


def _words(plain: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in tokens_of(plain)[0])


def _asks_what_is_new(plain: str, folded: set[str]) -> bool:
    said = folded & FRESH
    if said and said <= _TOLD and folded & {"i", "i've", "my", "we"}:
        return False
    return bool(said) and not FRESH.isdisjoint(_words(_compiled(_NOT_FRESH).sub(" ", plain)))


def _asks_for_chance(plain: str, folded: set[str]) -> bool:
    """Some words do only in a command: 'can I use another card' and 'a random fee' are ordinary."""
    said = folded & CHANCE
    if said and not said <= _ALONE:
        return True
    return (
        bool(said)
        and _compiled(_COMMAND).match(plain) is not None
        and not CHANCE.isdisjoint(_words(_compiled(_NOT_CHANCE).sub(" ", plain)))
    )


_COMMAND = (
    r"(?i)(?:(?:please|ok|okay|now|and|could you|can you)[ ,]{1,2}){0,3}"
    r"(?:another|again|tell|give|show|write|send|make|suggest|generate|do|try|roll|recommend|say|pick|choose|draw)\b"
)


def _disguised(words: tuple[str, ...]) -> bool:
    spelt = [word for word in words if any(char.isalpha() for char in word)]
    latin = sum(word.isascii() for word in spelt)
    return latin > len(spelt) / 2 and any(
        len(letters) > 1 and set(letters) <= _CONFUSABLE
        for word in spelt
        if not word.isascii() and (letters := [char for char in word if char.isalpha()])
    )


def _stuffed(words: tuple[str, ...]) -> bool:
    if len(words) < _STUFFED_WORDS:
        return False
    counts = Counter(words)
    return len(counts) < _STUFFED_SHARE * len(words) or max(counts.values()) > _STUFFED_ONE * len(words)
