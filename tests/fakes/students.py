"""What tests of students have in common."""

from __future__ import annotations

import asyncio

from farthing.proxy.students import Students
from tests.fakes.proxying import Proxied

__all__ = ["ready"]


async def ready(proxy: Proxied) -> Students:
    """The proxy's students, once their embedder is there."""
    students = proxy.services.students
    assert students is not None
    for _ in range(1000):
        try:
            await students.embeds("warm")
        except RuntimeError:
            await asyncio.sleep(0.02)
        else:
            return students
    raise AssertionError("the embedder did not load")
