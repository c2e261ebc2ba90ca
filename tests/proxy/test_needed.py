"""Modules that only some configurations need are there before such a configuration answers."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.config import Config
from farthing.proxy.needed import needed

UPSTREAM = {"url": "http://127.0.0.1:9/v1"}
CHEAP = {"name": "cheap", "model": "gpt-4o-mini"}


def made(**sections: Any) -> Config:
    return Config.model_validate({"upstream": UPSTREAM, **sections})


def test_by_default_nothing_is_needed() -> None:
    assert needed(made()) == ()


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"compress": {"squeeze": "observe"}}, ["compress.squeeze"]),
        ({"aliases": {"small": "gpt-4o-mini"}}, ["proxy.stage_routed", "policies.agree"]),
        (
            {"variants": [CHEAP], "shadow": {"share": 0.1}},
            ["proxy.stage_routed", "policies.agree", "proxy.route_shadow"],
        ),
        ({"cache": {"freshness": [{"kind": "refusal", "ttl_s": 60}]}}, ["policies.agree"]),
        ({"cache": {"freshness": [{"model": "gpt-*", "ttl_s": 60}]}}, []),
        ({"store": {"url": "redis://127.0.0.1:1"}}, ["cache.shared_index", "proxy.learnt_agreed"]),
        ({"store": {"url": "redis://127.0.0.1:1"}, "semantic": {"shared": False}}, ["proxy.learnt_agreed"]),
        ({"semantic": {"index": "pgvector", "index_url": "postgresql://127.0.0.1:1/x"}}, ["cache.index_pg"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else " ".join(value),
)
def test_what_is_turned_on_is_needed(sections: dict[str, Any], names: list[str]) -> None:
    assert [*needed(made(**sections))] == [f"farthing.{name}" for name in names]
    for name in needed(made(**sections)):
        import_module(name)


ON = """
import asyncio, sys, threading
from pathlib import Path
from farthing.proxy.app import running
from farthing.proxy.config import Config

late = []

def hook(event, arguments):
    here = threading.current_thread() is threading.main_thread()
    if event == "import" and arguments[0].startswith("farthing.") and here and started:
        late.append(arguments[0])

started = False
sys.addaudithook(hook)

async def main(folder):
    global started
    off = Config.model_validate({"server": {"port": 0}, "upstream": UPSTREAM, "state_dir": folder,
                                 "semantic": {"mode": "off"}})
    more = {"compress": {"squeeze": "observe"}, "aliases": {"small": "gpt-4o-mini"}, "shadow": {"share": 0.1},
            "cache": {"freshness": [{"kind": "refusal", "ttl_s": 60}]}}
    on = Config.model_validate({"server": {"port": 0}, "upstream": UPSTREAM, "state_dir": folder,
                                "semantic": {"mode": "off"}, **more})
    async with running(off) as proxy:
        started = True
        await proxy.reload(on)
        started = False
        assert "farthing.compress.squeeze" in sys.modules and "farthing.proxy.stage_routed" in sys.modules

asyncio.run(main(sys.argv[1]))
print(late)
"""


def test_a_reload_that_turns_features_on_imports_them_off_the_event_loop(tmp_path: Path) -> None:
    code = ON.replace("UPSTREAM", repr(UPSTREAM))

    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)

    assert shown.stdout.splitlines()[-1] == "[]"
