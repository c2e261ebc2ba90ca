"""Embeddings item by item: what a request asks, what of it is known, and the answer put together again. Pure.

Rules of this file:
1. A request is taken apart only where each of its inputs surely has one vector of its own: known fields, and of unknown
   ones those that hold no list or table, which might speak of each input.
2. A vector is given again as the numbers that the upstream sent. In the other encoding it is given only where both say
   exactly the same: base64 carries float32, little-endian (OpenAI API reference, embeddings, `encoding_format`).
3. Anything unusual in an answer (other members, other counts, vectors of two lengths) means: don't take it apart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from farthing.cache.entry import Entry
from farthing.cache.key import canonical
from farthing.proxy.exchange import Endpoint
from farthing.proxy.usage import Usage, UsageSource, total

__all__ = ["MANIFEST", "Answered", "Asked", "Case", "Vector", "apportioned", "asked_of", "keys_in", "read_answer"]

MANIFEST = "items"
"""The variant under which stands which items an answer was made of, so that a purge by its key finds them."""

_VERSION = b"farthing-item-1"
_KEY_BYTES = 16
_LONGEST_ENVELOPE = 4096
_MEMBERS = ({"index", "embedding"}, {"object", "index", "embedding"})
_COUNTS = ("prompt_tokens", "total_tokens")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks: `unique`: its inputs, each once (texts or lists of tokens); `places`: of each position,
    which of them; `rest`: digest of all else that can change a vector; `base64`: the encoding asked for."""

    unique: tuple[Any, ...]
    places: tuple[int, ...]
    rest: bytes
    base64: bool

    def keys(self, scope: bytes, variant: str) -> list[str]:
        """Of each unique input, 32 hex digits over scope, everything else and itself. `variant`: '' or `.N`."""
        begun = hashlib.sha256(_VERSION + self.rest + scope)
        found = []
        for item in self.unique:
            one = begun.copy()
            one.update(orjson.dumps(item))
            found.append(one.hexdigest()[: 2 * _KEY_BYTES] + variant)
        return found


def asked_of(exact: dict[str, Any]) -> Asked | None:
    """The request taken apart; None where it can't be. `exact`: of wire.Body."""
    given, encoding = exact.get("input"), exact.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        return None
    items = [given] if isinstance(given, str) or _is_tokens(given) else given
    if not isinstance(items, list) or not items:
        return None
    if not (all(type(item) is str for item in items) or all(_is_tokens(item) for item in items)):
        return None
    rest = {name: value for name, value in exact.items() if name not in ("input", "encoding_format")}
    if any(isinstance(value, dict | list) for name, value in rest.items() if name != "metadata"):
        return None
    seen: dict[Any, int] = {}
    places = [seen.setdefault(item if type(item) is str else tuple(item), len(seen)) for item in items]
    unique = tuple(item if type(item) is str else list(item) for item in seen)
    digest = hashlib.sha256(canonical(rest, Endpoint.EMBEDDINGS)).digest()
    return Asked(unique, tuple(places), digest, encoding == "base64")


def _is_tokens(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(token) is int and 0 <= token < 2**32 for token in value)


class Vector(NamedTuple):
    """One input's vector. `kind`: of `_pack`; `data`: float32 little-endian, or for 't' the JSON text itself.
    `envelope`: what stood round it in the answer, as JSON."""

    kind: str
    data: bytes
    envelope: bytes

    @property
    def size(self) -> int:
        """Numbers in it."""
        return len(self.data) // 4 if self.kind != "t" else len(orjson.loads(self.data))

    def told(self, *, as_base64: bool) -> bytes | None:
        """It as a JSON value in that encoding; None where it can't be said exactly."""
        if as_base64:
            return b'"' + base64.b64encode(self.data) + b'"' if self.kind in "bWS" else None
        if self.kind == "t":
            return self.data
        import numpy as np

        numbers = np.frombuffer(self.data, "<f4")
        if self.kind == "b" and not np.isfinite(numbers).all():
            return None
        # Widened, a float32 is the very number that a client reads out of base64; 's' came in its shortest decimals.
        plain = numbers if self.kind in "sS" else numbers.astype(np.float64)
        return orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)

    def body(self) -> bytes:
        """For the store; `stored` gives it back."""
        return b"".join((self.kind.encode(), len(self.envelope).to_bytes(2, "big"), self.envelope, self.data))

    @classmethod
    def stored(cls, body: bytes) -> Vector:
        """What `body` gave."""
        end = 3 + int.from_bytes(body[1:3], "big")
        return cls(body[:1].decode(), body[end:], body[3:end])


def _pack(value: Any) -> tuple[str, bytes] | None:
    """A vector as kind and bytes; None where it is none.

    b: came as base64. s: numbers told as the shortest decimals of a float32; w: as doubles that are a float32. S, W:
    the same, and surely not rounded before they were told, since one number needs all nine digits of a float32: only
    these are the same in base64. t: anything else, kept as text.
    """
    if type(value) is str:
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        return ("b", data) if data and len(data) % 4 == 0 and base64.b64encode(data).decode() == value else None
    if type(value) is not list or not value or not all(type(number) in (float, int) for number in value):
        return None
    import numpy as np

    try:
        doubles = np.array(value, np.float64)
    except OverflowError:
        return None
    with np.errstate(over="ignore", under="ignore"):
        singles = doubles.astype("<f4")
    if np.array_equal(singles.astype(np.float64), doubles):
        kind = "w"
    elif np.isfinite(singles).all() and orjson.loads(orjson.dumps(singles, option=orjson.OPT_SERIALIZE_NUMPY)) == [
        float(number) for number in value
    ]:
        kind = "s"
    else:
        return "t", orjson.dumps(value)
    whole = any(np.float32(f"{number:.7e}") != number for number in singles)
    return kind.upper() if whole else kind, singles.tobytes()


class Answered(NamedTuple):
    """An upstream's answer taken apart: a vector for each input that was sent, in that order; `tokens`: of all."""

    vectors: tuple[Vector, ...]
    tokens: int | None
    model: str


def read_answer(value: dict[str, Any] | None, count: int) -> Answered | None:
    """The answer to `count` inputs; None where it is anything but one vector of one length for each of them."""
    data = None if value is None else value.get("data")
    if value is None or value.get("error") is not None or not isinstance(data, list) or len(data) != count:
        return None
    usage = value.get("usage")
    tokens = None
    if usage is not None:
        if not isinstance(usage, dict) or any(_says(part) for name, part in usage.items() if name not in _COUNTS):
            return None
        counts = [usage[name] for name in _COUNTS if name in usage]
        if not counts or any(type(one) is not int or one != counts[0] or one < 0 for one in counts):
            return None
        tokens = counts[0]
    envelope = orjson.dumps({name: part for name, part in value.items() if name != "data"})
    packed: list[tuple[str, bytes] | None] = [None] * count
    for one in data:
        if not isinstance(one, dict) or set(one) not in _MEMBERS:
            return None
        index = one["index"]
        if type(index) is not int or not 0 <= index < count or packed[index] is not None:
            return None
        packed[index] = _pack(one["embedding"])
    vectors = tuple(Vector(*each, envelope) for each in packed if each is not None)
    if len(vectors) != count or len(envelope) > _LONGEST_ENVELOPE or len({vector.size for vector in vectors}) != 1:
        return None
    model = value.get("model")
    return Answered(vectors, tokens, model if isinstance(model, str) else "")


def _says(part: Any) -> bool:
    """Whether a member of a usage says anything: a count that isn't nothing."""
    return any(map(_says, part.values())) if isinstance(part, dict) else bool(part)


def apportioned(tokens: int | None, counted: Sequence[int]) -> list[Usage]:
    """How many tokens each input used, of `tokens` that all of them used; `counted`: by our own count.

    Where our count of all is the upstream's, each is exact; else each has its share, and is marked as counted.
    """
    if tokens is None or (len(counted) > 1 and sum(counted) != tokens):
        source, whole = UsageSource.COUNTED, sum(counted)
        if tokens is None or not whole:
            return [Usage(fresh=one, source=source) for one in counted]
        ends = [0]
        for one in counted:
            ends.append(ends[-1] + one)
        marks = [end * tokens // whole for end in ends]
        return [Usage(fresh=marks[i + 1] - marks[i], source=source) for i in range(len(counted))]
    return [Usage(fresh=tokens)] if len(counted) == 1 else [Usage(fresh=one) for one in counted]


@dataclass(slots=True)
class Case:
    """One request on its way. `keys`: of the unique inputs. `known`: stored ones, by place among them. `fresh`: those
    that the upstream has given, with what each used."""

    asked: Asked
    keys: list[str]
    known: dict[int, tuple[Vector, Entry]] = field(default_factory=dict)
    fresh: dict[int, tuple[Vector, Usage]] = field(default_factory=dict)

    def take(self, entries: Sequence[Entry | None], *, not_before_s: float) -> None:
        """Note what is stored and may be given: in the encoding asked for, of one length, written by one model (the
        latest one's), and stored at `not_before_s` or later (seconds since the epoch)."""
        for place, entry in enumerate(entries):
            if entry is None or entry.stored_s < not_before_s or len(entry.body) < 4:
                continue
            vector = Vector.stored(entry.body)
            if self.asked.base64 and vector.kind not in "bWS":
                continue
            self.known[place] = (vector, entry)
        if not self.known:
            return
        latest, by = max(self.known.values(), key=lambda one: one[1].stored_s)
        self.known = {
            place: (vector, entry)
            for place, (vector, entry) in self.known.items()
            if entry.model_served == by.model_served and vector.size == latest.size
        }

    @property
    def missing(self) -> list[int]:
        """Places among the unique inputs that must be asked for."""
        return [place for place in range(len(self.keys)) if place not in self.known]

    @property
    def reduced(self) -> bool:
        """Whether less goes upstream than the client sent."""
        return bool(self.known) or len(self.keys) < len(self.asked.places)

    @property
    def positions_known(self) -> int:
        """Positions of the request that need not be asked for."""
        return sum(place in self.known for place in self.asked.places)

    def to_send(self) -> bytes:
        """The `input` that goes upstream, as JSON."""
        return orjson.dumps([self.asked.unique[place] for place in self.missing])

    def fits(self, answered: Answered) -> bool:
        """Whether the answer's vectors may stand beside those that are known."""
        if not self.known:
            return True
        vector, entry = next(iter(self.known.values()))
        return answered.model == entry.model_served and answered.vectors[0].size == vector.size

    def fill(self, answered: Answered, usages: Sequence[Usage]) -> None:
        """Note what the upstream has given, in the order of `missing`."""
        self.fresh = {
            place: (vector, usage) for place, vector, usage in zip(self.missing, answered.vectors, usages, strict=True)
        }

    def fill_whole(self, value: dict[str, Any] | None, count: Callable[[Any], int]) -> bool:
        """Note what the upstream has given to the client's own request; False where that can't be taken apart.

        `count`: the tokens of one input, by our own count.
        """
        answered = read_answer(value, len(self.asked.places))
        if answered is None:
            return False
        items = [self.asked.unique[place] for place in self.asked.places]
        alone = len(items) == 1 and answered.tokens is not None
        used = apportioned(answered.tokens, [0] if alone else [count(item) for item in items])
        self.fresh = dict(zip(self.asked.places, zip(answered.vectors, used, strict=True), strict=True))
        return True

    def usage(self) -> Usage | None:
        """What the whole request would have used, each position by itself; None where nobody knows."""
        used = {place: entry.usage for place, (_, entry) in self.known.items()}
        used |= {place: usage for place, (_, usage) in self.fresh.items()}
        each = [used[place] for place in self.asked.places]
        known = [one for one in each if one is not None]
        return total(known) if len(known) == len(each) else None

    def answer(self) -> bytes | None:
        """The whole answer, in the order of the request; None where a stored vector can't be said in that encoding.

        What stands round the vectors is the upstream's own, of this answer or of a stored one; its usage is `usage`.
        """
        told: dict[int, bytes] = {}
        for place in range(len(self.keys)):
            vector = self.known[place][0] if place in self.known else self.fresh[place][0]
            said = vector.told(as_base64=self.asked.base64)
            if said is None and place in self.fresh:
                said = vector.told(as_base64=False)  # the upstream doesn't speak base64
            if said is None:
                return None
            told[place] = said
        envelope = next(iter(self.fresh.values()))[0].envelope if self.fresh else self.known[0][0].envelope
        members = orjson.loads(envelope)
        usage = self.usage()
        if isinstance(members.get("usage"), dict) and usage is not None:
            members["usage"] |= {name: usage.tokens_in for name in _COUNTS if name in members["usage"]}
        rows = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%s}' % (index, told[place])
            for index, place in enumerate(self.asked.places)
        )
        first = orjson.dumps({"object": members.pop("object", "list")})[:-1]
        rest = orjson.dumps(members)[1:]
        return b"".join((first, b',"data":[', rows, b"]", b"," if rest != b"}" else b"", rest))

    def manifest(self) -> bytes:
        """The keys of all items, for `keys_in`."""
        return b"".join(bytes.fromhex(key.partition(".")[0]) for key in self.keys)


def keys_in(manifest: Entry) -> list[str]:
    """The keys of the items that an answer was made of."""
    _, _, variant = manifest.key.removesuffix(f".{MANIFEST}").partition(".")
    suffix = f".{variant}" if variant else ""
    body = manifest.body
    return [body[at : at + _KEY_BYTES].hex() + suffix for at in range(0, len(body), _KEY_BYTES)]
