"""Puts the house together: builds what a process needs from a configuration, and runs it.

`Services` is the process's state: frozen, built here, closed here in reverse order. Two apps with different
configurations can run in one process without touching each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from farthing.proxy.accepting import Accepting
from farthing.proxy.admin import Admin
from farthing.proxy.build import Services, build
from farthing.proxy.clock import Clock, Randomness, SystemClock, SystemRandomness
from farthing.proxy.config import Config
from farthing.proxy.config_warnings import tell
from farthing.proxy.errors import ConfigFault
from farthing.proxy.experiments import Experiments
from farthing.proxy.front import FrontServer, not_http, well_coded
from farthing.proxy.gates_by_themselves import GateWatch, ModelsServed
from farthing.proxy.gating import GateRuns
from farthing.proxy.held import State, open_state
from farthing.proxy.lanes import Lanes
from farthing.proxy.rollouts import Gate, Rollouts
from farthing.proxy.rollouts_crew import FollowedExperiments, FollowedRollouts, ReadBook
from farthing.proxy.server_tls import ServerTls
from farthing.proxy.student_pins import pinned, unpinned
from farthing.proxy.student_training import StudentTraining
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.versions import Book, Standing, policy_version, with_sections

if TYPE_CHECKING:
    from farthing.proxy.crew import Crew

__all__ = ["Running", "running"]

log = structlog.get_logger("farthing")


class Running:
    """A proxy that listens. `url`: where, without a path. `policies`: what may become of them. `gates`: suites' runs.
    `tls`: None without."""

    def __init__(
        self, policies: Rollouts, gates: GateRuns, experiments: Experiments, tls: ServerTls | None = None
    ) -> None:
        self.url = ""
        self.tls = tls
        self.policies = policies
        self.gates = gates
        self.experiments = experiments
        self.lanes = policies.lanes
        self.training = StudentTraining(policies, policies.lanes.state)

    @property
    def services(self) -> Services:
        """What answers now, under the active policy."""
        return self.lanes.active

    async def reload(self, config: Config) -> tuple[str, ...]:
        """Let `config` answer from the next request on; those under way end as they began. The certificate's files are
        read anew.

        Returns the sections that only a restart can change; they stay as they are. Raises ConfigFault: the old
        certificate stays, or the old configuration.
        """
        if self.tls is not None:
            await asyncio.to_thread(self.tls.again)
        old = self.services
        kept = tuple(name for name in _FIXED if getattr(config, name) != getattr(old.config, name))
        await self.policies.reload(config.model_copy(update={name: getattr(old.config, name) for name in _FIXED}))
        await self.experiments.apply(rebuild=True)
        if self.services.state.keeper:
            tell(config)
        return kept


_FIXED = ("state_dir", "server", "store", "ledger", "otlp", "log")


@asynccontextmanager
async def running(
    config: Config,
    *,
    clock: Clock | None = None,
    randomness: Randomness | None = None,
    gate: Gate | None = None,
    crew: Crew | None = None,
) -> AsyncIterator[Running]:
    """Build, listen, and on leaving drain and close. `gate`: runs the suites that may block a promotion. `crew`: of the
    workers that this is one of.

    Raises ConfigFault: the state directory is in use or unusable, the certificate can't be read; OSError: the address
    can't be bound.
    """
    async with AsyncExitStack() as stack:
        held = await open_state(config, clock or SystemClock(), randomness or SystemRandomness(), stack, crew)
        if held.keeper:
            tell(config)
        runs = GateRuns(config.state_dir, held.clock)
        policies = await open_policies(config, held, stack, gate or runs.blocks)
        experiments = experiments_of(policies, held, config.state_dir / "experiments")
        await experiments.open()
        server = config.server
        tls = ServerTls(server.tls_cert, server.tls_key) if server.tls_cert and server.tls_key else None
        proxy = Running(policies, runs, experiments, tls)
        lanes = proxy.lanes
        admin = Admin(proxy)

        async def refused() -> web.StreamResponse:
            return not_http()

        async def own_or_relayed(request: web.BaseRequest) -> web.StreamResponse:
            own = await admin.handle(request)
            return own if own is not None else await lanes.lane(request).relay.handle(request)

        async def asked_by_model(request: web.BaseRequest) -> web.StreamResponse:
            lane, source = await lanes.lane_by_model(request)
            return await lane.relay.handle(request, source)

        def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            # aiohttp takes HTTP/0.9, which ends no request as others would, and codings that others take for others.
            if request.version.major != 1 or not well_coded(request):
                return refused()
            if not request.raw_path.startswith("/v1/"):
                return own_or_relayed(request)
            if lanes.by_model:
                return asked_by_model(request)
            return (lanes.lane(request) if lanes.divided else lanes.active).relay.handle(request)

        front = FrontServer(
            handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=server.keepalive_s,
            max_line_size=65_536,
            max_field_size=65_536,
        )
        runner = web.ServerRunner(front, handle_signals=False, shutdown_timeout=server.drain_s)
        await runner.setup()
        if crew is not None and crew.keeper:
            stack.push_async_callback(crew.peers.leave)  # once all is drained, before what was learnt is written
        stack.push_async_callback(drain, held.tasks, server.drain_s)
        stack.push_async_callback(policies.close)
        stack.push_async_callback(experiments.close)
        stack.push_async_callback(runner.cleanup)
        context = None if tls is None else tls.context
        if crew is None:
            site = web.TCPSite(runner, server.host, server.port, backlog=1024, reuse_address=True, ssl_context=context)
            await site.start()
            host, port = runner.addresses[0][:2]
        else:
            accepting = Accepting(crew, front, held.tasks, context)
            stack.push_async_callback(accepting.stop)
            accepting.start()
            host, port = crew.sockets[0].getsockname()[:2]
        scheme = "http" if tls is None else "https"
        proxy.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        if held.keeper:
            for watch in watched(proxy, held):
                stack.callback(watch.cancel)
        if admin.crew is not None:
            await admin.crew.join()
        yield proxy


def experiments_of(policies: Rollouts, held: State, folder: Path) -> Experiments:
    """Experiments of this process: with other replicas, where there are some, or as the keeper has them."""
    if not held.keeper:
        return FollowedExperiments(policies.lanes, policies, folder)
    if held.agreement is None:
        return Experiments(policies.lanes, policies, folder)
    from farthing.proxy.experiments_replicas import SharedExperiments

    return SharedExperiments(policies.lanes, policies, folder, held.agreement)


def watched(proxy: Running, held: State) -> tuple[asyncio.Task[None], ...]:
    """Gates run by themselves from now on, and students are trained anew."""
    models = ModelsServed()
    held.listeners.append(models.observe)

    async def back(why: str) -> None:
        await proxy.policies.roll_back(why=why)

    watch = GateWatch(proxy.gates, models, lambda: proxy.lanes.active.config, back, held.incidents)
    tasks = TaskGroup()
    return tasks.spawn(watch.watch(), "gates by themselves"), tasks.spawn(proxy.training.watch(), "student training")


async def open_policies(config: Config, held: State, stack: AsyncExitStack, gate: Gate | None) -> Rollouts:
    """The policy that was active last, and the roll-out that was under way: where the file has not been given another
    policy since; else the file's, which ends a roll-out."""
    book = (Book if held.keeper else ReadBook)(config.state_dir / "policies")
    declared, config = policy_version(unpinned(config)), await asyncio.to_thread(pinned, config)
    now_s, version = held.clock.now_s(), policy_version(config)
    standing = book.standing()
    known = None if standing is None else asdict(standing)
    book.keep(config, now_s, "from the file")
    if standing is None:
        standing = Standing(version, now_s, version)
        book.note(now_s, "started", version)
    elif why := standing.changed(declared, version):
        standing.rollout = None
        if standing.active != version:
            book.note(now_s, "started", version, standing.active, why)
            standing.take(version, now_s, why)
    elif standing.active != version:
        try:
            stored = book.find(standing.active)
            if stored is None:
                raise ConfigFault("its file is gone")
            config = with_sections(config, stored.given)
            standing.active = book.keep(config, now_s, standing.note).version  # newer defaults make it another one
            log.warning("another policy than the file's is active", active=standing.active, file=version)
        except ConfigFault as fault:
            log.error("the active policy can't be had; the file's is", active=standing.active, fault=str(fault))
            standing.take(version, now_s, "the one before can't be had any more")
    standing.file, standing.declared = version, declared
    lanes = Lanes(await build(config, held, stack), stack)
    for one in lanes.active.upstreams:
        one.probes.start()
    policies = (Rollouts if held.keeper else FollowedRollouts)(lanes, book, standing, gate)
    if standing.rollout is not None:
        await policies.resume(standing.rollout)
    if asdict(standing) != known:  # else it stands in the file; to write it waits for the disk
        book.save(standing)
    return policies


async def drain(tasks: TaskGroup, timeout_s: float) -> None:
    """Let what is under way end; say so where it had to be cut."""
    cut = await tasks.drain(timeout_s)
    if cut:
        log.warning("drained", cut=cut)
    await asyncio.sleep(0)
