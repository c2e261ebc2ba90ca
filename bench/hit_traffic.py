"""What the semantic caches are replayed on: the held-out parts of the streams, and traffic made from them.

Rules of this file:
1. A text that the verifier was trained on is in no traffic that is reported; `verifier_data.parted` says which it was.
2. Scope and walls are worked out apart: the scope by the proxy's own key, the walls from the raw messages, so that the
   one can be held against the other.
3. No text occurs twice in a scope: word-for-word repeats are the exact cache's, and every hit here is a semantic one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from multidict import CIMultiDict

from bench.verifier_data import STREAMS, Vectors, parted, requests_of
from bench.verifier_edits import Things, frames
from farthing.cache.key import Scope, neighbourhood
from farthing.cache.thesaurus import Thesaurus
from farthing.policies.reuse import RouteKey
from farthing.proxy.exchange import Controls, Endpoint
from farthing.proxy.text import normalise

__all__ = [
    "CLOSERS",
    "MADE",
    "OPENERS",
    "Asked",
    "Traffic",
    "calibrations",
    "held_out",
    "made",
    "orders",
    "streams",
    "varied",
]

MODEL = "model-1"
# Apps of the traffic that is made, with the stream that their questions come from.
MADE = {"bank": "intent", "answers": "qa", "traps": "adv"}
_ZIPF = 1.0
_DRIFTING = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `answer`: its class, which alone says whether an answer may be shared. `scope`: the proxy's.

    `walls`: tenant, system prompt and earlier turns, as they stand.
    """

    text: str
    answer: str
    slice: str
    scope: str
    route: RouteKey
    walls: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A set of requests and how it is put in order. `order`: 'shuffle', 'bursts' or 'calibrated'.

    `length`: how many are asked, drawn anew each time (None: all). `first`: with 'calibrated', so many come before the
    rest and aren't counted. `drifting`: classes whose right answer changes halfway. `records`:
    as in unmatchable. `share`: of the shuffles that are asked for, so many are run; long ones cost more.
    """

    name: str
    asked: tuple[Asked, ...]
    order: str = "shuffle"
    length: int | None = None
    first: int = 0
    drifting: frozenset[str] = frozenset()
    records: bool = True
    share: float = 1.0


def held_out(folder: Path, vectors: Vectors, part: str = "test") -> dict[str, list[Asked]]:
    """The part of each stream that the verifier wasn't trained on, or ('learn') was."""
    found = {}
    for stream in STREAMS:
        rows = [json.loads(line) for line in (folder / f"{stream}.jsonl").read_text("utf-8").splitlines()]
        parts = parted(requests_of(folder, stream), vectors)
        found[stream] = [asked(row) for row, (_, which) in zip(rows, parts, strict=True) if which == part]
    return found


def asked(row: dict[str, object]) -> Asked:
    """A stream's line as the proxy sees it. ValueError where the proxy would see no question in it."""
    messages = row["messages"]
    assert isinstance(messages, list)
    tenant = str(row.get("tenant", "one"))
    place = neighbourhood(_scope(tenant), {"model": MODEL, "messages": messages})
    if isinstance(place, str):
        raise ValueError(f"{row['id']}: {place}")
    told = json.dumps([one["content"] for one in messages if one["role"] == "system"])
    before = json.dumps([one for one in messages[:-1] if one["role"] != "system"])
    route = RouteKey(tenant, f"{MODEL} {told}")
    return Asked(
        normalise(place.text), str(row["class"]), str(row["slice"]), place.scope, route, (tenant, told, before)
    )


def _scope(tenant: str) -> Scope:
    return Scope(tenant, Endpoint.CHAT, "/v1/chat/completions", "https://upstream/v1", CIMultiDict(), Controls())


def made(sources: dict[str, list[Asked]], count: int, seed: int) -> list[Asked]:
    """`count` different requests to the three apps of one tenant: questions by Zipf's law, in ever other words.

    A question is a class; each time one of its texts is taken and varied. Follows from the seed.
    """
    chance = Random(seed)
    apps = {app: _questions(sources[stream], chance) for app, stream in MADE.items()}
    names = list(apps)
    seen: set[tuple[str, str]] = set()
    found: list[Asked] = []
    while len(found) < count:
        app = chance.choice(names)
        questions, weights = apps[app]
        base = chance.choice(chance.choices(questions, cum_weights=weights)[0])
        text = normalise(varied(base.text, chance))
        if (app, text) in seen:
            continue
        seen.add((app, text))
        row = {"id": app, "messages": [{"role": "system", "content": f"You are the assistant {app}."},
                                       {"role": "user", "content": text}]}  # fmt: skip
        found.append(asked(row | {"class": base.answer, "slice": f"{app}: {base.slice}"}))
    return found


def _questions(source: Sequence[Asked], chance: Random) -> tuple[list[list[Asked]], list[float]]:
    classes: dict[str, list[Asked]] = defaultdict(list)
    for one in source:
        classes[one.answer].append(one)
    questions = list(classes.values())
    chance.shuffle(questions)
    total, weights = 0.0, []
    for rank in range(len(questions)):
        total += (rank + 1) ** -_ZIPF
        weights.append(total)
    return questions, weights


OPENERS = """Hi,|Hello,|Hey,|Hi there!|Good morning.|Good evening,|Quick question:|A question:|Excuse me,|Sorry,
Please help:|I need help.|Just wondering:|One more thing:|Dear team,|Hi all,|Ok so|Um,|Hello there,|Please tell me:
Can you help me?|Could you help?|I have a question.|Hey there,|Morning!|So,|Well,|Right,""".replace("\n", "|").split(
    "|"
)
CLOSERS = """ Thanks!| Thank you.| Thanks in advance.| Please.| Cheers| Much appreciated.| Please let me know.| Thx|?|!
 Ta.| Many thanks| Thank you very much!| Any help is welcome.| Best regards| Have a nice day.| ...| :)| Kind regards,
 I'd be grateful.| Please advise.| Hope you can help.| Thanks a lot.""".replace("\n", "|").split("|")


def varied(text: str, chance: Random) -> str:
    """The same question as another person might type it: greeting, thanks, case, final mark, a slip of the fingers."""
    if chance.random() < 0.3:
        text = text.lower()
    elif chance.random() < 0.2:
        text = text.rstrip("?.! ")
    if chance.random() < 0.15:
        text = _slip(text, chance)
    if chance.random() < 0.6:
        text = f"{chance.choice(OPENERS)} {text}"
    if chance.random() < 0.6:
        text += chance.choice(CLOSERS)
    return text


def _slip(text: str, chance: Random) -> str:
    """Two letters of a long, plain word in the wrong order."""
    words = text.split(" ")
    places = [n for n, word in enumerate(words) if len(word) > 6 and word.isalpha() and word.islower()]
    if places:
        place = chance.choice(places)
        word = words[place]
        at = chance.randrange(1, len(word) - 2)
        words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def streams(folder: Path, vectors: Vectors, count: int) -> list[Traffic]:
    """All that is replayed: held-out parts, and traffic made of them, from `count` different texts."""
    test = held_out(folder, vectors)
    found = [Traffic(name, tuple(rows), records=name != "intent") for name, rows in test.items()]
    texts = tuple(made(test, count, seed=3))
    asked_most = _most_asked([one for one in texts if one.slice.startswith("answers")])
    long = round(count / 1.1)
    found.append(Traffic("zipf", texts, length=long // 10))
    found.append(Traffic("bursts", texts, "bursts", length=long // 10, share=0.5))
    found.append(Traffic("drift", texts, length=long // 4, drifting=frozenset(asked_most), share=0.2))
    found.append(Traffic("zipf, long", texts, length=long, share=0.05))
    return found


def calibrations(folder: Path, vectors: Vectors) -> list[Traffic]:
    """The held-out adversarial families, after evidence was gathered on other families.

    'other families': those that the verifier learned from. 'and frames': besides them 2,000 prompts made by script.
    """
    other, test = (held_out(folder, vectors, part)["adv"] for part in ("learn", "test"))
    things = [*frames(Things(Thesaurus.load()), 2)]
    Random(2).shuffle(things)
    known = {one.text for one in (*other, *test)}
    more = {}
    for one in things:
        text = normalise(one.text)
        if text not in known:
            more.setdefault(text, replace(other[0], text=text, answer=one.answer, slice="frames"))
    extra = list(more.values())[:2_000]
    before = {"adv after other families": other, "adv after families and frames": [*other, *extra]}
    return [Traffic(name, (*rows, *test), "calibrated", first=len(rows), share=0.2) for name, rows in before.items()]


def _most_asked(rows: Sequence[Asked]) -> list[str]:
    counts: dict[str, int] = defaultdict(int)
    for one in rows:
        counts[one.answer] += 1
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:_DRIFTING]


def orders(traffic: Traffic, count: int) -> Iterator[list[int]]:
    """`count` orders of the traffic, numbers within `asked`; the n-th follows from n alone."""
    numbers = range(len(traffic.asked))
    for seed in range(count):
        chance = Random(seed)
        if traffic.order == "calibrated":
            before, after = list(numbers[: traffic.first]), list(numbers[traffic.first :])
            chance.shuffle(before)
            chance.shuffle(after)
            yield before + after
            continue
        drawn = chance.sample(numbers, traffic.length or len(numbers))
        yield drawn if traffic.order == "shuffle" else _bursts(traffic, drawn, chance)


def _bursts(traffic: Traffic, drawn: Sequence[int], chance: Random) -> list[int]:
    """Each question comes in runs of one to some twenty, the runs in any order."""
    classes: dict[str, list[int]] = defaultdict(list)
    for number in drawn:
        classes[traffic.asked[number].answer].append(number)
    runs = []
    for members in classes.values():
        at = 0
        while at < len(members):
            length = 1 + int(chance.expovariate(0.1))
            runs.append(members[at : at + length])
            at += length
    chance.shuffle(runs)
    return [number for run in runs for number in run]
