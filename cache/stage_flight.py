"""Is the identical request already under way? Then join it; else be the one that others may join."""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing.cache.flight import Flight, Flights, Reader
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.exchange import GO_ON, CacheStatus, Call, Exchange, Quiet, Verdict

__all__ = ["FlightStage", "flight_key"]


def flight_key(ex: Exchange) -> str:
    """The exact key, apart for who allows a near-duplicate's answer and who doesn't."""
    return ex.key if ex.may_semantic else f"{ex.key}/exact"


@dataclass(slots=True)
class FlightStage(Quiet):
    """Gives each exchange a reader: of a flight that it joins, or of one that it starts (`ex.leads`)."""

    flights: Flights
    join: bool
    limit_bytes: int
    clock: Clock
    randomness: Randomness
    readers: dict[Exchange, Reader] = field(default_factory=dict)
    name: str = field(default="flight", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict:
        """Join or start. A follower's `call` is its leader's."""
        if self.join and ex.may_join and ex.key:
            flight = self.flights.find(ex.credential, flight_key(ex), stream=ex.stream)
            if flight is not None:
                ex.leads, ex.call, ex.cache = False, flight.call, CacheStatus.JOINED
                ex.joined_tick = self.clock.tick_s()
                self.readers[ex] = flight.reader()
                return GO_ON
        flight = self.start(ex)
        if self.join and ex.may_join and ex.key and not ex.controls.only_if_cached:
            self.flights.add(ex.credential, flight_key(ex), flight)
        return GO_ON

    def start(self, ex: Exchange) -> Flight:
        """A flight of this exchange's own, that nobody can find yet."""
        ex.leads = True
        ex.call = Call(id=self.randomness.token(8))
        flight = Flight(ex.call, stream=ex.stream, limit_bytes=self.limit_bytes)
        ex.sink = flight
        self.readers[ex] = flight.reader()
        return flight

    def on_end(self, ex: Exchange) -> None:
        """Forget the reader."""
        reader = self.readers.pop(ex, None)
        if reader is not None:
            reader.close()
