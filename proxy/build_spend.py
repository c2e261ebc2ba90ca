"""Keys, budgets, rates and alerts under one configuration: nothing of it exists that isn't configured."""

from __future__ import annotations

from contextlib import AsyncExitStack

from farthing.policies.reserve import Learned
from farthing.proxy.alerts import Webhook
from farthing.proxy.budgets import Accounts, Spending
from farthing.proxy.config import Config
from farthing.proxy.config_spend import budgets_of, rates_of
from farthing.proxy.held import State
from farthing.proxy.keys import KeyRing, KeyStore
from farthing.proxy.prices import RateCard

__all__ = ["open_keys", "open_ring", "open_spending"]


async def open_ring(config: Config, held: State, stack: AsyncExitStack) -> KeyRing | None:
    """The virtual keys, looked up once; None where they aren't in force."""
    if not config.auth.virtual_keys:
        return None
    if held.ring is None:
        store = open_keys(config, held)
        stack.push_async_callback(store.close)
        held.ring = KeyRing(store, held.clock, lambda look: held.tasks.spawn(look, "keys"), config.auth.keys_stale_s)
    held.ring.grace_s = config.auth.keys_stale_s
    first = held.ring.refreshed()
    if first is not None:
        await first
    return held.ring


def open_keys(config: Config, held: State) -> KeyStore:
    """Where keys are kept: in Redis where there is one, else under the state directory."""
    from farthing.cache.store_redis import RedisStore

    if isinstance(held.store, RedisStore):
        from farthing.proxy.keys_redis import RedisKeys

        return RedisKeys(held.store)
    from farthing.proxy.keys_file import FileKeys

    return FileKeys(config.state_dir / "keys.db")


def open_spending(config: Config, held: State, card: RateCard, stack: AsyncExitStack) -> Spending | None:
    """Budgets and rates; None where neither is configured and no key may have budgets of its own."""
    if not config.budgets and not config.rate_limits and not config.auth.virtual_keys:
        return None
    if held.accounts is None:
        held.accounts = open_accounts(config, held)
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
    )


def open_accounts(config: Config, held: State) -> Accounts:
    """Where sums are kept, beside the keys."""
    from farthing.cache.store_redis import RedisStore

    if isinstance(held.store, RedisStore):
        from farthing.proxy.budgets_redis import RedisAccounts

        return RedisAccounts(
            held.store,
            clock=held.clock,
            spawn=lambda work: held.tasks.spawn(work, "settle"),
            hold_s=config.upstream.total_timeout_s + 60,
        )
    from farthing.proxy.budgets_local import LocalAccounts

    return LocalAccounts(config.state_dir / "spend.db", held.clock, lambda work: held.tasks.spawn(work, "budgets"))
