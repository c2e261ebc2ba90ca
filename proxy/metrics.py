"""What Prometheus may scrape: counted from finished rows, in the ledger's writer thread, so that no request pays.

Rules of this file: names and units are the contract's (base units, prefix `farthing_`); every label set is bounded;
a registry belongs to its `Metrics` and not to the process; a gauge whose source fails is left out, never guessed.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from farthing.proxy.exchange import CacheStatus, Endpoint, Outcome
from farthing.proxy.figures_values import CAUSES
from farthing.proxy.histogram import BatchHistogram
from farthing.proxy.metrics_merge import Families
from farthing.proxy.row import ERRANDS, Row
from farthing.proxy.version import version

__all__ = ["Metrics", "Names", "rendered"]

log = structlog.get_logger("farthing.metrics")

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)
PICO = 1e-12
MAX_NAMES = 50
OTHER = "other"
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
OVERHEAD_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

ENDPOINTS = frozenset([*Endpoint, *ERRANDS])
STATUSES = frozenset(CacheStatus)
OUTCOMES = frozenset(Outcome)

GAUGES: Mapping[str, str] = {
    "in_flight_requests": "Requests that are being answered.",
    "ledger_pending_rows": "Rows that wait to be written.",
    "ledger_healthy": "1 while rows reach the ledger, 0 while they don't.",
    "ledger_aside_files": "Damaged ledgers that were moved aside and that nobody has salvaged.",
    "store_entries": "Answers in the store.",
    "store_bytes": "Bytes in the store.",
    "store_healthy": "1 while the store answers, 0 while it doesn't.",
    "stages_left_out": "Optimising stages that are left out because they failed repeatedly.",
    "spend_today_usd": "Dollars spent since midnight UTC, own calls included.",
    "spend_limit_usd": "What may be spent a day (spend.daily_usd); absent where there is no limit.",
    "semantic_routes": "Routes of near-duplicates that something is known of.",
    "semantic_routes_serving": "Those that serve, of the 200 used last.",
    "semantic_rollbacks": "How often these were sent back to observing after they had served.",
    "semantic_bound_ratio": "The largest bound on wrong answers that a serving route has proved; absent where none.",
    "semantic_max_wrong_ratio": "The share of wrong answers that the operator accepts (semantic.max_wrong).",
    "semantic_drift_ratio": "How far the evidence for a change has come towards the alarm, which is 1; the furthest.",
    "drift_standing": "Alarms about drift that stand: series and slices that have left what was normal.",
    "semantic_entries": "Vectors in the near-duplicate index.",
    "semantic_log_reached": "1 while the replicas' log of near-duplicates can be read and written, 0 while it can't.",
    "semantic_log_generation": "How often that log was begun anew, as far as replicas remember.",
    "semantic_log_lag_changes": "Changes of others in the log that this replica hasn't taken over yet.",
    "semantic_log_age_seconds": "Since this replica had all that the log says.",
    "semantic_log_waiting_changes": "Own changes that wait to be sent to the log.",
    "semantic_replicas": "Replicas that follow the log, this one included.",
    "semantic_replicas_compared": "Others whose entries were compared with this replica's at one place of the log.",
    "semantic_replicas_differing": "Those of them that held something else.",
    "agreed_reached": "1 while what replicas agree upon can be read and told, 0 while it can't.",
    "agreed_waiting_events": "Own decisions and labels that wait to be told to the other replicas.",
    "capture_pending_rows": "Captured requests that wait to be written.",
    "capture_healthy": "1 while captured requests reach the disk, 0 while they don't.",
    "otlp_pending_spans": "Spans that wait for the OpenTelemetry collector.",
    "otlp_healthy": "1 while the collector takes what it is sent, 0 while it doesn't.",
    "policy_candidate_ratio": "Share of traffic that a policy under roll-out answers; 0 while none is rolled out.",
    "optimisation_off": "1 while the emergency switch turns all optimisation off.",
}
COUNTERS: Mapping[str, str] = {
    "ledger_dropped_rows": "Rows lost because the ledger could not be written.",
    "semantic_log_dropped_changes": "Own changes that the replicas' log will never have: too many waited.",
    "semantic_log_snapshots": "How often this replica took all of the log's entries.",
    "agreed_dropped_events": "Own decisions and labels that other replicas will never hear of: too many waited.",
    "agreed_differed": "How often this replica had come to something else than the others, and took theirs.",
    "capture_rows": "Requests that were captured.",
    "capture_dropped": "Requests to be captured that were lost: too many at once, a failing disk, no redaction.",
    "policy_promotions": "Policies that came to all traffic.",
    "policy_rollbacks": "Policies that were taken back, by an operator or by the guard.",
    "incidents": "What the program did of its own accord to keep its promises (/farthing/api/incidents).",
    "drift_alarms": "Alarms about drift that were raised.",
    "otlp_dropped": "Spans, or texts of spans, that never reached the OpenTelemetry collector.",
}
LABELLED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "compress_tokens_saved": (
        "Tokens that requests lacked (sent: in messages that went out for the first time, and all of tidying; "
        "replayed: in the same messages later on), or that new messages might have lacked (observed).",
        ("rule", "mode"),
    ),
    "compress_texts": ("Messages in which a rule did that.", ("rule", "mode")),
    "compress_left": ("Messages left as they were, or tidied, though they might have been shorter.", ("reason",)),
    "prompt_cache_breakpoints": (
        "Breakpoints that were put into requests (sent), or would have been (observed).",
        ("mode",),
    ),
    "prompt_cache_keys": (
        "Requests that were given a prompt_cache_key (sent), or would have been (observed).",
        ("mode",),
    ),
    "prompt_cache_reads": (
        "Prefixes that the provider's cache should have had, by what it said (read, lost).",
        ("result",),
    ),
    "budget_refused": (
        "Requests that a budget refused; 'keys': budgets of virtual keys.",
        ("budget",),
    ),
    "rate_limit_refused": ("Requests that a rate limit refused.", ("limit",)),
    "student_answered": ("Requests that a student answered in its teacher's place.", ("student",)),
    "student_abstained": ("Requests that a student wasn't sure enough of.", ("student",)),
    "student_compared": ("What a student said, or would have said, compared with its teacher's answer.", ("student",)),
    "student_differed": ("Of these, those where the teacher said something else.", ("student",)),
}
LABELLED_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "usage_drift_ratio": (
        "How far our own count of tokens is from the provider's, as a share of theirs, over an hour's sample.",
        ("direction", "model"),
    ),
    "drift_evidence_ratio": (
        "How far the evidence for drift has come towards an alarm, on a scale of logarithms; the furthest slice.",
        ("series",),
    ),
    "drift_psi": ("Population stability index of all traffic against its reference.", ("series",)),
    "level_attained_ratio": ("Of a service level, the share of good events in its window.", ("target", "level")),
    "level_budget_left_ratio": (
        "What is left of its budget of bad events, or of money, as a share; below 0: overdrawn.",
        ("target", "level"),
    ),
    "level_burn_rate": (
        "What was used of a service level's budget over what was allowed, in a window that ends now.",
        ("window", "target", "level"),
    ),
    "level_burning": (
        "1 while both windows of a pair burn at its rate ('fast': now; 'slow': some day soon).",
        ("speed", "target", "level"),
    ),
    "budget_limit_usd": ("What a budget allows each of its subjects in its window, in dollars.", ("budget",)),
    "budget_spent_usd": ("What the subject that spent most has spent of it in this window, in dollars.", ("budget",)),
    "replica_healthy": ("1 while a replica's circuit is closed and its probes are well.", ("upstream", "replica")),
    "replica_circuit_open": ("1 while a replica is left out because it failed.", ("upstream", "replica")),
    "replica_draining": ("1 while a replica gets no more requests on purpose.", ("upstream", "replica")),
    "replica_in_flight": ("Requests under way at a replica.", ("upstream", "replica")),
    "experiment_running": ("1 while an experiment runs, 0 once it has ended.", ("experiment",)),
    "experiment_units": ("Units (users, sessions, requests) that were assigned to an arm.", ("arm", "experiment")),
    "experiment_shares_p_value": (
        "That the arms got their shares: the least value so far, under which looking often errs no more often.",
        ("experiment",),
    ),
    "experiment_shares_broken": ("1 where the arms didn't get their shares: nothing else is said.", ("experiment",)),
    "experiment_verdict": (
        "Always 1; what may be said of an arm by now is the label.",
        ("verdict", "arm", "experiment"),
    ),
    "student_serving": ("1 while a student answers, 0 while it observes.", ("student",)),
    "student_bound_ratio": ("Of a student's answers, the share that may not be its teacher's.", ("student",)),
    "student_upper_ratio": ("The share that live comparisons prove it to be at most; 1: nothing yet.", ("student",)),
    "route_serving": ("Of a route with max_worse: 1 while it serves, 0 while it observes.", ("route",)),
    "route_max_worse_ratio": ("Of a route's answers, the share that may not be the asked-for model's.", ("route",)),
    "route_upper_ratio": ("The share that its shadows prove it to be at most; 1: nothing yet.", ("route",)),
    "policy_active": ("Always 1; the active policy's version is the label.", ("version",)),
    "policy_guard_evidence_ratio": (
        "Evidence that a candidate is worse than the active policy; at 1 it is rolled back. Absent without a roll-out.",
        ("metric",),
    ),
    "usage_drift_alarm": ("1 while that is more than 2 % for a model whose tokenizer is ours.", ("model",)),
}
STAGE_ERRORS = "stage_errors:"
TOKEN_KINDS = (
    "tokens_in_original",
    "tokens_in_sent",
    "tokens_in_cached",
    "tokens_in_cache_write",
    "tokens_out",
    "tokens_reasoning",
)


class _Registry(CollectorRegistry):
    """Without counters' `_created` twins, which nothing asks for; the library's own switch is the whole process's."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class Metrics:
    """Counters, histograms and gauges of one farthing; a cap keeps the set of model and stage names finite.

    `rows`: how many were counted.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._registry = registry = _Registry(auto_describe=False)
        self._models = Names(max_names)
        self.rows = 0
        self._requests = Counter(
            "farthing_requests", "Finished requests.", ["endpoint", "model", "cache", "outcome", "status_class"],
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "farthing_tokens", "Tokens. in_original: as asked; in_sent: as sent; in_cached, in_cache_write: of these.",
            ["model", "kind"], registry=registry,
        )  # fmt: skip
        self._cost = Counter("farthing_cost_usd", "What upstreams charged, in dollars.", registry=registry)
        self._baseline = Counter("farthing_baseline_usd", "What it would have cost, in dollars.", registry=registry)
        self._overhead_usd = Counter("farthing_overhead_usd", "Farthing's own spending, in dollars.", registry=registry)
        self._saved = Counter("farthing_saved_usd", "Savings by cause, in dollars.", ["cause"], registry=registry)
        # A counter can't go down: where a cause cost more than it saved, the loss has its own.
        self._lost = Counter(
            "farthing_lost_usd", "Losses by cause, in dollars; net is saved less lost.", ["cause"], registry=registry
        )
        self._unpriced = Counter("farthing_unpriced_requests", "Requests of unknown price.", registry=registry)
        self._duration = BatchHistogram(
            "farthing_request_duration_seconds", "From the request's arrival to the answer's end.", "cache",
            REQUEST_BUCKETS_S, registry,
        )  # fmt: skip
        self._overhead = BatchHistogram(
            "farthing_overhead_seconds", "Farthing's own part of that time.", "", OVERHEAD_BUCKETS_S, registry
        )
        self._upstream = BatchHistogram(
            "farthing_upstream_duration_seconds", "The upstream's part of that time, where it was asked.", "",
            REQUEST_BUCKETS_S, registry,
        )  # fmt: skip
        self._first_byte = BatchHistogram(
            "farthing_time_to_first_byte_seconds", "From the request's arrival to the answer's first byte.", "",
            REQUEST_BUCKETS_S, registry,
        )  # fmt: skip
        self._attempts = Counter(
            "farthing_upstream_attempts", "Tries at an upstream, by the class of its status ('none': no answer).",
            ["status_class"], registry=registry,
        )  # fmt: skip
        self._reload_failures = Counter(
            "farthing_config_reload_failures", "Configurations that were refused on SIGHUP; the old one stayed.",
            registry=registry,
        )  # fmt: skip
        for cause in CAUSES:
            self._saved.labels(cause)
            self._lost.labels(cause)
        self._watched = Watched(max_names)
        registry.register(self._watched)

    def watch(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Ask `gauges` at every scrape for values by name: those of GAUGES and COUNTERS, those of LABELLED and
        LABELLED_GAUGES as `name:label:label`, bounded by the source, and `stage_errors:STAGE`."""
        self._watched.sources.append(gauges)

    def observe(self, rows: Sequence[Row]) -> None:
        """Count finished rows. Called by one thread at a time: the ledger's writer."""
        self.rows += len(rows)
        requests: dict[tuple[str, str, str, str, int], int] = {}
        tokens: dict[str, list[int]] = {}
        attempts: Tally[str] = Tally()
        for row in rows:
            cache = row.cache
            place = (row.endpoint, row.model_requested, cache, row.outcome, row.status)
            requests[place] = requests.get(place, 0) + 1
            counts = tokens.get(row.model_requested)
            if counts is None:
                counts = tokens[row.model_requested] = [0] * len(TOKEN_KINDS)
            for index, name in enumerate(TOKEN_KINDS):
                count = getattr(row, name)
                if count and count > 0:
                    counts[index] += count
            if row.attempts:
                attempts.update(attempt_classes(row))
            if row.endpoint in ERRANDS:
                continue  # nobody waited
            self._duration.observe(row.latency_ms / 1000, known(cache, STATUSES))
            self._overhead.observe(row.overhead_ms / 1000)
            if row.upstream_ms is not None:
                self._upstream.observe(row.upstream_ms / 1000)
            if row.ttft_ms is not None:
                self._first_byte.observe(row.ttft_ms / 1000)
        for (endpoint, model, cache, outcome, status), count in requests.items():
            self._requests.labels(
                known(endpoint, ENDPOINTS),
                self._models.bounded(model),
                known(cache, STATUSES),
                known(outcome, OUTCOMES),
                status_class(status),
            ).inc(count)
        for model, counts in tokens.items():
            for name, count in zip(TOKEN_KINDS, counts, strict=True):
                if count:
                    self._tokens.labels(self._models.bounded(model), name.removeprefix("tokens_")).inc(count)
        for name, tries in attempts.items():
            self._attempts.labels(name).inc(tries)
        self._observe_money(rows)

    def _observe_money(self, rows: Sequence[Row]) -> None:
        """Add amounts up exactly, then once to each counter. As in the report, savings need both cost and baseline."""
        priced = [row for row in rows if row.cost_usd is not None and row.baseline_usd is not None]
        self._unpriced.inc(len(rows) - len(priced))
        self._cost.inc(sum([row.cost_usd or 0 for row in rows]) * PICO)
        self._baseline.inc(sum([row.baseline_usd or 0 for row in priced]) * PICO)
        self._overhead_usd.inc(sum([row.overhead_usd or 0 for row in rows]) * PICO)
        for cause in CAUSES:
            read = attrgetter(f"saved_{cause}_usd")
            amounts = [amount for amount in map(read, priced) if amount]
            if amounts:
                self._saved.labels(cause).inc(sum([amount for amount in amounts if amount > 0]) * PICO)
                self._lost.labels(cause).inc(-sum([amount for amount in amounts if amount < 0]) * PICO)

    def reload_failed(self) -> None:
        """Count a configuration that was refused while running."""
        self._reload_failures.inc()

    def families(self) -> Families:
        """Everything as plain values (metrics_merge.py), to be sent to another process."""
        return {
            family.name: {
                "type": family.type,
                "help": family.documentation,
                "samples": [[one.name, [*map(list, one.labels.items())], one.value] for one in family.samples],
            }
            for family in self._registry.collect()
        }

    def render(self) -> bytes:
        """Everything in Prometheus' text format; see `content_type`."""
        return generate_latest(self._registry)


class _Given(CollectorRegistry):
    """Families that were counted elsewhere."""

    def __init__(self, families: Families) -> None:
        super().__init__(auto_describe=False)
        self._given = families

    def collect(self) -> Iterator[Metric]:
        for name, family in self._given.items():
            found = Metric(name, family["help"], family["type"])
            for sample, labels, value in family["samples"]:
                found.add_sample(sample, dict(labels), value)
            yield found


def rendered(families: Families) -> bytes:
    """Families in Prometheus' text format."""
    return generate_latest(_Given(families))


class Names:
    """The first so many names that came; every later one is `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def bounded(self, name: str) -> str:
        """The name, or `other`. A long name is `other` too: a client wrote it."""
        if name in self._seen:
            return name
        if not name:
            return "none"
        if len(self._seen) >= self._limit or len(name) > 100:
            return OTHER
        self._seen.add(name)
        return name


class Watched(Collector):
    """Values of the moment, asked for when Prometheus asks."""

    def __init__(self, max_stages: int) -> None:
        self.sources: list[Callable[[], Mapping[str, float]]] = []
        self._stages = Names(max_stages)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the sources must not be asked before they are ready."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One family for each known name that a source gave."""
        build = GaugeMetricFamily("farthing_build_info", "Always 1; the version is the label.", labels=["version"])
        build.add_metric([version()], 1)
        yield build
        values: dict[str, float] = {}
        for source in self.sources:
            try:
                values.update(source())
            except Exception as error:  # noqa: BLE001 - one broken gauge must not hide all the others
                log.warning("a gauge could not be read", error=type(error).__name__)
        for name, meaning in GAUGES.items():
            if name in values:
                yield GaugeMetricFamily(f"farthing_{name}", meaning, value=values[name])
        for name, meaning in COUNTERS.items():
            if name in values:
                yield CounterMetricFamily(f"farthing_{name}", meaning, value=values[name])
        for name, (meaning, labels) in LABELLED.items():
            yield labelled(CounterMetricFamily(f"farthing_{name}", meaning, labels=labels), name, values)
        for name, (meaning, labels) in LABELLED_GAUGES.items():
            yield labelled(GaugeMetricFamily(f"farthing_{name}", meaning, labels=labels), name, values)
        stages: Tally[str] = Tally()
        for name, value in values.items():
            if name.startswith(STAGE_ERRORS):
                stages[self._stages.bounded(name.removeprefix(STAGE_ERRORS))] += int(value)
        errors = CounterMetricFamily(
            "farthing_stage_errors", "Stages that failed and were passed by.", labels=["stage"]
        )
        for stage, count in sorted(stages.items()):
            errors.add_metric([stage], count)
        yield errors


def labelled(family: Family, name: str, values: Mapping[str, float]) -> Family:
    """The family with every value that is named after it; its last label may hold colons."""
    for key, value in sorted(values.items()):
        if key.startswith(f"{name}:"):
            family.add_metric(key.split(":", len(family._labelnames))[1:], value)
    return family


def known(value: str, values: frozenset[str]) -> str:
    """The value, or `other` where it is none of the known ones."""
    return value if value in values else OTHER


def status_class(status: int) -> str:
    """`2xx` and so on; `none` where there was no status."""
    return f"{status // 100}xx" if 100 <= status < 600 else "none"


def attempt_classes(row: Row) -> list[str]:
    """The status class of each try at an upstream that this request itself made."""
    if not row.attempts or row.cache == CacheStatus.JOINED:
        return []
    try:
        return [status_class(int(attempt["status"])) for attempt in orjson.loads(row.attempts_detail)]
    except (ValueError, TypeError, KeyError):
        return []
