"""May a route serve? What its shadows say decides, for routes with `max_worse`.

A route whose mode is `serve` does so on its operator's word: it begins by serving, and goes back to observe where its
shadows speak for more answers than `max_worse` being worse than the asked-for model's. One whose mode is `prove` begins
by observing. While a route observes, the asked-for model answers; a share of the requests are sent the route's way in
the background, and it serves once these prove the bound. Of one whose mode is `observe` the same is learnt, and that it
is proved is only told: an operator decides. The rule is the students' (policies/student_standing.py). What is known
outlives a restart; a route that was changed, or has another bound, is another promise and begins anew.

The mutable state is `_known`; it changes on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from farthing.policies.routes import PROVED, Route
from farthing.policies.student_standing import Standing
from farthing.proxy.whole_file import write_whole

if TYPE_CHECKING:
    from farthing.proxy.crew import Crew

__all__ = ["FILE", "RouteStandings"]

log = structlog.get_logger("farthing.route")

FILE = "route-standings.json"
_SAVE_EVERY = 50  # comparisons
_MOST_KEPT = 1_000
_WHOSE = "the asked-for model's"


class RouteStandings:
    """What is known of routes with a bound, kept in the file at `path`. `note`: of an incident (kind, what, why,
    evidence).

    Opening never fails: of a file that can't be read nothing is known. With several workers the keeper counts.
    `on_turn`, to be set: told in every process where a route serves again, or no longer.
    """

    def __init__(
        self,
        path: Path,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        note: Callable[[str, str, str, Mapping[str, Any]], None],
        crew: Crew | None = None,
    ) -> None:
        self._path = path
        self._spawn = spawn
        self._note = note
        self._crew = crew
        self.on_turn: Callable[[], None] = lambda: None
        self._unsaved = 0
        self._writing = asyncio.Lock()
        self._known: dict[str, Standing] = _read(path)
        if crew is not None and crew.keeper:
            crew.peers.when_told("route compared", lambda said: self._counted(*said))
        elif crew is not None:
            crew.peers.when_told("route stands", self._told_by_keeper)

    def of(self, route: Route) -> Standing | None:
        """What is known of it; None: it has no bound."""
        if route.max_worse is None:
            return None
        return self._known.get(route.promise) or _fresh(route.max_worse, trusted=route.trusted)

    def observes(self, route: Route) -> bool:
        """Whether it has a bound, and what is known of it doesn't let it serve."""
        standing = self.of(route)
        return standing is not None and not standing.serves

    def held_back(self, route: Route) -> str | None:
        """Why a route with a bound doesn't serve: '' where it wasn't to serve anyway; None: it serves, or no bound."""
        if route.max_worse is None:
            return None
        standing = self._known.get(route.promise)
        may = route.trusted if standing is None else standing.serves
        if not route.serves:
            return ""
        if may:
            return None
        fell = route.trusted or (standing is not None and standing.turn > 0)
        return "more of its answers are worse than its bound" if fell else "its bound isn't proved yet"

    def learned(self, route: Route, *, worse: bool) -> None:
        """One comparison more of its answer with the asked-for model's."""
        if self.of(route) is None or route.max_worse is None:
            return
        if self._crew is not None and not self._crew.keeper:
            said = [route.promise, route.name, route.max_worse, worse, route.trusted]
            self._crew.peers.tell("route compared", said, to="keeper")
        else:
            self._counted(route.promise, route.name, route.max_worse, worse, route.trusted)

    def told(self, route: Route) -> dict[str, Any] | None:
        """What is known of it as JSON values; None where `of` knows nothing. `state`: serves, observes, or proved: it
        observes by its operator's word and might serve by what is known of it."""
        one = self.of(route)
        if one is None:
            return None
        may = "serves" if route.serves else "proved"
        return {
            "max_worse": one.bound, "state": may if one.serves else "observes", "fell_back": one.turn,
            "compared": one.evidence.seen, "worse": one.evidence.bad, "at_most": one.upper,
        }  # fmt: skip

    async def close(self) -> None:
        """Write what is known."""
        if self._unsaved:
            await self._save()

    def _counted(self, key: str, name: str, bound: float, worse: bool, trusted: bool) -> None:
        before = self._known.get(key) or _fresh(bound, trusted=trusted)
        standing, turned = before.learned(worse)
        self._known.pop(key, None)
        self._known[key] = standing  # the latest last
        while len(self._known) > _MOST_KEPT:
            del self._known[next(iter(self._known))]
        if self._crew is not None:
            self._crew.peers.tell("route stands", [key, bound, standing.plain()])
        self._unsaved += 1
        if turned is not None:
            again = "serves again" if trusted else "is proved: with mode prove or serve it serves"
            what = f"route {name} {again if turned.serves else 'goes back to observe'}"
            (log.info if turned.serves else log.warning)(what, why=turned.why)
            seen = before.evidence.add(float(worse))  # a fall begins anew
            told = {"route": name, "max_worse": bound, "compared": seen.seen, "worse": seen.bad}
            if not turned.serves:
                self._note("observe", what, turned.why, told | {"fell_back": standing.turn})
            elif not trusted:
                self._note("proved", what, turned.why, told | {"at_most": standing.upper})
            self.on_turn()
        if turned is not None or self._unsaved >= _SAVE_EVERY:
            self._spawn(self._save())

    def _told_by_keeper(self, said: Any) -> None:
        key, bound, plain = said
        before = self._known.get(key) or _fresh(bound, trusted=not key.endswith(PROVED))
        self._known[key] = _fresh(bound, trusted=False).with_plain(plain)
        if before.serves != self._known[key].serves:
            self.on_turn()

    async def _save(self) -> None:
        if self._crew is not None and not self._crew.keeper:
            return
        async with self._writing:
            self._unsaved = 0
            content = orjson.dumps({key: {"bound": one.bound} | one.plain() for key, one in self._known.items()})
            try:
                await asyncio.to_thread(write_whole, self._path, (content,))
            except OSError as error:
                log.warning("what is known of routes can't be written", error=error.strerror)


def _fresh(bound: float, *, trusted: bool) -> Standing:
    return Standing(bound, serves=trusted, whose=_WHOSE)


def _read(path: Path) -> dict[str, Standing]:
    try:
        kept = orjson.loads(path.read_bytes())
        return {key: _fresh(float(plain["bound"]), trusted=False).with_plain(plain) for key, plain in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("what is known of routes can't be read; they begin anew", error=str(error) or type(error).__name__)
        return {}
