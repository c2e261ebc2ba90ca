"""Keys, budgets, rates and alerts under one configuration: nothing of it exists that isn't configured.

Over Redis they have connections and a breaker of their own: what refuses requests when it can't be asked must not be
taken for away because the caches asked too much at once.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from farthing.policies.reserve import Learned
from farthing.proxy.alerts import Webhook
from farthing.proxy.budgets import Accounts, Spending
from farthing.proxy.config import Config
from farthing.proxy.config_spend import budgets_of, rates_of
from farthing.proxy.held import State
from farthing.proxy.keys import KeyRing, KeyStore
from farthing.proxy.prices import RateCard

if TYPE_CHECKING:
    from farthing.cache.store_redis import RedisStore

__all__ = ["open_ring", "open_spending"]


async def open_ring(config: Config, held: State, stack: AsyncExitStack) -> KeyRing | None:
    """The virtual keys, looked up once; None where they aren't in force."""
    if not config.auth.virtual_keys:
        return None
    if held.ring is None:
        store = open_keys(config, held, stack)
        stack.push_async_callback(store.close)
        held.ring = KeyRing(store, held.clock, lambda look: held.tasks.spawn(look, "keys"), config.auth.keys_stale_s)
    held.ring.grace_s = config.auth.keys_stale_s
    first = held.ring.refreshed()
    if first is not None:
        await first
    return held.ring


def open_keys(config: Config, held: State, stack: AsyncExitStack) -> KeyStore:
    """Where keys are kept: in Redis where there is one, else under the state directory."""
    if config.store.url.get_secret_value():
        from farthing.proxy.keys_redis import RedisKeys

        return RedisKeys(open_server(config, held, stack))
    from farthing.proxy.keys_file import FileKeys

    return FileKeys(config.state_dir / "keys.db")


def open_spending(config: Config, held: State, card: RateCard, stack: AsyncExitStack) -> Spending | None:
    """Budgets and rates; None where neither is configured and no key may have budgets of its own."""
    if not config.budgets and not config.rate_limits and not config.auth.virtual_keys:
        return None
    if held.accounts is None:
        held.accounts = open_accounts(config, held, stack)
        stack.push_async_callback(held.accounts.close)
    webhook = Webhook(config.alerts, held.clock, lambda call: held.tasks.spawn(call, "alert"), config.upstream.name)
    return Spending(
        budgets_of(config.budgets),
        rates_of(config.rate_limits),
        held.accounts,
        card,
        held.clock,
        Learned(config.spend.output_tokens),
        config.spend.unpriced,
        webhook.tell,
        held.refusals,
        config.alerts.key_budgets,
    )


def open_accounts(config: Config, held: State, stack: AsyncExitStack) -> Accounts:
    """Where sums are kept, beside the keys."""
    hold_s = 60 + max(one.total_timeout_s for one in (config.upstream, *config.upstreams))
    if config.store.url.get_secret_value():
        from farthing.proxy.budgets_redis import RedisAccounts

        accounts = RedisAccounts(
            open_server(config, held, stack),
            clock=held.clock,
            spawn=lambda work: held.tasks.spawn(work, "settle"),
            hold_s=hold_s,
        )
        held.tasks.spawn(accounts.warn_of_eviction(), "look at the store")
        return accounts
    if held.crew is not None:
        from farthing.proxy.budgets_shared import SharedAccounts

        return SharedAccounts(
            config.state_dir / "spend.db",
            held.clock,
            lambda work: held.tasks.spawn(work, "budgets"),
            first=held.crew.first and held.crew.keeper,
            hold_s=hold_s,
        )
    from farthing.proxy.budgets_local import LocalAccounts

    return LocalAccounts(config.state_dir / "spend.db", held.clock, lambda work: held.tasks.spawn(work, "budgets"))


def open_server(config: Config, held: State, stack: AsyncExitStack) -> RedisStore:
    """The connections to Redis that keys and budgets share."""
    from farthing.cache.store_redis import RedisStore

    if held.limits_server is None:
        url, deadline_ms = config.store.url.get_secret_value(), config.spend.deadline_ms
        held.limits_server = RedisStore(url, deadline_ms=deadline_ms, clock=held.clock)
        stack.push_async_callback(held.limits_server.close)
    return held.limits_server
