"""Who asks the upstream, where several processes want the same answer at the same moment. Values, and the protocol.

A flight (flight.py) is shared within a process. Beyond it, whoever starts one takes a *lease* on its request: while it
lasts, the others wait for the answer to be stored. A holder that dies lets it lapse, and one of those who wait takes it
over, with a larger *token*. What the first one may still bring then is refused: its token is the smaller one (a fencing
token; Kleppmann, "How to do distributed locking", 2016).

Implementations: leases_redis (replicas), leases_shared (workers over one file). One contract suite
(tests/contract/test_leases.py) runs over both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from farthing.cache.entry import Entry

__all__ = ["REMEMBERED_S", "Answer", "Lease", "Leases", "State", "name_of", "pause_s"]

REMEMBERED_S = 3600.0
"""For so long a token is remembered that may still be out with a holder that was replaced."""
_SHORTEST_S, _LONGEST_S = 0.01, 0.25
_OF_THE_WAIT = 0.1
_CREDENTIAL_DIGITS = 16


class State(StrEnum):
    """What became of asking for a lease."""

    TAKEN = "taken"  # it is ours: ask the upstream
    HELD = "held"  # somebody else asks it now
    STORED = "stored"  # the answer is there
    FAILED = "failed"  # whom we waited for has ended without an answer to share


class Answer(NamedTuple):
    """`flight`: of whoever holds it, or held it last; `token`: ours, where it is taken."""

    state: State
    flight: str = ""
    token: int = 0


@dataclass(slots=True, eq=False)
class Lease:
    """One that was taken. `key`: of the answer. `over`: nothing is to be done about it any more."""

    key: str
    name: str
    flight: str
    token: int
    over: bool = False


class Leases(Protocol):
    """Every method raises StoreFault when the store is away or slow; then everybody goes on alone."""

    @property
    def lease_s(self) -> float:
        """How long a lease lasts that isn't renewed."""
        ...

    async def take(self, key: str, name: str, flight: str, waited_for: str) -> Answer:
        """Ask for the lease `name` on the answer under `key`, for `flight`. Asking twice gives the same answer.

        `waited_for`: the flight that held it when this one asked before, '' the first time. Who waited for one that
        ended without an answer is told FAILED, and goes on alone: what failed there would fail again, one by one.
        """
        ...

    async def get(self, key: str, now_s: float) -> Entry | None:
        """The answer that STORED spoke of."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """They last from now on; those that others have taken over don't."""
        ...

    async def land(self, lease: Lease, entry: Entry) -> bool:
        """Keep the answer and end the lease, in one step; False where a larger token has been given since, and then
        nothing is kept."""
        ...

    async def free(self, lease: Lease) -> None:
        """End the lease without an answer."""
        ...

    async def close(self) -> None:
        """Let go; idempotent."""
        ...


def name_of(flight_key: str, credential: str) -> str:
    """A lease's name: like flights, leases never cross a credential."""
    return f"{flight_key}:{credential[:_CREDENTIAL_DIGITS]}"


def pause_s(waited_s: float) -> float:
    """How long to wait before looking again: a tenth of what was waited already, 10 to 250 ms. So whoever waits gets
    the answer a twentieth later than it came, on average, and a long wait costs four looks a second."""
    return min(_LONGEST_S, max(_SHORTEST_S, waited_s * _OF_THE_WAIT))
