"""`farthing compress advise`: reads the file, asks the upstream where one is named, prints and saves. Thin."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from farthing.proxy.advise import Advice, Tell, advise, drafted, overview
from farthing.proxy.advise_page import as_json, overview_page, part_page
from farthing.proxy.advise_requests import Asked, read_requests
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.progress import Steps
from farthing.proxy.report import disarmed

__all__ = ["Wanted", "run"]

# Spent at the most where nobody said how much may be, and prices are known.
DEFAULT_MAX_USD = 1.0
_PICO_PER_USD = 10**12


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options. `upstream`: '' for none. `max_usd`: None for the default."""

    model: str
    upstream: str
    drafter: str
    cases: int
    noise_share: float
    max_worse: float
    confidence: float
    judge: str
    max_usd: float | None
    top: int
    at_once: int
    seed: int
    key_env: str
    diff: bool


def run(
    config: Config, file: str, wanted: Wanted, out: Path | None, emit: Callable[[Any], None] | None, console: Console
) -> int:
    """Advise and print; the exit status: 0, or 3 where the upstream answered nothing. Raises ConfigFault."""
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.prices import RateCard
    from farthing.proxy.tokens import Tokenizer

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault(f"can't read {file}: {error}") from None
    if wanted.drafter == "model" and not wanted.upstream:
        raise ConfigFault("--drafter model needs --upstream URL: there is nobody to ask for a draft")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigFault(f"can't write {out}: there is no such folder")
    requests, skipped = read_requests(text, "standard input" if file == "-" else file)
    card = RateCard(config.prices.models, config.upstream.provider, wanted.upstream and config.upstream.url)
    tokens, at_s = Tokenizer(), SystemClock().now_s()
    if wanted.upstream:
        _check(requests, wanted, card, at_s)
    with Steps(sys.stderr.isatty(), lambda what: "asking" in what) as progress:
        found = overview(requests, skipped, wanted.model, tokens, card, at_s, progress.tell)
        advices = [
            drafted(requests, part, of, costs, tokens, card.rates(of, at_s))
            for part, of, costs in found.parts[: wanted.top]
        ]
        if wanted.upstream and advices:
            advices = asyncio.run(_tried(config, requests, advices, wanted, card, tokens, at_s, progress.tell))
    if out is not None:
        try:
            out.write_text(json.dumps(as_json(found, advices), indent=2, ensure_ascii=False) + "\n", "utf-8")
        except OSError as error:
            raise ConfigFault(f"can't write {out}: {error}") from None
    if emit is not None:
        emit(as_json(found, advices))
    else:
        _print(found, advices, wanted, out, console)
    return _status(advices)


def _check(requests: list[Asked], wanted: Wanted, card: Any, at_s: float) -> None:
    """Refuse before the first call what can't go well."""
    if not wanted.model and any(not asked.model for asked in requests):
        raise ConfigFault("some requests name no model: say which one to ask with --model")
    models = {wanted.model or asked.model for asked in requests} | ({wanted.judge} if wanted.judge else set())
    unpriced = sorted(model for model in models if card.rates(model, at_s) is None)
    if unpriced and wanted.max_usd is not None:
        raise ConfigFault(
            f"--max-usd can't be kept: no price is known for {unpriced[0]!r}. Give it one in farthing.toml "
            "(see `farthing prices show`), or leave --max-usd out"
        )
    if unpriced:
        said = f"no price is known for {disarmed(unpriced[0])}: what the trial costs is neither counted nor limited"
        Console(stderr=True).print(said, style="yellow", markup=False, highlight=False)


async def _tried(
    config: Config,
    requests: list[Asked],
    advices: list[Advice],
    wanted: Wanted,
    card: Any,
    tokens: Any,
    at_s: float,
    tell: Tell,
) -> list[Advice]:
    from farthing.cache.embedder import EmbedderUnavailable, open_embedder
    from farthing.proxy.advise_ask import TIMEOUT_S, Asker, Budget
    from farthing.proxy.advise_trial import Terms

    try:
        embed = open_embedder("minilm-int8").embed
    except EmbedderUnavailable:
        embed = None
    limit = Decimal(repr(DEFAULT_MAX_USD if wanted.max_usd is None else wanted.max_usd))
    terms = Terms(
        wanted.cases,
        wanted.noise_share,
        wanted.max_worse,
        1 - wanted.confidence,
        wanted.model,
        wanted.judge,
        wanted.seed,
    )
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
        asker = Asker(
            http,
            config.upstream.url,
            _key(config, wanted.key_env),
            card,
            Budget(int(limit * _PICO_PER_USD)),
            at_s,
            tokens,
            asyncio.Semaphore(wanted.at_once),
        )
        by_model = wanted.drafter == "model"
        return [
            await advise(requests, one, asker, terms, embed, tokens, _of(tell, number), by_model=by_model)
            for number, one in enumerate(advices, 1)
        ]


def _of(tell: Tell, number: int) -> Tell:
    return lambda what, done, total: tell(f"part {number}: {what}", done, total)


def _key(config: Config, name: str) -> str:
    return config.upstream.keys[0] if config.upstream.keys else os.environ.get(name, "")


def _print(found: Any, advices: list[Advice], wanted: Wanted, out: Path | None, console: Console) -> None:
    if not found.parts:
        console.print(
            f"Nothing recurs in these {found.requests:,} requests: no system text twice, and no long beginning or end "
            "that four different texts share."
        )
        return
    console.print(overview_page(found))
    for number, one in enumerate(advices, 1):
        console.print(part_page(number, one, diff=wanted.diff))
    if not wanted.upstream:
        console.print("\nNot evaluated: name a model server with --upstream URL, and both versions are tried on it.")
    if out is not None:
        console.print(f"\nDrafts and figures are in {out}.", markup=False, highlight=False)
    console.print("Nothing was changed: a prompt is its author's, and goes into the app by hand.", style="dim")


def _status(advices: list[Advice]) -> int:
    tried = [one.trial for one in advices if one.trial is not None]
    failed = [trial for trial in tried if trial.failed and not trial.judged.cases]
    if not failed or len(failed) < len(tried):
        return 0
    Console(stderr=True).print(f"the upstream answered nothing: {failed[0].error}", style="red", markup=False)
    return 3
