"""An entry as bytes, and back. Pure; never pickle, so that a stranger's bytes can't run anything.

Layout: magic 3, version 1, digest 16, header length 4 (big-endian), header (JSON), body. The digest is BLAKE2b over
all that isn't the digest, so a flipped bit, a cut or a foreign value reads as None, and never as another answer.
Version 2 is the same with a sealed body (proxy/seal.py), compressed before it was sealed and bound to the header.
Version 3 is a head: the header of an entry that lies elsewhere in pieces, and where (pieces.py). It is never an entry.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard

from farthing.cache.entry import Entry
from farthing.proxy.seal import Seal, SealedElsewhere
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["Labels", "decode", "digest_of", "encode", "headed", "is_head", "manifest_of", "peek", "resealed"]

_MAGIC = b"FTH"
_PREFIX = _MAGIC + b"\x01"
_SEALED_PREFIX = _MAGIC + b"\x02"
_PREFIXES = (_PREFIX, _SEALED_PREFIX)
_HEAD_PREFIX = _MAGIC + b"\x03"
_DIGEST_AT = len(_PREFIX)
_DIGEST_BYTES = 16
_LENGTH_AT = _DIGEST_AT + _DIGEST_BYTES
_HEADER_AT = _LENGTH_AT + 4
_KEY_ID_BYTES = 8

# Below this, compressing costs more than what a page of SQLite or a packet to Redis costs.
_COMPRESS_FROM_BYTES = 4096
# Of zstd: a third of deflate's processor time for no more bytes, and deeper ones cost more than they save
# (`python -m bench.entry_codec`, docs/exact-cache.md).
_LEVEL = 1
# A body that shrinks by less than an eighth stays as it is: what was compressed before.
_MUST_SAVE = 8
# Longer ones are never compressed, so that a made-up value, which may shrink to nothing, can't take more than this.
_MOST_BYTES = 268_435_456
# How a body is compressed; deflate is what former versions wrote.
_AS_IT_IS, _DEFLATE, _ZSTD = 0, 1, 2
# Where `encode` puts them.
_STORED_AT = 7
_TAGS_AT = 10
_NAMESPACE_AT = 13  # in answers that were stored before there were namespaces, the header ends there
_SAVED_AT = 14  # only of answers to a request that had been shortened
# What reading a header that we did not write can raise.
_NOT_OURS = (ValueError, TypeError, LookupError, OverflowError, RecursionError, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a purge looks at."""

    key: str
    scope: str
    model_requested: str
    model_served: str
    stored_s: float
    tags: tuple[tuple[str, str], ...]
    namespace: str = ""


def encode(entry: Entry, seal: Seal | None = None) -> bytes:
    """The entry as bytes, its body compressed where that pays, and sealed where there is a seal; `decode` gives the
    same entry back.

    Raises ValueError: a field that JSON can't hold (a time that is not finite).
    """
    if not (abs(entry.stored_s) < float("inf") and abs(entry.expires_s) < float("inf")):
        raise ValueError("an entry's times must be finite")
    body, packed = entry.body, _AS_IT_IS
    if _COMPRESS_FROM_BYTES < len(body) <= _MOST_BYTES:
        shorter = zstandard.compress(body, _LEVEL)  # a context of its own: entries are encoded in several threads
        if len(shorter) < len(body) - len(body) // _MUST_SAVE:
            body, packed = shorter, _ZSTD
    usage = entry.usage
    header = _dumps(
        [
            entry.key,
            entry.scope,
            entry.model_requested,
            entry.model_served,
            entry.endpoint,
            entry.shape,
            entry.content_type,
            entry.stored_s,
            entry.expires_s,
            usage and _parts(usage),
            entry.tags,
            len(entry.body),
            packed,
            entry.namespace,
            *([entry.tokens_saved] if entry.tokens_saved else []),
        ]
    )
    length = len(header).to_bytes(4, "big")
    prefix = _PREFIX
    if seal is not None:
        prefix, body = _SEALED_PREFIX, seal.close(body, header)
    return b"".join((prefix, _digest(length, header, body), length, header, body))


def decode(raw: bytes, seal: Seal | None = None) -> Entry | None:
    """The entry that `encode` wrote; None for anything else: cut, corrupt, foreign or of an unknown version.

    One that isn't sealed is read whether or not there is a seal. Raises SealedElsewhere: its key isn't here.
    """
    if len(raw) < _HEADER_AT or not raw.startswith(_PREFIXES):
        return None
    view = memoryview(raw)
    end = _HEADER_AT + int.from_bytes(view[_LENGTH_AT:_HEADER_AT], "big")
    if end > len(raw) or _digest(view[_LENGTH_AT:]) != view[_DIGEST_AT:_LENGTH_AT]:
        return None
    try:
        header, body = bytes(view[_HEADER_AT:end]), view[end:]
        if raw.startswith(_SEALED_PREFIX):
            if seal is None:
                raise SealedElsewhere(bytes(body[:_KEY_ID_BYTES]).hex())
            body = memoryview(seal.open(body, header))
        return _entry(_loads(header), body)
    except SealedElsewhere:
        raise
    except _NOT_OURS:
        return None


def resealed(raw: bytes, seal: Seal) -> bytes | None:
    """An encoded entry with its body under the seal's current key, and all else as it is; None where it is so already.

    Raises SealedElsewhere: its key isn't here; ValueError: it is damaged, or none of ours.
    """
    view = memoryview(raw)
    end = _HEADER_AT + int.from_bytes(view[_LENGTH_AT:_HEADER_AT], "big")
    whole = len(raw) >= _HEADER_AT and raw.startswith(_PREFIXES) and end <= len(raw)
    if not whole or _digest(view[_LENGTH_AT:]) != view[_DIGEST_AT:_LENGTH_AT]:
        raise ValueError("not an entry, or damaged")
    length, header, body = raw[_LENGTH_AT:_HEADER_AT], raw[_HEADER_AT:end], raw[end:]
    if raw.startswith(_SEALED_PREFIX):
        if seal.is_current(body):
            return None
        body = seal.open(body, header)
    body = seal.close(body, header)
    return b"".join((_SEALED_PREFIX, _digest(length, header, body), length, header, body))


def digest_of(raw: bytes) -> bytes:
    """What an encoded entry says is its digest."""
    return raw[_DIGEST_AT:_LENGTH_AT]


def headed(raw: bytes, manifest: bytes) -> bytes:
    """A head: the encoded entry's header, followed by `manifest` instead of its body."""
    end = _HEADER_AT + int.from_bytes(raw[_LENGTH_AT:_HEADER_AT], "big")
    rest = raw[_LENGTH_AT:end] + manifest
    return _HEAD_PREFIX + _digest(rest, prefix=_HEAD_PREFIX) + rest


def is_head(value: bytes) -> bool:
    """Whether it seems to be one, unlike anything that `encode` made."""
    return value.startswith(_HEAD_PREFIX)


def manifest_of(head: bytes) -> bytes | None:
    """What `headed` was given; None: not a head, or damaged."""
    end = _HEADER_AT + int.from_bytes(head[_LENGTH_AT:_HEADER_AT], "big")
    whole = is_head(head) and _HEADER_AT <= end <= len(head)
    if not whole or _digest(head[_LENGTH_AT:], prefix=_HEAD_PREFIX) != digest_of(head):
        return None
    return head[end:]


def peek(start: bytes) -> Labels | None:
    """The labels from an encoded entry's first bytes, without its checksum: good for choosing what to remove, never
    for serving. None where these bytes don't hold the whole header."""
    if len(start) < _HEADER_AT or not start.startswith((*_PREFIXES, _HEAD_PREFIX)):
        return None
    end = _HEADER_AT + int.from_bytes(start[_LENGTH_AT:_HEADER_AT], "big")
    if end > len(start):
        return None
    try:
        fields = _loads(start[_HEADER_AT:end])
        tags = tuple((str(name), str(value)) for name, value in fields[_TAGS_AT])
        key, scope, requested, served = map(str, fields[:4])
        return Labels(key, scope, requested, served, float(fields[_STORED_AT]), tags, _namespace(fields))
    except _NOT_OURS:
        return None


def _entry(fields: list[Any], body: memoryview) -> Entry | None:
    """Raises one of `_NOT_OURS` where the header is not ours."""
    (key, scope, requested, served, endpoint, shape, content_type, stored_s, expires_s, usage, tags, size, packed) = (
        fields[:_NAMESPACE_AT]
    )
    whole = _unpacked(body, size, packed)
    if whole is None:
        return None
    if len(whole) != size or shape not in ("whole", "stream"):
        return None
    return Entry(
        key=key,
        scope=scope,
        endpoint=endpoint,
        model_requested=requested,
        model_served=served,
        shape=shape,
        content_type=content_type,
        body=whole,
        usage=None if usage is None else _usage(usage),
        stored_s=stored_s,
        expires_s=expires_s,
        tags=tuple((name, value) for name, value in tags),
        namespace=_namespace(fields),
        tokens_saved=int(fields[_SAVED_AT]) if len(fields) > _SAVED_AT else 0,
    )


def _unpacked(body: memoryview, size: int, packed: int) -> bytes | None:
    """The body as it was. Never more than `size` and a byte, nor than `_MOST_BYTES`, is made of what may be anything;
    ours fit exactly."""
    if packed == _AS_IT_IS:
        return bytes(body)
    if not 0 <= size <= _MOST_BYTES:
        return None
    if packed == _DEFLATE:
        inflater = zlib.decompressobj()
        whole = inflater.decompress(body, size + 1)
        return whole if inflater.eof else None
    # What a frame says of its size is what is set aside for it, whatever bound is given; and no frame may follow.
    if packed != _ZSTD or zstandard.get_frame_parameters(body).content_size != size:
        return None
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=size, allow_extra_data=False)


def _namespace(fields: list[Any]) -> str:
    return str(fields[_NAMESPACE_AT]) if len(fields) > _NAMESPACE_AT else ""


def _parts(usage: Usage) -> list[Any]:
    """The five buckets and who counted; the others follow only where there are any."""
    five = [usage.fresh, usage.cached, usage.cache_write, usage.output, usage.reasoning, usage.source.value]
    return five if usage.plain else [*five, *usage[len(five) :]]


def _usage(parts: list[Any]) -> Usage:
    fresh, cached, cache_write, output, reasoning, source, *extras = parts
    if not extras:
        return Usage(fresh, cached, cache_write, output, reasoning, UsageSource(source))
    return Usage(fresh, cached, cache_write, output, reasoning, UsageSource(source), *extras)


def _digest(*parts: bytes | memoryview, prefix: bytes = _PREFIX) -> bytes:
    digest = hashlib.blake2b(prefix, digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _dumps(value: list[Any]) -> bytes:
    """JSON; the slow way, told by its leading space, for what orjson refuses: lone surrogates (they stand for raw
    bytes of headers) and integers beyond 64 bits, which it would read back as floats."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b" " + json.dumps(value).encode()


def _loads(raw: bytes) -> list[Any]:
    value = json.loads(raw) if raw.startswith(b" ") else orjson.loads(raw)
    if not isinstance(value, list):
        raise ValueError("not a header")
    return value
