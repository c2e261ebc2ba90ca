"""Where a profile's samples are: by what farthing was doing, and by whose code ran. Pure; `bench/profile.py` records.

A sample is counted once. By part: a thread that does one thing is that thing; otherwise the innermost frame of farthing
or of aiohttp says it, so that JSON that the key's module has parsed is the key's. By library: the innermost frame;
compiled code without frames counts for the Python that called it. What no rule knows is named as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

__all__ = [
    "LEDGERS",
    "UNKNOWN",
    "WAITING",
    "Frame",
    "by_library",
    "by_part",
    "by_start",
    "samples",
    "shares",
    "side_by_side",
]

UNKNOWN = "not assigned"
WAITING = ("Condition.wait (threading.py)", "wait (threading.py)", "_worker (thread.py)")
ROOMS = ("proxy", "cache", "compress", "policies")
LOOP = "the event loop: sockets, timers, callbacks"
SERVER, CLIENT = "aiohttp's server: parsing, starting handlers", "aiohttp's client"
STAGES = "other stages: admitting, eligibility, compressing, budgets"
LEAST = 0.005

PARTS: Mapping[str, str] = {
    "short way of a hit": "proxy/repeat proxy/hit_again",
    "reading the request: head, body, JSON": (
        "proxy/wire proxy/body proxy/header_facts proxy/forwarded proxy/jsontext proxy/tenants proxy/front "
        "proxy/admin proxy/model_asked cache/message_shapes"
    ),
    "the key: canonical form, digest": "cache/key cache/exact_json cache/digest proxy/place cache/signals",
    "exact cache: looking up, storing, replaying": (
        "cache/stage_exact cache/store cache/store_local cache/store_near cache/entry cache/pieces cache/codec "
        "cache/expiry cache/chunks cache/replay cache/chat_assemble cache/chat_split cache/reshape cache/shaping "
        "cache/stage_items cache/items cache/disk cache/disk_walk proxy/storing proxy/keeping cache/response_shapes"
    ),
    "flights": "cache/flight cache/stage_flight cache/lease cache/stage_lease proxy/held proxy/under_way",
    "upstream: choosing, sending, reading": (
        "proxy/stage_upstream proxy/http1 proxy/pool proxy/pool_open proxy/connections proxy/legs proxy/leg_sink "
        "proxy/tries proxy/lanes proxy/peers proxy/deadlines proxy/routing proxy/stage_route proxy/stage_routed "
        "proxy/route_standing proxy/adapting proxy/accepting"
    ),
    "events of a stream": "proxy/sse",
    "the account: money, row, headers, metrics": (
        "proxy/account proxy/row proxy/attribute proxy/prices proxy/price_table proxy/price_rows proxy/rate_cards "
        "proxy/usage proxy/usage_row proxy/counterfactual proxy/counting proxy/tokens proxy/metrics proxy/histogram "
        "proxy/repeated proxy/ledger proxy/sql_rows proxy/outcomes proxy/implicit_rows "
        "proxy/provider_reads proxy/prompt_memory proxy/pulse proxy/row_texts proxy/observe proxy/ledger_waiting"
    ),
    STAGES: (
        "proxy/stage_compress proxy/stage_defer proxy/stage_prompt_cache proxy/stage_semantic proxy/keys proxy/budgets "
        "proxy/budgets_hold proxy/compressing proxy/prompt_trail proxy/watching proxy/drift_sample proxy/experiments "
        "proxy/holdout proxy/prompt_marking proxy/refused "
        "proxy/shadow proxy/rollouts proxy/filling proxy/would proxy/versions"
    ),
    "writing the answer": "proxy/whole proxy/client_view",
    "between: pipeline, relay, tasks, clock": (
        "proxy/pipeline proxy/server proxy/exchange proxy/tasks proxy/clock proxy/stages proxy/app proxy/traces "
        "proxy/styles proxy/errors proxy/noted proxy/state"
    ),
}
_PART_OF = {module: part for part, modules in PARTS.items() for module in modules.split()}
_WRITING = frozenset({"Relay._send", "Relay._prepare", "Relay._pour", "Relay._stream"})
LEDGERS = ("ledger", "ledger-upkeep")
"""Threads of the ledger: the one that writes rows, and the one that does all else."""
_ROLLS = ("proxy/rollup", "proxy/ledger_upkeep", "proxy/sketch")
OTHER_FARTHING = "farthing, elsewhere"
_GLUE = frozenset({"proxy/serve", "proxy/cli", "proxy/worker", "proxy/build", "proxy/config"})
"""Modules that say nothing: whoever called them does."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A function and the file that it is in."""

    name: str
    file: str

    @property
    def module(self) -> str:
        """Of farthing: its room and file, without the ending; else nothing."""
        path = PurePath(self.file)
        own = path.parent.name in ROOMS and "site-packages" not in path.parts
        return f"{path.parent.name}/{path.stem}" if own else ""

    @property
    def library(self) -> str:
        """Whose code it is."""
        parts = PurePath(self.file).parts
        if self.module:
            return f"farthing, {self.module.partition('/')[0]}"
        if "site-packages" in parts:
            return parts[parts.index("site-packages") + 1].removesuffix(".py")
        if self.name == "Runner.run":  # uvloop's loop is compiled and has no frame of its own
            return "uvloop, with the kernel"
        return "Python's own" if "lib" in parts or self.file.startswith("<") else UNKNOWN


Stack = Sequence[Frame]
"""Outermost first."""


def samples(profile: Mapping[str, Any]) -> Iterator[tuple[str, Stack, float]]:
    """(thread, stack, weight) of a speedscope file's samples but for those of threads that only wait for work.

    With `cpu_s` beside them, the processor seconds of each thread by its number, these are what its samples weigh
    together: a thread that may run only when nobody else does seems busy while it waits for the processor.
    """
    frames = [Frame(one["name"], one.get("file") or "") for one in profile["shared"]["frames"]]
    used_s: Mapping[str, float] | None = profile.get("cpu_s")
    for thread in profile["profiles"]:
        before, _, name = thread.get("name", "").partition('"')
        stacks = zip(([frames[number] for number in one] for one in thread["samples"]), thread["weights"], strict=True)
        busy = [(stack, weight) for stack, weight in stacks if stack and _told(stack[-1]) not in WAITING]
        whole = sum(weight for _, weight in busy)
        factor = 1.0 if used_s is None or not whole else used_s.get(before.split()[-1], 0.0) / whole
        for stack, weight in busy:
            yield name.rstrip('"'), stack, weight * factor


def _told(frame: Frame) -> str:
    return f"{frame.name} ({PurePath(frame.file).name})"


def by_part(thread: str, stack: Stack) -> str:
    """What farthing was doing."""
    if thread in LEDGERS:
        rolls = any(one.module.startswith(_ROLLS) for one in stack)
        return f"ledger's threads: {'roll-up' if rolls else 'writing rows'}"
    if thread == "watch":
        return "watch's thread: reading answers"
    if thread == "farthing-store-write":
        return "store's thread: writing to the disk"
    if thread and thread != "MainThread":
        return "helpers' threads"
    for one in reversed(stack):
        if one.name in _WRITING and one.module == "proxy/server":
            return "writing the answer"
        if one.module.startswith("policies/"):
            return STAGES
        if one.module and one.module not in _GLUE:
            return _PART_OF.get(one.module, OTHER_FARTHING)
        if one.library == "aiohttp":
            stem = PurePath(one.file).stem
            if stem.startswith(("client", "connector")):
                return CLIENT
            if stem.startswith("web") or stem in ("http_parser", "streams", "base_protocol", "http_writer"):
                return SERVER
    return LOOP if any(one.name == "Runner.run" for one in stack) else UNKNOWN


def by_library(_: str, stack: Stack) -> str:
    """Whose code ran."""
    return stack[-1].library


def by_start(_: str, stack: Stack) -> str:
    """What a start was doing: importing whose module, and of farthing's own what."""
    importing = next((one for one in reversed(stack[1:]) if one.name == "<module>"), None)
    library = "" if importing is None else importing.library
    if library and not library.startswith("farthing"):
        return f"importing {library}" if library != UNKNOWN else UNKNOWN
    what = "importing farthing" if library else "running farthing"
    for one in reversed(stack):
        stem = PurePath(one.file).stem
        if stem == "dataclasses":
            return f"{what}: making dataclasses"
        if one.library.startswith("pydantic"):
            return f"{what}: the configuration's models (pydantic)"
        if stem in ("_parser", "_compiler", "_casefix") or one.library == "regex":
            return f"{what}: regular expressions"
        if one.file.startswith("<frozen importlib"):
            return f"{what}: finding and reading modules"
        if one.module:
            return f"{what}: its own code"
    return what if library else UNKNOWN


def shares(found: Iterator[tuple[str, Stack, float]], rule: Callable[[str, Stack], str]) -> dict[str, float]:
    """The share of each name that the rule gives, the largest first; together 1. Nothing sampled: nothing."""
    counted: Counter[str] = Counter()
    for thread, stack, weight in found:
        counted[rule(thread, stack)] += weight
    whole = sum(counted.values())
    return {name: weight / whole for name, weight in counted.most_common()} if whole else {}


def side_by_side(columns: Mapping[str, Mapping[str, float]], least: float = LEAST) -> list[list[str]]:
    """Rows for a table: a name and its share in each column, the largest anywhere first; each column adds up.

    What is below `least` in every column is one row, what isn't assigned always its own, and the last.
    """
    most = {name: max(one.get(name, 0.0) for one in columns.values()) for one in columns.values() for name in one}
    named = sorted((name for name in most if most[name] >= least and name != UNKNOWN), key=lambda one: -most[one])
    small = [name for name in most if most[name] < least and name != UNKNOWN]
    rows = [[name, *(one.get(name, 0.0) for one in columns.values())] for name in named]
    if small:
        sums = [sum(one.get(name, 0.0) for name in small) for one in columns.values()]
        rows.append([f"less than {least:.1%} everywhere ({len(small)} more)", *sums])
    rows.append([UNKNOWN, *(one.get(UNKNOWN, 0.0) for one in columns.values())])
    rows.append(["together", *(sum(one.values()) for one in columns.values())])
    return [[str(name), *(f"{float(share):.1%}" for share in figures)] for name, *figures in rows]
