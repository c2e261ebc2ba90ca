"""What a request would have read from the provider's cache, where something else went upstream, or to another model."""

from __future__ import annotations

import json
import threading
from typing import Any, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.policies.spend import DayTotal
from farthing.policies.variant import Variant
from farthing.proxy.account import Account
from farthing.proxy.clock import FakeClock
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.counterfactual import Counterfactual
from farthing.proxy.exchange import (
    Billed,
    CacheStatus,
    Call,
    Endpoint,
    Exchange,
    Head,
    Original,
    Outcome,
    Served,
)
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_trail import Trail
from farthing.proxy.provider_reads import ProviderReads
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource
from farthing.proxy.would import AS_BILLED, Would

LONG, SHORT = "long " * 4000, "brief " * 2000


def body(*texts: str, model: str = "m") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text} for text in texts]}


def asked(at_s: float, payload: dict[str, Any], sent: dict[str, Any] | None = None, **facts: Any) -> Exchange:
    original = Original("POST", "/v1/x", CIMultiDictProxy(CIMultiDict()), cast(Any, None), HeaderFacts(()))
    ex = Exchange(f"at{at_s}", original, at_s, at_s)
    ex.endpoint, ex.payload, ex.model, ex.tenant = Endpoint.CHAT, payload, payload["model"], "tenant"
    ex.cache, ex.outcome = CacheStatus.MISS, Outcome.COMPLETED
    ex.call = Call("flight", head=Head(200, CIMultiDict()), first_byte_tick=at_s + 0.5)
    if sent is not None:
        ex.body_out = json.dumps(sent).encode()
    for name, value in facts.items():
        setattr(ex, name, value)
    return ex


def test_a_prompt_that_falls_below_the_least_length_loses_its_reads() -> None:
    """The original would have been read; what was sent in its place is too short to be cached at all."""
    what = Counterfactual(ProviderReads(), "openai")
    usage = Usage(fresh=800)
    for at_s, read in ((0.0, AS_BILLED), (10.0, Would(800, 3968))):
        ex = asked(at_s, body(LONG), body("brief"), compress="recode", tokens_saved=3200)
        assert what.of(ex, usage, free=False)._replace(trail=None) == read


def test_what_a_shorter_prompt_read_says_what_the_longer_one_would_have() -> None:
    what = Counterfactual(ProviderReads(), "openai")
    of = [Usage(fresh=2000), Usage(fresh=80, cached=1920), Usage(fresh=1040, cached=960), Usage(fresh=2000)]
    would = [
        what.of(asked(10.0 * at, body(LONG), body(SHORT), compress="recode", tokens_saved=2000), usage, free=False)
        for at, usage in enumerate(of)
    ]
    assert would[0].read is would[0].read_whole is None
    assert would[1].read_whole == 3968  # all that was promised was read
    assert would[2].read_whole == 3968 // 2
    assert would[3].read_whole == 0  # this provider didn't read, so it wouldn't have read more


def test_trails_that_were_made_before_tell_the_same_and_are_let_go() -> None:
    usage = [Usage(fresh=2000), Usage(fresh=80, cached=1920), Usage(fresh=1040, cached=960)]
    found = []
    for before in (False, True):
        what = Counterfactual(ProviderReads(), "openai")
        for at, used in enumerate(usage):
            ex = asked(10.0 * at, body(LONG), body(SHORT), compress="recode", tokens_saved=2000)
            if before:
                what.walk(ex, used)
                assert ex.trails is not None
                ex.body_out = b"not to be read again"
            found.append(what.of(ex, used, free=False))
            assert ex.trails is None
            what.walk(ex, used)
            assert ex.trails is None  # it is known
    assert found[:3] == found[3:]


def test_another_models_cache_tells_nothing_of_the_one_asked_for() -> None:
    what = Counterfactual(ProviderReads(), "openai")
    what.of(asked(0.0, body(LONG)), Usage(fresh=4000), free=False)
    routed = asked(5.0, body(LONG), body(LONG, model="small"), variant=Variant("small", "small"))
    assert what.of(routed, Usage(fresh=4000), free=False).read == 3968
    back = what.of(asked(9.0, body(LONG)), Usage(fresh=32, cached=3968), free=False)
    assert back.read is None  # it was sent 9 seconds ago: nothing is lost


def test_no_more_would_have_been_read_than_there_was_to_read() -> None:
    """The provider's cache is warm though the simulation knows of nobody who sent this: an audit did."""
    what = Counterfactual(ProviderReads(), "openai")
    hit = asked(0.0, body(LONG), served=Served("k", None, "m", "m", 0.0, 1e9))
    what.of(hit, Usage(fresh=4000), free=True)
    warm = what.of(asked(5.0, body(LONG)), Usage(fresh=32, cached=3968), free=False)
    assert warm._replace(trail=None) == AS_BILLED


def test_a_count_of_our_own_says_nothing_of_reads() -> None:
    what = Counterfactual(ProviderReads(), "openai")
    hit = asked(0.0, body(LONG), served=Served("k", None, "m", "m", 0.0, 1e9))
    what.of(hit, Usage(fresh=4000), free=True)
    counted = Usage(fresh=4000, source=UsageSource.COUNTED)
    assert what.of(asked(5.0, body(LONG)), counted, free=False).read is None


def test_tenants_share_a_cache_only_where_they_share_an_account() -> None:
    for one_account, read in ((True, 3968), (False, 0)):
        what = Counterfactual(ProviderReads(), "openai", one_account=one_account)
        what.of(asked(0.0, body(LONG)), Usage(fresh=4000), free=False)
        hit = asked(5.0, body(LONG), tenant="another", served=Served("k", None, "m", "m", 0.0, 1e9))
        assert what.of(hit, Usage(fresh=4000), free=True).read == read


def test_an_exchange_arrives_once() -> None:
    what = Counterfactual(ProviderReads(), "openai")
    ex = asked(0.0, body(LONG))
    assert what.of(ex, Usage(fresh=4000), free=False) is what.of(ex, Usage(fresh=1), free=True)


def test_a_provider_without_a_cache_reads_nothing() -> None:
    what = Counterfactual(ProviderReads(), "none")
    for at_s in (0.0, 5.0):
        hit = asked(at_s, body(LONG), served=Served("k", None, "m", "m", 0.0, 1e9))
        assert what.of(hit, Usage(fresh=4000), free=True) == AS_BILLED


def account() -> Account:
    def price(given: int) -> ModelPrice:
        return ModelPrice(
            input_usd_per_mtok=given,  # type: ignore[arg-type]
            cached_usd_per_mtok=1,  # type: ignore[arg-type]
            cache_write_usd_per_mtok=given * 2,  # type: ignore[arg-type]
            output_usd_per_mtok=8,  # type: ignore[arg-type]
        )

    card = RateCard({"m": price(4), "small": price(2), "claude-x": price(4)})
    return Account(card, None, Tokenizer(), DayTotal(), FakeClock())


@pytest.mark.parametrize(("chars", "aside"), [(20_000, False), (300_000, True)])
async def test_long_prompts_are_walked_in_a_thread(chars: int, aside: bool) -> None:
    threads: list[int] = []

    class Seen(ProviderReads):
        def trail(self, *given: Any) -> Trail | None:
            threads.append(threading.get_ident())
            return super().trail(*given)

    books = account()
    books.counterfactual = Counterfactual(Seen(), "openai")
    payload = body("a tool's result. " * (chars // 17 + 1))
    ex = asked(0.0, payload, body(SHORT), compress="tidy", body=json.dumps(payload).encode())
    assert ex.call is not None
    ex.call.usage, ex.counted = Usage(fresh=3000), True
    assert books.must_wait(ex) is aside
    await books.settle(ex)
    assert not books.must_wait(ex)
    assert len(threads) == 2
    assert all((one != threading.get_ident()) is aside for one in threads)
    assert ex.would is not None
    assert ex.would.trail is not None


def test_a_cascade_and_a_failure_carry_what_their_tries_were_billed_with() -> None:
    usage, tries = Usage(fresh=100, output=10), [Billed("small", Usage(fresh=100, output=5))]
    books, ex = account(), asked(0.0, body("short"))
    assert ex.call is not None
    ex.call.others, ex.call.model_served = tries, "m"
    money = books.money(ex, usage)
    assert (money.baseline, money.cost, money.saved_route) == (480 * 10**6, 720 * 10**6, -240 * 10**6)
    ex.call.head = Head(500, CIMultiDict())
    failed = books.money(ex, None)
    assert (failed.baseline, failed.cost, failed.saved_route) == (0, 240 * 10**6, -240 * 10**6)
    ex.leads = False
    assert books.money(ex, None).cost == 0


def test_what_would_not_have_been_read_would_have_been_written_where_writes_are_charged() -> None:
    books = account()
    mark = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    payload = {"model": "claude-x", "messages": [{"role": "user", "content": [mark]}]}
    usage = Usage(fresh=50, cache_write=4000, output=10)
    amounts = []
    for at_s in (0.0, 10.0, 400.0):
        served = Served("k", usage, "claude-x", "claude-x", 0.0, 1e9) if at_s else None
        ex = asked(at_s, payload, endpoint=Endpoint.MESSAGES, served=served)
        assert ex.call is not None
        ex.call.model_served = "claude-x"
        amounts.append(books.money(ex, usage).baseline)
    written, read = (50 * 4 + 4000 * 8 + 80) * 10**6, (50 * 4 + 4000 * 1 + 80) * 10**6
    assert amounts == [written, read, written]
