"""The configuration: layered, strict, and clear about what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from farthing.proxy.config import Config, Semantic, effective, load
from farthing.proxy.errors import ConfigFault


def made(tmp_path: Path, text: str, env: dict[str, str] | None = None, **flags: Any) -> Config:
    path = tmp_path / "farthing.toml"
    path.write_text(text, "utf-8")
    return load(path, env or {}, {name.replace("__", "."): value for name, value in flags.items()})


def fault(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigFault) as caught:
        made(tmp_path, text, env)
    return str(caught.value)


def test_with_nothing_at_all_the_defaults_are_the_designs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None, {})

    assert config.upstream.url == "https://api.openai.com/v1"
    assert (config.cache.mode, config.cache.ttl_s) == ("exact", 86_400)
    assert (config.semantic.mode, config.compress.tidy, config.ledger.enabled) == ("observe", True, True)
    assert config.server.host == "127.0.0.1"


def test_sections_that_nobody_sets_are_as_their_checks_would_make_them() -> None:
    defaults = [field.default for field in Config.model_fields.values() if isinstance(field.default, BaseModel)]

    assert len(defaults) > 20
    for section in defaults:
        assert type(section).model_validate({}) == section
        assert section.model_fields_set == set()


def test_the_import_builds_no_checks() -> None:
    code = "import farthing.proxy.config as c; print(*(name for name, one in vars(c).items()"
    code += " if isinstance(one, type) and issubclass(one, c.Section) and one.__pydantic_complete__))"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.split() == []


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    text = "[server]\nport = 1\n[cache]\nttl_s = 1\n[limits]\nmax_in_flight = 1\n"
    env = {"FARTHING_SERVER__PORT": "2", "FARTHING_CACHE__TTL_S": "2", "OTHER": "x"}
    config = made(tmp_path, text, env, server__port=3, server__host=None)

    assert (config.server.port, config.cache.ttl_s, config.limits.max_in_flight) == (3, 2, 1)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"OPENAI_BASE_URL": "http://a/v1"}, "http://a/v1"),
        ({"OPENAI_BASE_URL": "http://a/v1", "FARTHING_UPSTREAM": "http://b"}, "http://b/v1"),
        ({"FARTHING_UPSTREAM__URL": "http://c/openai/v1/"}, "http://c/openai/v1"),
    ],
)
def test_where_the_upstream_comes_from(tmp_path: Path, env: dict[str, str], expected: str) -> None:
    assert made(tmp_path, "", env).upstream.url == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "server.prot: unknown key; did you mean 'port'?"),
        ("[cahce]\nttl_s = 1", "cahce: unknown key; did you mean 'cache'?"),
        ("[[cache.freshness]]\nmodle = 'm'\nttl_s = 1", "cache.freshness.0.modle: unknown key; did you mean 'model'?"),
        ("[[cache.freshness]]\nttl_s = 1\n[[cache.freshness]]\nttl_s = -1", "cache.freshness.1.ttl_s: Input should be"),
        ("[[cache.freshness]]\nttl_s = 1\nkind = 'prose'", "cache.freshness.0.kind"),
        ("[[cache.freshness]]\nttl_s = 1\nendpoint = 'chats'", "cache.freshness.0.endpoint"),
        ("[[cache.freshness]]\nttl_s = 1\ntag = 'kb-17'", "cache.freshness.0.tag: String should match"),
        ("[[cache.freshness]]\nmodel = 'm'", "cache.freshness.0: a rule needs ttl_s, semantic_ttl_s or both"),
        ("[[cache.freshness]]\nttl_s = 1\nsemantic_ttl_s = 2", "cache.freshness.0: semantic_ttl_s is longer"),
        ("[log]\nttl_s = 1", "log.ttl_s: unknown key; did you mean 'cache.ttl_s'?"),
        ("[server]\nport = 'x'", "server.port"),
        ("[server]\nport = 70000", "server.port"),
        ("[semantic]\npolicy = 'vcache'", "per"),
        ("[semantic]\nmax_wrong = 1", "semantic.max_wrong"),
        ("[semantic]\nmax_bytes = 1000", "semantic.max_bytes"),
        ("[semantic]\nsecond_stage = 'judge:'", "semantic.second_stage"),
        ("[semantic]\nsecond_stage = 'oracle:m'", "semantic.second_stage"),
        ("[semantic]\njudge_band = [0.9, 0.5]", "judge_band must be two scores"),
        ("[semantic]\njudge_band = [0.5, 1.5]", "judge_band must be two scores"),
        ("[semantic]\nsecond_stage = 'judge:m'\nunproven = true", "second_stage changes the score"),
        ("[semantic]\nsecond_stage = 'judge:m'\npolicy = 'vcache'\nper = 'request'", "second_stage changes the score"),
        ("[upstream]\nurl = 'ftp://x'", "upstream.url: must begin with http"),
        ("[prompt_cache]\nmode = 'always'", "prompt_cache.mode"),
        ("[prompt_cache]\nkeep_warm = true", "prompt_cache: stable_tools and keep_warm change what is sent"),
        ("not toml", "is not valid TOML"),
        ("[server]\nhost='0.0.0.0'\n[upstream]\napi_key='sk-secret'", "would let anybody"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    message = fault(tmp_path, text)

    assert said in message
    assert "sk-secret" not in message


@pytest.mark.parametrize("text", ["123456", "1e5", "true", "2026-01-01", "0x10", "nan", "'q'", "[::1]", ""])
def test_a_text_of_the_environment_stays_as_it_is(tmp_path: Path, text: str) -> None:
    config = made(tmp_path, "", {"FARTHING_UPSTREAM__NAME": text, "FARTHING_STATE_DIR": text or "."})

    assert config.upstream.name == text
    assert config.state_dir == Path(text)


def test_numbers_switches_lists_and_tables_come_from_the_environment_too(tmp_path: Path) -> None:
    env = {
        "FARTHING_UPSTREAM__API_KEY": "123456",
        "FARTHING_CACHE__TTL_S": "60",
        "FARTHING_CACHE__SAMPLED": "false",
        "FARTHING_SEMANTIC__THRESHOLD": "0.5",
        "FARTHING_SEMANTIC__JUDGE_BAND": "[0.4, 0.9]",
        "FARTHING_SEMANTIC__SHOW_TEXTS": "true",
        "FARTHING_SPEND__DAILY_USD": "1.10",
        "FARTHING_AUTH__SCOPES": '[{name = "a", credentials_sha256 = ["b"]}]',
        "FARTHING_PRICES__MODELS": '{"gpt-x" = {input_usd_per_mtok = "0.10"}}',
    }
    config = made(tmp_path, "", env)

    assert config.upstream.api_key is not None
    assert config.upstream.api_key.get_secret_value() == "123456"
    assert (config.cache.ttl_s, config.cache.sampled, config.semantic.threshold) == (60, False, 0.5)
    assert config.semantic.judge_band == (0.4, 0.9)
    assert config.semantic.show_texts and not made(tmp_path, "", {}).semantic.show_texts
    assert str(config.spend.daily_usd) == "1.10"
    assert config.auth.scopes[0].credentials_sha256 == ("b",)
    assert str(config.prices.models["gpt-x"].input_usd_per_mtok) == "0.10"
    assert "server.port" in fault(tmp_path, "", {"FARTHING_SERVER__PORT": "eighty"})


def test_an_unknown_variable_is_an_error_too(tmp_path: Path) -> None:
    assert "did you mean 'ttl_s'?" in fault(tmp_path, "", {"FARTHING_CACHE__TLL_S": "5"})
    assert "not a table" in fault(tmp_path, "cache = 5", {"FARTHING_CACHE__TTL_S": "5"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="can't read"):
        load(tmp_path / "none.toml", {})


def test_secrets_are_masked_wherever_they_are_shown(tmp_path: Path) -> None:
    config = made(
        tmp_path,
        "[upstream]\napi_key='sk-secret'\nurl='http://me:sk-secret@host/v1'\n[server]\nadmin_token='sk-secret'\n"
        "[store]\nurl='redis://:sk-secret@host/0'",
    )
    shown = str(effective(config))

    assert "sk-secret" not in shown
    assert "sk-secret" not in repr(config.upstream.api_key)
    assert "host" in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pw@host/v1", "http://***@host/v1"),
        ("https://pw@host:8443/v1", "https://***@host:8443/v1"),
        ("http://us@er:p@w@[::1]:9/a/v1", "http://***@[::1]:9/a/v1"),
        ("http://host/v1", "http://host/v1"),
    ],
)
def test_a_user_and_password_in_the_upstreams_url_are_hidden(tmp_path: Path, url: str, shown: str) -> None:
    assert effective(made(tmp_path, f"[upstream]\nurl = '{url}'"))["upstream"]["url"] == shown


def test_no_fault_tells_the_upstreams_password(tmp_path: Path) -> None:
    said = fault(tmp_path, "[server]\nport = 8092", {"FARTHING_UPSTREAM": "http://user:sk-secret@127.0.0.1:8092/v1"})
    assert "is farthing itself" in said
    assert "sk-secret" not in said


def test_an_empty_secret_is_none(tmp_path: Path) -> None:
    """Set but empty, as compose files leave it: an empty admin token would open the dashboard to everybody."""
    env = {"FARTHING_SERVER__ADMIN_TOKEN": "", "FARTHING_UPSTREAM__API_KEY": ""}
    config = made(tmp_path, "", env)
    assert config.server.admin_token is None
    assert config.upstream.api_key is None


def test_the_id_follows_the_content(tmp_path: Path) -> None:
    assert made(tmp_path, "").id == made(tmp_path, "").id
    assert made(tmp_path, "").id != made(tmp_path, "[cache]\nttl_s = 7").id


def test_a_password_in_the_upstreams_url_is_a_key_that_an_open_relay_would_spend(tmp_path: Path) -> None:
    text = "[server]\nhost='0.0.0.0'\n[upstream]\nurl='http://user:sk-secret@provider/v1'"
    said = fault(tmp_path, text)
    assert "would let anybody" in said
    assert "sk-secret" not in said


def test_an_open_relay_needs_client_keys(tmp_path: Path) -> None:
    key = "a" * 64
    text = f"[server]\nhost='0.0.0.0'\n[upstream]\napi_key='k'\n[[auth.client_keys]]\nname='app'\nsha256='{key}'"

    assert made(tmp_path, text).auth.client_keys[0].name == "app"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8092/v1", "http://localhost:8092", "http://[::1]:8092/v1"])
def test_farthing_is_not_its_own_upstream(tmp_path: Path, url: str) -> None:
    assert "is farthing itself" in fault(tmp_path, "[server]\nport = 8092", {"OPENAI_BASE_URL": url})
    assert made(tmp_path, "[server]\nport = 8093", {"OPENAI_BASE_URL": url}).server.port == 8093


def test_vectors_elsewhere_and_their_place_belong_together() -> None:
    assert Semantic(index="pgvector", index_url=SecretStr("postgresql://x/y")).index == "pgvector"
    for given in ({"index": "pgvector"}, {"index_url": SecretStr("postgresql://x/y")}):
        with pytest.raises(ValidationError, match="belong together"):
            Semantic(**given)  # type: ignore[arg-type]
