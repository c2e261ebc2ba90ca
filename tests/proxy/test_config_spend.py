"""Impossible budgets and limits are refused at load, with the path of the key."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.bucket import Rate
from farthing.policies.budget import Budget, Subject
from farthing.proxy.config import effective, load
from farthing.proxy.config_spend import budgets_of, rates_of
from farthing.proxy.errors import ConfigFault


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"budgets": [{"name": "a", "usd": 0}]}, "budgets.0.usd: Input should be greater than"),
        ({"budgets": [{"name": "a", "usd": "1e-13"}]}, "budgets.0.usd: Input should be greater than"),
        ({"budgets": [{"name": "a", "usd": 1, "of": "key", "only": [""]}]}, "budgets.0.only.0"),
        ({"budgets": [{"name": "a", "usd": -1}]}, "budgets.0.usd"),
        ({"budgets": [{"name": "a", "usd": "NaN"}]}, "budgets.0.usd"),
        ({"budgets": [{"name": "a", "usd": 10**7}]}, "budgets.0.usd"),
        ({"budgets": [{"name": "a"}]}, "budgets.0.usd"),
        ({"budgets": [{"name": "a b", "usd": 1}]}, "budgets.0.name"),
        ({"budgets": [{"name": "key.x.day", "usd": 1}]}, "budgets.0.name"),
        ({"budgets": [{"name": "a", "usd": 1, "per": "year"}]}, "budgets.0.per"),
        ({"budgets": [{"name": "a", "usd": 1, "of": "team"}]}, "budgets.0.of: must be all, key, tenant, model or tag:"),
        ({"budgets": [{"name": "a", "usd": 1, "of": "tag:"}]}, "budgets.0.of: a tag needs a name"),
        ({"budgets": [{"name": "a", "usd": 1, "only": ["x"]}]}, "budgets.0: only picks"),
        ({"budgets": [{"name": "a", "usd": 1, "alerts": [1.5]}]}, "budgets.0.alerts.0"),
        ({"budgets": [{"name": "a", "usd": 1, "hrad": True}]}, "budgets.0.hrad: unknown key; did you mean 'hard'?"),
        ({"budgets": [{"name": "a", "usd": 1}] * 2}, "budgets: there are two of the name 'a'"),
        ({"rate_limits": [{"name": "a"}]}, "rate_limits.0: a rate limit needs"),
        ({"budgets": [{"name": "a", "usd": 1, "of": "key", "only": ["x"]}]}, "budgets.0.only: keys have no names here"),
        (
            {"rate_limits": [{"name": "a", "requests_per_min": 1, "of": "key", "only": ["x"]}]},
            "rate_limits.0.only: keys have no names here",
        ),
        (
            {"budgets": [{"name": "d", "usd": 11}, {"name": "m", "usd": 10, "per": "month"}]},
            "budgets.0.usd: is never reached: 'm' allows $10 a month",
        ),
        (
            {"budgets": [{"name": "m", "usd": 10, "per": "month"}, {"name": "w", "usd": 21, "per": "week"}]},
            "budgets.1.usd: is never reached",
        ),
        # The larger of two of the same kind.
        (
            {"budgets": [{"name": "a", "usd": 10}, {"name": "b", "usd": 5}]},
            "budgets.0.usd: is never reached: 'b' allows $5 a day; lower this one, raise that one, or",
        ),
        (
            {
                "budgets": [
                    {"name": "a", "usd": 5, "of": "model"},
                    {"name": "b", "usd": 9, "of": "model", "only": ["x"]},
                ]
            },
            "budgets.1.usd: is never reached: 'a' allows $5 a day",
        ),
        (
            {"budgets": [{"name": "a", "usd": 5}, {"name": "b", "usd": 6, "hard": False}]},  # nobody is ever told
            "budgets.1.usd: is never reached: 'a' allows $5 a day",
        ),
        (
            {"budgets": [{"name": "a", "usd": 5}, {"name": "b", "usd": 6, "of": "tag:team"}]},  # a part of all
            "budgets.1.usd: is never reached: 'a' allows $5 a day",
        ),
        # A longer window that shorter ones can't fill.
        (
            {"budgets": [{"name": "d", "usd": 1}, {"name": "m", "usd": 1000, "per": "month"}]},
            "budgets.1.usd: is never reached: 'd' allows $1 a day",
        ),
        (
            {"budgets": [{"name": "d", "usd": 1}, {"name": "w", "usd": "7.01", "per": "week"}]},
            "budgets.1.usd: is never reached: 'd' allows $1 a day",
        ),
        (
            {"budgets": [{"name": "w", "usd": 1, "per": "week"}, {"name": "m", "usd": "6.01", "per": "month"}]},
            "budgets.1.usd: is never reached: 'w' allows $1 a week",
        ),
        # The day's limit of one state directory.
        (
            {"budgets": [{"name": "a", "usd": 100}], "spend": {"daily_usd": 1}},
            "budgets.0.usd: is never reached: spend.daily_usd allows $1 a day; lower this one, raise that, or leave",
        ),
        (
            {"budgets": [{"name": "a", "usd": 32, "per": "month", "of": "model"}], "spend": {"daily_usd": 1}},
            "budgets.0.usd: is never reached: spend.daily_usd allows $1 a day",
        ),
        ({"rate_limits": [{"name": "a", "requests_per_min": 0}]}, "rate_limits.0.requests_per_min"),
        ({"alerts": {"webhook": "ftp://x"}}, "alerts: webhook must begin with http"),
    ],
)
def test_is_refused_with_its_path(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigFault) as raised:
        load(None, {}, flags)

    assert says in str(raised.value)


@pytest.mark.parametrize(
    "budgets",
    [
        [{"name": "d", "usd": 10}, {"name": "m", "usd": 10, "per": "month"}],
        [{"name": "d", "usd": 11}, {"name": "m", "usd": 10, "per": "month", "hard": False}],
        [{"name": "d", "usd": 11}, {"name": "m", "usd": 10, "per": "month", "of": "tenant"}],
        [{"name": "w", "usd": 19, "per": "week"}, {"name": "m", "usd": 10, "per": "month"}],  # it may lie in two
        [{"name": "d", "usd": 1}, {"name": "m", "usd": 31, "per": "month"}],
        [{"name": "w", "usd": 1, "per": "week"}, {"name": "m", "usd": 6, "per": "month"}],  # one may lie in six
        [{"name": "d", "usd": 1, "hard": False}, {"name": "m", "usd": 1000, "per": "month"}],  # it ends nothing
        [{"name": "a", "usd": 5}, {"name": "b", "usd": 5}],
        [{"name": "a", "usd": 5}, {"name": "b", "usd": 4, "hard": False}],  # it warns
        [{"name": "a", "usd": 5, "of": "model", "only": ["x"]}, {"name": "b", "usd": 9, "of": "model"}],  # of others
        [{"name": "a", "usd": 5, "of": "tag:team"}, {"name": "b", "usd": 9}],  # there are several teams
        [{"name": "a", "usd": 5, "of": "tag:team"}, {"name": "b", "usd": 9, "of": "tag:app"}],
    ],
)
def test_what_may_be_reached_is_taken(budgets: list[dict[str, Any]]) -> None:
    assert len(load(None, {}, {"budgets": budgets}).budgets) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"spend": {"daily_usd": 100}},
        {"spend": {"daily_usd": 0}},  # all is stopped, for a while
        {"spend": {"daily_usd": 1}, "store": {"url": "redis://127.0.0.1:1"}},  # a hundred replicas may reach it
    ],
)
def test_a_days_limit_that_leaves_a_budget_its_use(settings: dict[str, Any]) -> None:
    assert load(None, {}, {"budgets": [{"name": "a", "usd": 100}], **settings}).budgets


async def test_check_says_which_and_what_to_do(tmp_path: Path) -> None:
    """As it is run, over a file."""
    config = tmp_path / "farthing.toml"
    config.write_text('[[budgets]]\nname = "a"\nusd = 5\n[[budgets]]\nname = "b"\nusd = 10\n')
    command = [sys.executable, "-m", "farthing.proxy.cli", "check", "--config", str(config)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert "budgets.1.usd: is never reached: 'a' allows $5 a day; lower this one" in said


def test_is_read_as_policies_need_it_and_secrets_are_masked() -> None:
    config = load(
        None,
        {"FARTHING_BUDGETS": '[{name = "team", usd = "2.5", of = "tag:team", per = "week", hard = false}]'},
        {
            "rate_limits": [{"name": "r", "requests_per_min": 5, "tokens_per_min": 100, "of": "key", "only": ["a*"]}],
            "alerts": {"webhook": "https://hooks/secret", "secret": "s"},
            "auth": {"virtual_keys": True},
        },
    )

    team = Budget("team", 25 * 10**11, "week", Subject("tag:team"), hard=False, alerts=(1.0,))
    assert budgets_of(config.budgets) == (team,)
    only = Subject("key", ("a*",))
    assert rates_of(config.rate_limits) == (Rate("r", "requests", 5, only), Rate("r", "tokens", 100, only))
    assert "secret" not in str(effective(config)["alerts"].values())


def test_a_soft_budget_is_told_of_unless_it_says_otherwise() -> None:
    """It refuses nothing: without a word nobody would learn that it is spent."""
    declared = [{"name": "s", "usd": 1, "hard": False}, {"name": "quiet", "usd": 1, "hard": False, "alerts": []}]
    declared += [{"name": "h", "usd": 1}, {"name": "early", "usd": 1, "hard": False, "alerts": [0.5]}]
    config = load(None, {}, {"budgets": declared})
    assert [one.alerts for one in budgets_of(config.budgets)] == [(1.0,), (), (), (0.5,)]
