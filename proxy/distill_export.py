"""`farthing distill export`: what teachers said, without copies, in parts that nothing leaks between, with a data card.

Rules of this file: a text stands in one part only, and so does what is nearly the same text; parts follow each other
in time; what is left out is counted by the reason. Files are written whole or not at all, readable by their owner only.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from farthing.cache.embedder import Embedder
from farthing.policies.splits import groups_of, in_time
from farthing.policies.student import sense
from farthing.proxy.distill_card import card
from farthing.proxy.distill_formats import FORMATS, NoSuchForm
from farthing.proxy.distill_near import near_pairs, vectors_of
from farthing.proxy.distill_rows import Gathered, TeacherRow
from farthing.proxy.errors import ConfigFault

__all__ = ["Exported", "Shape", "export", "parts_of", "write"]


@dataclass(frozen=True, slots=True)
class Shape:
    """`shares`: of the parts, by their names, in the order of time. `cosine`: from which on texts are nearly the same;
    0: not looked for. `consistent`: leave out what the teacher answered differently at different times. `licence`: the
    operator's word, for the card."""

    form: str = "openai"
    shares: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    cosine: float = 0.95
    consistent: bool = False
    licence: str = ""


class Exported(NamedTuple):
    """`files`: each one's content by its name. `facts`: what the card says, as plain values."""

    files: dict[str, bytes]
    facts: dict[str, Any]


def export(
    found: Gathered,
    shape: Shape,
    embedder: Embedder | None,
    about: Mapping[str, Any],
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Exported:
    """The files of an export. `about`: what the caller knows of the source, filters and redaction, for the card."""
    dropped = Counter(found.dropped)
    rows = _distinct(found.rows, dropped, consistent=shape.consistent)
    rows, lines = _written(rows, shape.form, dropped)
    pairs: list[tuple[int, int]] = []
    unseen = 0
    if embedder is not None and shape.cosine:
        texts = [row.turns[-1].text for row in rows]
        vectors, fits = vectors_of(texts, embedder, lambda done, total: tell("embedding", done, total))
        pairs = list(near_pairs(vectors, shape.cosine))
        unseen = int((~fits).sum())
    copies = _near_copies(rows, pairs)
    dropped["a near copy with the same answer"] += len(copies)
    first: dict[str, int] = {}
    equal = [(first.setdefault(sense(row.turns[-1].text), at), at) for at, row in enumerate(rows)]
    groups = groups_of(len(rows), [*equal, *pairs])
    kept = [at for at in range(len(rows)) if at not in copies]
    parted = in_time([rows[at].ts for at in kept], [groups[at] for at in kept], tuple(shape.shares.values()))
    dropped["like one of an earlier part"] += len(parted.left_out)
    parts = {name: [kept[at] for at in part] for name, part in zip(shape.shares, parted.parts, strict=True)}
    files = {f"{name}.jsonl": b"".join(lines[at] for at in part) for name, part in parts.items()}
    facts = {
        **about,
        "format": shape.form,
        "read": found.read,
        "dropped": {reason: count for reason, count in dropped.most_common() if count},
        "near_cosine": shape.cosine if embedder is not None else 0,
        "embedder": embedder.name if embedder is not None and shape.cosine else "",
        "too_long_to_compare": unseen,
        "consistent_only": shape.consistent,
        "licence": shape.licence,
        "parts": {name: _facts([rows[at] for at in part], files[f"{name}.jsonl"]) for name, part in parts.items()},
        "teachers": dict(Counter(rows[at].teacher for part in parts.values() for at in part).most_common()),
    }
    files["card.json"] = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    files["CARD.md"] = card(facts).encode()
    return Exported(files, facts)


def _distinct(rows: Sequence[TeacherRow], dropped: Counter[str], *, consistent: bool) -> list[TeacherRow]:
    """One row for each conversation: the latest."""
    alike: dict[tuple[Any, ...], list[TeacherRow]] = defaultdict(list)
    for row in rows:
        alike[tuple((turn.role, sense(turn.text)) for turn in row.turns)].append(row)
    kept = []
    for same in alike.values():
        if consistent and len({sense(row.answer) for row in same}) > 1:
            dropped["the teacher disagrees with itself"] += len(same)
            continue
        dropped["a copy"] += len(same) - 1
        kept.append(same[-1])
    return sorted(kept, key=lambda row: row.ts)


def _written(rows: Sequence[TeacherRow], form: str, dropped: Counter[str]) -> tuple[list[TeacherRow], list[bytes]]:
    kept, lines = [], []
    for row in rows:
        try:
            lines.append(FORMATS[form](row))
        except NoSuchForm as why:
            dropped[str(why)] += 1
            continue
        kept.append(row)
    return kept, lines


def _near_copies(rows: Sequence[TeacherRow], pairs: Sequence[tuple[int, int]]) -> set[int]:
    """The later one of two near questions in one context, where the answer is the same; another answer to nearly the
    same question is worth learning."""
    copies: set[int] = set()
    for one, other in sorted(pairs):
        a, b = rows[one], rows[other]
        if one not in copies and a.turns[:-1] == b.turns[:-1] and sense(a.answer) == sense(b.answer):
            copies.add(other)
    return copies


def _facts(rows: Sequence[TeacherRow], body: bytes) -> dict[str, Any]:
    times = [row.ts for row in rows if row.ts]
    return {
        "rows": len(rows),
        "from_s": min(times, default=None),
        "to_s": max(times, default=None),
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }


def parts_of(text: str) -> dict[str, float]:
    """Parts as `train=80,validation=10,test=10`. Raises ConfigFault."""
    try:
        given = {name.strip(): float(share) for name, _, share in (one.partition("=") for one in text.split(","))}
        whole = sum(given.values())
        if min(given.values()) <= 0 or not all(name.isidentifier() for name in given):
            raise ValueError
    except ValueError:
        raise ConfigFault(f"--splits: names and shares, as train=80,validation=10,test=10, not {text!r}") from None
    return {name: share / whole for name, share in given.items()}


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All of them; each one a reader sees whole or not at all. Raises ConfigFault: the folder can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, body in files.items():
            aside = folder / f".{name}.new"
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(body)
            aside.replace(folder / name)
    except OSError as error:
        raise ConfigFault(f"can't write {folder}: {error.strerror}") from None
