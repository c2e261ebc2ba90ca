"""Policy versions on disk: what each is, which is in force, and who changed that when.

Under STATE/policies: `p-….json` for each version, of which only the note ever changes; `standing.json`, what is in
force and the roll-out under way; `log.jsonl`, every change, one JSON object a line {"at", "what", "version", "before",
"why"}.

Rules of this file: a reader sees an old file or a new one, never a part; a directory that can't be written costs the
memory of a change, never a request. A file whose content isn't what its name says was edited: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import ValidationError

from farthing.policies.version import SECTIONS, differences, version_of
from farthing.proxy.config import Config, explain
from farthing.proxy.errors import ConfigFault
from farthing.proxy.whole_file import write_whole

__all__ = ["Book", "Standing", "Stored", "policy_version", "sections_of", "with_policy_of", "with_sections"]

log = structlog.get_logger("farthing.policy")

_NAME = re.compile(r"p-[0-9a-f]{12}")
_MOST_BEFORE = 50
_SHOWN = tuple(name for name in SECTIONS if name in Config.model_fields)


def sections_of(config: Config) -> dict[str, Any]:
    """The policy's sections as plain JSON values, those in force."""
    return config.model_dump(mode="json", include=set(_SHOWN), by_alias=True)


def policy_version(config: Config) -> str:
    """The name of the configuration's policy."""
    return version_of(sections_of(config))


def with_sections(base: Config, sections: Mapping[str, Any]) -> Config:
    """`base` with another policy; what `sections` leave out has its defaults.

    Raises ConfigFault: a section that is no policy's, an unknown key, a wrong value, a route that leads nowhere here.
    """
    strange = sorted(set(sections) - set(_SHOWN))
    if strange:
        raise ConfigFault(f"{', '.join(strange)}: no part of a policy, which is {', '.join(_SHOWN)}")
    kept = {name: getattr(base, name) for name in Config.model_fields if name not in _SHOWN}
    try:
        return Config.model_validate(kept | dict(sections))
    except ValidationError as error:
        raise ConfigFault("\n".join(["the policy is not valid:", *explain(error)])) from None


def with_policy_of(base: Config, other: Config) -> Config:
    """`base` with the policy of another configuration. Raises ConfigFault where it doesn't fit."""
    return with_sections(base, {name: getattr(other, name) for name in _SHOWN})


@dataclass(frozen=True, slots=True)
class Stored:
    """One version. `sections`: all values in force, which name it; `given`: those that weren't defaults by being left
    out, from which it is built again. `made_at`: seconds since the epoch."""

    version: str
    sections: dict[str, Any]
    given: dict[str, Any]
    made_at: float
    note: str = ""


@dataclass(slots=True)
class Standing:
    """What is in force. `file`: the version that the configuration file had when it was last taken, with the students
    of then; `declared`: the same whichever students its names stand for; `before`: the versions that were active
    before, the latest last; `rollout`: the one under way, as plain values."""

    active: str
    since_s: float
    file: str
    note: str = ""
    before: list[str] = field(default_factory=list)
    rollout: dict[str, Any] | None = None
    declared: str = ""
    saved_s: float = 0.0

    def changed(self, declared: str, version: str) -> str:
        """Why the file's policy, which is this now, is to answer; '' where what is active goes on."""
        if declared != (self.declared or self.file):
            return "the configuration file has it"
        # A policy that an operator promoted, or went back to, isn't ended by a student.
        return "a student is another one" if version != self.file and self.active == self.file else ""

    def take(self, version: str, now_s: float, note: str, *, back: bool = False) -> None:
        """Another version is active. `back`: to one before, which is then no longer among those."""
        if back:
            while self.before and self.before.pop() != version:
                pass
        else:
            self.before = [*self.before, self.active][-_MOST_BEFORE:]
        self.active, self.since_s, self.note = version, now_s, note


class Book:
    """The versions, standing and log in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- versions

    def keep(self, config: Config, now_s: float, note: str = "") -> Stored:
        """The version of this configuration's policy; written if it is new. Blocks."""
        sections = sections_of(config)
        version = version_of(sections)
        try:
            known = self.find(version)
        except ConfigFault as fault:
            known = None
            log.error("a policy version was edited; it is written anew", fault=str(fault))
        if known is not None:
            return known
        given = config.model_dump(mode="json", include=set(_SHOWN), by_alias=True, exclude_unset=True)
        made = Stored(version, sections, given, now_s, note)
        self._put(f"{version}.json", asdict(made))
        return made

    def noted(self, version: str, note: str) -> None:
        """Put an operator's note in the place of the version's own, which the log has. Blocks."""
        try:
            known = self.find(version)
        except ConfigFault as fault:
            log.error("a policy version was edited; it takes no note", fault=str(fault))
            return
        if known is not None and known.note != note:
            self._put(f"{version}.json", asdict(replace(known, note=note)))

    def find(self, version: str) -> Stored | None:
        """The version of that name; None where there is none, or its file is damaged. Blocks.

        Raises ConfigFault: its file was edited.
        """
        if not _NAME.fullmatch(version):
            return None
        try:
            stored = Stored(**orjson.loads((self.folder / f"{version}.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("a policy version can't be read", version=version, error=str(error) or type(error).__name__)
            return None
        if stored.version != version or not _is_itself(stored):
            path = self.folder / f"{version}.json"
            raise ConfigFault(
                f"{path} was edited: its content is another version's; promote a file of your own instead"
            )
        return stored

    def named(self, text: str) -> list[str]:
        """The versions whose name begins so; the `p-` may be left out. Blocks."""
        begins = text if text.startswith("p-") else f"p-{text}"
        return [name for name in self._names() if name.startswith(begins)]

    def all(self) -> list[Stored]:
        """Every version, oldest first. Blocks."""
        found = []
        for name in self._names():
            try:
                stored = self.find(name)
            except ConfigFault as fault:
                log.error("a policy version is left out", fault=str(fault))
                continue
            if stored is not None:
                found.append(stored)
        return sorted(found, key=lambda one: one.made_at)

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("p-*.json") if _NAME.fullmatch(path.stem))

    # -- what is in force

    def standing(self) -> Standing | None:
        """What was in force last; None where nothing is known. Blocks."""
        try:
            return Standing(**orjson.loads((self.folder / "standing.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("which policy was in force can't be read; the file's is", error=str(error))
            return None

    def save(self, standing: Standing) -> None:
        """Write what is in force. Blocks."""
        self._put("standing.json", asdict(standing))

    # -- the log

    def note(self, at_s: float, what: str, version: str, before: str = "", why: str = "") -> None:
        """Append a change. Blocks."""
        line = orjson.dumps({"at": at_s, "what": what, "version": version, "before": before, "why": why}) + b"\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "log.jsonl").open("ab") as out:
                out.write(line)
        except OSError as error:
            log.warning("the log of policies can't be written", error=error.strerror)

    def changes(self, limit: int = 50) -> list[dict[str, Any]]:
        """The latest changes, newest first. Blocks."""
        try:
            lines = (self.folder / "log.jsonl").read_bytes().splitlines()[-limit:]
        except OSError:
            return []
        found = []
        for line in reversed(lines):
            try:
                found.append(orjson.loads(line))
            except ValueError:
                continue  # torn by a crash
        return found

    def _put(self, name: str, value: Any) -> None:
        path = self.folder / name
        try:
            write_whole(path, (orjson.dumps(value, option=orjson.OPT_INDENT_2), b"\n"))
        except OSError as error:
            log.warning("policies can't be written", file=str(path), error=error.strerror)


def _is_itself(stored: Stored) -> bool:
    """Whether its values are those that name it, and what it is built from is a part of them."""
    try:
        parts = differences(stored.sections, stored.given)
        return version_of(stored.sections) == stored.version and all(change.after is None for change in parts)
    except (TypeError, AttributeError, ValueError):
        return False
