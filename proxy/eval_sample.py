"""`farthing eval sample`: a dataset out of recorded traffic that looks like production, with traps beside it.

Rules of this file: identical requests become one case that stands for all of them; what goes into the file has been
looked through for personal data, by the capture store or here; the file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from farthing.policies.accept import spoken
from farthing.policies.adversary import KINDS, edited, with_last_text
from farthing.policies.answer import read
from farthing.policies.dataset import ENDPOINTS, EvalCase, dumped
from farthing.policies.outcome import RATING, Outcome
from farthing.policies.sampling import stratified
from farthing.policies.slices import slices_of
from farthing.policies.splits import groups_of, in_time
from farthing.proxy import capture_file
from farthing.proxy.capture_admin import FILE
from farthing.proxy.clock import SystemRandomness
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.redact import Redactor, Unredacted
from farthing.proxy.replay_formats import recorded
from farthing.proxy.replay_read import Broken, open_trace
from farthing.proxy.replay_values import NotARequest, Recorded
from farthing.proxy.sealing import sealer
from farthing.proxy.text import normalise
from farthing.proxy.whole_file import write_whole

__all__ = [
    "STRATA",
    "Sampled",
    "Source",
    "Wanted",
    "bad_ratings",
    "from_capture",
    "from_trace",
    "gather",
    "sample",
    "write",
]

# Of another run they are another thing, or nobody wants them again.
_NOT_ASKED = frozenset(("stream", "stream_options", "metadata", "store", "user", "safety_identifier"))
STRATA = ("endpoint", "model", "length", "language", "tools", "format")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`size`: cases from traffic. `adversarial`: traps for each of them, on average. `strata`: slices whose shares must
    be production's. `shares`: of the parts in time; one for a single part."""

    size: int = 500
    strata: tuple[str, ...] = STRATA
    adversarial: float = 0.2
    kinds: tuple[str, ...] = KINDS
    shares: tuple[float, ...] = (1.0,)
    seed: int = 1


@dataclass(slots=True)
class Source:
    """Distinct requests as they were recorded. `left_out`: how many requests, by the reason. `whole`: requests read."""

    cases: dict[bytes, EvalCase] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    broken: Broken = field(default_factory=Broken)
    whole: int = 0
    rated: dict[bytes, EvalCase] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        """One that can't be used."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


class Sampled(NamedTuple):
    """The parts' cases, each in the order of time, and how many were left out as copies of an earlier part's."""

    parts: tuple[tuple[EvalCase, ...], ...]
    copies: int


def from_capture(config: Config, since_s: float) -> Iterator[tuple[int, Any]]:
    """What the capture store holds. Raises ConfigFault: there is none, or it can't be opened with the keys at hand."""
    path = config.state_dir / FILE
    if not path.is_file():
        raise ConfigFault(
            f"{path} isn't there: nothing was captured. Set capture.enabled = true and let traffic pass, or name a "
            "trace with --trace"
        )
    try:
        yield from enumerate(capture_file.lines(path, since_s, sealer(config.store, SystemRandomness())), 1)
    except capture_file.Unopened as why:
        raise ConfigFault(f"{path}: {why}") from None


def from_trace(path: Path) -> Iterator[tuple[int, Any]]:
    """The lines of any file that `farthing replay` reads, with their numbers. Raises ConfigFault."""
    for block in open_trace(path).blocks():
        for at, line in enumerate(block.lines):
            if line.strip():
                yield block.line + at, line


def gather(
    lines: Iterable[tuple[int, Any]], bad: frozenset[str] = frozenset(), redactor: Redactor | None = None
) -> Source:
    """The distinct requests with their latest good answers. `bad`: ids of requests whose answers were rated bad."""
    source = Source()
    for number, line in lines:
        source.whole += 1
        try:
            value = orjson.loads(line)
            found = recorded(value)
        except NotARequest as why:
            source.leave_out(why.kind or str(why))
            continue
        except (orjson.JSONDecodeError, RecursionError):
            source.broken.add(number, "not JSON")
            continue
        if reason := _unusable(found):
            source.leave_out(reason)
            continue
        _take(source, found, str(value.get("id") or number), bad, redactor)
    return source


def _unusable(found: Recorded) -> str:
    if found.endpoint not in ENDPOINTS or found.body is None:
        return f"no chat or completion ({found.endpoint})"
    if found.status not in (0, 200):
        return "failed"
    if found.response is None or not read(orjson.dumps(found.response)):
        return "without an answer that is understood"
    return ""


def _take(source: Source, found: Recorded, id: str, bad: frozenset[str], redactor: Redactor | None) -> None:
    assert found.body is not None
    body: Mapping[str, Any] = {name: value for name, value in found.body.items() if name not in _NOT_ASKED}
    reference: Mapping[str, Any] | None = found.response
    if redactor is not None:
        try:
            body, reference = redactor.clean(body, reference)
        except (Unredacted, RecursionError):
            source.leave_out("could not be looked through for personal data")
            return
    key = hashlib.sha256(orjson.dumps([found.endpoint, found.tenant, body], option=orjson.OPT_SORT_KEYS)).digest()
    slices = slices_of(found.endpoint, body, found.tags, found.tenant)
    case = EvalCase(id, body, found.endpoint, reference, slices, 1.0, found.ts or 0.0, found.tenant)
    if id in bad:
        # What was complained about is no reference; the complaint is why the case is there.
        source.rated.setdefault(key, replace(case, id=f"{id}-rated", reference=None, source=RATING))
        reference = None
    known = source.cases.get(key)
    if known is None:
        source.cases[key] = replace(case, reference=reference)
    else:
        source.cases[key] = replace(known, weight=known.weight + 1, reference=reference or known.reference)


def bad_ratings(outcomes: Sequence[Outcome]) -> frozenset[str]:
    """The requests whose last word was a bad rating."""
    return frozenset(one.request_id for one in outcomes if one.bad)


def sample(source: Source, wanted: Wanted, pairs: Sequence[tuple[int, int]] = ()) -> Sampled:
    """Draw, add rated cases and traps, and part in time. `pairs`: places of nearly equal requests, which must not come
    into different parts. KeyError: a kind of trap that isn't known.
    """
    rng = random.Random(wanted.seed)
    cases = list(source.cases.values())
    texts = [normalise(spoken(dict(case.request))) for case in cases]
    first: dict[tuple[str, str], int] = {}
    equal = [(first.setdefault((case.endpoint, texts[at]), at), at) for at, case in enumerate(cases)]
    groups = groups_of(len(cases), [*equal, *pairs])
    parted = in_time([case.ts for case in cases], groups, wanted.shares)
    keys, found = list(source.cases), []
    for part in parted.parts:
        here = [cases[at] for at in part if keys[at] not in source.rated]
        size = max(1, round(wanted.size * len(here) / max(1, len(cases) - len(parted.left_out)))) if here else 0
        drawn = stratified(here, lambda case: _stratum(case, wanted.strata), lambda case: case.weight, size, rng)
        chosen = [replace(here[one.at], weight=one.weight) for one in drawn]
        # All of these are in, each for itself: so the others' weights needn't speak for them, nor theirs for others.
        rated = [replace(source.rated[keys[at]], weight=cases[at].weight) for at in part if keys[at] in source.rated]
        found.append(tuple(sorted((*_with_traps(chosen, wanted, rng), *rated), key=lambda case: case.ts)))
    return Sampled(tuple(found), len(parted.left_out))


def _stratum(case: EvalCase, strata: Sequence[str]) -> tuple[str, ...]:
    return tuple(case.slices.get(name, "") for name in strata)


def _with_traps(cases: Sequence[EvalCase], wanted: Wanted, rng: random.Random) -> Iterator[EvalCase]:
    """Each case, and after some of them a trap made from it: the kinds in turn, where the text has what they change.

    A trap stands for no request of production: its weight is 1, and it is told apart by its source.
    """
    turn = 0
    for case in cases:
        yield case
        if rng.random() >= wanted.adversarial or not wanted.kinds:
            continue
        text = spoken(dict(case.request))
        for step in range(len(wanted.kinds)):
            kind = wanted.kinds[(turn + step) % len(wanted.kinds)]
            edit = edited(text, kind, rng)
            body = with_last_text(case.request, edit.text) if edit is not None else None
            if edit is not None and body is not None:
                turn += step + 1
                yield replace(
                    case, id=f"{case.id}~{kind.replace(' ', '-')}", request=body, reference=None, weight=1.0,
                    source=f"generated:{kind}", of=case.id, expect=edit.expect,
                )  # fmt: skip
                break


def write(path: Path, cases: Iterable[EvalCase]) -> None:
    """All of it or nothing: readable by its owner only. Raises ConfigFault: the folder can't be written."""
    try:
        write_whole(path, map(dumped, cases))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None
