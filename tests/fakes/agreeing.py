"""What replicas agree upon without a server: one list of events, and who has applied how much of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from farthing.proxy.agreed import Machine

__all__ = ["FakeLog"]


@dataclass
class FakeLog:
    """`read`: applies to one machine what it hasn't seen."""

    events: list[tuple[int, str]] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)

    async def join(self, machine: Machine) -> int:
        """A replica that takes the state of the one that has seen most, or offers its own."""
        number = len(self.machines)
        self.machines.append(machine)
        ahead = max(self.seen, key=lambda one: self.seen[one], default=number)
        await self.take_over(number, ahead)
        return number

    async def take_over(self, number: int, other: int) -> None:
        """Be as the other one is."""
        slices = [json.loads(json.dumps(one)) for one in self.machines[other].slices()]
        await self.machines[number].put(slices)
        self.seen[number] = self.seen.get(other, 0)

    async def lose_all(self, first: int, others: Sequence[int]) -> None:
        """The server is empty, and this replica is the first to see it: what it hasn't read is gone for all."""
        del self.events[self.seen[first] :]
        self.seen = {first: self.seen[first]}
        for number in others:
            await self.take_over(number, first)

    def tell(self, number: int, event: Any) -> None:
        """Append."""
        self.events.append((number, json.dumps(event)))

    def read(self, number: int, most: int = 1_000_000) -> None:
        """Apply some of what it hasn't applied."""
        start = self.seen[number]
        for teller, event in self.events[start : start + most]:
            self.machines[number].apply(json.loads(event), own=teller == number)
        self.seen[number] = min(len(self.events), start + most)

    def state(self, number: int) -> str:
        """Of one machine, as text."""
        return json.dumps(list(self.machines[number].slices()))

    def all_alike(self, numbers: Sequence[int]) -> bool:
        """Whether these hold just the same, when they have read everything."""
        for number in numbers:
            self.read(number)
        return len({self.state(number) for number in numbers}) == 1
