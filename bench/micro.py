"""Small things on the request path, each beside something: prices, token counts, the ledger, the key.

Processor time of loops in this process, medians over the rounds; what is beside each other, in turns.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import orjson

from bench.hot import Effort, Tell
from bench.load import chat_body, long_chat_body
from bench.machine import Place
from bench.report import Report, Target
from farthing.proxy.ledger import Ledger
from farthing.proxy.prices import RateCard
from farthing.proxy.row import COLUMNS, Row
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage

__all__ = ["each_us", "micro"]

AT_S = 1_790_000_000.0
MODEL = "gpt-4o-mini"
MOST_APPEND_US = 10.0
AT = {name: COLUMNS.index(name) for name in ("id", "ts", "latency_ms", "ttft_ms", "overhead_ms")}
MOST_OF_FIRST = 0.5  # it is remembered, and not worked out again


def each_us(call: Callable[[], object], times: int, rounds: int) -> float:
    """Processor microseconds of a call: the median over rounds of so many."""
    return in_turns_us(rounds, (call, times))[0]


def in_turns_us(rounds: int, *calls: tuple[Callable[[], object], int]) -> list[float]:
    """The same of several, in turns: where a machine changes its speed meanwhile, it does for all of them."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for (call, times), of_call in zip(calls, found, strict=True):
            begun_s = time.process_time()
            for _ in range(times):
                call()
            of_call.append((time.process_time() - begun_s) * 1e6 / times)
    return [median(of_call) for of_call in found]


def micro(here: Place, effort: Effort, tell: Tell) -> Report:
    """A row for each; targets where the issue has one."""
    report = Report("micro", "Small things", ["what", "CPU µs", "× beside it", "beside it"])
    rounds = effort.rounds
    tell("micro: prices")
    usage = Usage(fresh=480, output=62)
    card = RateCard({}, "openai", "https://api.openai.com/v1")
    card.rates(MODEL, AT_S)
    first_us, again_us = in_turns_us(
        rounds,
        (lambda: RateCard({}, "openai", "https://api.openai.com/v1").price(MODEL, usage, AT_S), 50),
        (lambda: card.price(MODEL, usage, AT_S), 5_000),
    )
    add(report, "price of an answer, model met before", again_us, first_us, "the same, model never met")
    report.targets.append(share("price of a model met before", again_us, first_us))
    for name, body in (("2.3 KB", chat_body("0" * 12)), ("112 KB", long_chat_body("0" * 12))):
        tell(f"micro: tokens and key, {name}")
        of_body(report, name, body, rounds)
    tell("micro: ledger")
    row = Row._make(0 for _ in COLUMNS)
    known: list[Any] = list(row)
    ledger = Ledger(here.folder / "micro.db", buffer_rows=10_000_000, flush_ms=60_000)
    try:
        append_us, both_us, made_us = in_turns_us(
            rounds,
            (lambda: ledger.append(row), 2_000),
            (lambda: ledger.append(made_again(known, "id", 1.5)), 2_000),
            (lambda: json.dumps({"stage": 1.5}), 2_000),
        )
    finally:
        ledger._fresh.clear()  # one row again and again: nothing that could be written
        ledger.close()
    add(report, "ledger: append of a row that is made", append_us, made_us, "json.dumps of a dict of one")
    report.targets.append(
        Target("ledger: append", f"≤ {MOST_APPEND_US:g} µs", f"{append_us:.2f} µs", append_us <= MOST_APPEND_US)
    )
    add(
        report,
        "ledger: row of a hit by the short way, made and appended",
        both_us,
        made_us,
        "json.dumps of a dict of one",
    )
    what = "ledger: row made and appended, hit, short way"
    report.targets.append(Target(what, f"≤ {MOST_APPEND_US:g} µs", f"{both_us:.2f} µs", both_us <= MOST_APPEND_US))
    report.notes.append(
        "A repeat's row is the last one's with other times; what a row costs to make otherwise is in the budget of a "
        "request ('ledger, row made')."
    )
    return report


def made_again(row: list[Any], name: str, ms: float) -> Row:
    """The row of a repeat, as proxy/repeat.py makes it of the last one's values: the same steps."""
    values = row.copy()
    values[AT["id"]], values[AT["ts"]] = name, AT_S
    values[AT["latency_ms"]] = values[AT["overhead_ms"]] = ms
    values[AT["ttft_ms"]] = ms
    return Row._make(values)


def of_body(report: Report, size: str, body: bytes, rounds: int) -> None:
    """Counting a request's tokens and telling it apart from others."""
    counter, payload = Tokenizer(), orjson.loads(body)
    counter.count("warm", MODEL)
    first_us, known_us = in_turns_us(
        rounds,
        (lambda: fresh(counter).count_request("chat", payload, MODEL), 5),
        (lambda: counter.count_request("chat", payload, MODEL), 200),
    )
    add(report, f"tokens of a request of {size}, counted before", known_us, first_us, "counted for the first time")
    report.targets.append(share(f"tokens of {size} counted before", known_us, first_us))
    hashed_us, keyed_us = in_turns_us(
        rounds, (lambda: hashlib.sha256(body).digest(), 500), (lambda: canonical(body), 200)
    )
    add(report, f"SHA-256 of the bytes of {size}", hashed_us, keyed_us, "parse, sort, digest")


def fresh(counter: Tokenizer) -> Tokenizer:
    """The same counter, which has forgotten all texts but not its ranks."""
    counter._counts.clear()
    return counter


def canonical(body: bytes) -> bytes:
    """The key as a bare cache makes it."""
    return hashlib.sha256(orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)).digest()


def add(report: Report, what: str, us: float, beside_us: float, beside: str) -> None:
    """A row, and its raw figures."""
    report.rows.append([what, f"{us:,.2f}", f"{us / beside_us:.3f}", f"{beside}: {beside_us:,.1f}"])
    report.raw.append({"what": what, "us": us, "beside": beside, "beside_us": beside_us})


def share(what: str, us: float, beside_us: float) -> Target:
    """That it is remembered: it costs a fraction of the first time."""
    part = us / beside_us
    return Target(what, f"≤ {MOST_OF_FIRST:.0%}", f"{part:.1%}", part <= MOST_OF_FIRST, "the first time = 100%")
