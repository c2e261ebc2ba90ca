"""Prompts made by script for training the verifier, so that it learns of changes and not of one benchmark's templates.

Two kinds, both in groups of texts with classes (equal class: same answer). `frames`: everyday requests written here,
each worded several ways, with slots filled from WordNet's lists of things of a kind; none is of a family of the
benchmark's. `sentences`: WordNet's example sentences with one thing changed (a number, a negation, an opposite, a thing
of the same kind, two things swapped) or only the surface. Everything follows from the seed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from farthing.cache.thesaurus import Thesaurus
from farthing.proxy.lexicon import MONTHS, WEEKDAYS
from farthing.proxy.text import stem

__all__ = ["Made", "Things", "frames", "sentences"]


@dataclass(frozen=True, slots=True)
class Made:
    """One text: `family` for splitting, `answer` its class."""

    text: str
    answer: str
    family: str


# Slots: what stands in braces is filled from the list of that name; a digit tells two of a kind apart. '~': the order
# of the two makes no difference to the answer.
FRAMES = """
How do I cook {food} for {n} people? | recipe for {food} for {n} | I want to make {food} for {n} people, how is it done?
How many calories are in {n} grams of {food}? | {food}, {n} g: how many calories? | calories of {n} grams of {food}
What does the word {adj} mean? | define {adj} | meaning of the word "{adj}" | Explain what {adj} means.
Give me a synonym for {adj}. | another word for {adj} | What is a word that means the same as {adj}?
How do I train a {animal} to stop biting? | my {animal} bites, how can I stop it | teach a {animal} not to bite
What do {animal}s eat in winter? | winter food of the {animal} | In winter, what does a {animal} eat?
~ What is the difference between a {animal} and a {animal2}? | {animal} vs {animal2}: how do they differ?
~ What is the time difference between {city} and {city2}? | how many hours apart are {city} and {city2}
Is {city} larger than {city2}? | Is {city} a bigger place than {city2}?
Book a table in {city} for {n} on {day}. | I'd like a table for {n} in {city} on {day} | table for {n}, {city}, {day}
Write an email to {name} asking for the report by {day}. | Ask {name} by email for the report, due {day}.
Tell {name} that {name2} has paid. | Let {name} know that {name2} has paid. | Message to {name}: {name2} has paid
Does {name} report to {name2}? | Is {name2} the manager of {name}? | Is it {name2} that {name} reports to?
What is {n}% of {n2}? | {n} percent of {n2} | Calculate {n} percent of {n2}.
If I save ${n} a month, how much is it after {n2} months? | saving {n} dollars monthly for {n2} months gives how much?
How do I plant {food} in {month}? | planting {food} in {month}, how? | It's {month}: how should I plant {food}?
What does a {job} earn? | salary of a {job} | How much money does a {job} make?
What training do I need to become a {job}? | I'd like to be a {job}, which training does it take?
Interview questions for a {job} with {n} years of experience | What to ask a {job} who has {n} years of experience?
Write a poem about {noun} in {n} lines. | a {n}-line poem about {noun} | {n} lines of verse on {noun}
Which is more {adj}, {noun} or {noun2}? | Of {noun} and {noun2}, which is more {adj}?
Summarise the history of {city} in {n} sentences. | history of {city}, {n} sentences
When did {city} become independent of {city2}? | {city}'s independence from {city2}: when was it?
Should I take {med} before or after eating? | {med}: before or after a meal?
~ Can I take {med} with {med2}? | are {med} and {med2} safe together | mixing {med2} and {med}, is it safe?
How do I play {music} if I'm left-handed? | I'm left-handed; how can I play the {music}?
How do I raise {noun}? | ways to raise {noun}
How do I lower {noun}? | ways to lower {noun}
Why is {noun} good for {animal}s? | What makes {noun} good for {animal}s?
Why is {noun} not good for {animal}s? | What makes {noun} bad for {animal}s?
Remind me at {hour} to call {name}. | set a reminder at {hour}: call {name}
Is the museum open on {day} at {hour}? | on {day}, can I visit the museum at {hour}? | museum, {day}, {hour}: open?
Write a function `{ident}` that returns the largest of {n} numbers. | function {ident}: the largest of {n} numbers
What does error {n} mean in {ident}? | {ident} says error {n}, what is it? | meaning of error {n} from `{ident}`
~ How far is it from {city} to {city2} by train? | train distance {city} to {city2}
Send {n} boxes of {food} from {city} to {city2}. | ship {n} boxes of {food} to {city2} from {city}
Find rows where `{ident} > {n}`. | rows with {ident} > {n} | which rows have {ident} > {n}?
Find rows where `{ident} < {n}`. | rows with {ident} < {n} | which rows have {ident} < {n}?
Proofread this: "{quote}" | "{quote}" - is there a mistake? | Correct the mistakes in "{quote}"
Is "{quote}" polite? | would it be polite to say "{quote}" | How polite is it to say "{quote}"?
"""
_MODELS = {
    "food": "rice bread soup cheese apple potato bean carrot corn onion tomato pea lemon",
    "animal": "dog cat horse rabbit",
    "city": "paris rome berlin vienna",
    "job": "doctor lawyer teacher engineer nurse farmer",
    "adj": "strong dark cold quiet soft dry sharp",
    "noun": "music money water trade coffee steel paper history",
    "med": "aspirin insulin morphine",
    "music": "guitar piano violin flute",
}
_NAMES = "Ana Ben Carla Deniz Elif Felix Grace Hana Ivan Julia Kofi Lena Marco Nora Omar Priya Rafael Sara Tom Yusuf"
_IDENTS = "max_value userName parse_row retry_count fetchAll tmp_dir is_valid node_id loadData total_sum"
_SLOT = re.compile(r"\{([a-z]+)(\d?)\}")
_BEFORE = ("", "", "", "please ", "Hi, ", "Could you help me: ", "quick question: ", "Hello! ")
_AFTER = ("", "", "", " Thanks!", " please", " Thank you.")


class Things:
    """The thesaurus turned round: which words are of a kind, which are opposites."""

    def __init__(self, thesaurus: Thesaurus) -> None:
        self._thesaurus = thesaurus
        self._of_kind: dict[int, list[str]] = defaultdict(list)
        self._of_stem: dict[str, str] = {}
        for word in thesaurus:
            self._of_stem.setdefault(stem(word), word)
            for kind in thesaurus.sense(word).kinds:
                self._of_kind[kind].append(word)

    def siblings(self, word: str) -> list[str]:
        """Words of the same kind that don't mean the same, the most frequent 40."""
        sense = self._thesaurus.sense(word)
        near = {other for kind in sense.kinds for other in self._of_kind[kind] if len(other) > 3 and other != word}
        near = {other for other in near if self._thesaurus.sense(other).meanings.isdisjoint(sense.meanings)}
        return sorted(near, key=lambda other: (self._thesaurus.sense(other).rank, other))[:40]

    def opposites(self, word: str) -> list[str]:
        """Its opposites, in base form."""
        return sorted(self._of_stem[other] for other in self._thesaurus.sense(word).opposites if other in self._of_stem)

    def is_thing(self, word: str) -> bool:
        """Whether it is of a kind with anything."""
        return bool(self._thesaurus.sense(word).kinds)


def frames(things: Things, seed: int, each: int = 60) -> Iterator[Made]:
    """Requests with slots: from each frame about `each` texts of which two in five have the same slots as another."""
    chance = Random(seed)
    fillers = _fillers(things)
    for number, line in enumerate(FRAMES.strip().splitlines()):
        wordings = [wording.strip() for wording in line.removeprefix("~").split(" | ")]
        wanted = sorted({match.group(1) + match.group(2) for wording in wordings for match in _SLOT.finditer(wording)})
        chosen = {slot: chance.sample(options, min(len(options), 4)) for slot in wanted
                  for options in [fillers[slot.rstrip("2")]]}  # fmt: skip
        for _ in range(each // 2):
            values = {slot: chance.choice(options) for slot, options in chosen.items()}
            if any(slot + "2" in values and values[slot + "2"] == values[slot] for slot in values):
                continue
            said = [values[slot] for slot in wanted]
            answer = f"frame{number}:" + "|".join(sorted(said) if line.startswith("~") else said)
            for wording in chance.sample(wordings, min(2, len(wordings))):
                yield Made(_surface(_filled(wording, values), chance), answer, f"frame{number}")


def _fillers(things: Things) -> dict[str, list[str]]:
    """For each kind of slot its models and the common words that WordNet has of the same kind."""
    found = {}
    for slot, listed in _MODELS.items():
        models = listed.split()
        near = {other for model in models for other in things.siblings(model)}
        found[slot] = [*models, *sorted(near - {*models})[:60]]
    found["city"] = [word.title() for word in found["city"]]
    found["name"] = _NAMES.split()
    found["ident"] = _IDENTS.split()
    found["n"] = [str(n) for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 24, 25, 30, 40, 50, 75, 100, 120, 250, 400)]
    found["day"] = [day.title() for day in WEEKDAYS]
    found["month"] = [month.title() for month in MONTHS]
    found["hour"] = [f"{hour} {half}" for hour in range(1, 13) for half in ("am", "pm")]
    found["quote"] = [
        "The meetings is over.",
        "I has two dogs.",
        "She go home early.",
        "We was there.",
        "Send me it now!",
    ]
    return found


def _filled(wording: str, values: dict[str, str]) -> str:
    return _SLOT.sub(lambda match: values[match.group(1) + match.group(2)], wording)


def _surface(text: str, chance: Random) -> str:
    """The same request with another greeting, case or ending."""
    before, after = chance.choice(_BEFORE), chance.choice(_AFTER)
    if before.endswith((", ", ": ", "please ")):
        text = text[0].lower() + text[1:]
    text = before + (text.rstrip(".?") if chance.random() < 0.3 else text) + after
    return text.lower() if chance.random() < 0.1 and "`" not in text else text[0].upper() + text[1:]


def sentences(folder: Path, things: Things, seed: int, count: int = 900) -> Iterator[Made]:
    """WordNet's examples (`folder`: the npm package's dict), each as it is, on the surface changed, and edited."""
    chance = Random(seed)
    found = set()
    for part in ("verb", "noun", "adj"):
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            found |= {one for one in re.findall(r'"([A-Za-z][^"`]{24,110})"', line) if one.count(" ") >= 5}
    for number, text in enumerate(chance.sample(sorted(found), count)):
        family = f"sentence{number}"
        ask = chance.choice(("{}", "Is it true that {}?", "Explain this: {}", "Rewrite: {}", "Continue the story. {}"))
        yield Made(ask.format(text), f"{family}:0", family)
        yield Made(_surface(ask.format(text), chance), f"{family}:0", family)
        edits = [one for one in (_edited(text, how, things, chance) for how in _EDITS) if one and one != text]
        for kind, edited in enumerate(chance.sample(edits, min(2, len(edits))), 1):
            yield Made(_surface(ask.format(edited), chance), f"{family}:{kind}", family)
            if chance.random() < 0.3:
                yield Made(_surface(ask.format(edited), chance), f"{family}:{kind}", family)


_EDITS = ("negate", "opposite", "sibling", "swap", "number", "direction")
_AUXILIARY = re.compile(r"\b(is|was|are|were|can|could|will|would|should|must|had|has)\b(?! not|n't)")
_TURNS = {"before": "after", "after": "before", "with": "without", "in": "on", "to": "from", "from": "to", "up": "down"}
_TURN = re.compile(r"\b(" + "|".join(_TURNS) + r")\b")
_FEW = {"a ": "two ", "two": "three", "three": "five", "one": "two", "four": "six", "several": "no", "all": "some"}
_FEW_OF = re.compile(r"\b(two|three|one|four|several|all|a )(?=\b|[a-z])")


def _edited(text: str, how: str, things: Things, chance: Random) -> str:
    """The text with one change of meaning; '' where it has no place for it."""
    if how == "negate":
        return _AUXILIARY.sub(lambda match: match.group() + " not", text, count=1)
    if how == "direction":
        return _TURN.sub(lambda match: _TURNS[match.group()], text, count=1)
    if how == "number":
        return _FEW_OF.sub(lambda match: _FEW[match.group()], text, count=1)
    words = re.findall(r"[A-Za-z]{4,}", text)
    chance.shuffle(words)
    if how == "swap":
        nouns = [word for word in words if things.is_thing(word)][:2]
        if len(set(nouns)) < 2:
            return ""
        one, other = nouns
        return re.sub(rf"\b({one}|{other})\b", lambda match: other if match.group() == one else one, text)
    for word in words:
        options = things.opposites(word) if how == "opposite" else things.siblings(word)
        if options:
            return re.sub(rf"\b{word}\b", chance.choice(options), text, count=1)
    return ""
