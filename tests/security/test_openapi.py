"""The document of farthing's calls says what the server does: every call is in it, and whatever is made from it is
answered as it says, by a real server before a real upstream. Seeds are fixed; hypothesis keeps what it found."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from farthing.proxy.openapi import document
from tests.fakes.valkey import free_port

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = document("test")
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
SAYS = [status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("FARTHING_FUZZ_EXAMPLES", "6"))
MEANT = re.compile(r'"(/farthing/api/[a-z_./]+[a-z])"')


def test_every_call_of_the_sources_is_in_the_document() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "proxy").glob("*.py") if path.name != "openapi.py")
    meant = set(MEANT.findall(sources))
    assert len(meant) > 20 and meant - DOCUMENT["paths"].keys() == set()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    upstream, port = free_port(), free_port()
    own = [sys.executable, "-m", "farthing.proxy.simulated", "--port", str(upstream)]
    ours = [sys.executable, "-m", "farthing.proxy.cli", "serve", "--port", str(port), "--state", str(folder / "state")]
    ours += ["--upstream", f"http://127.0.0.1:{upstream}/v1"]
    env = os.environ | {"FARTHING_SEMANTIC__MODE": "off"}
    with contextlib.ExitStack() as stack:
        said = stack.enter_context((folder / "log").open("w"))
        for command in (own, ours):
            process = stack.enter_context(subprocess.Popen(command, env=env, cwd=folder, stdout=said, stderr=said))
            stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            time.sleep(0.05)
        yield url


def test_it_is_served(server: str) -> None:
    told = httpx.get(f"{server}/farthing/api/openapi.json").json()
    assert told["paths"] == DOCUMENT["paths"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_what_is_made_from_it_is_answered_as_it_says(server: str, label: str, mode: GenerationMode) -> None:
    operation = OPERATIONS[label]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
        mode = GenerationMode.POSITIVE  # nothing of it can be wrong
    proxied = label.startswith("POST /v1/")
    checks = [not_a_server_error] if proxied else SAYS

    @seed(20261126)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        with contextlib.suppress(requests.exceptions.InvalidHeader):  # what no client can send
            answer = case.call(base_url=server, timeout=30)
            case.validate_response(answer, checks=checks)

    answered()
    assert httpx.get(f"{server}/healthz").json() == {"status": "ok"}
    httpx.post(f"{server}/farthing/api/policy/on", headers={"x-farthing-admin": "1"})
