"""What is started and closed: in a `with`, for its length; closed too where its start fails halfway."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

__all__ = ["ForAWhile"]

F = TypeVar("F", bound="ForAWhile")


class ForAWhile:
    """See the module. Whoever is one says how it starts and how it closes."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, as far as it was started; leave nothing behind."""
        raise NotImplementedError

    def __enter__(self: F) -> F:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
