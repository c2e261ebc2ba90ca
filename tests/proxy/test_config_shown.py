"""What is told of the configuration: in the words that a file may have."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from farthing.proxy.config import Config, effective, load, piped
from farthing.proxy.errors import ConfigFault
from farthing.proxy.gating import given_of
from farthing.proxy.replay_sweep import with_settings

ROUTED = """
variants = [{ name = "mini", model = "gpt-4o-mini" }, { name = "large", model = "gpt-4o" }]
[[routes]]
name = "tried"
tag = "kind=tried"
strategy = "cascade"
variants = ["mini", "large"]
accept = { ACCEPT }
[[routes]]
name = "plain"
tag = "kind=plain"
variants = ["mini"]
"""


def routed(tmp_path: Path, accept: str = "json = false") -> Config:
    path = tmp_path / "farthing.toml"
    path.write_text(ROUTED.replace("ACCEPT", accept))
    return load(path, {})


@pytest.mark.parametrize("wrong", ["json_valid", "jsno"])
def test_a_key_that_is_suggested_is_one_that_a_file_may_have(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        routed(tmp_path, f"{wrong} = true")
    assert f"routes.0.accept.{wrong}: unknown key; did you mean 'json'?" in str(fault.value)


def test_what_check_prints_may_stand_in_a_file(tmp_path: Path) -> None:
    config = routed(tmp_path)
    shown = effective(config)
    assert shown["routes"][0]["accept"]["json"] is False
    assert Config.model_validate(shown) == config


def test_a_replay_may_change_settings_where_there_are_routes(tmp_path: Path) -> None:
    config = routed(tmp_path)
    found = with_settings(config, {"cache.ttl_s": "60"})
    assert found.cache.ttl_s == 60
    assert found.routes == config.routes


def test_a_child_is_handed_what_it_can_read(tmp_path: Path) -> None:
    config = routed(tmp_path)
    assert piped(orjson.dumps(given_of(config))) == config
