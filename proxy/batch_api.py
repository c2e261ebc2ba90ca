"""What every provider's batch API comes down to, and what is said by all of them.

Implementations: proxy/batch_openai.py (OpenAI's, and Azure's), proxy/batch_anthropic.py, proxy/batch_gemini.py;
proxy/batch_ways.py says which upstream has which. One suite of tests holds them to this contract
(tests/contract/test_batch_api.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Protocol

__all__ = ["Ask", "BatchApi", "Job", "Line", "Refused", "Unclear"]


class Refused(Exception):
    """The upstream answered, with a status that says no. `lasting`: it would say so again."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said[:200]}")
        self.status = status
        self.lasting = status not in (408, 409, 429) and status < 500


class Unclear(Exception):
    """Whether a batch was made can't be told yet: ask again later, and make none meanwhile."""


class Ask(NamedTuple):
    """One request of a batch. `path`: the call, under `/v1`; `body`: JSON on one line, as the provider takes it."""

    id: str
    path: str
    body: bytes


class Line(NamedTuple):
    """One answer out of a batch. `status` 0: there is none, and `error` is why."""

    id: str
    status: int
    body: bytes
    error: str = ""


class Job(NamedTuple):
    """A batch as it stands. `ended`: '' while it goes on; what has no answer in one that is `expired` or `cancelled`
    was never worked on. `results`: where its answers are, in the provider's own terms."""

    id: str
    ended: Literal["", "completed", "expired", "cancelled", "failed"] = ""
    cancelling: bool = False
    results: tuple[str, ...] = ()


class BatchApi(Protocol):
    """One upstream's batch API, asked one call after the other in the background; a fault is the caller's to try again.

    Every method raises UpstreamFault, Refused.
    """

    async def prepare(self, name: str, asks: Sequence[Ask]) -> str:
        """What `create` needs, never ''; nothing is paid for yet. Once it is kept, a crash can be made good."""
        ...

    async def create(self, mark: str, name: str, asks: Sequence[Ask]) -> Job:
        """A new batch. `mark`: of `prepare`."""
        ...

    async def made(self, mark: str, name: str, ids: Collection[str]) -> Job | None:
        """The batch that an earlier `create` may have made, whose answer was lost. Raises Unclear, too."""
        ...

    async def get(self, id: str) -> Job:
        """The batch as it stands."""
        ...

    async def cancel(self, id: str) -> None:
        """Break it off; what is done already can be had all the same."""
        ...

    async def answers(self, job: Job) -> list[Line]:
        """All that an ended batch has said, in any order. Raises Refused: it is longer than can be held, too."""
        ...

    async def clear(self, mark: str, job: Job | None) -> None:
        """Remove prompts and answers from the provider. `job`: None where no batch was made of what was prepared."""
        ...
