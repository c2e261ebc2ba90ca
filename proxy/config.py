"""The configuration: one frozen snapshot, made from a file, the environment and flags, in that order of precedence.

Rules of this file: every key has a default and a unit in its name; an unknown key is an error that names the
nearest known one; nothing here opens a connection or reads a clock.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from farthing.policies.freshness import Kind
from farthing.policies.nearest import nearest
from farthing.policies.variant import DEFAULT_UPSTREAM
from farthing.proxy.config_capture import Capture
from farthing.proxy.config_compat import Compat
from farthing.proxy.config_compress import Compress
from farthing.proxy.config_defer import Defer
from farthing.proxy.config_distill import Distill
from farthing.proxy.config_experiments import ExperimentSection, HoldoutSection, overlaps
from farthing.proxy.config_feedback import Feedback
from farthing.proxy.config_gates import Gates
from farthing.proxy.config_levels import ServiceLevels
from farthing.proxy.config_otlp import Otlp
from farthing.proxy.config_prices import Prices
from farthing.proxy.config_prompt_cache import PromptCache
from farthing.proxy.config_rollout import Rollout
from farthing.proxy.config_routes import Misplaced, RouteSection, VariantSection, check, shared_unsaid
from farthing.proxy.config_section import Section
from farthing.proxy.config_server import Server
from farthing.proxy.config_shadow import Shadow
from farthing.proxy.config_spend import Alerts, Budgets, RateLimits, Spend, impossible
from farthing.proxy.config_store import Store
from farthing.proxy.config_upstream import Upstream
from farthing.proxy.config_watch import Watch
from farthing.proxy.errors import ConfigFault
from farthing.proxy.exchange import Endpoint

__all__ = ["Config", "Upstream", "effective", "load", "piped"]


class FreshnessRule(Section):
    """How long some answers may be given again. Of the rules the first that matches wins; what it leaves out matches
    everything. `model`, `tag`: shell patterns."""

    model: str = ""
    endpoint: Endpoint | Literal[""] = ""
    tag: str = Field("", pattern="^$|^[^=]+=", description="NAME=VALUE")
    kind: Kind | Literal[""] = ""
    ttl_s: int | None = Field(None, ge=0, description="0: not kept; None: cache.ttl_s")
    semantic_ttl_s: int | None = Field(None, ge=0, description="0: never for near-duplicates; None: while it is kept")

    @model_validator(mode="after")
    def _says_something(self) -> FreshnessRule:
        if self.ttl_s is None and self.semantic_ttl_s is None:
            raise ValueError("a rule needs ttl_s, semantic_ttl_s or both")
        if self.ttl_s is not None and self.semantic_ttl_s is not None and self.semantic_ttl_s > self.ttl_s:
            raise ValueError("semantic_ttl_s is longer than ttl_s: a near-duplicate needs the stored answer")
        return self


class Cache(Section):
    """The exact cache."""

    mode: Literal["off", "exact"] = "exact"
    ttl_s: int = Field(86_400, ge=1)
    freshness: tuple[FreshnessRule, ...] = ()
    sampled: bool = True
    variants: int = Field(1, ge=1, le=16)
    join: bool = True
    join_across: Literal["off", "whole", "all"] = Field("whole", description="with answers of other processes too")
    join_wait_s: float = Field(30.0, ge=0, description="for another process's answer, at most")
    join_lease_s: float = Field(1.0, ge=0.1, description="after so long a process that hangs is waited for no more")
    remote_urls: bool = False
    responses_never_chained: bool = False
    max_entry_bytes: int = Field(8 * 2**20, ge=1024)
    embedding_items: bool = Field(True, description="embeddings are looked up and kept input by input")


class Semantic(Section):
    """The near-duplicate cache: with `mode = "serve"` a route serves once its bound on wrong answers is proved.

    `unproven = true` serves from a fixed cosine on, behind a guard, with nothing proved; and says so everywhere.
    """

    mode: Literal["off", "observe", "serve"] = "observe"
    max_wrong: float = Field(0.01, gt=0, lt=1, description="wrong answers per served hit, at most")
    per: Literal["hit", "request"] = "hit"
    confidence: float = Field(0.95, ge=0.5, lt=1)
    policy: Literal["verified", "vcache"] = "verified"
    audit_share: float = Field(0.05, gt=0, le=1, description="of served hits, at first; it falls with the evidence")
    audit_daily_usd: Decimal = Field(Decimal(1), ge=0, description="what audits may cost a day (UTC)")
    unproven: bool = False
    threshold: float = Field(0.92, ge=0, le=1, description="cosine similarity, for unproven = true")
    second_stage: str = Field("off", pattern=r"^(off|(judge|cross-encoder):.+)$")
    judge_band: tuple[float, float] = Field((0.5, 0.85), description="first scores that are put to the second stage")
    judge_daily_usd: Decimal = Field(Decimal(1), ge=0, description="what judgements may cost a day (UTC)")
    judge_deadline_ms: float = Field(1000.0, gt=0, description="for a judgement before the upstream; late means miss")
    judge_at_once: int = Field(8, ge=1, description="judgements under way")
    model: str = "minilm-int8"
    deadline_ms: float = Field(100.0, gt=0)
    max_entries: int = Field(100_000, ge=1)
    max_bytes: int = Field(512 * 2**20, ge=2**20, description="memory that entries may hold, estimated")
    shared: bool = Field(True, description="with store.url: replicas share near-duplicates by a log in it")
    index: Literal["memory", "pgvector"] = Field("memory", description="where vectors are kept")
    index_url: SecretStr = Field(SecretStr(""), description='of the PostgreSQL, for index = "pgvector"')
    templates: bool = Field(True, description="match only what varies where a route's prompts share a long part")
    show_texts: bool = Field(False, description="whether the dashboard shows the texts of near misses and hits")

    @model_validator(mode="after")
    def _policy_fits(self) -> Semantic:
        if self.policy == "vcache" and self.per != "request":
            raise ValueError('policy = "vcache" bounds wrong answers per request: set per = "request" as well')
        return self

    @model_validator(mode="after")
    def _index_has_a_place(self) -> Semantic:
        if (self.index == "pgvector") is not bool(self.index_url.get_secret_value()):
            raise ValueError('index = "pgvector" and index_url (postgresql://...) belong together')
        return self

    @model_validator(mode="after")
    def _second_stage_fits(self) -> Semantic:
        low, high = self.judge_band
        if not 0 <= low < high <= 1:
            raise ValueError("judge_band must be two scores between 0 and 1, the lower one first")
        if self.second_stage != "off" and (self.unproven or self.policy == "vcache"):
            raise ValueError('second_stage changes the score, which only policy = "verified" without unproven looks at')
        return self

    @property
    def shown(self) -> str:
        """The mode in words for screens."""
        return "serve unproven" if self.mode == "serve" and self.unproven else self.mode


class Ledger(Section):
    """The record of every request."""

    enabled: bool = True
    flush_ms: float = Field(50.0, gt=0, le=100)
    buffer_rows: int = Field(10_000, ge=1)
    jsonl: Path | None = None
    drift_sample: float = Field(0.01, ge=0, le=1, description="share of answers whose tokens are counted here too")
    keep_days: int = Field(90, ge=0)


class NamedScope(Section):
    """Credentials that share one cache: SHA-256 of each, as hex."""

    name: str
    credentials_sha256: tuple[str, ...]


class ClientKey(Section):
    """A key that farthing itself asks of clients: SHA-256 of it, as hex."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Auth(Section):
    """Who may call, and who shares with whom. `virtual_keys`: those of `farthing keys` are asked for too.

    `keys_stale_s`: for how long keys that are known stay good while the store that could revoke them is away.
    """

    client_keys: tuple[ClientKey, ...] = ()
    virtual_keys: bool = False
    keys_stale_s: float = Field(30.0, ge=1)
    scopes: tuple[NamedScope, ...] = ()


class Limits(Section):
    """Bounds on what is held in memory, and on slow clients."""

    parse_bytes: int = Field(16 * 2**20, ge=1024, description="longer JSON bodies pass through unread")
    max_body_bytes: int = Field(0, ge=0, description="hard limit, answered with 413; 0: none")
    buffer_bytes: int = Field(8 * 2**20, ge=65_536, description="an answer's side buffer")
    sse_event_bytes: int = Field(2**20, ge=4096)
    body_timeout_s: float = Field(60.0, gt=0)
    max_in_flight: int = Field(0, ge=0, description="429 beyond it; 0: none")
    repeat_bytes: int = Field(32 * 2**20, ge=0, description="hits remembered for the short way; 0: none")


class Log(Section):
    """The log; never holds a key or a prompt."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Config(Section):
    """The whole configuration."""

    state_dir: Path = Path(".farthing")
    server: Server = Server.model_construct()
    upstream: Upstream = Upstream.model_construct()
    upstreams: tuple[Upstream, ...] = ()
    variants: tuple[VariantSection, ...] = ()
    routes: tuple[RouteSection, ...] = ()
    aliases: dict[str, str] = Field(default_factory=dict)
    store: Store = Store.model_construct()
    cache: Cache = Cache.model_construct()
    semantic: Semantic = Semantic.model_construct()
    compress: Compress = Compress.model_construct()
    prompt_cache: PromptCache = PromptCache.model_construct()
    compat: Compat = Compat.model_construct()
    capture: Capture = Capture.model_construct()
    ledger: Ledger = Ledger.model_construct()
    watch: Watch = Watch.model_construct()
    feedback: Feedback = Feedback.model_construct()
    distill: Distill = Distill.model_construct()
    service_levels: ServiceLevels = ()
    otlp: Otlp = Otlp.model_construct()
    prices: Prices = Prices.model_construct()
    auth: Auth = Auth.model_construct()
    spend: Spend = Spend.model_construct()
    budgets: Budgets = ()
    rate_limits: RateLimits = ()
    alerts: Alerts = Alerts.model_construct()
    rollout: Rollout = Rollout.model_construct()
    experiments: tuple[ExperimentSection, ...] = ()
    holdout: HoldoutSection = HoldoutSection.model_construct()
    shadow: Shadow = Shadow.model_construct()
    gates: Gates = Gates.model_construct()
    defer: Defer = Defer.model_construct()
    limits: Limits = Limits.model_construct()
    log: Log = Log.model_construct()

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Config:
        names, scopes = [one.name for one in self.upstreams], [scope.name for scope in self.auth.scopes]
        keyed = self.auth.virtual_keys
        styles = {one.name: one.style for one in (*self.upstreams, self.upstream)}
        styles[DEFAULT_UPSTREAM] = self.upstream.style
        check(
            self.upstream.name, names, self.variants, self.routes, self.aliases, scopes, any_tenant=keyed, styles=styles
        )
        bound = [
            at for at, one in enumerate(self.routes) if one.max_worse is not None and one.mode in ("prove", "serve")
        ]
        if bound and not self.shadow.share:
            said = "needs shadow.share above 0: nothing else compares the route's answers"
            raise Misplaced([(f"routes.{at}.max_worse", said) for at in bound])
        return self

    @model_validator(mode="after")
    def _limits_can_be_reached(self) -> Config:
        named = bool(self.auth.virtual_keys or self.auth.client_keys)
        alone = not self.store.url.get_secret_value()
        if faults := impossible(self.budgets, self.rate_limits, self.spend, keys_have_names=named, alone=alone):
            raise Misplaced(faults)
        return self

    @model_validator(mode="after")
    def _experiments_are_apart(self) -> Config:
        if faults := overlaps(self.experiments):
            raise Misplaced(faults)
        if (self.experiments or self.holdout.share) and not self.ledger.enabled:
            raise ValueError("experiments and hold-outs are read from the ledger: set ledger.enabled = true too")
        return self

    @model_validator(mode="after")
    def _no_open_relay(self) -> Config:
        spendable = any(one.spendable for one in (self.upstream, *self.upstreams))
        asks = self.auth.client_keys or self.auth.virtual_keys
        if spendable and not asks and not is_loopback(self.server.host):
            raise ValueError(
                f"server.host = {self.server.host!r} with an upstream key and no auth.client_keys would let anybody "
                "spend that key; bind 127.0.0.1, declare client keys, or set auth.virtual_keys"
            )
        return self

    @model_validator(mode="after")
    def _otlp_needs_rows(self) -> Config:
        if self.otlp.on and not self.ledger.enabled:
            raise ValueError("otlp.endpoint is fed by the ledger: set ledger.enabled = true too")
        return self

    @model_validator(mode="after")
    def _levels_need_rows(self) -> Config:
        if self.service_levels and not self.ledger.enabled:
            raise ValueError("service_levels are counted from the ledger: set ledger.enabled = true too")
        return self

    @model_validator(mode="after")
    def _no_loop(self) -> Config:
        for one in (self.upstream, *self.upstreams):
            self._no_loop_to(one, "upstream" if one is self.upstream else f"upstreams {one.name!r}")
        return self

    def _no_loop_to(self, upstream: Upstream, path: str) -> None:
        key = "replicas" if upstream.replicas else "url"
        for url in upstream.bases:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            if self.server.port == port and is_loopback(parts.hostname or "") and serves_loopback(self.server.host):
                raise ValueError(
                    f"{path}.{key} = {mask_url(url)!r} is farthing itself; name the provider's address "
                    "(upstream.url is taken from OPENAI_BASE_URL where nothing else is said)"
                )

    @property
    def all_off(self) -> bool:
        """Whether every optimising stage is off: then bodies pass byte for byte and nothing is retried."""
        own = self.cache.mode == "off" and self.semantic.mode == "off" and self.compress.all_off
        return own and not self.routed and self.prompt_cache.mode != "serve"

    @property
    def routed(self) -> bool:
        """Whether any request may be asked of somebody else than it names."""
        return bool(self.variants or self.routes or self.aliases)

    @property
    def id(self) -> str:
        """A short content hash of the configuration, for the ledger."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def serves_loopback(host: str) -> bool:
    """Whether a server bound to `host` answers on loopback."""
    return host in ("0.0.0.0", "::", "") or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether binding `host` reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(path: Path | None, env: Mapping[str, str] = os.environ, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration from `path` (or ./farthing.toml where it is None and exists), `env` and dotted `flags`.

    Raises ConfigFault: a file that can't be read or parsed, an unknown key, a wrong value.
    """
    raw: dict[str, Any] = {}
    if path is None and Path("farthing.toml").is_file():
        path = Path("farthing.toml")
    if path is not None:
        raw = read_toml(path)
    overlay_environment(raw, env)
    for dotted, value in (flags or {}).items():
        if value is not None:
            put(raw, dotted.split("."), value, f"flag --{dotted.split('.')[-1]}")
    upstream = raw.get("upstream", {})
    unsaid = isinstance(upstream, dict) and not {"url", "replicas"} & upstream.keys()
    if unsaid and env.get("OPENAI_BASE_URL"):
        put(raw, ["upstream", "url"], env["OPENAI_BASE_URL"], "OPENAI_BASE_URL")
    try:
        config = Config.model_validate(raw)
        faults = [f"  {at}: {said}" for at, said in shared_unsaid(config.routes)]
    except ValidationError as error:
        faults = explain(error)
    if faults:
        raise ConfigFault("\n".join([f"{path or 'the configuration'} is not valid:", *faults]))
    return config


def piped(body: bytes) -> Config:
    """What a running farthing hands its child: values that were set, as JSON. Raises ConfigFault."""
    try:
        return Config.model_validate_json(body)
    except ValidationError as error:
        raise ConfigFault("\n".join(["the configuration on standard input is not valid:", *explain(error)])) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table. Raises ConfigFault with the path and the line."""
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigFault(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFault(f"{path} is not valid TOML: {error}") from None


def overlay_environment(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    """Lay FARTHING_* over `raw`: FARTHING_CACHE__TTL_S=60 is cache.ttl_s = 60; FARTHING_UPSTREAM is upstream.url."""
    for name, text in sorted(env.items()):
        if not name.startswith("FARTHING_"):
            continue
        keys = name.removeprefix("FARTHING_").lower().split("__")
        if keys == ["upstream"]:
            keys = ["upstream", "url"]
        put(raw, keys, parse_value(text), name)


def parse_value(text: str) -> Any:
    """A value of the environment: a TOML list or table where it is one, else the text itself."""
    if not text.lstrip().startswith(("[", "{")):
        return text  # what a number is, its key decides: an API key or a directory may consist of digits
    import tomllib

    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def put(raw: dict[str, Any], keys: list[str], value: Any, source: str) -> None:
    """Set a nested key. Raises ConfigFault where a parent is not a table."""
    table = raw
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigFault(f"{source}: {key!r} is not a table")
    table[keys[-1]] = value


def explain(error: ValidationError) -> list[str]:
    """Each fault as a line: where, what, and the nearest known key for an unknown one."""
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        location = ".".join(str(part) for part in fault["loc"]) or "(top level)"
        message = fault["msg"].removeprefix("Value error, ")
        if isinstance(placed := fault.get("ctx", {}).get("error"), Misplaced):
            lines += [f"  {path}: {said}" for path, said in placed.faults]
            continue
        if fault["type"] == "extra_forbidden":
            near = nearest_key(fault["loc"])
            message = "unknown key" + (f"; did you mean {near!r}?" if near else "")
        lines.append(f"  {location}: {message}")
    return lines


def nearest_key(location: tuple[int | str, ...]) -> str:
    """The known key nearest to an unknown one, as a file has it; searched in its own section first, then everywhere."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        if isinstance(part, int):
            continue  # one of several: its section is the list's
        field = model.model_fields.get(part)  # no section has an alias
        inner = None if field is None else next(iter(get_args(field.annotation)), field.annotation)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    key = str(location[-1])
    if found := nearest(key, _keys(model)):
        return found
    every = {
        one: f"{name}.{one}"
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for one in _keys(field.annotation)
    }
    found = nearest(key, every, cutoff=0.75)
    return every[found] if found else ""


def _keys(model: type[BaseModel]) -> list[str]:
    """The section's keys, as a file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def effective(config: Config) -> dict[str, Any]:
    """The configuration as plain values that a file may have, with every secret masked, for `farthing check`."""
    shown: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    for route in shown["routes"]:
        if route["strategy"] != "cascade":
            del route["accept"]  # refused there, and without effect
    if config.store.url.get_secret_value():
        shown["store"]["url"] = mask_url(config.store.url.get_secret_value())
    for one in (shown["upstream"], *shown["upstreams"]):
        one["url"] = mask_url(one["url"])
        one["replicas"] = [mask_url(url) for url in one["replicas"]]
    shown["otlp"]["endpoint"] = mask_url(config.otlp.endpoint)
    return shown


def mask_url(url: str) -> str:
    """The URL without its user and password: nothing before the last @, since a password may hold what ends a host."""
    scheme, rest = url.split("://", 1) if "://" in url else ("", url)
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
