"""The way of a request. The two lists below are the product: read them top to bottom.

FRONT runs for each client's request. It ends with a reply of its own, or with a reader of a flight: one it joined, or
one it started, and then BACK runs once for that flight, in a task that belongs to the flight and not to the client's
connection. On the way out each list is walked in reverse, only over the stages that ran: BACK when the flight has
ended, FRONT when the client has its answer (and, for the one who started the flight, the flight has ended too).

An optimising stage that fails is passed by, and after repeated failures left out for a while; only hard stages may
fail a request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from farthing.cache.flight import Flight, Reader
from farthing.cache.stage_flight import FlightStage, flight_key
from farthing.proxy.clock import Clock
from farthing.proxy.errors import ClientFault, FarthingError, StoreFault, UpstreamFault
from farthing.proxy.exchange import GO_ON, CacheStatus, Continue, Exchange, Head, LocalReply, Outcome, Quiet, Stage
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.wire import forwardable

__all__ = ["BACK", "FRONT", "Breaker", "Pipeline"]

FRONT = (
    "account",  # on the way out: the row
    "admit",  # authenticate, tenant, limits, rates              may refuse: 401 413 429 503
    "parse",  # body -> request, or pass it on untouched
    "assign",  # policy version, arm of an experiment; are we switched off?
    "eligible",  # may this be cached, reused, joined?
    "exact",  # canonical key -> stored answer                  may answer
    "defer",  # may it wait for the provider's batch?            may answer
    "flight",  # identical request already under way?            joins it
)
BACK = (
    "lease",  # does another process ask the same just now?         may answer
    "store",  # on the way out: keep the answer
    "semantic",  # near-duplicate in the same scope?               may answer
    "compress",  # tidy, and the form that is proved for each text
    "route",  # which model
    "prompt_cache",  # marks for the provider's prompt cache, made for each leg by who serves it
    "spend",  # budgets are reserved, tokens taken               may refuse: 402 429 503
    "upstream",  # one attempt or more; streams as it arrives
)


@dataclass(slots=True)
class Breaker:
    """Leaves a stage out after repeated failures, and tries it again later. One log line per change."""

    clock: Clock
    failures_to_open: int = 5
    pause_s: float = 30.0
    failures: dict[str, int] = field(default_factory=dict)
    open_until: dict[str, float] = field(default_factory=dict)
    told_until: dict[str, float] = field(default_factory=dict)

    def closed(self, stage: str) -> bool:
        """Whether the stage may run."""
        return not self.open_until or self.clock.tick_s() >= self.open_until.get(stage, 0.0)

    def succeeded(self, stage: str) -> None:
        """The stage ran."""
        if self.failures and self.failures.pop(stage, 0) >= self.failures_to_open:
            self.open_until.pop(stage, None)
            log.info("stage works again", stage=stage)

    def failed(self, stage: str, error: BaseException) -> None:
        """The stage raised."""
        if not isinstance(error, FarthingError | OSError):
            self._unforeseen(stage, error)
            return
        if isinstance(error, StoreFault):
            return  # a store has its own breaker, which probes: leaving its stage out would only keep it away longer
        count = self.failures[stage] = self.failures.get(stage, 0) + 1
        if count >= self.failures_to_open:
            self.open_until[stage] = self.clock.tick_s() + self.pause_s
        if count == 1 or count == self.failures_to_open:
            said = str(error) if isinstance(error, FarthingError) else type(error).__name__
            log.warning("stage failed", stage=stage, error=said, paused=count == self.failures_to_open)

    def _unforeseen(self, stage: str, error: BaseException) -> None:
        """A fault in our own code: told, but at most once in a pause, and no reason to leave the stage out: whoever
        finds a request that brings it about must not be able to switch the stage off for everybody."""
        now = self.clock.tick_s()
        if now >= self.told_until.get(stage, 0.0):
            self.told_until[stage] = now + self.pause_s
            log.error("stage failed", stage=stage, error=type(error).__name__, exc_info=error)


log = structlog.get_logger("farthing.pipeline")

_WORTH_TELLING_S = 0.00005  # what a stage took is in the ledger from here on

Way = tuple[Stage, bool, bool]


def ways(stages: tuple[Stage, ...]) -> tuple[Way, ...]:
    """Each stage, whether it does anything on the way in, and whether on the way out."""
    return tuple(
        (stage, overrides(stage, "on_request") and not stage.idle, overrides(stage, "on_end")) for stage in stages
    )


def overrides(stage: Stage, name: str) -> bool:
    """Whether the stage has its own method of that name."""
    return getattr(type(stage), name) is not getattr(Quiet, name)


class Pipeline:
    """Runs the lists. Stages are given in the order of FRONT and BACK; a name out of place is a programming error."""

    def __init__(
        self, front: tuple[Stage, ...], back: tuple[Stage, ...], flight: FlightStage, tasks: TaskGroup, clock: Clock
    ) -> None:
        if tuple(stage.name for stage in front) != FRONT or tuple(stage.name for stage in back) != BACK:
            raise ValueError("the stages don't stand in the order of FRONT and BACK")
        self._front_ways = ways(front)
        self._back_ways = ways(back)
        self._flight = flight
        self._tasks = tasks
        self._clock = clock
        self.breaker = Breaker(clock)
        self.stage_errors: dict[str, int] = {}

    async def answer(self, ex: Exchange) -> LocalReply | Reader:
        """The way in. Raises ClientFault where a stage refuses."""
        reply = await self._walk_in(self._front_ways, ex, ex.walked)
        if reply is not None:
            return reply
        reader = self._flight.readers[ex]
        if ex.leads:
            self._take_off(ex, reader.flight)
        return reader

    def alone(self, ex: Exchange) -> Reader:
        """A follower that can't use the answer it joined gets a flight of its own."""
        self._flight.readers.pop(ex).close()
        flight = self._flight.start(ex)
        ex.cache, ex.cache_reason = CacheStatus.MISS, "joined answer had another shape"
        self._take_off(ex, flight)
        return self._flight.readers[ex]

    def over(self, ex: Exchange) -> bool:
        """Whether all upstream work behind the exchange is done, so that `finish` waits for none."""
        flight = self._awaited(ex)
        return flight is None or flight.finished

    async def finish(self, ex: Exchange) -> None:
        """The client has its answer, or has left: walk FRONT back, after the flight's own end for its starter."""
        flight = self._awaited(ex)
        reader = self._flight.readers.get(ex)
        if reader is not None:
            reader.close()
        if flight is not None and not flight.finished:
            await flight.wait_finished()
        await self._walk_back(ex.walked, ex)

    def _awaited(self, ex: Exchange) -> Flight | None:
        """The flight whose end this exchange's end waits for: its own, or one that it joined and whose answer is there,
        so that what the prompt was sent without is known."""
        if ex.leads:
            return ex.sink if isinstance(ex.sink, Flight) else None
        reader = self._flight.readers.get(ex)
        return reader.flight if reader is not None and reader.flight.ended and reader.flight.call.shortened else None

    def _take_off(self, ex: Exchange, flight: Flight) -> None:
        flight.task = self._tasks.spawn(self._fly(ex, flight))

    async def _fly(self, ex: Exchange, flight: Flight) -> None:
        """BACK, for the flight that this exchange started."""
        call = flight.call
        walked: list[Stage] = []
        try:
            reply = await self._walk_in(self._back_ways, ex, walked)
            if reply is not None:
                call.served = reply.served
                flight.open(Head(reply.status, forwardable(reply.headers.items())))
                await flight.write(reply.body)
            call.outcome = Outcome.COMPLETED
            flight.end()
        except asyncio.CancelledError:
            if flight.said_all:  # it is whole; only the end of its body has not come
                call.outcome, call.complete = Outcome.COMPLETED, True
                flight.end()
                return
            call.outcome, call.error = Outcome.ABANDONED, "every client left"
            flight.fail(UpstreamFault("the request was given up", phase="body", status=503))
        except FarthingError as fault:
            call.outcome, call.error = Outcome.FAILED, str(fault)
            flight.fail(fault)
        except Exception as error:
            call.outcome, call.error = Outcome.FAILED, type(error).__name__
            log.error("flight failed", exc_info=error)
            flight.fail(UpstreamFault("farthing failed on this request", phase="head", status=500))
        finally:
            call.ended_tick = self._clock.tick_s()
            if call.answer is None:
                call.answer = flight.body() if call.served is None else None
            await self._walk_back(walked, ex)
            self._flight.flights.remove(ex.credential, flight_key(ex), flight)
            flight.finish()

    async def _walk_in(self, ways: tuple[Way, ...], ex: Exchange, walked: list[Stage]) -> LocalReply | None:
        """Each stage in turn, until one answers; those that have an end to come are noted in `walked`."""
        clock, breaker = self._clock.tick_s, self.breaker
        begun = clock()
        for stage, acts, ends in ways:
            if ends:
                walked.append(stage)
            if not acts:
                continue
            if breaker.open_until and not stage.hard and not breaker.closed(stage.name):
                ex.decide(stage.name, "left out", "it failed repeatedly")
                continue
            try:
                verdict = stage.on_request(ex)
                if verdict is not GO_ON and not isinstance(verdict, LocalReply | Continue):
                    verdict = await verdict
            except Exception as error:
                if stage.hard or isinstance(error, ClientFault | UpstreamFault):
                    raise
                self._failed(stage.name, ex, error)
                continue
            finally:
                ended = clock()
                if ended - begun >= _WORTH_TELLING_S:
                    ex.stage_ms[stage.name] = (ended - begun) * 1000
                begun = ended
            if breaker.failures:
                breaker.succeeded(stage.name)
            if isinstance(verdict, LocalReply):
                return verdict
        return None

    async def _walk_back(self, walked: list[Stage], ex: Exchange) -> None:
        for stage in reversed(walked):
            try:
                waits = stage.on_end(ex)
                if waits is not None:
                    await waits
            except Exception as error:  # noqa: BLE001 - one stage's failure must not keep another's end from running
                self._failed(stage.name, ex, error)

    def _failed(self, name: str, ex: Exchange, error: Exception) -> None:
        ex.decide(name, "error", f"{type(error).__name__}: {error}"[:200] if isinstance(error, FarthingError) else "")
        self.stage_errors[name] = self.stage_errors.get(name, 0) + 1
        self.breaker.failed(name, error)
