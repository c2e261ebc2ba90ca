"""`farthing replay`: plays a trace under one configuration or several, prints, draws, and can be stopped. Thin."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.replay_sweep import Settings, grid, implied, parse_set, parse_sweep, with_settings

__all__ = ["Wanted", "replay"]

BY = ("model", "endpoint", "tenant", "user")
STOPPED = 130


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options. `plots`: files to draw into, by their ending. `processes`: 0: as many as processors."""

    sweeps: Sequence[str] = ()
    sets: Sequence[str] = ()
    by: str = ""
    format: str = ""
    prices_at: str = "request"
    beyond: bool = False
    plots: Sequence[Path] = ()
    resume: bool = False
    processes: int = 0
    seed: int = 1
    confidence: float = 0.95


def replay(config: Config, trace: Path, wanted: Wanted, emit: Callable[[Any], None] | None, console: Console) -> int:
    """Play and print; the exit status: 0, or 130 where it was stopped. Raises ConfigFault.

    Effects: reads the trace; where it is stopped, a file in the state directory; the files of `plots`. No network.
    """
    from farthing.proxy.replay_formats import FORMATS
    from farthing.proxy.replay_read import open_trace
    from farthing.proxy.replay_run import play
    from farthing.proxy.replay_table import as_json, rendered, without_requests

    if wanted.format and wanted.format not in FORMATS:
        raise ConfigFault(f"--format: {wanted.format!r} is not one of {', '.join(FORMATS)}")
    by = _by(wanted.by)
    drawn = [(path, _drawer(path)) for path in wanted.plots]
    swept = [parse_sweep(text) for text in wanted.sweeps]
    fixed = dict(map(parse_set, wanted.sets))
    without_saying = implied([key for key, _ in swept])
    goes_without = {key: value for key, value in without_saying.items() if key not in fixed}
    settings = grid(swept)
    configs = [with_settings(config, {**goes_without, **fixed, **one}) for one in settings]
    found = open_trace(trace)
    stage = _Stage(config, configs, wanted, by, found)
    run, file = stage.begin(trace)
    with _stoppable() as stop, _Progress(sys.stderr.isatty()) as progress:
        play(
            run,
            found,
            stage.readings,
            wanted.format,
            processes=wanted.processes or os.cpu_count() or 1,
            stop=stop,
            tell=progress.tell,
        )
    if not run.finished:
        stage.save(run, file)
        run.sum_up()  # what was kept goes on from before this
        Console(stderr=True).print(f"stopped; go on with --resume ({file})", markup=False, highlight=False)
    elif wanted.resume:
        file.unlink(missing_ok=True)
    if not run.requests and run.finished:
        raise ConfigFault("\n".join([f"{trace} holds no request", *without_requests(run)]))
    for path, draw in drawn:
        _write(path, draw, run, settings, wanted.confidence)
    if emit is not None:
        emit(as_json(run, settings, stage.forms, wanted.confidence) | {"implied": goes_without})
    else:
        if goes_without:
            told = ", ".join(f"{key} = {value}" for key, value in goes_without.items())
            console.print(f"Taken for granted: {told}", style="dim", markup=False, highlight=False)
        if stage.silent:
            console.print(stage.silent, style="dim", markup=False, highlight=False)
        console.print(rendered(run, settings, stage.forms, wanted.confidence))
    return 0 if run.finished else STOPPED


class _Stage:
    """What a run needs round it: readings, services, and the file of a run that was stopped."""

    def __init__(self, config: Config, configs: Sequence[Config], wanted: Wanted, by: tuple[str, ...], trace: Any):
        from farthing.proxy.clock import SystemClock
        from farthing.proxy.replay_facts import reading_of
        from farthing.proxy.replay_state import fingerprint_of

        self._state_dir, self._configs, self._wanted, self._by = config.state_dir, configs, wanted, by
        self._store = config.store
        self._at_s = SystemClock().now_s() if wanted.prices_at == "now" else None
        near = [_serves(one) for one in configs]
        read = [reading_of(one, near=is_near, beyond=wanted.beyond) for one, is_near in zip(configs, near, strict=True)]
        # What a reading depends on: configurations that share it are read once.
        keys = [
            (one.cache, one.compress, one.upstream.identity, one.all_off, n)
            for one, n in zip(configs, near, strict=True)
        ]
        places = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        self._reading_of = [places[key] for key in keys]
        self.readings = [read[keys.index(key)] for key in places]
        self.forms = [[form.name for form in self.readings[at].forms] for at in self._reading_of]
        self._near = near
        observing = any(one.semantic.mode == "observe" and one.cache.mode != "off" for one in configs)
        self.silent = (
            "The semantic cache only observes in this configuration, so it isn't replayed: --set semantic.mode=serve"
            if observing and not any(near)
            else ""
        )
        self._fingerprint = fingerprint_of(
            [one.model_dump_json() for one in configs], by, wanted.format, wanted.prices_at, wanted.beyond, wanted.seed,
            trace.size, trace.head,
        )  # fmt: skip
        self._services: dict[str, Any] = {}

    def begin(self, trace: Path) -> tuple[Any, Path]:
        """A new run, or the one that was stopped; and its file."""
        from farthing.proxy.rate_cards import card_of
        from farthing.proxy.replay_lane import Lane
        from farthing.proxy.replay_run import Run
        from farthing.proxy.replay_state import load, state_file

        services = self._services
        reader = self._reader() if any(self._near) else None
        for number, config in enumerate(self._configs):
            services[f"config {number}"] = config
            card = card_of(config)
            services[f"prices {number}"] = card
        file = state_file(self._state_dir, trace)
        if self._wanted.resume:
            return load(file, self._fingerprint, self._secret(), services, self._seal()), file
        lanes = []
        for number, config in enumerate(self._configs):
            near = None
            if reader is not None and self._near[number]:
                from farthing.proxy.replay_near import NearLane

                near = NearLane(config.semantic, reader, self._wanted.seed)
            lanes.append(
                Lane(
                    config,
                    self._reading_of[number],
                    services[f"prices {number}"],
                    by=self._by,
                    at_s=self._at_s,
                    seed=self._wanted.seed,
                    near=near,
                )
            )
        return Run(lanes, self._by), file

    def save(self, run: Any, file: Path) -> None:
        """Keep a run that was stopped."""
        from farthing.proxy.replay_state import save

        save(file, run, self._fingerprint, self._secret(), self._services, self._seal())

    def _secret(self) -> bytes:
        from farthing.proxy.clock import SystemRandomness
        from farthing.proxy.state import local_secret

        return local_secret(self._state_dir, SystemRandomness())

    def _seal(self) -> Any:
        from farthing.proxy.clock import SystemRandomness
        from farthing.proxy.sealing import sealer

        return sealer(self._store, SystemRandomness())

    def _reader(self) -> Any:
        from farthing.cache.embedder import EmbedderUnavailable, open_embedder
        from farthing.cache.verifier import Verifier
        from farthing.proxy.replay_near import Reader

        models = {one.semantic.model for one in self._configs}
        if len(models) > 1:
            raise ConfigFault("one embedding model at a time: semantic.model can't be swept")
        try:
            reader = Reader(open_embedder(models.pop()), Verifier.open())
        except EmbedderUnavailable as error:
            raise ConfigFault(f"semantic.model: {error}") from None
        self._services |= {"reader": reader, "embedder": reader.embedder, "verifier": reader.verifier}
        return reader


def _serves(config: Config) -> bool:
    return config.semantic.mode == "serve" and config.cache.mode != "off" and not config.all_off


def _by(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if part not in BY and not (part.startswith("tag:") and len(part) > 4):
            raise ConfigFault(f"--by: {part[:40]!r} is not one of {', '.join(BY)} or tag:NAME")
    return found


def _drawer(path: Path) -> Callable[..., bytes]:
    """Who draws a file of this name. Raises ConfigFault before anything is read."""
    if not path.absolute().parent.is_dir():
        raise ConfigFault(f"can't write {path}: there is no such folder")
    if path.suffix.lower() in (".html", ".htm"):
        from farthing.proxy.replay_page import page

        return page
    if path.suffix.lower() == ".png":
        from farthing.proxy.replay_plot import drawn, have_matplotlib

        if not have_matplotlib():
            raise ConfigFault(f"{path}: PNG needs matplotlib: pip install 'farthing[plot]'; HTML needs nothing")
        return drawn
    raise ConfigFault(f"{path}: a plot is .png or .html")


def _write(path: Path, draw: Callable[..., bytes], run: Any, settings: Sequence[Settings], confidence: float) -> None:
    try:
        path.write_bytes(draw(run, settings, confidence))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came; a second one ends at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Progress:
    """A bar on a terminal; in a pipe a line for every tenth part."""

    def __init__(self, terminal: bool) -> None:
        columns = (TextColumn("replaying"), BarColumn(), TextColumn("{task.fields[requests]:,} requests"))
        self._bar = (
            Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            if terminal
            else None
        )
        self._tenth = 0
        self._task: Any = None

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._task = self._bar.add_task("replaying", total=1.0, requests=0)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, told: Any) -> None:
        """See replay_run.Told."""
        if self._bar is not None:
            self._bar.update(self._task, completed=told.share, requests=told.requests)
        elif int(told.share * 10) > self._tenth:
            self._tenth = int(told.share * 10)
            sys.stderr.write(f"replaying: {told.share:.0%}, {told.requests:,} requests\n")
