"""Stored texts under AES-256-GCM, for disks and servers that others may read. Leaf.

What is sealed: what somebody said, and what can be read back from numbers made of it. What stays open is by what it is
found, removed and told apart (keys, tenants, models, tags, times, counts of tokens; no text of anybody's), but it is
bound to what is sealed: beside another one it doesn't open. Layout: key id 8, nonce 12, ciphertext with its tag.

Where sealed texts and open ones stand beside each other (`closed`, `opened`), the sealed ones begin with a mark.

Source: NIST SP 800-38D, 8.3: with a random nonce of 96 bits, no more than 2^32 texts for one key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

__all__ = [
    "MissingKeys",
    "Seal",
    "SealedElsewhere",
    "Sealer",
    "anew",
    "closed",
    "is_current",
    "is_sealed",
    "opened",
]

log = structlog.get_logger("farthing.store")

_ID_BYTES = 8
_NONCE_BYTES = 12
_MARK = b"FTS\x01"


class SealedElsewhere(ValueError):
    """Sealed under a key that isn't here. `key_id`: that key's, as hex."""

    def __init__(self, id: str) -> None:
        super().__init__(f"it is sealed under the key {id}, which is not here")
        self.key_id = id


class MissingKeys:
    """Tells the log once of each key that is missing. `what`: that is sealed, `meaning`: what that costs."""

    def __init__(self, what: str = "stored answers", meaning: str = "they are misses") -> None:
        self._said = f"{what} are sealed under a key that is not here: {meaning}"
        self._told: set[str] = set()

    def tell(self, sealed: SealedElsewhere) -> None:
        """One was met."""
        if sealed.key_id not in self._told:
            self._told.add(sealed.key_id)
            log.error(self._said, key_id=sealed.key_id)


class Seal(Protocol):
    """What seals and opens."""

    def close(self, plain: bytes, bound: bytes) -> bytes:
        """The sealed form. `bound`: what it belongs to, and won't open without."""
        ...

    def open(self, sealed: bytes | memoryview, bound: bytes) -> bytes:
        """What `close` was given. Raises SealedElsewhere; ValueError: it was changed, or bound to something else."""
        ...

    def is_current(self, sealed: bytes | memoryview) -> bool:
        """Whether `close` would take the same key now."""
        ...


class Sealer:
    """A Seal over `keys` of 32 bytes: the first closes, all of them open. `noise`: that many random bytes.

    Raises ModuleNotFoundError: the extra `encryption` isn't installed.
    """

    def __init__(self, keys: Sequence[bytes], noise: Callable[[int], bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._current = _id_of(keys[0])
        self._noise = noise

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys' ids as hex, the one that closes first."""
        return tuple(id.hex() for id in (self._current, *(id for id in self._ciphers if id != self._current)))

    def close(self, plain: bytes, bound: bytes) -> bytes:
        """Seal.close."""
        nonce = self._noise(_NONCE_BYTES)
        return b"".join((self._current, nonce, self._ciphers[self._current].encrypt(nonce, plain, bound)))

    def open(self, sealed: bytes | memoryview, bound: bytes) -> bytes:
        """Seal.open."""
        from cryptography.exceptions import InvalidTag

        id = bytes(sealed[:_ID_BYTES])
        cipher = self._ciphers.get(id)
        if cipher is None:
            raise SealedElsewhere(id.hex())
        nonce = bytes(sealed[_ID_BYTES : _ID_BYTES + _NONCE_BYTES])
        try:
            return cipher.decrypt(nonce, sealed[_ID_BYTES + _NONCE_BYTES :], bound)
        except InvalidTag:
            raise ValueError("it was changed after it had been sealed") from None

    def is_current(self, sealed: bytes | memoryview) -> bool:
        """Seal.is_current."""
        return bytes(sealed[:_ID_BYTES]) == self._current


def closed(seal: Seal | None, plain: bytes, bound: bytes) -> bytes:
    """What is to be stored: marked and sealed, or without a seal as it is. `bound`: see Seal.close."""
    return plain if seal is None else _MARK + seal.close(plain, bound)


def opened(seal: Seal | None, stored: bytes, bound: bytes) -> bytes:
    """What `closed` was given, with whatever seal or none.

    Raises SealedElsewhere; ValueError: it was changed, cut, or bound to something else.
    """
    if not is_sealed(stored):
        return stored
    sealed = stored[len(_MARK) :]
    if seal is None:
        raise SealedElsewhere(sealed[:_ID_BYTES].hex())
    return seal.open(sealed, bound)


def is_sealed(stored: bytes) -> bool:
    """Whether it begins as what was sealed does."""
    return stored.startswith(_MARK)


def is_current(seal: Seal | None, stored: bytes) -> bool:
    """Whether `closed` would store it under the same key now, or in the open too."""
    return not is_sealed(stored) if seal is None else is_sealed(stored) and seal.is_current(stored[len(_MARK) :])


def anew(seal: Seal, stored: bytes, bound: bytes) -> bytes | None:
    """What `closed` or nothing at all had made of a text, as `closed` would store it now; None where it is so already.

    Raises SealedElsewhere; ValueError: it was changed, cut, or bound to something else.
    """
    return None if is_current(seal, stored) else closed(seal, opened(seal, stored, bound), bound)


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"farthing-store-key\0" + key).digest()[:_ID_BYTES]
