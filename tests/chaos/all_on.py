"""The faults of three replicas over one Valkey with everything on that they share by it, and what is claimed of that.

Virtual keys, budgets, a rate, sealed answers, and near-duplicates, which go from one to the others by the log. The
rate and the budgets are never reached, so nothing may be refused by them. A hard budget refuses while the server is
away: that is promised, and has a line of its own; the budgets of the others that cut the server off are soft.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tests.chaos.alike import WORDS, family
from tests.chaos.faults import flushed, full, linked, replica_killed, replica_stopped, valkey_killed, valkey_stopped
from tests.chaos.load import Asked
from tests.chaos.measured import Moments
from tests.chaos.places import CLEAN, Cluster
from tests.chaos.scene import Fault, On, Setting
from tests.fakes.valkey import ValkeyProcess

__all__ = ["ALL_ON", "PRICE_PICO", "AllOn", "from_others", "money"]

PRICE_PICO = 9 * 150_000 + 40 * 600_000
"""What an answer of answers.py costs: gpt-4o-mini at $0.15 and $0.60 a million tokens, in pico-dollars."""
_AGREE_WITHIN_S, _SETTLED_WITHIN_S = 60.0, 40.0  # bounds: a mark comes every 10 s; settling is tried for some 23 s
_NEVER_REACHED = 1_000
_HOLD_S = 3.0  # longer than any of the deadlines below, so that they pass

Scene = On["AllOn"]


class AllOn(Cluster[ValkeyProcess]):
    """Three farthings with everything on. `emptied_at`: when the server had last lost all (time.monotonic)."""

    alike = True

    def __init__(self, home: Path, *, hard: bool) -> None:
        budget = f"usd = {_NEVER_REACHED}, hard = {str(hard).lower()}"
        super().__init__(
            home,
            ValkeyProcess(),
            linked=True,
            FARTHING_UPSTREAM__API_KEY="sk-operator",
            FARTHING_AUTH__VIRTUAL_KEYS="true",
            FARTHING_BUDGETS=f'[{{name = "all", {budget}}}, {{name = "each-key", of = "key", {budget}}}]',
            FARTHING_RATE_LIMITS='[{name = "all", requests_per_min = 100_000_000, tokens_per_min = 100_000_000_000}]',
            FARTHING_STORE__ENCRYPTION_KEY="c4" * 32,
            # Three embedders make two cores busy; what comes late would count as away, or as a miss.
            FARTHING_STORE__DEADLINE_MS="200",
            FARTHING_SPEND__DEADLINE_MS="1000",
            FARTHING_SEMANTIC__MODE="serve",
            FARTHING_SEMANTIC__UNPROVEN="true",
            FARTHING_SEMANTIC__AUDIT_DAILY_USD="0",
            FARTHING_SEMANTIC__DEADLINE_MS="2000",
        )
        self.emptied_at = 0.0

    def prepare(self) -> None:
        """Cluster.prepare: a key for the clients."""
        command = [sys.executable, "-m", "farthing.proxy.cli", "keys", "create", "--name", "chaos", "--tenant", "chaos"]
        env = CLEAN | self.replicas[0].env
        state = ("--state", str(self.replicas[0].state), "--json")
        ran = subprocess.run([*command, *state], env=env, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"no key could be made: {ran.stderr}")
        self.credential = json.loads(ran.stdout)["key"]

    def start(self) -> None:
        """Cluster.start, and until each has its model and follows the log."""
        super().start()
        if not _within(60, lambda: all(told.get("state") == "current" for told in self.indexes())):
            raise RuntimeError(f"near-duplicates aren't shared: {self.indexes()}")

    def indexes(self) -> list[dict[str, Any]]:
        """What each replica's /readyz says of its near-duplicates."""
        told = [_json(f"{url}/readyz") for url in self.urls]
        return [{"entries": one["semantic_entries"], **(one["semantic_shared"] or {})} for one in told]

    def accounts(self) -> list[dict[str, tuple[int, int]]]:
        """By replica and budget: what /farthing/api/budgets says is spent, and held, in pico-dollars."""
        return [
            {
                one["name"]: (
                    sum(round(subject["spent_usd"] * 10**12) for subject in one["subjects"]),
                    sum(round(subject["held_usd"] * 10**12) for subject in one["subjects"]),
                )
                for one in _json(f"{url}/farthing/api/budgets")["budgets"]
            }
            for url in self.urls
        ]

    def shown(self, asked: Sequence[Asked], moments: Moments) -> bool:
        """scene.Place.shown: near-duplicates of others were found again."""
        return bool(from_others(asked, since=moments.ended))

    def more_broken(self, asked: Sequence[Asked], moments: Moments, notes: dict[str, Any]) -> list[str]:
        """scene.Place.more_broken: near-duplicates, money, and what lies in the open."""
        return [*self._near_broken(asked, moments, notes), *self._money_broken(asked, notes), *self._open(notes)]

    def _near_broken(self, asked: Sequence[Asked], moments: Moments, notes: dict[str, Any]) -> Iterator[str]:
        began, far = time.monotonic(), max(told.get("seq", 0) for told in self.indexes())
        agreed = _within(_AGREE_WITHIN_S, lambda: agree(self.indexes(), far))
        notes["agreed_after_s"] = round(time.monotonic() - began, 1)
        notes["near_hits"] = sum(one.near for one in asked)
        notes["near_hits_from_others"] = len(from_others(asked))
        after = from_others(asked, since=moments.ended)
        notes["near_hits_from_others_after"] = len(after)
        if not agreed:
            yield f"replicas hold different near-duplicates: {self.indexes()}"
        if not after:
            yield "after the fault no near-duplicate of another replica was found"

    def _money_broken(self, asked: Sequence[Asked], notes: dict[str, Any]) -> list[str]:
        costs = dict(_costs(replica.state for replica in self.replicas))
        if self.emptied_at:
            began = {one.row_id: one.began for one in asked}
            costs = {row: cost for row, cost in costs.items() if began.get(row, 0.0) > self.emptied_at}
        at_most, at_least = self.upstream.chats() * PRICE_PICO, sum(costs.values())
        _within(_SETTLED_WITHIN_S, lambda: not money(self.accounts(), at_least, at_most))
        accounts = self.accounts()
        notes["spent_usd"] = {name: round(spent / 10**12, 6) for name, (spent, _) in accounts[0].items()}
        notes["held_usd"] = round(max((held for _, held in accounts[0].values()), default=0) / 10**12, 6)
        notes["rows_usd"], notes["upstream_usd"] = round(at_least / 10**12, 6), round(at_most / 10**12, 6)
        return money(accounts, at_least, at_most)

    def _open(self, notes: dict[str, Any]) -> Iterator[str]:
        names = [name for name, value in _values(self.valkey.url) if any(word in value for word in WORDS)]
        files = [path for replica in self.replicas for path in replica.state.rglob("*") if path.is_file()]
        names += [path.name for path in files if any(word in path.read_bytes() for word in WORDS)]
        notes["files_read"] = len(files)
        if names:
            yield f"prompts lie in the open: {sorted(set(names))[:5]}"


def agree(told: Sequence[dict[str, Any]], seq: int) -> bool:
    """Whether all replicas have everything up to that change, and were compared there or later with the same in all."""
    return all(
        one.get("state") == "current"
        and one["lag_changes"] == 0
        and one["compared_at_seq"] >= seq
        and (one["compared"], one["differing"]) == (len(told) - 1, 0)
        for one in told
    )


def from_others(asked: Iterable[Asked], since: float = 0.0) -> list[Asked]:
    """Near-duplicates found, of those begun since then, by a replica that had not been asked any of the family before:
    another one had, and told of it by the log."""
    known: set[tuple[int, str]] = set()
    found = []
    for one in sorted(asked, key=lambda one: one.began):
        place = (one.replica, min(family(one.prompt)))
        if one.near and place not in known and one.began >= since:
            found.append(one)
        known.add(place)
    return found


def money(accounts: Sequence[dict[str, tuple[int, int]]], at_least: int, at_most: int) -> list[str]:
    """What of these accounts, by replica and budget, is not as it must be: spent and held are not less than what rows
    say, spent is not more than the upstream can have charged, and all replicas say the same. Pico-dollars."""
    broken = [f"replicas differ in what is spent: {accounts}"] if any(one != accounts[0] for one in accounts) else []
    for name, (spent, held) in accounts[0].items():
        if spent > at_most:
            broken.append(f"budget {name}: {spent} spent, and the upstream charged {at_most} at most")
        if spent + held < at_least:
            broken.append(f"budget {name}: {spent} spent and {held} held, and rows say {at_least}")
    return broken if accounts[0] else ["there is no budget"]


def _costs(states: Iterable[Path]) -> Iterator[tuple[str, int]]:
    for state in states:
        with closing(sqlite3.connect(f"{(state / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
            yield from ledger.execute("select id, coalesce(cost_usd, 0) + coalesce(overhead_usd, 0) from requests")


def _values(url: str) -> Iterator[tuple[str, bytes]]:
    """Every value in the server, with its key; a hash or a stream as all that is in it."""
    with closing(redis.Redis.from_url(url)) as server:
        reads: dict[bytes, Any] = {b"string": server.get, b"hash": server.hgetall, b"stream": server.xrange}
        for key in server.scan_iter(count=500):
            read = reads.get(server.type(key))
            if read is not None:
                yield key.decode(errors="replace"), repr(read(key)).encode()


def _json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=20) as told:
        found: dict[str, Any] = json.load(told)
    return found


def _within(seconds: float, true: Any) -> bool:
    end = time.monotonic() + seconds
    while not (held := true()) and time.monotonic() < end:
        time.sleep(0.25)
    return bool(held)


async def _killed(scene: Scene) -> None:
    scene.on.valkey.kill()
    scene.on.emptied_at = time.monotonic()
    await valkey_killed(scene)


async def _emptied(scene: Scene) -> None:
    await flushed(scene)
    scene.on.emptied_at = time.monotonic()


_partitioned = partial(linked, "hole", Cluster.TO_VALKEY)
_AWAY = "answers come from the upstream; soft budgets let pass and count later"
_SOFT, _HARD = partial(AllOn, hard=False), partial(AllOn, hard=True)

ALL_ON = (
    Setting(
        Fault("all on: Valkey killed, later started empty", f"{_AWAY}; keys are put back", _killed, _HOLD_S),
        _SOFT,
        short=False,
    ),
    Setting(Fault("all on: Valkey stopped (SIGSTOP)", _AWAY, valkey_stopped, _HOLD_S), _SOFT, short=False),
    Setting(Fault("all on: partition from Valkey (nothing arrives)", _AWAY, _partitioned, _HOLD_S), _SOFT, short=False),
    Setting(
        Fault("all on: Valkey emptied (FLUSHALL)", "misses, then hits again; keys are put back", _emptied, hold_s=0),
        _HARD,
        short=False,
    ),
    Setting(
        Fault(
            "all on: Valkey's memory full, noeviction",
            "what is stored is served; what is new isn't stored",
            full,
            _HOLD_S,
        ),
        _SOFT,
        short=False,
    ),
    Setting(
        Fault(
            "all on: a replica killed (SIGKILL), later started", "the others serve; it follows again", replica_killed
        ),
        _HARD,
        short=False,
    ),
    Setting(
        Fault("all on: a replica stopped (SIGSTOP)", "what it has waits; the others serve", replica_stopped),
        _HARD,
        short=False,
    ),
    Setting(
        Fault(
            "all on, with a hard budget: Valkey stopped (SIGSTOP)",
            "what no budget can be asked for is refused (503) until it goes on",
            valkey_stopped,
            hold_s=_HOLD_S,
            refusing=frozenset({"budget_unavailable"}),
        ),
        _HARD,
        short=False,
    ),
)
