"""The section `[otlp]`: off by default, its keys secret, its faults told with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farthing.proxy.config import effective, load
from farthing.proxy.config_otlp import Otlp
from farthing.proxy.errors import ConfigFault


def test_nothing_is_sent_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not load(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}).otlp.on
    assert not Otlp(endpoint="http://collector:4318", spans=False, metrics=False).on
    assert Otlp(endpoint="http://collector:4318", spans=False).on


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://collector:4318/", "http://collector:4318"),
        ("https://otel.example/api/v1/traces", "https://otel.example/api"),
        ("https://otel.example/otlp", "https://otel.example/otlp"),
    ],
)
def test_the_endpoint_is_the_base(given: str, base: str) -> None:
    assert Otlp(endpoint=given).endpoint == base


def test_headers_and_password_are_shown_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text('[otlp]\nendpoint = "https://me:hush@otel.example"\n[otlp.headers]\nx-api-key = "secret-one"\n')
    config = load(path, {})
    shown = json.dumps(effective(config))
    assert "secret-one" not in shown and "hush" not in shown and "secret-one" not in repr(config)
    assert config.otlp.headers["x-api-key"].get_secret_value() == "secret-one"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('endpoint = "collector:4318"', "otlp.endpoint: must begin with http"),
        ('endpoint = "http://a?b=c"', "must not carry a query"),
        ('endpont = "http://a"', "did you mean 'endpoint'"),
        ("content = true\nspans = false", "otlp: content is told on spans: set spans = true too"),
        ('content = "yes please"', "otlp.content"),
        ("content_bytes = 100", "otlp.content_bytes"),
        ('conventions = "1.0"', "otlp.conventions"),
        ('endpoint = "http://a"\n[ledger]\nenabled = false', "is fed by the ledger"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text(f"[otlp]\n{text}\n")
    with pytest.raises(ConfigFault, match=said):
        load(path, {})


@pytest.mark.parametrize("command", ["check", "serve"])
def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path, command: str) -> None:
    code = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        f"sys.argv = ['farthing', {command!r}, '--state', {str(tmp_path)!r}]\n"
        "from farthing.proxy.cli import main\n"
        "main()\n"
    )
    env = os.environ | {"FARTHING_OTLP__ENDPOINT": "http://127.0.0.1:1", "COLUMNS": "200"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2, ran.stderr
    assert "pip install 'farthing[otlp]'" in ran.stderr
