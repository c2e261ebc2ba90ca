"""What a text says that an embedding blurs: numbers, dates, units, names, negation and the like. Leaf, pure.

Guards, verifiers and judges share it. Rules of this file:
1. Time is linear in the text: every pattern has a bounded or possessive repeat, and only `READ_CHARS` are read.
2. Nothing raises on any str, lone surrogates and NUL included.
3. What isn't understood is kept as it stands, so that two texts that differ there are seen to differ.
The word lists are English; `Signals.language` and `Signals.foreign` tell where they say little.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal

from farthing.proxy.lexicon import (
    AUXILIARIES,
    BOUND_OF,
    HOW,
    LANGUAGE_WORDS,
    MONTHS,
    NEGATIONS,
    OTHER_NUMBERS,
    POLES,
    PROPER,
    SCALES,
    SHORT_MONTHS,
    SMALL,
    STOP,
    SUFFIXES,
    UNIT_WORDS,
    UNITS,
    WEEKDAYS,
)

__all__ = ["READ_CHARS", "Signals", "mixed_words", "normalise", "signals", "stem", "tokens_of"]

# No embedding window that farthing serves with reaches further; a longer text is `cut` and agrees with nothing.
READ_CHARS = 8_000


@dataclass(frozen=True, slots=True)
class Signals:
    """One text's signals; tuples are in the order of the text, and all but `quotes` and `code` are case-folded.

    `text`: normalised. `words`: those that aren't part of a number, a quantity, a date, a time or
    code; lower case, but a stop word in capitals, as in 'Vitamin A', stays so.
    `content`: stems of the words that aren't stop words. `names`: words capitalised other than by a sentence's
    start, with acronyms. `numbers`: decimal text, '2nd' for ordinals. `quantities`: '5 kg', '5 usd', '5 %'.
    `dates`: '2024-05-03', '-05-03' without a year, 'monday', 'may'. `times`: '15:30'. `relative`: 'tomorrow',
    'next week'. `units`: unit words anywhere. `bounds`: '<', '>=' and so on before a number. `negations`: how many.
    `poles`: '+change', '-change' for 'increase', 'decrease'. `pairs`: the words on both sides of 'to', 'than', 'by';
    'from' and 'after' turned round.
    `code`: identifiers, paths, URLs, addresses, ids. `symbols`: emoji and mathematical signs. `foreign`: words with
    letters that aren't Latin. `mixed`: words of several look-alike alphabets. `scripts`: of the letters. `language`:
    a guess for Latin script, '' where unsure. `question`: 'how many', 'who', 'yes/no', ''. `cut`: there was more than
    was read.
    """

    text: str
    words: tuple[str, ...]
    content: tuple[str, ...]
    names: tuple[str, ...]
    numbers: tuple[str, ...]
    quantities: tuple[str, ...]
    dates: tuple[str, ...]
    times: tuple[str, ...]
    relative: tuple[str, ...]
    units: tuple[str, ...]
    bounds: tuple[str, ...]
    negations: int
    poles: tuple[str, ...]
    pairs: frozenset[tuple[str, str]]
    code: tuple[str, ...]
    quotes: tuple[str, ...]
    symbols: tuple[str, ...]
    foreign: tuple[str, ...]
    mixed: tuple[str, ...]
    scripts: frozenset[str]
    language: str
    question: str
    cut: bool


_QUOTE_MARKS = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'", "′": "'", "“": '"', "”": '"', "„": '"', "−": "-"})


def normalise(text: str) -> str:
    """The text for comparison: NFKC, without invisible characters, digits as 0-9, plain quotes, single spaces.

    Zero-width and bidirectional marks go; controls become spaces and lone surrogates U+FFFD; lines stay lines.
    Reads at most READ_CHARS. Source: Unicode Standard Annex 15 (NFKC), general categories Cf, Cc, Cs.
    """
    text = text[:READ_CHARS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
        text = "".join([_plain(char) for char in text[:READ_CHARS]])
    text = text.translate(_QUOTE_MARKS)
    return "\n".join(" ".join(line.split()) for line in _CONTROL.sub(" ", text).splitlines()).strip()


_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")


def _plain(char: str) -> str:
    if char.isascii():
        return char
    category = unicodedata.category(char)
    # Marks that NFKC could not compose stay where they spell (Indic, Arabic); joiners and selectors go.
    if category == "Cf" or "\ufe00" <= char <= "\ufe0f":
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    return " " if category in ("Zs", "Zl", "Zp", "Cc") else char


_WORD = re.compile(r"\w++(?:['.-]\w++)*+", re.UNICODE)
_CHUNK = re.compile(r"\S{1,2048}+")
_SENTENCE_END = re.compile(r"[.!?:;\n\"(*•]|(?:^|\s)[-–—]\s*$")
_URL = re.compile(r"\b(?:https?|ftp)://\S{1,2048}|\bwww\.\S{1,2048}", re.I)
_BACKTICKS = re.compile(r"```(.{1,4000}?)```|`([^`\n]{1,400}+)`", re.S)
_QUOTED = re.compile(r'"([^"\n]{1,400}+)"|«([^»\n]{1,400}+)»|(?<!\w)\'([^\'\n]{1,400}+)\'(?!\w)')
_CODE_CHARS = frozenset("_/\\=+*^<>#@&|~{}[]$")
_CAMEL = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]{2}")
_DOTTED = re.compile(r"[A-Za-z]\w*+(?:(?:\.|::|->)\w++)++(?:\(\))?")

_NUMBER = r"\d{1,3}(?:,\d{3})++(?:\.\d++)?+|\d++(?:\.\d++)*+|\.\d++"
_MONTH = "|".join(MONTHS) + "|" + "|".join(SHORT_MONTHS)
_ISO = re.compile(r"(?<![\w-])(\d{4})-(\d{2})(?:-(\d{2}))?(?:[T ](\d{2}):(\d{2})(?::\d{2}(?:\.\d{1,9})?)?Z?)?(?![\w-])")
_DAY_MONTH = re.compile(
    rf"(?<!\w)(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\b\.?(?:,? (\d{{4}})(?!\d))?", re.I
)  # 3 May 2024
_MONTH_DAY = re.compile(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?(?![\d:%])(?:,? (\d{{4}})(?!\d))?", re.I)
_MONTH_YEAR = re.compile(rf"\b({_MONTH})\.?,? (\d{{4}})(?!\d)", re.I)
_SLASHED = re.compile(r"(?<![\w/])\d{1,4}([/.])\d{1,2}\1\d{2,4}(?![\w/])")
_CLOCK = re.compile(r"(?<![\w:])([01]?\d|2[0-4]):([0-5]\d)(?::[0-5]\d)?(?: ?([ap])\.?m\b\.?)?(?![\w:])", re.I)
_HOUR = re.compile(r"(?<![\w:.])(\d{1,2})(?: ?([ap])\.?m\b\.?| o'clock)", re.I)
_AMOUNT = re.compile(
    rf"(?P<bound>[<>]=?|[≤≥~])? ?(?<![\w])(?P<sign>(?<![\d)] )(?<![\d).])[+-])?(?P<money>[$€£¥₹₩])? ?(?P<sign2>-)?"
    rf"(?P<number>{_NUMBER})(?P<ordinal>st|nd|rd|th)?"
    r"(?P<rest>(?: ?-?(?:hundred|thousand|million|billion|trillion|k|m|bn)\b)?)"
    r"(?: ?-?(?P<unit>[%‰€£¥₹₩]|[°µμ]?[A-Za-zµμ]{1,12}+(?:/[A-Za-z]{1,4})?|°[CF]?))?",
    re.I,
)
_RELATIVE = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|currently|nowadays|ago|"
    r"(?:this|next|last|past|previous|coming) (?:week(?:end)?|month|year|night|morning|evening|quarter|decade|century|"
    + "|".join(WEEKDAYS)
    + r"))\b",
    re.I,
)


def signals(text: str) -> Signals:
    """All signals of `text`. O(len(text)), at most READ_CHARS of it; never raises."""
    cut = len(text) > READ_CHARS
    text = normalise(text)
    plain = text.isascii()
    rest, code = (text, ()) if plain and not _MAYBE_CODE.search(text) else _take_code(text)
    quotes = tuple(next(filter(None, found.groups()), "") for found in _QUOTED.finditer(rest))
    rest, dates, times = _take_dates(rest)
    rest, digits, quantities, bounds = _take_amounts(_in_digits(rest))
    words, names = tokens_of(rest)
    lower = tuple(word.lower() for word in words)
    foreign = () if plain else tuple(token for token in tokens_of(text)[0] if _scripts(token) - {"latin"})
    return Signals(
        text=text,
        words=words,
        content=tuple(stem(word) for word in words if word not in STOP),
        names=names,
        numbers=tuple(value for _, value in sorted([*digits, *_other_numbers(rest)])),
        quantities=quantities,
        dates=dates,
        times=times,
        relative=tuple(found.lower() for found in _RELATIVE.findall(text)),
        units=tuple(UNIT_WORDS[token] for token in lower if token in UNIT_WORDS),
        bounds=bounds + _bound_words(lower),
        negations=sum(token in NEGATIONS or token.endswith("n't") for token in lower),
        poles=tuple(POLES[found] for token in lower if (found := _pole(token))),
        pairs=_pairs(lower),
        code=code,
        quotes=quotes,
        symbols=tuple(char for char in rest if not char.isalnum() and unicodedata.category(char) in ("So", "Sm")),
        foreign=foreign,
        mixed=mixed_words(text),
        scripts=_scripts("".join(words)),
        language=_language(lower),
        question=_question(lower, "?" in text),
        cut=cut,
    )


def tokens_of(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of a normalised text, lower case but for single stop words in capitals, and those that are names."""
    found = [(match.start(), match.group()) for match in _WORD.finditer(text)]
    shouted = sum(raw.isupper() for _, raw in found) > len(found) / 2
    words: list[str] = []
    names: list[str] = []
    end = 0
    for at, raw in found:
        starts = end == 0 or (not (gap := text[end:at]).isspace() and any(char in '.!?:;\n"(*•' for char in gap))
        starts = starts or "\n" in text[end:at]
        end = at + len(raw)
        plain = raw.removesuffix("'s").removesuffix("'S") or raw
        word = plain.casefold()
        named = any(char.isupper() for char in plain)
        if word in STOP:
            # 'US', 'IT', 'WHO', 'Vitamin A' are words of their own; 'I' and a capital at a sentence's start are not.
            named = named and plain.isupper() and not starts and word != "i" and not shouted
            word = plain if named and word not in NEGATIONS else word
        elif starts and named:
            named = any(char.isupper() or char.isdigit() for char in plain[1:]) and not shouted
        words.append(word)
        if (named and word not in NEGATIONS) or word in PROPER:
            names.append(word)
    return tuple(words), tuple(names)


def mixed_words(text: str) -> tuple[str, ...]:
    """Runs of letters from several of the alphabets that share shapes, case-folded: 'p\u0430ypal'.

    Latin beside Chinese, Japanese or Korean is ordinary writing, and so is the micro sign, which NFKC makes a Greek
    letter. `text`: normalised. Source: Unicode Technical Standard 39, section 5.2 (restriction levels).
    """
    runs = () if text.isascii() else (found.group() for found in _LETTER_RUN.finditer(text))
    return tuple(
        run.casefold() for run in runs if not run.isascii() and len(_scripts(run.replace("μ", "")) & _ALIKE) > 1
    )


_LETTER_RUN = re.compile(r"[^\W\d_]++")
_ALIKE = frozenset({"latin", "cyrillic", "greek", "armenian", "cherokee", "coptic", "lisu"})


def stem(word: str) -> str:
    """The word without a common English ending; only for comparing two words."""
    for ending in ("ing", "ies", "ied", "es", "ed", "s", "ly", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls" else word


def _blank(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]}{' ' * (match.end() - match.start())}{text[match.end() :]}"


def _take_code(text: str) -> tuple[str, tuple[str, ...]]:
    """Code and addresses in order, and the text with blanks where they stood. See _MAYBE_CODE."""
    taken: list[tuple[int, str]] = []

    def take(match: re.Match[str]) -> str:
        taken.append((match.start(), " ".join(next(filter(None, match.groups()), match.group()).split())))
        return " " * len(match.group())

    def take_url(match: re.Match[str]) -> str:
        # A sentence's end isn't the address's; a bracket is only where it was opened inside, as in '/Mercury_(planet)'.
        bare = match.group().rstrip(".,;:!?\"'" + ("" if "(" in match.group() else ")"))
        taken.append((match.start(), bare))
        return " " * len(match.group())

    def look(match: re.Match[str]) -> str:
        raw = match.group()
        bare = raw.strip(".,;:!?()\"'")
        if bare.isalpha() and bare[1:].islower():
            return raw
        inner = bare.strip("*_~$<>=+#&|[]{}")
        digits = any(char.isdigit() for char in inner) and any(char.isalpha() for char in inner)
        is_code = (
            any(char in _CODE_CHARS for char in bare.lstrip("$<>+~"))
            or _CAMEL.search(inner) is not None
            or _DOTTED.fullmatch(inner) is not None
            or (digits and not _AMOUNT_ONLY.fullmatch(inner))
        )
        if not bare or not is_code or bare.lower() in UNITS or _SLASHED.fullmatch(bare) or _BOUNDED_NUMBER.match(bare):
            return raw
        taken.append((match.start(), bare))
        return " " * len(raw)

    text = _CHUNK.sub(look, _URL.sub(take_url, _BACKTICKS.sub(take, text)))
    return text, tuple(found for _, found in sorted(taken))


# What any code has in it: a text of plain ASCII without that needn't be looked at word by word.
_MAYBE_CODE = re.compile(r"[\d`_/\\=+*^<>#@&|~{}\[\]$]|\w\.\w|::|(?i:www)\.|[a-z][A-Z]|[A-Z]{2}[a-z]{2}")
_AMOUNT_ONLY = re.compile(
    rf"[+-]?[$€£¥₹₩]?-?(?:{_NUMBER})-?[A-Za-z%°µμ]{{1,12}}(?:-[A-Za-z]+)?|\d{{4}}-\d\d-\d\dT\S+|[\d:]{{1,8}}[ap]\.?m",
    re.I,
)
_BOUNDED_NUMBER = re.compile(r"[<>]=?\d|\d+(?:km|mi)/h$|[$€£]\d[\d.,]*\w?$")


def _take_dates(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Dates and times of day in order, and the text with blanks where they stood."""
    dates: list[tuple[int, str]] = []
    times: list[tuple[int, str]] = []

    def month(name: str) -> int:
        return next(n for n, full in enumerate(MONTHS, 1) if full[:3] == name.lower()[:3])

    def blank(match: re.Match[str], found: list[tuple[int, str]], value: str) -> str:
        found.append((match.start(), value))
        return " " * len(match.group())

    def iso(match: re.Match[str]) -> str:
        year, number, day, hour, minute = match.groups()
        if hour:
            times.append((match.start(), f"{int(hour)}:{minute}"))
        return blank(match, dates, f"{year}-{number}" + (f"-{day}" if day else ""))

    def textual(day: str, name: str, year: str | None) -> str:
        return f"{year or ''}-{month(name):02}-{int(day):02}"

    def clock(match: re.Match[str]) -> str:
        half = match.groups()[-1]
        hour, minute = match[1], match[2] if match.re is _CLOCK else "00"
        number = int(hour)
        if half:
            number = number % 12 + (12 if half.lower() == "p" else 0)
        return blank(match, times, f"{number}:{minute}")

    if _DIGIT.search(text):
        text = _ISO.sub(iso, text)
        text = _DAY_MONTH.sub(lambda m: blank(m, dates, textual(m[1], m[2], m[3])), text)
        text = _MONTH_DAY.sub(lambda m: blank(m, dates, textual(m[2], m[1], m[3])), text)
        text = _MONTH_YEAR.sub(lambda m: blank(m, dates, f"{m[2]}-{month(m[1]):02}"), text)
        text = _SLASHED.sub(lambda m: blank(m, dates, m[0]), text)
        text = _HOUR.sub(clock, _CLOCK.sub(clock, text))
    for match in () if _none_of(_TIME_NAMES, _WORD, text) else _WORD.finditer(text):
        word = match.group()
        if word.lower() in _DAY_NAMES and (word.lower() not in ("may", "march") or word[0].isupper()):
            dates.append((match.start(), word.lower()))
        elif word.lower() in ("noon", "midnight"):
            times.append((match.start(), "12:00" if word.lower() == "noon" else "0:00"))
    return text, tuple(v for _, v in sorted(dates)), tuple(v for _, v in sorted(times))


_DIGIT = re.compile(r"\d")
_DAY_NAMES = frozenset(MONTHS) | frozenset(WEEKDAYS) | {f"{day}s" for day in WEEKDAYS}
_TIME_NAMES = _DAY_NAMES | {"noon", "midnight"}


def _none_of(listed: AbstractSet[str], pattern: re.Pattern[str], text: str) -> bool:
    """Whether the text surely has none of the words: quicker than looking at each. Lower case keeps places in ASCII."""
    return text.isascii() and listed.isdisjoint(pattern.findall(text.lower()))


def _take_amounts(
    text: str,
) -> tuple[str, list[tuple[int, str]], tuple[str, ...], tuple[str, ...]]:
    """Numbers with their places, quantities and bounds in order, and the text with blanks for the digits."""
    numbers: list[tuple[int, str]] = []
    quantities: list[str] = []
    bounds: list[str] = []
    if not _DIGIT.search(text):
        return text, numbers, (), ()

    def take(match: re.Match[str]) -> str:
        minus = "-" if "-" in (match["sign"], match["sign2"]) else ""
        value = match["number"].replace(",", "")
        scale = SUFFIXES.get(match["rest"].strip(" -").lower(), 1)
        unit = (match["unit"] or "").lower().replace("μ", "µ")
        if scale != 1 and value.count(".") <= 1:
            value = format((Decimal(value) * scale).normalize(), "f")
        kind = UNITS.get(unit)
        money = UNITS.get(match["money"] or "")
        numbers.append((match.start(), minus + value + ("." if match["ordinal"] else "")))
        quantities.extend(f"{minus}{value} {found}" for found in (money, kind) if found)
        if match["bound"]:
            bounds.append(BOUND_OF.get(match["bound"], match["bound"]))
        # What isn't a unit stays: it is read as a word.
        return " " * (len(match.group()) - len(match["unit"] or "")) + (match["unit"] or "" if not kind else "")

    return _AMOUNT.sub(take, text), numbers, tuple(quantities), tuple(bounds)


def _in_digits(text: str) -> str:
    """The text with numbers in words turned to digits. 'one' alone is a pronoun more often than a number: it stays."""
    if _none_of(_COUNTING, _LETTERS, text):
        return text
    pieces: list[str] = []
    run: list[str] = []
    done = begin = end = 0

    def close() -> None:
        nonlocal done
        if run and run != ["one"] and not all(word in SCALES for word in run):
            pieces.extend((text[done:begin], str(_value(run))))
            done = end
        run.clear()

    for match in _LETTERS.finditer(text):
        word = match.group().lower()
        gap = text[end : match.start()].strip(" -") if run else ""
        counts_on = word not in SMALL or run[-1:] == [] or run[-1] in SCALES or SMALL[run[-1]] > 19 > 9 >= SMALL[word]
        if gap not in ("", "and") or (gap == "and" and run[-1] not in SCALES) or not counts_on:
            close()
        if word in SMALL or word in SCALES:
            begin = begin if run else match.start()
            end = match.end()
            run.append(word)
        elif word != "and":
            close()
    close()
    return "".join((*pieces, text[done:]))


_LETTERS = re.compile(r"[A-Za-z]++")
_COUNTING = frozenset(SMALL) | frozenset(SCALES)


def _value(run: list[str]) -> int:
    total = part = 0
    for word in run:
        if word in SMALL:
            part += SMALL[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        else:
            total, part = total + max(part, 1) * SCALES[word], 0
    return total + part


def _other_numbers(text: str) -> list[tuple[int, str]]:
    """Ordinals, multiples and parts written as words, with their places."""
    if _none_of(OTHER_NUMBERS.keys(), _LETTERS, text):
        return []
    words = ((match.start(), match.group().lower()) for match in _LETTERS.finditer(text))
    return [(at, OTHER_NUMBERS[word]) for at, word in words if word in OTHER_NUMBERS]


def _bound_words(words: tuple[str, ...]) -> tuple[str, ...]:
    pairs = zip(words, (*words[1:], ""), strict=False)
    return tuple(
        BOUND_OF.get(f"{one} {two}") or BOUND_OF[one]
        for one, two in pairs
        if f"{one} {two}" in BOUND_OF or one in BOUND_OF
    )


def _pole(word: str) -> str:
    """The listed word behind an inflected one, or ''."""
    if word[:2] not in _POLE_STARTS:
        return ""
    for ending in ("", "s", "d", "ed", "ing", "es"):
        if word.endswith(ending):
            bare = word.removesuffix(ending)
            for guess in (bare, bare + "e", bare[:-1] if len(bare) > 2 and bare[-1:] == bare[-2:-1] else bare):
                if guess in POLES and (not ending or len(guess) > 2):
                    return guess
    return ""


_POLE_STARTS = frozenset(word[:2] for word in POLES)


def _pairs(words: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    """What stands left and right of a word that gives its sides different parts; 'a from b' is 'b to a'."""
    found = set()
    for at, word in enumerate(words):
        if word in ("to", "into", "than", "over", "by", "from", "versus", "vs", "minus", "before", "after", "against"):
            left = next((one for one in reversed(words[max(0, at - 3) : at]) if one not in STOP), "")
            right = next((one for one in words[at + 1 : at + 4] if one not in STOP), "")
            if left and right:
                pair = (stem(left), stem(right))
                found.add(pair[::-1] if word in ("from", "after") else pair)
    return frozenset(found)


def _scripts(word: str) -> frozenset[str]:
    """The scripts of the letters, by the first word of each letter's Unicode name."""
    if word.isascii():
        return _LATIN if _LETTERS.search(word) else frozenset()
    return frozenset(
        "latin" if char.isascii() else unicodedata.name(char, "unknown").partition(" ")[0].partition("-")[0].lower()
        for char in word
        if char.isalpha() and char not in "ªº"
    )


_LATIN = frozenset({"latin"})


def _language(words: tuple[str, ...]) -> str:
    scores = sorted((sum(map(listed.__contains__, words)), name) for name, listed in LANGUAGE_WORDS.items())
    best, second = scores[-1], scores[-2]
    return best[1] if best[0] > second[0] and best[0] >= 2 else ""


def _question(words: tuple[str, ...], marked: bool) -> str:
    for one, two in zip(words, (*words[1:], ""), strict=False):
        if one in ("why", "reason", "reasons"):
            return "why"
        if one == "how":
            return "why" if two == "come" else f"how {two}" if two in HOW else "how"
        if one in ("who", "whom", "whose", "where", "when", "which", "what"):
            return {"whom": "who", "whose": "who"}.get(one, one)
    return "yes/no" if marked and words and words[0] in AUXILIARIES else ""
