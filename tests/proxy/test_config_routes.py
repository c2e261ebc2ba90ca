"""Routes in the configuration: what is refused at load, with the key's path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farthing.policies.variant import DEFAULT_UPSTREAM
from farthing.proxy.cli import app
from farthing.proxy.config import Config, effective, load
from farthing.proxy.config_routes import routes_of, variants_of
from farthing.proxy.config_warnings import warnings
from farthing.proxy.errors import ConfigFault
from farthing.proxy.prompt_marking import cache_behind
from farthing.proxy.versions import Book, with_sections

GOOD = """
[[upstreams]]
name = "cheap"
url = "http://user:secret@127.0.0.1:9/v1"
api_key = "sk-theirs"
[[variants]]
name = "mini"
upstream = "cheap"
model = "llama-8b"
params = { temperature = 0, stop = ["x"] }
kind = "int8"
quality = 0.9
quality_source = "farthing eval, 2026-11"
[[variants]]
name = "big"
model = "gpt-4o"
[auth]
scopes = [{ name = "team", credentials_sha256 = [] }]
[aliases]
fast = "mini"
"""


def loaded(tmp_path: Path, more: str = "") -> Config:
    path = tmp_path / "farthing.toml"
    path.write_text(GOOD + more)
    return load(path, {})


def route(**keys: str) -> str:
    given = {"name": '"r"', "variants": '["mini"]'} | keys
    return "[[routes]]\n" + "".join(f"{key} = {value}\n" for key, value in given.items())


def test_nothing_is_routed_by_default() -> None:
    config = Config()
    assert not config.routed
    assert config.routes == config.variants == config.upstreams == ()


def test_what_is_good_is_read_and_secrets_are_masked(tmp_path: Path) -> None:
    config = loaded(tmp_path, route(tenant='"team"'))
    variants = variants_of(config.variants)
    (found,) = routes_of(config.routes, variants, {"team": "abc"})
    assert (found.conditions.tenant, found.serves, found.variants) == ("abc", False, (variants["mini"],))
    assert variants["mini"].params == (("temperature", b"0"), ("stop", b'["x"]'))
    assert variants["big"].upstream == DEFAULT_UPSTREAM
    assert "sk-theirs" not in str(effective(config))
    assert "secret@" not in str(effective(config))


def test_all_off_with_routes_is_not_all_off() -> None:
    off = {"cache": {"mode": "off"}, "semantic": {"mode": "off"}, "compress": {"tidy": False, "recode": "off"}}
    assert Config.model_validate(off).all_off
    assert not Config.model_validate(off | {"aliases": {"a": "b"}}).all_off


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        (route(variants='["mimi"]'), "routes.0.variants.0", "did you mean 'mini'?"),
        (route(fallbacks='["nobody"]'), "routes.0.fallbacks.0", "there is no variant"),
        (route(min_quality="0.99"), "routes.0.min_quality", "no variant of the route is measured to be so good"),
        (route(usd_per_s="0.1"), "routes.0", 'usd_per_s is for strategy = "balanced"'),
        (route(hedge_after_ms="inf"), "routes.0.hedge_after_ms", "finite"),
        ('[[variants]]\nname = "v"\nmodel = "m"\nparams = { top_p = nan }\n', "variants.2", "params.top_p"),
        ('[[variants]]\nname = "v"\nmodel = "m"\nparams = { x = 2026-01-01 }\n', "variants.2", "params.x"),
        (route(fallbacks='["mini"]'), "routes.0.fallbacks.0", "a cycle"),
        (route(fallbacks='["big", "big"]'), "routes.0.fallbacks.1", "a cycle"),
        (route(tenant='"tem"'), "routes.0.tenant", "did you mean 'team'?"),
        (route(model='"a*"') + route(name='"s"', model='"ab"'), "routes.1", "never gets a request: 'r', above it"),
        (
            route(tools="true") + route(name='"s"', tools="false") + route(name='"t"', model='"x"'),
            "routes.2",
            "'t' never gets a request: 'r' and 's', above it, together take all that it would",
        ),
        (
            route(max_tokens_in="9") + route(name='"s"', min_tokens_in="10") + route(name='"t"', images="true"),
            "routes.2",
            "'r' and 's'",
        ),
        (
            '[[variants]]\nname = "bare"\nmodel = "b"\ntools = false\nlogprobs = false\n'
            + route(variants='["bare"]', tools="true"),
            "routes.0.variants",
            "none of them can serve what the route asks for: 'bare': no tools",
        ),
        (
            '[[variants]]\nname = "bare"\nmodel = "b"\nlogprobs = false\n'
            + route(strategy='"cascade"', variants='["bare", "big"]', accept="{ min_confidence = 0.5 }"),
            "routes.0.accept.min_confidence",
            "'bare' has no log-probabilities",
        ),
        (
            route(strategy='"cascade"', variants='["mini","big"]', accept='{ judge = "mini" }'),
            "routes.0.accept.judge",
            "would judge its own answers",
        ),
        (
            '[[upstreams]]\nname = "claudes"\nurl = "http://127.0.0.1:2"\nstyle = "anthropic"\n'
            '[[variants]]\nname = "claude"\nmodel = "c"\nupstream = "claudes"\n'
            + route(strategy='"cascade"', variants='["claude", "big"]', accept="{ min_confidence = 0.5 }"),
            "routes.0.accept.min_confidence",
            "'claude' is at an upstream of style = 'anthropic', whose answers never have log-probabilities",
        ),
        (
            route(
                endpoint='"messages"',
                strategy='"cascade"',
                variants='["mini","big"]',
                accept="{ min_confidence = 0.5 }",
            ),
            "routes.0.accept.min_confidence",
            'answers of endpoint = "messages" have no log-probabilities',
        ),
        (route(model='"big"'), "routes.0.model", "asks for the variant of that name"),
        (route(model='"fast"'), "routes.0.model", "is an alias"),
        (route() + route(model='"x"'), "routes.1.name", "'r' is there already"),
        (route(weights="[1]"), "routes.0", "weights are for"),
        (route(strategy='"weighted"'), "routes.0", "needs weights"),
        (route(strategy='"weighted"', weights="[0]"), "routes.0", "not all 0"),
        (route(strategy='"cascade"'), "routes.0", "two variants or more"),
        (route(variants='["mini", "big"]'), "routes.0", "has one variant"),
        (route(accept="{ agree = 3 }"), "routes.0", "accept is for"),
        (route(min_tokens_in="9", max_tokens_in="3"), "routes.0", "more than max_tokens_in"),
        (
            route(strategy='"cascade"', variants='["mini","big"]', accept='{ judge = "x" }'),
            "routes.0.accept.judge",
            "no",
        ),
        (route(on='["4xx"]'), "routes.0.on.0", ""),
        (route(modle='"gpt-4*"'), "routes.0.modle", "did you mean 'model'?"),
        (route(stratgy='"x"'), "routes.0.stratgy", "did you mean 'strategy'?"),
        ("[[variants]]\nname = 'x'\nmodel = 'y'\nupstream = 'chep'", "variants.2.upstream", "did you mean 'cheap'?"),
        ("[[variants]]\nname = 'big'\nmodel = 'y'", "variants.2.name", "there already"),
        ("[[variants]]\nname = 'x'\nmodel = 'y'\nquality = 0.5", "variants.2", "quality_source"),
        ("[[variants]]\nname = 'x'\nmodel = 'y'\nparams = { messages = 1 }", "variants.2", "the request's own"),
        ("[[upstreams]]\nurl = 'http://127.0.0.1:1/v1'", "upstreams.1.name", "'default' is there already"),
    ],
)
def test_faults_name_their_key(tmp_path: Path, more: str, path: str, said: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        loaded(tmp_path, more)
    assert f"  {path}: " in str(fault.value)
    assert said in str(fault.value)


@pytest.mark.parametrize(
    ("aliases", "said"),
    [({"a": "b", "b": "c", "c": "a"}, "a cycle: a -> b -> c -> a"), ({"a": "a"}, "a -> a"), ({"a": ""}, "empty")],
)
def test_aliases_lead_somewhere(aliases: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        load(None, {}, {"aliases": aliases})


def test_an_alias_that_leads_into_a_cycle_ends_too() -> None:
    with pytest.raises(ConfigFault, match=r'aliases\."b": a cycle'):
        load(None, {}, {"aliases": {"a": "b", "b": "c", "c": "b"}})


def test_a_cycle_is_told_once_and_what_to_do() -> None:
    with pytest.raises(ConfigFault) as fault:
        load(None, {}, {"aliases": {"z": "a", "a": "b", "b": "c", "c": "a", "d": "d"}})
    assert str(fault.value).splitlines()[1:] == [
        '  aliases."a": a cycle: a -> b -> c -> a; let one of them stand for a model or a variant',
        '  aliases."d": a cycle: d -> d; let one of them stand for a model or a variant',
    ]


def test_a_route_that_gets_nothing_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault) as fault:
        loaded(tmp_path, route(tools="true") + route(name='"s"', tools="false") + route(name='"t"', model='"x"'))
    assert str(fault.value).endswith("; put 't' above, let 'r' and 's' take less, or leave one of them out")


def test_a_route_that_is_off_is_in_nobodys_way(tmp_path: Path) -> None:
    config = loaded(tmp_path, route(mode='"off"') + route(name='"s"'))
    assert [found.name for found in routes_of(config.routes, variants_of(config.variants), {})] == ["s"]


CASCADE = {"strategy": '"cascade"'}
WEIGHTED = {"strategy": '"weighted"', "weights": "[1, 1]"}
STUDENT = '[[variants]]\nname = "pupil"\nstudent = "intents"\nkind = "distilled"\n'


def test_a_student_is_a_variant_without_a_model(tmp_path: Path) -> None:
    more = STUDENT + route(strategy='"cascade"', variants='["pupil", "big"]')
    config = loaded(tmp_path, more)
    one = variants_of(config.variants, students={"intents": "abc"})["pupil"]
    other = variants_of(config.variants, students={"intents": "def"})["pupil"]
    assert (one.model, one.student, one.upstream) == ("student/intents", "intents", DEFAULT_UPSTREAM)
    assert one.signature != other.signature  # another student may answer differently
    assert effective(config)


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        (STUDENT + 'model = "m"\n', "variants.2", "a variant is a model, or a student"),
        ('[[variants]]\nname = "none"\n', "variants.2", "a variant is a model, or a student"),
        (STUDENT + 'upstream = "cheap"\n', "variants.2", "a student has no upstream"),
        (STUDENT.replace("intents", "../intents"), "variants.2.student", "pattern"),
        (STUDENT + route(variants='["pupil"]'), "routes.0.variants.0", "before its teacher"),
        (STUDENT + route(**CASCADE, variants='["big", "pupil"]'), "routes.0.variants.1", "before its teacher"),
        (STUDENT + route(**WEIGHTED, variants='["pupil", "big"]'), "routes.0.variants.0", "cascade"),
        (STUDENT + route(variants='["big"]', fallbacks='["pupil"]'), "routes.0.fallbacks.0", "no fallback"),
        (STUDENT + route(**CASCADE, variants='["mini", "big"]', accept='{ judge = "pupil" }'), "routes.0.accept.judge",
         "no judge"),
    ],
)  # fmt: skip
def test_a_student_stands_before_its_teacher_and_nowhere_else(tmp_path: Path, more: str, path: str, said: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        loaded(tmp_path, more)
    assert path in str(fault.value) and said in str(fault.value)


def test_routes_that_overlap_in_part_are_refused_with_both_paths(tmp_path: Path) -> None:
    above = route(model='"gpt-4*"') + route(name='"off"', mode='"off"', model='"*"')
    with pytest.raises(ConfigFault) as fault:
        loaded(tmp_path, above + route(name='"s"', model='"*-mini"'))
    said = str(fault.value)
    assert "routes.2: 's' overlaps with routes.0 ('r'), above it" in said
    assert "after = ['r']" in said
    both = above + route(name='"s"', model='"*-mini"', after='["r"]') + route(name='"t"', tag='"a=b"', after='["r"]')
    with pytest.raises(ConfigFault, match=r"routes.3: 't' overlaps with routes.2 \('s'\), above it"):
        loaded(tmp_path, both)
    assert loaded(tmp_path, both.replace('"a=b"\nafter = ["r"]', '"a=b"\nafter = ["r", "s"]')).routes[3].after == (
        "r",
        "s",
    )
    narrower = route(model='"gpt-4-mini"') + route(name='"s"', model='"*-mini"') + route(name='"t"', model='"*"')
    assert len(loaded(tmp_path, narrower).routes) == 3


@pytest.mark.parametrize(
    ("after", "said"), [("rr", "no route 'rr' is above it; did you mean 'r'?"), ("t", "no route 't'")]
)
def test_only_routes_above_can_take_what_is_shared(tmp_path: Path, after: str, said: str) -> None:
    more = route(model='"gpt-4*"') + route(name='"s"', model='"*-mini"', after=f'["r", "{after}"]') + route(name='"t"')
    with pytest.raises(ConfigFault) as fault:
        loaded(tmp_path, more)
    assert f"routes.1.after: {said}" in str(fault.value)


def test_a_stored_policy_whose_routes_overlap_can_be_rolled_back_to(tmp_path: Path) -> None:
    """It was allowed once; a rollback isn't the time to argue."""
    of = loaded(tmp_path, route(model='"gpt-4*"') + route(name='"s"', model='"*-mini"', after='["r"]'))
    book = Book(tmp_path)
    given = book.find(book.keep(of, 0.0, "").version).given
    del given["routes"][1]["after"]
    assert [one.name for one in with_sections(of, given).routes] == ["r", "s"]


def test_farthing_check_tells_what_may_not_be_meant_beside_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(
        '[upstream]\nprovider = "opanai"\n[[variants]]\nname = "mini"\nmodel = "x"\n' + route(model='"gpt-4*"')
    )
    said = CliRunner().invoke(app, ["check", "--config", str(file)], catch_exceptions=False)
    assert said.exit_code == 0
    assert json.loads(said.stdout)["routes"][0]["name"] == "r"
    assert "warning: upstream.provider: nobody knows 'opanai'" in said.stderr
    assert "x-ai" in said.stderr


@pytest.mark.parametrize(
    ("spelt", "cache"), [("xai", "xai"), ("x-ai", "xai"), ("gemini", "gemini"), ("google", "gemini")]
)
def test_a_provider_has_its_name_in_either_key(spelt: str, cache: str) -> None:
    config = load(None, {}, {"upstream.provider": spelt, "upstream.url": "http://127.0.0.1:1/v1"})
    assert cache_behind(config.upstream, "auto") == cache
    assert config.upstream.provider == {"xai": "x-ai", "gemini": "google"}[cache]
    assert load(None, {}, {"compress.provider_cache": spelt}).compress.provider_cache == cache
    assert warnings(config) == []


def test_a_provider_with_a_price_list_alone_is_known() -> None:
    assert warnings(load(None, {}, {"upstream.provider": "groq"})) == []
    ((path, said),) = warnings(load(None, {}, {"upstream.provider": "x.ai"}))
    assert path == "upstream.provider"
    assert "openai" in said


def test_only_another_limit_for_the_judge_makes_it_another_promise(tmp_path: Path) -> None:
    def signature(accept: str) -> str:
        config = loaded(tmp_path, route(strategy='"cascade"', variants='["mini", "big"]', accept=accept))
        (found,) = routes_of(config.routes, variants_of(config.variants), {})
        return found.signature

    said = [
        signature(f"{{ min_chars = 2{more} }}") for more in ("", ", judge_max_tokens = 1", ", judge_max_tokens = 0")
    ]
    assert said[0] == said[1] != said[2]
