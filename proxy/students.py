"""Students in the way of a request: before a cascade's teacher is asked, in this process, within a deadline.

A student answers only requests of the template that it was taught by, of clients whom the teacher has answered, where
it is sure enough, and only while its standing is good (policies/student_standing.py). Everything else is the teacher's:
a student that is late, missing, unsure or broken costs the deadline at most.

Whom it is compared with: in observe, whoever answers; while it serves, the teacher, to whom a share of its answers goes
in the background (an errand of the kind `audit`) and a share of the requests in its place, which also are what it is
taught by next time.

An heir is a student that was trained beside the one that answers (student_training.py). It is only compared, on
requests that are drawn alike: those drawn for teaching or for an audit, whether or not the other one answers them.

Rules of this file: what decides is drawn before the student has said anything, so that those it is compared on are a
fair sample of those that it answers. The mutable state is `standing` of each, and `vouched`; it changes on the loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import structlog
from multidict import CIMultiDict

from farthing.cache.reshape import split
from farthing.policies.agree import refuses
from farthing.policies.answer import read
from farthing.policies.student import Said, Student, sense
from farthing.policies.student_standing import Standing
from farthing.policies.variant import Variant
from farthing.proxy import student_files
from farthing.proxy.branch import CARRIED
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.crew import Crew
from farthing.proxy.distill_template import divided
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Attempt, Call, Exchange, Head
from farthing.proxy.observe import StreamObserver
from farthing.proxy.sse import Splitter
from farthing.proxy.student_answer import answer
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Embeds", "Known", "Students", "Watched"]

log = structlog.get_logger("farthing.student")

_VOUCHED = 10_000
_SAVE_EVERY = 50  # comparisons
_MOST_EVENT_BYTES = 2**20


class Embeds(Protocol):
    """Texts to vectors, off the event loop."""

    name: str

    async def __call__(self, text: str) -> NDArray[np.float32]:
        """float32 [dim], of length 1. Raises ValueError: too long. RuntimeError: not ready, or too much to do."""
        ...


@dataclass(slots=True)
class Known:
    """A student, and what is known of it. `unsaved`: comparisons since it was written. `did`: since the process began:
    answered, abstained, compared, differed."""

    student: Student
    standing: Standing
    unsaved: int = 0
    did: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Watched:
    """A student that is to be compared with whoever answers this request."""

    known: Known
    text: str


@dataclass(slots=True)
class Students:
    """`known`: by the variant's name; `all`: those of every policy, by their hashes. `audit_share`: of its answers;
    `teach_share`: of the requests that it may answer. `errands`: audits, None until they are there. `note`: of an
    incident, where there is a log of them."""

    known: Mapping[str, Known]
    embeds: Embeds
    tokenizer: Tokenizer
    barred: Collection[str]
    clock: Clock
    randomness: Randomness
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    state_dir: Path
    audit_share: float
    teach_share: float
    deadline_s: float
    errands: Errands | None = None
    note: Callable[[str, str, Mapping[str, Any]], None] = lambda what, why, evidence: None
    vouched: OrderedDict[str, None] = field(default_factory=OrderedDict)
    heirs: Mapping[str, Known] = field(default_factory=dict)
    all: Mapping[str, Known] = field(default_factory=dict)
    crew: Crew | None = None

    def __post_init__(self) -> None:
        """The keeper learns from all workers' comparisons; they hear what it knows."""
        if self.crew is not None and self.crew.keeper:
            self.crew.peers.when_told("student compared", self._told_by_another)
        elif self.crew is not None:
            self.crew.peers.when_told("student stands", self._told_by_keeper)

    async def answered(self, ex: Exchange, variant: Variant, teacher: Variant | None) -> bool:
        """Whether the student's answer has gone to the client. `teacher` None: the asked-for model.

        Raises nothing but what the client's sink raises.
        """
        known = self._known(ex, variant)
        if known is None:
            return False
        text = self._text(ex, known)
        if text is None:
            return False
        if not known.standing.serves:
            ex.student = Watched(known, text)
            ex.decide("student", "observes", variant.student)
            return False
        if self.randomness.uniform() < self.teach_share:
            return self._left(ex, known, text, "drawn for teaching")
        audit = self.randomness.uniform() < self.audit_share
        if audit and (self.errands is None or not self.errands.may(ex.model if teacher is None else teacher.model)):
            return self._left(ex, known, text, "no audit may be paid for")
        said = await self._in_time(ex, known, text)
        if said is None:
            return False
        if said.confidence < known.student.threshold:
            ex.decide("student", "abstained", f"{variant.student}: {said.confidence:.3f}")
            known.did["abstained"] += 1
            if audit and (heir := self._heir(known)) is not None:
                ex.student = Watched(heir, text)
            return False
        if not await self._give(ex, variant, said):
            return False
        known.did["answered"] += 1
        if audit:
            self.spawn(self._audit(ex, teacher, Watched(known, text)))
        return True

    def watch(self, ex: Exchange, order: Sequence[Variant]) -> None:
        """A route that only observes: the first of its students is compared with whoever answers."""
        for variant in order:
            if variant.student:
                known = self._known(ex, variant)
                text = None if known is None else self._text(ex, known)
                if known is not None and text is not None:
                    ex.student = Watched(known, text)
                return

    def ended(self, ex: Exchange) -> None:
        """The upstream has answered: whom it answers may be answered here; compare where that is to be done."""
        call = ex.call
        if call is None or call.served is not None or call.status != 200 or (ex.variant and ex.variant.student):
            return
        self.vouched[ex.credential] = None
        self.vouched.move_to_end(ex.credential)
        if len(self.vouched) > _VOUCHED:
            self.vouched.popitem(last=False)
        if isinstance(ex.student, Watched):
            self.spawn(self._compare(ex.student, call))

    async def close(self) -> None:
        """Write what is known."""
        for known in (*self.known.values(), *self.heirs.values()):
            if known.unsaved:
                await self._save(known)

    def _heir(self, known: Known) -> Known | None:
        heir = self.heirs.get(known.student.name)
        return None if heir is None or heir.student.template != known.student.template else heir

    def _known(self, ex: Exchange, variant: Variant) -> Known | None:
        known = self.known.get(variant.name)
        if known is None:
            ex.decide("student", "not there", variant.student)
        elif ex.credential in self.barred or ex.credential not in self.vouched:
            ex.decide("student", "passed by", "the teacher has not answered this client yet")
            if ex.credential not in self.barred and not known.standing.serves:
                return known  # to be compared only
            return None
        return known

    def _text(self, ex: Exchange, known: Known) -> str | None:
        student = known.student
        if ex.exact is None or ex.endpoint != student.endpoint:
            return None
        if ex.exact.get("store"):
            ex.decide("student", "passed by", "to be stored upstream")
            return None
        found = divided(ex.endpoint, ex.exact)
        if isinstance(found, str) or found.template != student.template:
            ex.decide("student", "passed by", found if isinstance(found, str) else "of another template")
            return None
        return found.text

    @staticmethod
    def _left(ex: Exchange, known: Known, text: str, why: str) -> bool:
        ex.student = Watched(known, text)
        ex.decide("student", "left to the teacher", why)
        return False

    async def _in_time(self, ex: Exchange, known: Known, text: str) -> Said | None:
        try:
            async with asyncio.timeout(self.deadline_s):
                return await self._say(known, text)
        except TimeoutError:
            ex.decide("student", "late", f"nothing within {self.deadline_s * 1000:.0f} ms")
        except (ValueError, RuntimeError) as error:
            ex.decide("student", "passed by", str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is the teacher
            ex.decide("student", "error", type(error).__name__)
        return None

    async def _say(self, known: Known, text: str) -> Said:
        return known.student.say(await self.embeds(text))

    async def _give(self, ex: Exchange, variant: Variant, said: Said) -> bool:
        call, sink = ex.call, ex.sink
        assert call is not None
        assert sink is not None
        begun = self.clock.tick_s()
        usage, whole, stream = await asyncio.to_thread(self._rendered, ex, variant, said)
        if ex.stream and stream is None:
            ex.decide("student", "passed by", "its answer has no form as a stream")
            return False
        kind = "text/event-stream; charset=utf-8" if ex.stream else "application/json"
        call.head = Head(200, CIMultiDict({"Content-Type": kind}))
        call.event_stream, call.elsewhere = ex.stream, True
        call.usage, call.model_served = usage, variant.model
        call.usage_injected = ex.stream and not ex.asks_usage
        ex.variant = variant
        ex.may_store = False  # to say it again costs as little, and the student may have lost its standing by then
        ex.decide("student", "answered", f"{variant.student}: {said.confidence:.3f}")
        sink.open(call.head)
        body = orjson.dumps(whole)
        if stream is None:
            await sink.write(body)
            call.value = whole
        else:
            body, observer = stream, StreamObserver(ex.endpoint)
            for piece in Splitter(_MOST_EVENT_BYTES).feed(stream):
                await sink.write(piece, usage_only=observer.see(piece))
        call.answer, call.complete = body, True
        took_ms = (self.clock.tick_s() - begun) * 1000
        call.attempts.append(Attempt("student", 200, duration_ms=took_ms, variant=variant.name))
        return True

    def _rendered(self, ex: Exchange, variant: Variant, said: Said) -> tuple[Usage, dict[str, Any], bytes | None]:
        """Usage by our own count, the whole answer, and the stream where one was asked for. Off the loop."""
        assert ex.payload is not None
        id, now_s = self.randomness.token(12), self.clock.now_s()
        given = self.tokenizer.of(ex.tenant).count_request(ex.endpoint, ex.payload, ex.model)
        bare = orjson.dumps(answer(ex.endpoint, said.label, variant.model, Usage(), id, now_s))
        made = self.tokenizer.of(ex.tenant).count_text_out(ex.endpoint, bare, ex.model)
        usage = Usage(fresh=given, output=made, source=UsageSource.COUNTED)
        whole = answer(ex.endpoint, said.label, variant.model, usage, id, now_s)
        return usage, whole, split(orjson.dumps(whole), ex.endpoint, include_usage=True) if ex.stream else None

    async def _audit(self, ex: Exchange, teacher: Variant | None, watched: Watched) -> None:
        assert self.errands is not None
        shadow = self.errands.begin(ex.original)
        for name in CARRIED:
            setattr(shadow, name, getattr(ex, name))
        shadow.plan, shadow.variant = None, teacher
        call = await self.errands.run(shadow, f"audit of {ex.id}")
        if call.status == 200:
            await self._compare(watched, call)

    async def _compare(self, watched: Watched, call: Call) -> None:
        """What would it have said, and its heir?"""
        try:
            vector = await self.embeds(watched.text)
        except (ValueError, RuntimeError):
            return  # it wouldn't have answered
        heir = self._heir(watched.known)
        for known in {id(one): one for one in (watched.known, heir) if one is not None}.values():
            said = known.student.say(vector)
            if said.confidence >= known.student.threshold:
                self._learn(known, said, call)

    def _learn(self, known: Known, said: Said, call: Call) -> None:
        choices = None if call.answer is None or not call.complete else read(call.answer)
        if not choices:
            return  # an upstream's bad hour says nothing about the student
        first = choices[0]
        wrong = len(choices) > 1 or bool(first.calls) or refuses(first) or sense(first.text) != sense(said.label)
        self._counted(known, wrong=wrong)

    def _told_by_another(self, said: Any) -> None:
        known = self.all.get(said[0])
        if known is not None:
            self._counted(known, wrong=said[1])

    def _told_by_keeper(self, said: Any) -> None:
        known = self.all.get(said[0])
        if known is not None:
            known.standing = known.standing.with_plain(said[1])

    def _counted(self, known: Known, *, wrong: bool) -> None:
        """One comparison more: here, or the keeper's to count."""
        if self.crew is not None and not self.crew.keeper:
            self.crew.peers.tell("student compared", [known.student.hash, wrong], to="keeper")
            return
        known.standing, turned = known.standing.learned(wrong)
        if self.crew is not None:
            self.crew.peers.tell("student stands", [known.student.hash, known.standing.plain()])
        known.unsaved += 1
        known.did.update(compared=1, differed=int(wrong))
        if turned is not None:
            name, evidence = known.student.name, known.standing.plain() | {"hash": known.student.hash}
            what = "a student may serve" if turned.serves else "a student goes back to observe"
            (log.info if turned.serves else log.warning)(what, student=name, why=turned.why)
            if not turned.serves:
                self.note(f"student {name} goes back to observe", turned.why, evidence)
        if turned is not None or known.unsaved >= _SAVE_EVERY:
            known.unsaved = 0
            self.spawn(self._save(known))

    async def _save(self, known: Known) -> None:
        known.unsaved = 0
        try:
            await asyncio.to_thread(student_files.save_standing, self.state_dir, known.student, known.standing)
        except OSError as error:
            log.warning("what is known of a student can't be written", student=known.student.name, error=error.strerror)
