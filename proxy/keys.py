"""Virtual keys: credentials that farthing itself gives to clients, and takes back.

Rules of this file:
1. A key is shown once, when it is made. What is kept is its SHA-256: it has 160 random bits, so no guess finds it.
2. A key is for farthing alone. Whatever header carries one doesn't go upstream.
3. What a client says of itself doesn't count: its name, its tenant and its budgets are those of the key's record.
4. A running farthing looks for changes at most `_LOOK_AGAIN_S` apart while there is traffic, and admits no request on a
   look older than `_STALE_S`. Where the store can't be asked, what is known holds for `grace_s`; then nothing does.
5. A key's record is never removed. What is known here and isn't in the store has been lost there (a server that came
   back empty), and is put back. That somebody knew of a revocation is enough for a key to stay revoked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

import orjson
import structlog

from farthing.policies.budget import Budget, Per, Subject
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.errors import ClientFault, StoreFault
from farthing.proxy.exchange import Endpoint

__all__ = [
    "KeyBudget",
    "KeyRing",
    "KeyStore",
    "VirtualKey",
    "bearing",
    "digest_of",
    "lost",
    "made",
    "read_key",
    "readable",
]

log = structlog.get_logger("farthing.keys")

PREFIX = "fk-"
_LOOKS_LIKE = re.compile(r"fk-[0-9a-f]{40}(?![0-9a-f])")
_LOOK_AGAIN_S = 0.25
_STALE_S = 0.75


class KeyBudget(NamedTuple):
    """What a key may spend in each day, week or month. `limit`: pico-dollars."""

    limit: int
    per: Per
    hard: bool = True


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """What is known of a key. `digest`: SHA-256 of it, as hex. `ending`: its last four characters, to tell it by.
    Times are seconds since the epoch, 0 for never. `models`: shell patterns; empty: all of them."""

    id: str
    digest: str
    ending: str
    name: str
    created_s: float
    tenant: str = ""
    expires_s: float = 0.0
    revoked_s: float = 0.0
    models: tuple[str, ...] = ()
    budgets: tuple[KeyBudget, ...] = ()

    def state(self, now_s: float) -> str:
        """good, expired or revoked."""
        if self.revoked_s:
            return "revoked"
        return "expired" if self.expires_s and now_s >= self.expires_s else "good"

    def check_model(self, model: str, endpoint: Endpoint, method: str) -> None:
        """Raises ClientFault 403 where the key is for other models; what names no model is only asked about (GET)."""
        if not self.models or (endpoint is Endpoint.OTHER and method in ("GET", "HEAD", "OPTIONS")):
            return
        if not model or not any(fnmatchcase(model, pattern) for pattern in self.models):
            raise ClientFault(
                f"this key is not for {model!r}"
                if model
                else "this key is for some models, and the request names none",
                status=403,
                code="model_not_allowed",
                kind="permission_error",
                param="model",
            )

    def own_budgets(self, alerts: tuple[float, ...] = ()) -> tuple[Budget, ...]:
        """Its budgets as policies know them. `alerts`: shares of each that are told of."""
        return tuple(
            Budget(f"key.{self.id}.{one.per}", one.limit, one.per, Subject("key"), one.hard, alerts)
            for one in self.budgets
        )

    def told(self, now_s: float) -> dict[str, Any]:
        """It for a screen. Neither the key nor its digest is in it."""
        return {
            "id": self.id,
            "name": self.name,
            "ending": self.ending,
            "tenant": self.tenant,
            "state": self.state(now_s),
            "created_s": self.created_s,
            "expires_s": self.expires_s or None,
            "revoked_s": self.revoked_s or None,
            "models": list(self.models),
            "budgets": [
                {"usd": one.limit / 10**12, "per": one.per, "hard": one.hard, "name": f"key.{self.id}.{one.per}"}
                for one in self.budgets
            ],
        }


class KeyStore(Protocol):
    """Where records are kept: keys_file (SQLite), keys_redis. Every call may raise StoreFault."""

    async def add(self, key: VirtualKey) -> None:
        """Keep one more."""
        ...

    async def revoke(self, id: str, now_s: float) -> bool:
        """Revoke it; False where there is none of that id. Once revoked it stays so."""
        ...

    async def all(self) -> list[VirtualKey]:
        """Every record, oldest first, revoked ones too."""
        ...

    async def version(self) -> str:
        """Another text after every change."""
        ...

    async def put_back(self, keys: Sequence[VirtualKey]) -> None:
        """Keep those that aren't there any more, and revoke those that are revoked here and weren't there."""
        ...

    async def close(self) -> None:
        """Let go; idempotent."""
        ...


def made(
    randomness: Randomness,
    now_s: float,
    *,
    name: str,
    tenant: str = "",
    expires_s: float = 0.0,
    models: Iterable[str] = (),
    budgets: Iterable[KeyBudget] = (),
) -> tuple[str, VirtualKey]:
    """A new key, to be shown once, and its record."""
    secret = PREFIX + randomness.token(20)
    record = VirtualKey(
        id=randomness.token(4),
        digest=digest_of(secret),
        ending=secret[-4:],
        name=name,
        created_s=now_s,
        tenant=tenant,
        expires_s=expires_s,
        models=tuple(models),
        budgets=tuple(budgets),
    )
    return secret, record


def digest_of(secret: str) -> str:
    """SHA-256 of a key, as hex."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def bearing(pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The names (lower case) of headers in which something like a virtual key stands."""
    return frozenset(name.lower() for name, value in pairs if PREFIX in value and _LOOKS_LIKE.search(value))


def written(key: VirtualKey) -> bytes:
    """The record as JSON, for a store."""
    fields = {name: getattr(key, name) for name in VirtualKey.__slots__}
    return orjson.dumps(fields | {"budgets": [tuple(one) for one in key.budgets]})


def read_key(text: bytes | str) -> VirtualKey:
    """The record from `written`. Raises ValueError."""
    try:
        fields = orjson.loads(text)
        budgets = tuple(KeyBudget(*one) for one in fields.pop("budgets"))
        bytes.fromhex(fields["digest"])
        return VirtualKey(**fields | {"models": tuple(fields["models"]), "budgets": budgets})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"a key's record is damaged: {error}") from None


def readable(records: Iterable[bytes | str]) -> list[VirtualKey]:
    """The keys of these records in the order of their making. A damaged record costs its own key only, which is refused
    from then on; it is told in the log."""
    keys = []
    for record in records:
        try:
            keys.append(read_key(record))
        except ValueError as error:
            log.error("a key can't be read and is refused", error=str(error))
    return sorted(keys, key=lambda key: (key.created_s, key.id))


def lost(known: Iterable[VirtualKey], found: Iterable[VirtualKey]) -> list[VirtualKey]:
    """Of the keys that were known: those that a store has lost, or whose revocation it has."""
    there = {key.id: key for key in found}
    return [key for key in known if key.id not in there or (key.revoked_s and not there[key.id].revoked_s)]


class KeyRing:
    """The keys as the running farthing knows them. `spawn`: starts a look in the background."""

    def __init__(
        self,
        store: KeyStore,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        grace_s: float,
    ) -> None:
        self.store = store
        self.grace_s = grace_s
        self.changes = 0  # whoever remembers something of a key asks anew when this has moved
        self._clock = clock
        self._spawn = spawn
        self._by_digest: dict[bytes, VirtualKey] = {}
        self._keys: tuple[VirtualKey, ...] = ()
        self._version = ""
        self._looked_tick = -1e9
        self._looking: asyncio.Task[None] | None = None
        self._away = ""

    @property
    def keys(self) -> tuple[VirtualKey, ...]:
        """All that are known, oldest first."""
        return self._keys

    @property
    def away(self) -> str:
        """Why the store can't be asked; empty where it can."""
        return self._away

    def refreshed(self) -> asyncio.Task[None] | None:
        """None where what is known is fresh enough; else a look to wait for."""
        age_s = self._clock.tick_s() - self._looked_tick
        if age_s < _LOOK_AGAIN_S:
            return None
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._look())
        return self._looking if age_s >= _STALE_S else None

    def find(self, secret: str) -> VirtualKey | None:
        """The record of a key that is shown, whatever its state; compared in constant time."""
        digest = digest_of(secret)
        found = self._by_digest.get(bytes.fromhex(digest)[:8])
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def good(self, key: VirtualKey) -> bool:
        """Whether the key may be used now."""
        return key.state(self._clock.now_s()) == "good" and not self.blind

    @property
    def blind(self) -> bool:
        """Whether nothing is known for certain any more: the store has been away for longer than `grace_s`."""
        return bool(self._away) and self._clock.tick_s() - self._looked_tick > self.grace_s

    async def _look(self) -> None:
        began = self._clock.tick_s()
        try:
            version = await self.store.version()
            if version != self._version:
                found = await self.store.all()
                if missing := lost(self._keys, found):
                    log.error("the store has lost keys: they are put back", keys=len(missing))
                    await self.store.put_back(missing)
                    version, found = await self.store.version(), await self.store.all()
                self._take(found)
                self._version = version
        except StoreFault as fault:
            if not self._away:
                log.error("the keys can't be looked up", fault=str(fault), good_for_s=self.grace_s)
            self._away = str(fault)
            return
        if self._away:
            log.warning("the keys can be looked up again")
        self._away, self._looked_tick = "", began

    def _take(self, keys: list[VirtualKey]) -> None:
        self._keys = tuple(keys)
        self._by_digest = {bytes.fromhex(key.digest)[:8]: key for key in keys}
        self.changes += 1
