"""What every test leaves as it found it, and what all tests of a process share."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests.fakes.commands import forks
from tests.fakes.examples import LONG, SHORT
from tests.fakes.loaded import loaded_once

AUTHORITY = Path(__file__).parent / "fakes" / "nobody.pem"


def pytest_configure(config: pytest.Config) -> None:
    """Trust one authority, whose key nobody has. Clients and commands that a test starts would read all of the
    system's, even where they speak to loopback without TLS: half of the time of a proxy's start."""
    os.environ["SSL_CERT_FILE"] = str(AUTHORITY)
    # What a machine is busy with is no fault of the test's; work that grows too fast is found by counting steps.
    long = "hypothesis" in config.getoption("markexpr")  # make test-long asks for all properties
    settings.register_profile("house", settings.default, deadline=None, max_examples=LONG if long else SHORT)
    settings.load_profile("house")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests and their modules live to the end: to look for garbage among them, time and again, is in vain.

    Left out of the counts they no longer put off the look at the whole heap, which waits until a quarter more is there:
    a proxy that ended is a cycle, and was kept with its models until then.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def shared() -> Iterator[None]:
    """What is loaded once."""
    with loaded_once(), forks():
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
