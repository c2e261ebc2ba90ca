"""Students seen from outside: what each does, what is known of it, and what comes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farthing.proxy.app import Running
    from farthing.proxy.students import Known

__all__ = ["gauges", "told"]

_COUNTS = ("answered", "abstained", "compared", "differed")


def told(proxy: Running) -> dict[str, Any]:
    """Every student that the active policy names; `state` is 'serves', 'observes' or 'not there'."""
    config, training = proxy.services.config, proxy.training
    return {
        "students": [_one(proxy, name, known) for name, known in _named(proxy).items()],
        "training": training.running,
        "retrain_days": config.distill.retrain_days if config.capture.enabled else 0,
    }


def gauges(proxy: Running) -> dict[str, float]:
    """For /metrics; see metrics.LABELLED and metrics.LABELLED_GAUGES."""
    found: dict[str, float] = {}
    for name, known in _named(proxy).items():
        if known is None:
            continue
        for what, count in _counts(proxy, name).items():
            found[f"student_{what}:{name}"] = count
        found[f"student_serving:{name}"] = float(known.standing.serves)
        found[f"student_bound_ratio:{name}"] = known.student.bound
        found[f"student_upper_ratio:{name}"] = known.standing.upper
    return found


def _named(proxy: Running) -> dict[str, Known | None]:
    services = proxy.services
    known = {} if services.students is None else services.students.known
    return {one.student_name: known.get(one.name) for one in services.config.variants if one.student}


def _counts(proxy: Running, name: str) -> dict[str, int]:
    """Of all students of that name that answered in turn: a counter doesn't go down where another one takes over."""
    every = [known for known in proxy.lanes.state.students.values() if known.student.name == name]
    return {what: sum(known.did[what] for known in every) for what in _COUNTS}


def _one(proxy: Running, name: str, known: Known | None) -> dict[str, Any]:
    if known is None:
        return {"name": name, "state": "not there", "training": proxy.training.latest.get(name)}
    student, standing = known.student, known.standing
    heir = proxy.lanes.state.heirs.get(name)
    return {
        "name": name,
        "state": "serves" if standing.serves else "observes",
        "hash": student.hash,
        "teacher": student.teacher,
        "labels": len(student.labels),
        "trained_s": student.about.get("made_s"),
        "bound": student.bound,
        "level": student.level,
        **_counts(proxy, name),
        "now": {"compared": standing.evidence.seen, "differed": standing.evidence.bad, "at_most": standing.upper},
        "fell_back": standing.turn,
        "heir": None if heir is None else _heir(proxy, name, heir),
        "training": proxy.training.latest.get(name),
    }


def _heir(proxy: Running, name: str, heir: Known) -> dict[str, Any]:
    seen = heir.standing.evidence
    return {
        "hash": heir.student.hash,
        "trained_s": heir.student.about.get("made_s"),
        "compared": seen.seen,
        "differed": seen.bad,
        "at_most": heir.standing.upper,
        "waits_for": proxy.training.waits.get(name, "" if heir.standing.serves else "its bound to be proved"),
    }
