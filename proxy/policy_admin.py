"""Policy versions and incidents seen from outside, and what an operator may ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import TypeAdapter, ValidationError

from farthing.policies.rollout import Plan
from farthing.proxy.config_rollout import Rollout as Settings
from farthing.proxy.config_routes import shared_unsaid
from farthing.proxy.errors import ClientFault, ConfigFault
from farthing.proxy.rollouts import Rollout, Rollouts, reading
from farthing.proxy.state import SWITCH
from farthing.proxy.versions import Book, Standing, with_sections

if TYPE_CHECKING:
    from farthing.proxy.app import Running

__all__ = ["gauges", "incidents", "promote", "roll_back", "stored", "switched", "told"]

log = structlog.get_logger("farthing.policy")

_MOST_INCIDENTS = 1000
_SETTINGS = ("steps", "hold_s", "min_requests", "unit")


async def told(proxy: Running) -> dict[str, Any]:
    """What is in force, what is being rolled out, and every version."""
    policies = proxy.policies
    # Both of one moment: a roll-out that ends while files are read is still under way, or its policy active.
    standing, going = replace(policies.standing, before=list(policies.standing.before)), policies.going
    under_way = None if going is None else candidate(policies, going)
    found = await asyncio.to_thread(stored, policies.book, standing) | {"candidate": under_way}
    routing = proxy.services.routing
    found["routes"] = {} if routing is None else routing.bounds()
    return found | {"switched_off": proxy.lanes.state.switch()}


def stored(book: Book, standing: Standing | None) -> dict[str, Any]:
    """What the files say: the active version, every version newest first, the latest changes. Blocks."""
    active = None if standing is None else standing.active
    before = [] if standing is None else standing.before
    versions = [
        {"version": one.version, "made_at": one.made_at, "note": one.note, "active": one.version == active,
         "file": standing is not None and one.version == standing.file}
        for one in reversed(book.all())
    ]  # fmt: skip
    return {
        "active": None if standing is None else {"version": active, "since": standing.since_s, "note": standing.note},
        "candidate": None if standing is None or standing.rollout is None else waiting(standing.rollout),
        "before": before[-1] if before else None,
        "versions": versions,
        "changes": book.changes(20),
    }


def waiting(kept: Mapping[str, Any]) -> dict[str, Any]:
    """A roll-out that goes on when farthing runs again, of which only the files tell."""
    steps, step = kept["steps"], kept["step"]
    return {"version": kept["version"], "share": steps[step], "step": step + 1, "steps": steps, "unit": kept["unit"],
            "since": kept["since_s"], "step_since": kept["step_since_s"], "note": kept["note"],
            "guard": None}  # fmt: skip


def candidate(policies: Rollouts, going: Rollout) -> dict[str, Any]:
    """The roll-out under way, with what the guard has seen in this step."""
    verdict, active, requests = going.watch.verdict()
    return {
        "version": going.version,
        "share": going.share,
        "step": going.at.step + 1,
        "steps": list(going.plan.steps),
        "unit": going.unit,
        "since": going.since_s,
        "step_since": going.at.since_s,
        "hold_s": going.plan.hold_s,
        "min_requests": going.plan.min_requests,
        "note": going.note,
        "waits_for": going.said,
        "guard": {
            "says": verdict.word.value,
            "why": verdict.reason,
            "requests": {"active": active, "candidate": requests},
            "metrics": {one.metric: reading(one) for one in verdict.readings},
        },
    }


async def promote(proxy: Running, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Roll a version out: {"version"} or {"sections"}, and "now", "note", "steps", "hold_s", "min_requests", "unit",
    "gate".

    Raises ClientFault: it can't be understood, isn't valid, is blocked by a gate, or another roll-out is under way.
    """
    policies, base = proxy.policies, proxy.services.config
    strange = set(asked) - {"version", "sections", "now", "note", "gate", *_SETTINGS}
    if strange or ("version" in asked) == ("sections" in asked):
        raise ClientFault("say what to promote by version or sections", param=min(strange, default="version"))
    try:
        over = {name: asked[name] for name in _SETTINGS if asked.get(name) is not None}
        settings = Settings.model_validate(base.rollout.model_dump() | over)
        if "version" in asked:
            config = await policies.config_of(await _named(policies.book, asked["version"]))
        else:
            config = with_sections(base, TypeAdapter(dict[str, Any]).validate_python(asked["sections"]))
            if faults := shared_unsaid(config.routes):
                raise ConfigFault("\n".join(["the policy is not valid:", *(f"  {at}: {said}" for at, said in faults)]))
        plan = Plan(settings.steps, settings.hold_s, settings.min_requests)
        await policies.promote(config, note=str(asked.get("note", ""))[:200], now=asked.get("now") is True, plan=plan,
                               unit=settings.unit, suite=str(asked.get("gate", "")))  # fmt: skip
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "sections"
        raise ClientFault(f"{where}: {fault['msg'].removeprefix('Value error, ')}", param=where) from None
    except ConfigFault as fault:
        raise ClientFault(str(fault), code="invalid_policy") from None
    return await told(proxy)


async def roll_back(proxy: Running, asked: Mapping[str, Any]) -> dict[str, Any]:
    """End the roll-out, or go back to the version before, or to {"version"}; "why" is noted. Raises ClientFault."""
    name = asked.get("version") or ""
    version = await _named(proxy.policies.book, name) if name else ""
    try:
        await proxy.policies.roll_back(version, str(asked.get("why", ""))[:200])
    except ConfigFault as fault:
        raise ClientFault(str(fault), code="invalid_policy") from None
    return await told(proxy)


async def switched(proxy: Running, *, off: bool) -> dict[str, Any]:
    """Turn all optimisation off, or on again; in every worker, and though nothing can be written."""
    state = proxy.lanes.state
    try:
        state.switch.set(off=off)
    except OSError as error:
        log.error("the switch can't be written down: it holds until a restart", off=off, error=error.strerror)
    state.switch.say(off=off)
    if state.crew is not None:
        state.crew.peers.tell(SWITCH, off)
    return {"switched_off": state.switch()}


def incidents(proxy: Running, query: Mapping[str, str]) -> dict[str, Any]:
    """The latest incidents, newest first. Raises ClientFault: `limit` is no number."""
    text = query.get("limit", "100")
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ClientFault("limit is a number", param="limit")
    return {"incidents": proxy.lanes.state.incidents.latest(min(int(text), _MOST_INCIDENTS))}


def gauges(proxy: Running) -> dict[str, float]:
    """For /metrics; see metrics.GAUGES and metrics.LABELLED_GAUGES."""
    policies = proxy.policies
    found: dict[str, float] = {
        f"policy_active:{policies.standing.active}": 1.0,
        "policy_promotions": policies.promotions,
        "policy_rollbacks": policies.rollbacks,
        "incidents": proxy.lanes.state.incidents.count,
        "policy_candidate_ratio": 0.0 if policies.going is None else policies.going.share,
    }
    if policies.going is not None:
        readings = policies.going.watch.verdict()[0].readings
        found |= {f"policy_guard_evidence_ratio:{one.metric}": one.evidence for one in readings}
    return found


async def _named(book: Book, name: Any) -> str:
    found = await asyncio.to_thread(book.named, name if isinstance(name, str) else "?")
    if len(found) != 1:
        said = "several policy versions begin with" if found else "there is no policy version"
        raise ClientFault(f"{said} {str(name)[:40]!r}", status=404, code="unknown_version", param="version")
    return found[0]
