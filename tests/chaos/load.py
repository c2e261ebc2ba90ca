"""The load: clients that go round the replicas without a pause to speak of, and a record of what each one got.

A client does what a balancer does and no more: where a connection is refused it asks the next replica; where one breaks
before the answer was whole it asks another once (`again`). An answer with a status is final, whatever the status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.chaos import alike
from tests.chaos.answers import answer, asked, said

__all__ = ["KNOWN", "Asked", "Load", "loading"]

KNOWN = [f"known {number}" for number in range(40)] + ["long known 0", "long known 1"]
_KNOWN_SHARE, _AGAIN_SHARE = 0.7, 0.1
_LATELY = 50
_ALIKE_SHARE, _ALIKE_LATELY = 0.6, 10  # of what is not known
_PAUSE_S = 0.02
_PATIENCE_S = 20.0


@dataclass(slots=True)
class Asked:
    """What one request got. Ticks are of time.monotonic, in seconds. `direct_ok`: whether the same request, sent past
    the proxy at the same moment, was served; None where none was sent. `down`: nobody listened, where there is only one
    to ask. `code`: the error's, where it was refused with one. `errors`: what broke, in order."""

    prompt: str
    stream: bool
    began: float
    ended: float = 0.0
    replica: int = -1
    status: int = 0
    row_id: str = ""
    cache: str = ""
    code: str = ""
    right: bool = False
    again: int = 0
    direct_ok: bool | None = None
    down: bool = False
    errors: list[str] = field(default_factory=list)

    @property
    def unheard(self) -> bool:
        """Whether there was nobody to ask."""
        return self.down and self.status != 200

    @property
    def wrong(self) -> bool:
        """Whether it was told something that the upstream never said to that prompt."""
        return self.status == 200 and not self.right

    @property
    def hit(self) -> bool:
        """Whether the cache gave it its right answer."""
        return self.right and self.cache == "hit-exact"

    @property
    def near(self) -> bool:
        """Whether a near-duplicate's answer was a right one for it."""
        return self.right and self.cache == "hit-semantic"

    @property
    def failed(self) -> bool:
        """Whether no answer came, though a direct call would have been served."""
        return self.status != 200 and self.direct_ok is not False and not self.unheard


class Load:
    """Clients on these replicas. `direct`: the upstream's base, to send each request there too; `credential`: what they
    show; `alike`: whether they ask near-duplicates, too."""

    def __init__(
        self,
        urls: Sequence[str],
        seed: int,
        *,
        direct: str = "",
        clients: int = 8,
        credential: str = "sk-chaos",
        alike: bool = False,
    ) -> None:
        self.asked: list[Asked] = []
        self._urls = list(urls)
        self._direct = direct
        self._clients = clients
        self._rng = random.Random(seed)
        self._seed = seed
        self._fresh = 0
        self._alike = alike
        self._families = 0
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {credential}"}
        self._going = True

    async def run(self) -> None:
        """Ask until `stop`."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=timeout, auto_decompress=True
        ) as session:
            await asyncio.gather(*(self._client(session, number) for number in range(self._clients)))

    def stop(self) -> None:
        """Let each client end with what it has begun."""
        self._going = False

    async def warm(self) -> None:
        """Ask what is known, so that it is; as many at once as there are clients."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE_S)) as session:
            shares = [KNOWN[number :: self._clients] for number in range(self._clients)]
            await asyncio.gather(*(self._warm(session, share) for share in shares))

    async def _warm(self, session: aiohttp.ClientSession, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            one = Asked(prompt, False, time.monotonic())
            await self._ask(session, one, 0)
            if not one.right:
                raise RuntimeError(f"not even without a fault: {one}")

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        while self._going:
            number += 1
            one = Asked(self._prompt(), self._rng.random() < 0.3, time.monotonic())
            if self._direct:
                _, one.direct_ok = await asyncio.gather(self._ask(session, one, number), self._past(session, one))
            else:
                await self._ask(session, one, number)
            self.asked.append(one)
            await asyncio.sleep(_PAUSE_S)

    def _prompt(self) -> str:
        """One that is known, a new one, or one that was new lately: what came of it then must not come back."""
        share = self._rng.random()
        if share < _KNOWN_SHARE:
            return self._rng.choice(KNOWN)
        if self._alike and self._rng.random() < _ALIKE_SHARE:
            return self._near()
        if share > 1 - _AGAIN_SHARE and self._fresh:
            return f"fresh {self._seed} {self._rng.randint(max(1, self._fresh - _LATELY), self._fresh)}"
        self._fresh += 1
        return f"fresh {self._seed} {self._fresh}"

    def _near(self) -> str:
        """One of a family that was begun lately, or of a new one: its number is of this run alone."""
        first = self._seed % 1000 * 10_000
        if self._families == 0 or self._rng.random() < 0.4:
            self._families += 1
            return alike.member(first + self._families, 0)
        lately = self._rng.randint(max(1, self._families - _ALIKE_LATELY), self._families)
        return alike.member(first + lately, self._rng.randint(1, 3))

    async def _ask(self, session: aiohttp.ClientSession, one: Asked, start: int) -> None:
        await self._try(session, one, start)
        one.ended = time.monotonic()

    async def _try(self, session: aiohttp.ClientSession, one: Asked, start: int) -> None:
        refused = 0
        while refused < len(self._urls) and one.again < 2:
            one.replica = (start + refused + one.again) % len(self._urls)
            try:
                await self._once(session, self._urls[one.replica], one)
                return
            except aiohttp.ClientConnectorError:
                refused += 1
                one.down = len(self._urls) == 1
            except (aiohttp.ClientError, ConnectionError) as error:
                one.errors.append(repr(error))
                one.again += 1
            except TimeoutError:
                one.errors.append("no answer within 20 s")
                return

    async def _once(self, session: aiohttp.ClientSession, url: str, one: Asked) -> None:
        one.status, one.right, one.row_id, one.code = 0, False, "", ""
        async with session.post(
            f"{url}/v1/chat/completions", data=asked(one.prompt, stream=one.stream), headers=self._headers
        ) as got:
            body = await got.read()
            text = said(body, stream=one.stream)
            if got.status == 200 and one.stream and text is None:
                # A stream that broke off says so by an error event or its missing end; nobody takes it for an answer.
                one.errors.append(f"broken stream: {body[-200:]!r}")
                one.row_id = got.headers.get("x-farthing-id", "")
                one.status = 599
                return
            one.status, one.cache = got.status, got.headers.get("x-farthing-cache", "")
            one.right = text in map(answer, _right_for(one))
            one.row_id = got.headers.get("x-farthing-id", "")
            one.code = "" if got.status == 200 else _code(body)
            if got.status != 200 or not one.right:
                one.errors.append(body[:200].decode("utf-8", "replace"))

    async def _past(self, session: aiohttp.ClientSession, one: Asked) -> bool:
        try:
            async with session.post(
                f"{self._direct}/v1/chat/completions", data=asked(one.prompt, stream=one.stream), headers=self._headers
            ) as got:
                body = await got.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        return got.status == 200 and said(body, stream=one.stream) == answer(one.prompt)


def _right_for(one: Asked) -> frozenset[str]:
    """The prompts whose answers are right for it: a near-duplicate's is where it was told for one, or joined one."""
    return alike.family(one.prompt) if one.cache in ("hit-semantic", "joined") else frozenset({one.prompt})


def _code(body: bytes) -> str:
    """An error's code; '' where it has none."""
    try:
        return str(json.loads(body)["error"]["code"] or "")
    except (ValueError, LookupError, TypeError):
        return ""


@contextlib.asynccontextmanager
async def loading(load: Load) -> AsyncIterator[Load]:
    """The load for as long as the block; it has ended after it."""
    await load.warm()
    running = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        load.stop()
        await running
