"""What every test leaves as it found it, and what all tests of a process share."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.fakes.loaded import loaded_once, one_authority


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests and their modules live to the end: looking among them for garbage, time and again, is in vain.

    Left out of the counts they also don't put off the look at all of the heap, which waits until there is a quarter more
    of it: a proxy that ended is a cycle, and was kept with its models until then.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is loaded once."""
    with loaded_once(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(one_authority(tmp_path_factory.mktemp("tls"))))
        yield


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command that is run in this process sets the log up for itself; the next test must not inherit that."""
    kept, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**kept)
    root.handlers[:] = handlers
    root.setLevel(level)
