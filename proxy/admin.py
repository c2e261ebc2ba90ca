"""farthing's own paths: health, metrics, dashboard, admin calls. Everything else is proxied.

The admin paths are open to loopback only, unless a token is set. A browser page of another site must not reach them
through the user's machine: the Host must be a loopback name too (DNS rebinding), and what changes state needs a
header that no cross-site form can send.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from yarl import URL

from farthing.cache.store import StoreStats
from farthing.proxy import (
    capture_admin,
    defer_api,
    erasing,
    experiment_admin,
    feedback,
    policy_admin,
    pool_admin,
    semantic_admin,
    spend_admin,
    student_admin,
    watch_admin,
)
from farthing.proxy.admin_log import FILE, AdminLog
from farthing.proxy.errors import ClientFault, FarthingError, error_body
from farthing.proxy.forwarded import Trusted
from farthing.proxy.gates_by_themselves import shown
from farthing.proxy.gauges import gauges
from farthing.proxy.health import health
from farthing.proxy.metrics_push import of_all
from farthing.proxy.purge import purge
from farthing.proxy.store_asked import StoreAsked
from farthing.proxy.version import version
from farthing.proxy.wire import host_of

if TYPE_CHECKING:
    from farthing.proxy.admin_crew import CrewAdmin
    from farthing.proxy.app import Running
    from farthing.proxy.crew import Crew
    from farthing.proxy.dashboard import Dashboard
    from farthing.proxy.figures_routes import Declared

__all__ = ["Admin"]

_SECURITY = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
# What proxies add, and all that begins with X-Forwarded: it isn't from this machine then.
_FORWARDED = frozenset(
    {
        "cf-connecting-ip",
        "cf-ray",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-azure-clientip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-original-host",
        "x-real-ip",
    }
)
# RFC 9110, 7.2: a host and a port, and nothing that a URL might hold beside them.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-]+)(?::[0-9]{0,5})?")
_MAX_ADMIN_BODY = 64 * 1024
_MAX_ASKED = 16 * 2**20
_ASKED = {
    "/farthing/api/cache/explain": semantic_admin.explain,
    "/farthing/api/cache/purge": purge,
    "/farthing/api/capture/erase": capture_admin.erase,
    "/farthing/api/erase": erasing.erase,
    "/farthing/api/feedback": feedback.give,
    "/farthing/api/replicas/drain": pool_admin.drain,
    "/farthing/api/watch/rebase": watch_admin.rebase,
}
_ASKED_OF_ALL = {
    "/farthing/api/experiments/stop": experiment_admin.stop,
    "/farthing/api/policy/promote": policy_admin.promote,
    "/farthing/api/policy/rollback": policy_admin.roll_back,
}
_SWITCHES = ("/farthing/api/policy/off", "/farthing/api/policy/on")
_RECORDED = frozenset({*_ASKED, *_ASKED_OF_ALL, *_SWITCHES}) - {"/farthing/api/cache/explain", "/farthing/api/feedback"}
_TOLD = {"/farthing/api/semantic/lately": semantic_admin.lately, "/farthing/api/feedback": feedback.told}


class Admin:
    """Answers farthing's own paths."""

    def __init__(self, proxy: Running) -> None:
        self._proxy = proxy
        services = proxy.services
        self._held = services.state
        self._dashboard: Dashboard | None = None
        self._store: StoreStats | None = None
        self._store_asked = StoreAsked(self._held.store, self._held.clock, self._held.tasks)
        self._trusted = Trusted(services.config.server.trusted_proxies)
        self._log = AdminLog(services.config.state_dir / FILE, self._held.clock, self._held.secret)
        self._held.metrics.watch(self.gauges)
        crew = self._held.crew
        self.crew = None if crew is None else self._with_others(crew)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """The answer, or None where the path is not ours."""
        path = request.raw_path.partition("?")[0]
        if path == "/healthz":
            return _json(200, {"status": "ok"})
        if path == "/readyz":
            return await self._ready(request)
        if path == "/metrics":
            return self._allow(request) or await self._metrics()
        if path == defer_api.PATH or path.startswith(f"{defer_api.PATH}/"):
            return await defer_api.deferred(self._proxy.services, request, path)  # clients', not the operator's
        if path == "/farthing" or path.startswith("/farthing/"):
            # With a token the page itself holds no figures and must load, so that one can type the token into it.
            open_page = self._proxy.services.config.server.admin_token is not None and not path.startswith(
                "/farthing/api/"
            )
            refusal = None if open_page else self._allow(request)
            return refusal or await self._own(request, path)
        return None

    def state(self) -> dict[str, Any]:
        """What is on, for the dashboard and /readyz. No secrets, but addresses: for who may see these."""
        services = self._proxy.services
        config = services.config
        return {
            "version": version(),
            "upstream": host_of(config.upstream.url),
            "upstream_name": config.upstream.name,
            "replicas": pool_admin.told(services),
            "simulated": config.upstream.name == "simulated",
            "exact": config.cache.mode,
            "semantic": config.semantic.shown,
            "semantic_ready": services.thread is not None and services.thread.loaded,
            "semantic_entries": services.thread.entries if services.thread else 0,
            "semantic_shared": services.thread.shared.told() if services.thread and services.thread.shared else None,
            "tidy": config.compress.tidy,
            "recode": config.compress.shown["recode"],
            "squeeze": config.compress.shown["squeeze"],
            "capture": capture_admin.shown(services),
            "switched_off": self._held.switch(),
            "config_id": config.id,
            "in_flight": self._held.in_flight.here,
            "policy": self._proxy.policies.standing.active,
            "ledger": "off" if self._held.ledger is None else "ok" if self._held.ledger.healthy else "degraded",
            "usage_drift": [
                model for model, ratio in self._held.drift.ratios(self._held.clock.now_s()).items() if ratio.alarm
            ],
            "ledger_aside": [] if self._held.ledger is None else [*self._held.ledger.aside],
            "ledger_dropped": 0 if self._held.ledger is None else self._held.ledger.dropped,
        }

    def _with_others(self, crew: Crew) -> CrewAdmin:
        from farthing.proxy.admin_crew import CrewAdmin

        return CrewAdmin(crew, lambda: self._proxy.services, self._here)

    async def _pages(self) -> Dashboard:
        """The dashboard. What it takes is imported, and its files are read, when somebody first asks: most processes
        are never asked."""
        if self._dashboard is None:
            made = await asyncio.to_thread(self._made_pages)
            self._dashboard = self._dashboard or made
        return self._dashboard

    def _made_pages(self) -> Dashboard:
        from farthing.proxy.dashboard import Dashboard

        ledger = self._proxy.services.config.state_dir / "ledger.db"
        return Dashboard(ledger, self._held.clock, self.state, self.texts, self.declared, waiting=self.waiting)

    async def waiting(self) -> dict[str, Any] | None:
        """Of deferred requests; sums of money, which are for who may see the ledger. None where nothing is deferred."""
        return None if self._held.deferred is None else await self._held.deferred.standing()

    async def texts(self, last: Sequence[tuple[str, float]]) -> dict[str, str]:
        """The prompts behind keys: near-duplicates' where they may be shown, else the capture store's."""
        services = self._proxy.services
        known = await semantic_admin.texts(services, [key for key, _ in last])
        return {**known, **await capture_admin.texts(services, [each for each in last if each[0] not in known])}

    def declared(self) -> Declared:
        """The routes and variants in force."""
        from farthing.proxy.figures_routes import Declared

        config = self._proxy.services.config
        routes = tuple((one.name, one.mode, one.strategy) for one in config.routes)
        routing = self._proxy.services.routing
        variants = tuple(one.name for one in config.variants)
        if routing is None:
            return Declared(routes, variants)
        return Declared(routes, variants, routing.bounds(), routing.plain_of_routes())

    def gauges(self) -> dict[str, float]:
        """Values of this moment for /metrics, by metric name without prefix."""
        found = gauges(self._proxy.services, self._store) | policy_admin.gauges(self._proxy)
        return found | student_admin.gauges(self._proxy) | experiment_admin.gauges(self._proxy)

    async def _metrics(self) -> web.Response:
        try:
            self._store = await self._held.store.stats()
        except FarthingError:
            self._store = None
        metrics, crew = self._held.metrics, self._held.crew
        body = metrics.render() if crew is None else await of_all(metrics, crew.peers, keeper=crew.keeper)
        return web.Response(body=body, headers={"Content-Type": metrics.content_type})

    async def _ready(self, request: web.BaseRequest) -> web.Response:
        """Whether requests should come here. The upstream's state does not fail it: hits can still be served.

        Balancers ask without a token, so anybody may; who may not see the operator's pages is told which parts aren't
        well, and no more, and the store isn't asked for them: a flood of these must not take look-ups' places.
        """
        held, body = self._held, dict[str, Any]()
        well = held.store.healthy
        if self._allow(request) is None:
            body = self.state()
            body["store"] = await self._told_of_store()
            well = body["store"]["healthy"]
        ledger = held.ledger
        parts = {
            "store": well,
            "ledger": ledger is None or ledger.healthy,
            "ledger_aside": ledger is None or not ledger.aside,
        }
        body["degraded"] = [part for part, is_well in parts.items() if not is_well]
        body["status"] = "degraded" if body["degraded"] else "ready"
        return _json(200, body)

    async def _told_of_store(self) -> dict[str, Any]:
        try:
            stats = await self._store_asked.stats()
        except FarthingError as error:
            return {"healthy": False, "error": str(error)}
        return {"kind": stats.kind, "entries": stats.entries, "healthy": stats.healthy}

    def _allow(self, request: web.BaseRequest) -> web.Response | None:
        """None where the caller may; else the refusal."""
        token = self._proxy.services.config.server.admin_token
        if token is not None:
            shown = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            if hmac.compare_digest(shown.encode(errors="surrogateescape"), token.get_secret_value().encode()):
                return None
            return _refusal(401, "this needs the admin token (Authorization: Bearer ...)", "admin_token")
        try:
            named = _HOST.fullmatch(request.headers.get("Host", ""))
            host = named[1].lower() if named else ""
            local = ipaddress.ip_address(self._client(request)).is_loopback
        except ValueError:
            host, local = "", False
        if local and host in _LOOPBACK_NAMES:
            return None
        return _refusal(403, "only this machine may see this page; set server.admin_token to open it", "loopback_only")

    def _client(self, request: web.BaseRequest) -> str:
        """The address at the other end; '' where reverse proxies that aren't trusted, or say nothing, hide it."""
        names = [name.lower().replace("_", "-") for name in request.headers]
        through = any(name.startswith("x-forwarded") or name in _FORWARDED for name in names)
        return self._trusted.client_of(
            request.remote or "", request.headers.getall("X-Forwarded-For", ()), through=through
        )

    async def _own(self, request: web.BaseRequest, path: str) -> web.Response:
        if request.method == "POST":
            return await self._change(request, path)
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "only GET, HEAD and POST are understood here", "method_not_allowed")
        try:
            if self.crew is not None and self.crew.elsewhere(path):
                return _answered(*await self.crew.of_keeper(("GET", request.raw_path, {})))
            found = await self._told(path, request.raw_path)
        except ClientFault as fault:
            return _refusal(fault.status, fault.message, fault.code)
        if found is not None:
            return _json(200, found)
        query = dict(URL(request.raw_path, encoded=True).query)
        page = await (await self._pages()).handle(request.method, path, query)
        if page is None:
            return _refusal(404, f"there is no {path}", "not_found")
        status, kind, body = page
        return web.Response(status=status, body=body, headers={**_SECURITY, "Content-Type": kind})

    async def _told(self, path: str, raw_path: str) -> Any:
        """What is told at this path; None where it isn't one of these. Raises ClientFault."""
        services = self._proxy.services
        query = dict(URL(raw_path, encoded=True).query)
        match path:
            case "/farthing/api/semantic":
                return await semantic_admin.routes(services)
            case "/farthing/api/replicas":
                return {"replicas": pool_admin.told(services)}
            case "/farthing/api/gates":
                return shown(self._proxy.gates)
            case "/farthing/api/capture":
                return await capture_admin.told(services)
            case "/farthing/api/compress":
                pages = await self._pages()
                from farthing.proxy import compress_admin  # which tells the dashboard's figures

                return await compress_admin.told(services, pages)
            case "/farthing/api/budgets":
                return await spend_admin.budgets(services)
            case "/farthing/api/keys":
                return spend_admin.keys(services)
            case "/farthing/api/watch":
                return await watch_admin.told(services)
            case "/farthing/api/levels":
                return self._held.levels.told()
            case "/farthing/api/health":
                return await health(services)
            case "/farthing/api/policy":
                return await policy_admin.told(self._proxy)
            case "/farthing/api/experiments":
                return experiment_admin.told(self._proxy)
            case "/farthing/api/students":
                return student_admin.told(self._proxy)
            case "/farthing/api/openapi.json":
                return await asyncio.to_thread(_described)
            case "/farthing/api/incidents":
                return policy_admin.incidents(self._proxy, query)
        return await _TOLD[path](services, query) if path in _TOLD else None

    async def _change(self, request: web.BaseRequest, path: str) -> web.Response:
        if request.headers.get("x-farthing-admin") != "1":
            return _refusal(403, "calls that change something need the header x-farthing-admin: 1", "admin_header")
        asked: dict[str, Any] = {}
        try:
            if path not in _SWITCHES:  # which work whatever is sent along
                asked = _object(orjson.loads(await request.content.read(_MAX_ASKED) or b"{}"))
            answer = await self._changed(path, asked)
        except ClientFault as fault:
            answer = _refusal(fault.status, fault.message, fault.code)
        except (ValueError, TypeError):
            answer = _refusal(400, "the body must be a JSON object", "invalid_request")
        except FarthingError as fault:
            answer = _refusal(503, str(fault), "unavailable")
        if path in _RECORDED:
            who = "loopback" if self._proxy.services.config.server.admin_token is None else "token"
            address = self._client(request) or request.remote or ""
            await self._log.note(who, address, path.removeprefix("/farthing/api/"), asked, answer.status)
        return answer

    async def _changed(self, path: str, asked: dict[str, Any]) -> web.Response:
        if self.crew is not None and self.crew.elsewhere(path):
            return _answered(*await self.crew.of_keeper(("POST", path, asked)))
        if self.crew is not None and self.crew.is_everywhere(path):
            return _json(200, await self.crew.everywhere(path, asked))
        return _answered(*await self._done(path, asked))

    async def _done(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        """Do it in this process. Raises FarthingError, and ValueError or TypeError where it can't be understood."""
        if path in _SWITCHES:
            return 200, await policy_admin.switched(self._proxy, off=path.endswith("off"))
        if path in _ASKED_OF_ALL:
            return 200, await _ASKED_OF_ALL[path](self._proxy, asked)
        if path in _ASKED:
            return 200, await _ASKED[path](self._proxy.services, asked)
        if path == "/farthing/api/cache/stats":
            stats = await self._held.store.stats()
            shown: dict[str, Any] = {name: getattr(stats, name) for name in stats.__slots__}
            return 200, shown | {"key_ids": list(self._held.key_ids)}
        return 404, {"fault": f"there is no {path}", "code": "not_found"}

    async def _here(self, method: str, raw_path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        """What another worker was asked, and this one answers."""
        path = raw_path.partition("?")[0]
        try:
            return (200, await self._told(path, raw_path)) if method == "GET" else await self._done(path, asked)
        except (ValueError, TypeError):
            raise ClientFault("the body must be a JSON object") from None


def _described() -> dict[str, Any]:
    from farthing.proxy.openapi import document

    return document(version())


def _answered(status: int, told: Any) -> web.Response:
    """What was told; of a refusal in another process, the words and the code."""
    return _json(status, told) if status == 200 else _refusal(status, told["fault"], told["code"])


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ClientFault("the body must be a JSON object")
    return value


def _json(status: int, value: Any) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(value), headers={**_SECURITY, "Content-Type": "application/json"}
    )


def _refusal(status: int, message: str, code: str) -> web.Response:
    body = error_body(message, kind="invalid_request_error", code=code)
    return web.Response(status=status, body=body, headers={**_SECURITY, "Content-Type": "application/json"})
