"""Who calls, told by the credential alone: nothing else that a client says of itself counts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from typing import NamedTuple

from farthing.proxy.config import Auth
from farthing.proxy.errors import ClientFault
from farthing.proxy.keys import KeyRing, VirtualKey
from farthing.proxy.wire import CREDENTIAL_HEADERS

__all__ = ["Caller", "Identity", "Tenants"]

_REMEMBERED = 10_000


class Caller(NamedTuple):
    """What the operator knows of who calls. `key_name`, `tenant_name`: empty where he gave none. `key`: the virtual key
    that was shown."""

    key_name: str = ""
    tenant_name: str = ""
    key: VirtualKey | None = None


class Identity(NamedTuple):
    """`credential`, `tenant`: opaque. `caller`: None where nothing is known of who it is."""

    credential: str
    tenant: str
    caller: Caller | None = None


class Tenants:
    """Who a credential belongs to: HMAC-SHA-256 with a local secret, so that no key is kept and none can be guessed
    from a record. Different credentials never share, unless the configuration or their keys' records put them into one
    named scope. `ring`: the virtual keys, where they are in force."""

    def __init__(self, secret: bytes, auth: Auth, ring: KeyRing | None = None) -> None:
        self._secret = secret
        self._scopes = {digest.lower(): scope.name for scope in auth.scopes for digest in scope.credentials_sha256}
        self._clients = {key.sha256: key.name for key in auth.client_keys}
        self._asks = bool(auth.client_keys) or ring is not None
        self.ring = ring
        self._known: OrderedDict[str, Identity] = OrderedDict()
        self._admitted: dict[str, VirtualKey | None] = {}
        self._changes = 0

    def refreshed(self) -> asyncio.Task[None] | None:
        """A look for changed keys that has to be waited for; None where there is none."""
        return None if self.ring is None else self.ring.refreshed()

    def identify(self, shown: str) -> Identity:
        """Who shows this. Raises ClientFault: 401 where keys are asked for and none fits, 503 where none can be looked
        up.

        `shown`: of wire.credential.
        """
        ring = self.ring
        if ring is not None and ring.changes != self._changes:
            self._known.clear()
            self._admitted.clear()
            self._changes = ring.changes
        known = self._known.get(shown)
        if known is None:
            known = self._work_out(shown)
            self._known[shown] = known
            self._admitted[known.credential] = None if known.caller is None else known.caller.key
            if len(self._known) > _REMEMBERED:
                self._admitted.pop(self._known.popitem(last=False)[1].credential, None)
        if ring is not None and known.caller is not None:
            key = known.caller.key
            if key is not None and not ring.good(key):
                raise self._refused(key, ring)
        return known

    def still_good(self, credential: str) -> bool:
        """Whether who was identified as this credential before may go on without being identified again."""
        ring = self.ring
        if ring is None:
            return True
        if ring.refreshed() is not None or ring.changes != self._changes or credential not in self._admitted:
            return False
        key = self._admitted[credential]
        return key is None or ring.good(key)

    def _work_out(self, shown: str) -> Identity:
        lines = [line.partition(":") for line in shown.split("\n")]
        keys = [(name, _bare(value)) for name, _, value in lines]
        found = self._virtual([key for name, key in keys if name in CREDENTIAL_HEADERS])
        if found is not None:
            return found
        digests = [hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest() for _, key in keys]
        named = [self._clients[digest] for digest in digests if digest in self._clients]
        if self._asks and not named:
            if self.ring is not None and self.ring.blind:
                raise _blind()
            raise _unknown()
        credential = self._opaque(shown.encode(errors="surrogateescape"))
        scopes = [self._scopes[digest] for digest in digests if digest in self._scopes]
        caller = Caller(named[0] if named else "", scopes[0] if scopes else "")
        tenant = self.of_scope(scopes[0]) if scopes else credential
        return Identity(credential, tenant, caller if named or scopes else None)

    def _virtual(self, keys: list[str]) -> Identity | None:
        ring = self.ring
        if ring is None:
            return None
        for secret in keys:
            key = ring.find(secret)
            if key is not None:
                credential = self._opaque(b"key:" + key.digest.encode())
                tenant = self.of_scope(key.tenant) if key.tenant else credential
                return Identity(credential, tenant, Caller(key.name, key.tenant, key))
        return None

    def _refused(self, key: VirtualKey, ring: KeyRing) -> ClientFault:
        """Whoever holds the key may know what became of it; nobody else comes here."""
        if ring.blind:
            return _blind()
        became = "has expired" if not key.revoked_s else "was revoked"
        return ClientFault(
            f"this key {became}; ask whoever gave it to you for another one",
            status=401,
            code="invalid_api_key",
            kind="authentication_error",
        )

    def of_scope(self, name: str) -> str:
        """The tenant that the credentials of a named scope are."""
        return self._opaque(b"scope:" + name.encode())

    def _opaque(self, text: bytes) -> str:
        return hmac.new(self._secret, text, "sha256").hexdigest()[:32]


def _bare(value: str) -> str:
    value = value.strip()
    return value[7:].strip() if value[:7].lower() == "bearer " else value


def _unknown() -> ClientFault:
    return ClientFault(
        "this proxy needs a client key that it knows (Authorization: Bearer ...)",
        status=401,
        code="invalid_api_key",
        kind="authentication_error",
    )


def _blind() -> ClientFault:
    return ClientFault(
        "keys can't be checked: the store that holds them is away", status=503, code="keys_unavailable",
        kind="server_error", retry_after_s=1.0,
    )  # fmt: skip
