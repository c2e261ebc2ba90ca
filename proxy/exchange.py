"""One request's record, and the shape of a stage. Leaf: every room may import it; it imports none.

Rules of this file:
1. `Original` is what the client sent; nobody ever changes it.
2. An `Exchange` belongs to one client request. Stages write the facts that they own, and append decisions.
3. A `Call` is the upstream work behind one exchange or, when a flight is joined, behind several.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from multidict import CIMultiDict, CIMultiDictProxy

from farthing.proxy.usage import Usage

if TYPE_CHECKING:
    from farthing.proxy.header_facts import HeaderFacts

__all__ = [
    "GO_ON",
    "REFUSED",
    "Attempt",
    "Billed",
    "BodySource",
    "CacheMode",
    "CacheStatus",
    "Call",
    "Continue",
    "Controls",
    "Decision",
    "Endpoint",
    "Exchange",
    "Head",
    "LocalReply",
    "Original",
    "Outcome",
    "Quiet",
    "Served",
    "Sink",
    "Stage",
    "Verdict",
]


class Endpoint(StrEnum):
    """Which API call this is; `OTHER` is proxied without being understood."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    OTHER = "other"


class CacheStatus(StrEnum):
    """How the answer was had; the values of `x-farthing-cache`."""

    HIT_EXACT = "hit-exact"
    HIT_SEMANTIC = "hit-semantic"
    JOINED = "joined"
    MISS = "miss"
    BYPASS = "bypass"


class CacheMode(StrEnum):
    """What `x-farthing-cache` asks for."""

    OFF = "off"
    EXACT = "exact"
    SEMANTIC = "semantic"


class Outcome(StrEnum):
    """How it ended: exactly one for each exchange."""

    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"


class BodySource(Protocol):
    """A request's body on its way in. `read` at most once, then `stream`. `fault`: why it was refused on the way."""

    fault: Exception | None

    def arrived(self) -> bytes | None:
        """The body, if all of it is here already and not large; `read` still gives it."""
        ...

    async def read(self, limit_bytes: int) -> bytes | None:
        """The whole body; None where it is longer than the limit: then `stream` still gives all of it.

        Raises ClientFault: too slow (408), or longer than the operator's hard limit (413).
        """
        ...

    def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive."""
        ...


class Sink(Protocol):
    """Where an answer is written while it arrives; several clients may be reading it. `task`: whose work it is."""

    task: asyncio.Task[Any] | None

    def open(self, head: Head) -> None:
        """The answer has begun."""
        ...

    async def write(self, body: bytes, *, usage_only: bool = False) -> None:
        """Some of it; waits while every reader is too far behind."""
        ...

    def body(self) -> bytes | None:
        """All bytes so far; None where they outgrew the buffer."""
        ...


class Original(NamedTuple):
    """The client's request as it came. `target`: path and query, undecoded. `source`: its body, still to be read.

    `facts`: what the headers say.
    """

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    source: BodySource
    facts: HeaderFacts

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Controls:
    """What the request's own headers ask of farthing (contract: request headers)."""

    off: bool = False
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    cache: CacheMode | None = None
    ttl_s: int | None = None
    scope: str = ""
    compress: str = ""
    route: str = ""
    user: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    defer_s: int | None = None


REFUSED = ("server", "refused")
"""Stage and action of the decision on a request that farthing itself refused; its reason is the error's code."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one stage did to this request, and why; for the ledger and the detail view. Never prompt text."""

    stage: str
    action: str
    reason: str = ""


class Head(NamedTuple):
    """Status and headers of an answer, hop-by-hop headers already removed."""

    status: int
    headers: CIMultiDict[str]


@dataclass(slots=True)
class Served:
    """What the ledger must know of an answer that came from a cache: the usage behind it, and whose it was.

    `reuse`: '' for an exact hit, else how a near-duplicate's answer came to be served: 'proved' or 'unproven'.
    `bound`: the share of wrong answers that is proved not to be exceeded, at that moment. `tokens_saved`: how many more
    the request had that the answer was written for than what `usage` was billed for. `uncounted`: the answer itself,
    where its upstream told no usage. `asks_usage`: it was made for a client that asks for a stream's usage.
    """

    entry_key: str
    usage: Usage | None
    model_served: str
    model_requested: str
    stored_s: float
    expires_s: float
    reuse: str = ""
    bound: float | None = None
    tokens_saved: int = 0
    uncounted: bytes = b""
    asks_usage: bool = False


@dataclass(frozen=True, slots=True)
class Continue:
    """The stage lets the request go on."""


@dataclass(frozen=True, slots=True)
class LocalReply:
    """The stage answers itself. `body`: the whole answer, ready to send; `headers`: without farthing's own."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    served: Served | None = None


Verdict = Continue | LocalReply
GO_ON = Continue()


class Billed(NamedTuple):
    """What one answer of a model was billed with. `upstream`: whose prices apply."""

    model: str
    usage: Usage
    upstream: str = ""


@dataclass(slots=True)
class Attempt:
    """One try at an upstream. Times are milliseconds; `error` is empty on success.

    `variant`: of a route, that was asked. `billed`: with what, where this answer was paid for and isn't the one that
    serves: one of `Call.others`.
    `sent`: its request went out, or began to.
    """

    upstream: str
    status: int = 0
    error: str = ""
    duration_ms: float = 0.0
    backoff_ms: float = 0.0
    variant: str = ""
    billed: Billed | None = None
    sent: bool = False

    def goes_out(self) -> None:
        """Its request goes out now."""
        self.sent = True

    @property
    def unanswered(self) -> bool:
        """Whether its request has gone out, and nothing has come of it yet."""
        return self.sent and not self.status and not self.error


@dataclass(slots=True)
class Call:
    """The upstream work of one flight. Ticks are monotonic seconds.

    `answer`: the decoded bytes of the whole answer, set at the end where it was kept within bounds. `value`: of a whole
    answer that is a JSON object, the same read. `event_stream`:
    it came as server-sent events. `complete`: it ended as HTTP says it should. `earlier`: what answers before this one
    used, in which the model only asked for what had been left out; `usage` is the last one's. `others`: what attempts
    were billed with that don't serve: a cascade's cheaper tries, failed ones. `known`: what the part of the answer that
    was stored (embeddings, item by item) would have used; `usage` is the rest's. `tier`: the service tier that a stream
    named, whether or not it told its usage. `elsewhere`: another upstream than the default one answered, to which the
    client's credential means nothing. `shortened`: another prompt than the client's went upstream; `tokens_saved`: by
    how much, which is counted once the answer is there.
    `silent`: it was given up, by us or by the client, after the request had gone out and before a head had come. The
    provider has the prompt then, and no word of its own will ever say what it charges: the prompt's price stands for
    that.
    """

    id: str
    upstream: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    head: Head | None = None
    started_tick: float | None = None
    first_byte_tick: float | None = None
    ended_tick: float | None = None
    usage: Usage | None = None
    earlier: list[Usage] = field(default_factory=list)
    others: list[Billed] = field(default_factory=list)
    known: Usage | None = None
    model_served: str = ""
    tier: str = ""
    answer: bytes | None = None
    value: dict[str, Any] | None = None
    event_stream: bool = False
    complete: bool = False
    usage_injected: bool = False
    elsewhere: bool = False
    shortened: bool = False
    tokens_saved: int = 0
    silent: bool = False
    served: Served | None = None
    outcome: Outcome | None = None
    error: str = ""

    @property
    def status(self) -> int:
        """The upstream's status, 0 before its head has come."""
        return self.head.status if self.head else 0


_NOTHING_ASKED = Controls()


class Exchange:
    """One client request on its way through the stages. Ticks (`*_tick`) are monotonic seconds.

    Defaults stand on the class, so that making an exchange writes only what is its own: one is made for every hit.
    """

    # admit
    credential: str = ""
    tenant: str = ""
    caller: Any = None  # tenants.Caller
    controls: Controls = _NOTHING_ASKED
    # parse
    endpoint: Endpoint = Endpoint.OTHER
    payload: dict[str, Any] | None = None
    model: str = ""
    stream: bool = False
    asks_usage: bool = False
    body: bytes | None = None
    body_in: bytes | None = None  # as it came, where other gateways' words were taken out of `body`
    exact: dict[str, Any] | None = None
    plain: bool = False  # what is said in it is nothing but roles and texts
    body_out: bytes | None = None
    # assign
    optimise: bool = True
    drawn: bool = False  # its answer is compared with a fresh one
    lossy: str = ""  # what may be done to the request that changes its answer
    policy: str = ""
    config_id: str = ""
    experiment: str = ""
    arm: str = ""
    # eligible, exact, semantic
    may_store: bool = False
    may_read: bool = False
    may_join: bool = False
    may_semantic: bool = False
    key: str = ""
    cache: CacheStatus = CacheStatus.BYPASS
    cache_reason: str = ""
    place: Any = None  # cache.places.Settled
    case: Any = None  # stage_semantic.Case
    items: Any = None  # cache.items.Case: embeddings of which each input is looked up and kept by itself
    similarity: float | None = None
    p_wrong: float | None = None
    served: Served | None = None
    looking: asyncio.Task[Any] | None = None  # a look-up that nobody waits for but the ledger
    deferred: bool = False  # it is kept for later: its row comes with its answer
    # route
    plan: Any = None  # routing.Plan: the route that the request takes, while it hasn't been taken
    led: Any = None  # policies.routes.Route: that led it elsewhere, once it has
    student: Any = None  # students.Watched: a student is compared with whoever answers
    variant: Any = None  # policies.variant.Variant: who is asked instead of whom the request names
    # compress
    compress: str = ""
    counted: bool = False  # the next three are known
    tokens_saved: int = 0
    saved_before: int = 0  # of them, in turns that were sent before
    tokens_before: int = 0  # of these turns, as they were sent now
    shortening: Any = None  # compressing.Case
    uses: Sequence[Any] = ()  # compress_counts.Use: what rules did to what is sent
    tidied: int = 0  # texts that were only tidied
    retrieval: Any = None  # retrieving.Retrieval: the model may ask for what was left out
    # prompt_cache
    marker: Any = None  # prompt_marking.Marker: who looks after what goes upstream
    marked: Any = None  # prompt_marking.Marked: what was decided for the leg that serves
    # spend
    hold: Any = None  # budgets.Hold: money that is reserved, and tokens that were taken
    # upstream
    call: Call | None = None
    sink: Sink | None = None
    leads: bool = True
    joined_tick: float | None = None
    lease: Any = None  # cache.lease.Lease: other processes wait for this one's answer
    # the way back
    status: int = 0
    would: Any = None  # counterfactual.Would, once it is worked out
    trails: tuple[Any, Any] | None = None  # prompt_trail.Trail of the client's prompt and of the one sent, made early
    given: bytes | None = None  # the whole answer, where a stage of this exchange's own gave it
    money: Any = None  # attribute.Money, once it is worked out for this usage
    outcome: Outcome | None = None
    error: str = ""
    first_byte_tick: float | None = None
    ended_tick: float | None = None
    ready: bool = False  # its row has nothing to wait for

    def __init__(self, id: str, original: Original, received_s: float, received_tick: float) -> None:
        self.id = id
        self.original = original
        self.received_s = received_s
        self.received_tick = received_tick
        self.stage_ms: dict[str, float] = {}
        self.decisions: list[Decision] = []
        self.walked: list[Stage] = []  # those whose end is still to come

    def decide(self, stage: str, action: str, reason: str = "") -> None:
        """Append a decision; decisions are never changed or removed."""
        self.decisions.append(Decision(stage, action, reason))


class Quiet:
    """A stage's default: do nothing. What a stage doesn't override the pipeline doesn't even call."""

    __slots__ = ()

    @property
    def idle(self) -> bool:
        """It acts."""
        return False

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Nothing on the way in."""
        return GO_ON

    def on_end(self, ex: Exchange) -> Awaitable[None] | None:
        """Nothing on the way out."""
        return None


class Stage(Protocol):
    """One step of the pipeline: a thin shell round a pure decision.

    `hard`: its failure is the request's failure; any other stage that fails is passed by.

    `on_request` fires in the list's order and may answer itself; `on_end` in reverse order, only for stages
    whose `on_request` ran, once the outcome is known. Where a stage has to wait it gives something to await; most
    don't, and so cost no coroutine. A stage never changes the original, opens no sockets
    (but `upstream`), reads no clock but the injected one and starts no task of its own.
    """

    @property
    def name(self) -> str:
        """The stage's word in the list, in decisions and in `stage_ms`."""
        ...

    @property
    def hard(self) -> bool:
        """Whether its failure fails the request: only what the operator declared hard, and the upstream itself."""
        ...

    @property
    def idle(self) -> bool:
        """Whether, as it is configured, it will never do anything on the way in."""
        ...

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Let the request go on, or answer it."""
        ...

    def on_end(self, ex: Exchange) -> Awaitable[None] | None:
        """Learn from the outcome, which stands in the exchange."""
        ...


Stages = Sequence[Stage]
