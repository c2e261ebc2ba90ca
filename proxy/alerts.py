"""Tells a webhook that a budget's threshold is reached, and of incidents. Off every request's way; bounded; told in the
log too.

What is POSTed, as JSON: event, budget, of, subject, per, hard, share, limit_usd, spent_usd, resets_at, at, upstream.
Of an incident: event ("incident"), ts, kind, what, why, evidence, policy, route, at, upstream.
With `alerts.secret` the header `x-farthing-signature: t=SECONDS,v1=HEX` carries the HMAC-SHA-256 of `SECONDS.BODY`, so
that the receiver can tell who sent it, and when.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import structlog

from farthing.policies.budget import Want
from farthing.proxy.clock import Clock
from farthing.proxy.config_spend import Alerts

__all__ = ["Webhook", "signature"]

log = structlog.get_logger("farthing.alerts")

_MOST_AT_ONCE = 32
_FIRST_PAUSE_S = 0.5


class Webhook:
    """One webhook. `spawn`: starts a call in the background. `lost`: alerts that never arrived."""

    def __init__(
        self,
        settings: Alerts,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        upstream: str = "",
        pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._spawn = spawn
        self._upstream = upstream
        self._pause_s = pause_s
        self._under_way = 0
        self._tls: ssl.SSLContext | None = None
        self.lost = 0

    def tell(self, want: Want, share: float, spent: int) -> None:
        """A share of a budget is spent. Returns at once."""
        budget = want.budget
        event = {
            "event": "budget_threshold",
            "budget": budget.name,
            "of": budget.subject.of,
            "subject": want.subject,
            "per": budget.per,
            "hard": budget.hard,
            "share": share,
            "limit_usd": budget.limit / 10**12,
            "spent_usd": spent / 10**12,
            "resets_at": _iso(want.ends_s),
        }
        log.warning("budget threshold", **{name: event[name] for name in ("budget", "subject", "share", "spent_usd")})
        self.send(event)

    def send(self, event: dict[str, Any]) -> None:
        """Tell of anything: `event` has `event`, `at` and `upstream` beside its own fields. Returns at once."""
        now_s = self._clock.now_s()
        event = {"at": _iso(now_s), "upstream": self._upstream} | event
        if not self._settings.webhook.get_secret_value():
            return
        if self._under_way >= _MOST_AT_ONCE:
            self._lost(event, "too many are under way")
            return
        self._under_way += 1
        self._spawn(self._send(event, int(now_s)))

    def _lost(self, event: dict[str, Any], fault: str) -> None:
        """It never arrives: the log says so, with what it was about."""
        self.lost += 1
        about = {name: event[name] for name in ("event", "budget", "subject", "share", "kind", "what") if name in event}
        log.error("an alert could not be delivered", fault=fault, about=about)

    async def _send(self, event: dict[str, Any], now_s: int) -> None:
        fault = "farthing ended before it was delivered"
        try:
            body = orjson.dumps(event)
            url = self._settings.webhook.get_secret_value()
            if self._tls is None and url.lower().startswith("https:"):
                # aiohttp's own trusts nobody (starting.py); to read whom to trust takes tens of milliseconds
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            headers = {"Content-Type": "application/json"}
            if self._settings.secret.get_secret_value():
                headers["x-farthing-signature"] = signature(self._settings.secret.get_secret_value(), now_s, body)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                for number in range(self._settings.tries):
                    if number:
                        await asyncio.sleep(self._pause_s * 2 ** (number - 1))
                    fault = await self._try(session, url, body, headers)
                    if not fault:
                        return
        finally:
            self._under_way -= 1
            if fault:
                self._lost(event, fault)

    async def _try(self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> str:
        """Why it didn't arrive; empty where it did. The address stays out of it: it may be a secret."""
        try:
            async with session.post(
                url, data=body, headers=headers, allow_redirects=False, ssl=self._tls or True
            ) as answer:
                return "" if answer.status < 300 else f"status {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return type(error).__name__


def signature(secret: str, now_s: int, body: bytes) -> str:
    """The header's value for a body that is sent at this second."""
    digest = hmac.new(secret.encode(), f"{now_s}.".encode() + body, "sha256").hexdigest()
    return f"t={now_s},v1={digest}"


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
