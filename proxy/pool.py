"""One upstream's replicas and keys: which of them carries the next attempt, and what each attempt teaches.

A *seat* is one key on one replica: what can be chosen. What concerns the machine (circuit, probes, draining, how many
at once) belongs to the replica, what concerns the account (rate limits) to the seat: the same key may have other limits
at another address, and asking once too often is cheaper than leaving a good address out.

Rules of this file:
1. Nothing here waits, and nothing is sent: `pick` decides, the stage sends, the lease is told.
2. With one seat there is nothing to choose, to park or to learn; only what the operator set limits it.
3. What a client's own key meets (no key configured) is that client's matter and parks nothing.
4. Probes take replicas out only as long as they leave one in: a probe that is wrong about all must not end the service.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import structlog

from farthing.policies.affinity import NO_PREFIX, Held, Prefix, Work, least_work
from farthing.policies.balance import Load, least
from farthing.policies.circuit import Circuit, CircuitRules, Gate
from farthing.policies.headroom import KeyLimits, told_rates
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.connections import Connections
from farthing.proxy.errors import UpstreamFault

__all__ = ["Lease", "Pool", "Replica", "Seat"]

log = structlog.get_logger("farthing.pool")

_ALL_DOWN_S = 1.0  # where no replica is up one is tried again this soon: there is nowhere else to go meanwhile
_FULL_S = 1.0  # when to come again where all are full: nobody knows when an answer ends
_PROBES_DOWN = 2  # so many probes in a row must fail: one may have met a full queue


@dataclass(slots=True, eq=False)
class Replica:
    """One address of the upstream. `base`: its API's base path. `circuit`: None where it is never left out for failing.

    `healthy`: by probes; `failed_probes`: in a row. `draining`: gets no more requests. `in_flight`: requests under way.
    """

    name: str
    url: str
    base: str
    connections: Connections
    circuit: Circuit | None
    seats: tuple[Seat, ...] = ()
    healthy: bool = True
    draining: bool = False
    failed_probes: int = 0
    in_flight: int = 0

    def probed(self, *, well: bool, tick_s: float) -> None:
        """What an active probe found. A good one is also the probe that an open circuit waits for."""
        self.failed_probes = 0 if well else self.failed_probes + 1
        if well != self.healthy and (well or self.failed_probes >= _PROBES_DOWN):
            self.healthy = well
            log.warning("replica by its probes", replica=self.name, healthy=well)
            if not well:
                self.forget()
        if well and self.circuit is not None and self.circuit.gate(tick_s) is Gate.PROBE:
            self.circuit.begin()
            self.circuit.succeeded(tick_s, probe=True)
            log.warning("circuit closed", replica=self.name)

    def forget(self) -> None:
        """It may have been started anew: its cache is empty."""
        for seat in self.seats:
            seat.held.forget()


@dataclass(slots=True, eq=False)
class Seat:
    """A key on a replica. `key`: None: the client's own. `headroom`: None where limits aren't learned.

    `waiting_chars`: of prompts that it was sent and has not begun to answer.
    """

    replica: Replica
    key: str | None
    name: str
    headroom: KeyLimits | None
    held: Held = field(default_factory=Held)
    in_flight: int = 0
    waiting_chars: int = 0


class Lease:
    """One attempt's claim on a seat. Tell `answered` or `failed`, or neither where the client is to blame; then `done`.

    All three may be called again: what a broken body says comes after its head.
    """

    __slots__ = ("_model", "_pool", "_probe", "_waiting", "seat")

    def __init__(self, pool: Pool, seat: Seat, probe: bool, new_chars: int, model: str) -> None:
        self._model = model
        self._pool: Pool | None = pool
        self._probe = probe
        self._waiting = new_chars
        self.seat = seat
        replica = seat.replica
        replica.in_flight += 1
        seat.in_flight += 1
        seat.waiting_chars += new_chars

    @property
    def replica(self) -> Replica:
        return self.seat.replica

    @property
    def name(self) -> str:
        """For the ledger: upstream, replica and the key's number, as far as there are several."""
        return self.seat.name

    def answered(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """A head has come: 5xx counts against the replica, rates and refusals are the key's."""
        pool, seat = self._pool, self.seat
        if pool is None:
            return
        self._read()
        if seat.headroom is not None:
            tick_s, now_s = pool.clock.tick_s(), pool.clock.now_s()
            seat.headroom.learn(self._model, status, told_rates(headers), tick_s, now_s)
        if seat.replica.circuit is not None:
            self._tell(seat.replica.circuit, pool, well=status < 500)

    def failed(self) -> None:
        """No answer came, or it broke off, and the client is not to blame."""
        if self._pool is not None and self.seat.replica.circuit is not None:
            self._tell(self.seat.replica.circuit, self._pool, well=False)

    def done(self) -> None:
        """The attempt is over."""
        if self._pool is None:
            return
        self._pool = None
        self._read()
        self.seat.in_flight -= 1
        self.seat.replica.in_flight -= 1
        if self._probe and self.seat.replica.circuit is not None:
            self.seat.replica.circuit.given_up(probe=True)

    def _read(self) -> None:
        self.seat.waiting_chars -= self._waiting
        self._waiting = 0

    def _tell(self, circuit: Circuit, pool: Pool, *, well: bool) -> None:
        tick_s, probe, self._probe = pool.clock.tick_s(), self._probe, False
        if well:
            if circuit.succeeded(tick_s, probe=probe):
                log.warning("circuit closed", replica=self.replica.name)
        elif circuit.failed(tick_s, probe=probe):
            self.replica.forget()
            log.warning("circuit opened", replica=self.replica.name, pause_s=circuit.rules.pause_s)


class Pool:
    """The replicas and keys of the upstream `name`. `balance`: least, affinity or round_robin. `max_in_flight`: on each
    replica; 0: no limit. `replicas`: made by `replicas_of`, their seats made here."""

    def __init__(
        self,
        name: str,
        replicas: Sequence[Replica],
        keys: Sequence[str],
        *,
        balance: str,
        max_in_flight: int,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self.name = name
        self.replicas = tuple(replicas)
        self.clock = clock
        self._randomness = randomness
        self._max_in_flight = max_in_flight
        self._turn = 0
        learns = len(replicas) * len(keys) > 1
        for replica in self.replicas:
            where = name if len(replicas) == 1 else f"{name}/{replica.name}"
            before = {seat.key: seat for seat in replica.seats}
            seats = []
            for number, key in enumerate(keys or (None,), 1):
                seat_name = where if len(keys) < 2 else f"{where}#{number}"
                seat = Seat(replica, key, seat_name, KeyLimits() if learns else None)
                if key in before:  # the configuration was read again: what is known stays known
                    seat.held = before[key].held
                    seat.headroom = (before[key].headroom or seat.headroom) if learns else None
                seats.append(seat)
            replica.seats = tuple(seats)
        self.seats = tuple(seat for replica in self.replicas for seat in replica.seats)
        self._only = self.seats[0] if len(self.seats) == 1 else None
        self.reads_prefixes = balance == "affinity" and self._only is None
        self._choose: Callable[[list[Seat], Prefix, str], Seat] = {
            "least": self._least,
            "affinity": self._warmest,
            "round_robin": self._next,
        }[balance]

    def pick(self, prefix: Prefix = NO_PREFIX, avoid: Collection[Seat] = (), model: str = "") -> Lease:
        """A seat for one attempt. `avoid`: where this request has failed; taken only if no other may be. `model`: whose
        limits count.

        Raises UpstreamFault with `retry_after_s`: 503 none is up, 429 none is free.
        """
        seat = self._only
        if seat is not None:
            replica = seat.replica
            limited = replica.draining or replica.circuit is not None or self._max_in_flight
            if limited and not self._free(model):
                self._refuse(model)
        else:
            free = self._free(model)
            seats = [seat for seat in free if seat not in avoid] or free
            if not seats:
                self._refuse(model)
            seat = self._choose(seats, prefix, model)
        new_chars = 0
        if self.reads_prefixes:
            new_chars = prefix.chars - seat.held.chars(prefix)
            seat.held.note(prefix)
        if seat.headroom is not None:
            seat.headroom.take(model)
        circuit = seat.replica.circuit
        return Lease(self, seat, circuit is not None and circuit.begin(), new_chars, model)

    def at(self, replica: Replica) -> list[Seat]:
        """The seats on that replica."""
        return [seat for seat in self.seats if seat.replica is replica]

    def offers(self, avoid: Collection[Seat], model: str = "") -> bool:
        """Whether another attempt may go where this request has not failed yet."""
        return self._only is None and any(seat not in avoid for seat in self._free(model))

    def find(self, name: str) -> Replica | None:
        """The replica of that name."""
        return next((replica for replica in self.replicas if replica.name == name), None)

    def told(self) -> list[dict[str, Any]]:
        """The replicas for screens and probes. No key and no password."""
        tick_s = self.clock.tick_s()
        return [
            {
                "upstream": self.name,
                "name": replica.name,
                "healthy": replica.healthy,
                "circuit": _circuit(replica, tick_s),
                "draining": replica.draining,
                "in_flight": replica.in_flight,
                "keys": [_key(seat, seat.headroom, tick_s) for seat in replica.seats if seat.headroom is not None],
            }
            for replica in self.replicas
        ]

    def close(self) -> None:
        """Hang up what is idle."""
        for replica in self.replicas:
            replica.connections.close()

    # -- choosing

    def _free(self, model: str) -> list[Seat]:
        """Where an attempt may go now."""
        tick_s, most = self.clock.tick_s(), self._max_in_flight
        return [
            seat
            for replica in self._up(tick_s)
            if not most or replica.in_flight < most
            for seat in replica.seats
            if seat.headroom is None or seat.headroom.wait_s(model, tick_s) <= 0
        ]

    def _up(self, tick_s: float) -> list[Replica]:
        standing = [replica for replica in self.replicas if not replica.draining]
        up = [one for one in standing if one.circuit is None or one.circuit.gate(tick_s) is not Gate.REFUSE]
        up = up or [one for one in standing if one.circuit and one.circuit.gate(tick_s, _ALL_DOWN_S) is not Gate.REFUSE]
        return [replica for replica in up if replica.healthy] or up

    def _least(self, seats: list[Seat], prefix: Prefix, model: str) -> Seat:
        tick_s = self.clock.tick_s()
        loads = [
            Load(
                seat.replica.in_flight,
                0.0 if seat.headroom is None else 1 - seat.headroom.share(model, tick_s),
                seat.in_flight,
            )
            for seat in seats
        ]
        return seats[least(loads, self._randomness.uniform())]

    def _warmest(self, seats: list[Seat], prefix: Prefix, model: str) -> Seat:
        if not prefix.keys:
            return self._least(seats, prefix, model)
        whole = prefix.chars
        works = [
            Work(whole - seat.held.chars(prefix), seat.waiting_chars, seat.replica.in_flight, len(seat.held))
            for seat in seats
        ]
        return seats[least_work(works, self._randomness.uniform())]

    def _next(self, seats: list[Seat], prefix: Prefix, model: str) -> Seat:
        self._turn += 1
        return seats[self._turn % len(seats)]

    def _refuse(self, model: str) -> NoReturn:
        """Raises UpstreamFault: why no seat is free, and when to come again."""
        tick_s = self.clock.tick_s()
        up = self._up(tick_s)
        if not up:
            standing = [replica.circuit for replica in self.replicas if replica.circuit and not replica.draining]
            waits_s = [circuit.wait_s(tick_s, _ALL_DOWN_S) for circuit in standing]
            said = "failing" if waits_s else "draining"
            raise UpstreamFault(
                f"no replica of the upstream {self.name} is up: all are {said}",
                phase="down",
                status=503,
                retry_after_s=min(waits_s, default=CircuitRules().pause_s),
            )
        full = [replica for replica in up if self._max_in_flight and replica.in_flight >= self._max_in_flight]
        parked_s = [
            seat.headroom.wait_s(model, tick_s)
            for replica in up
            if replica not in full
            for seat in replica.seats
            if seat.headroom is not None
        ]
        said = "full" if full else "at their rate limits"
        raise UpstreamFault(
            f"no replica of the upstream {self.name} is free: all are {said}",
            phase="busy",
            status=429,
            retry_after_s=min([*parked_s, *([_FULL_S] if full else [])]),
        )


def _key(seat: Seat, limits: KeyLimits, tick_s: float) -> dict[str, Any]:
    parked_s, left_share = limits.worst(tick_s)
    return {
        "name": seat.name,
        "in_flight": seat.in_flight,
        "parked_s": round(parked_s, 3),
        "left_share": round(left_share, 4),
    }


def _circuit(replica: Replica, tick_s: float) -> str:
    if replica.circuit is None or not replica.circuit.open:
        return "closed"
    return "half-open" if replica.circuit.gate(tick_s) is Gate.PROBE else "open"
