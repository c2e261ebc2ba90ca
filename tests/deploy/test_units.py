"""compose.yml, the Kubernetes manifests and the systemd unit: by their schemas, and what they say of farthing by it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from farthing.proxy.config import Config, load
from tests.fakes.proxying import proxied
from tests.fakes.upstream import scripted

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = [
    (path.name, value)
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for value in yaml.safe_load_all(path.read_text("utf-8"))
]
VERSIONS = ("1.33", "1.37")


def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text("utf-8"))
    return found


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [value for _, value in MANIFESTS if value["kind"] == kind]


def configured(environment: dict[str, str], file: Path) -> Config:
    """What farthing makes of it; an unknown key is an error."""
    return load(file, env=environment)


def test_compose_is_valid_by_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    ended = subprocess.run([*command, str(DEPLOY / "compose.yml")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_compose_names_only_what_it_has() -> None:
    found = composed()
    for name, service in found["services"].items():
        assert set(service.get("networks", ())) <= set(found["networks"])
        assert set(service.get("depends_on", ())) <= set(found["services"])
        for secret in service.get("secrets", ()):
            assert (secret if isinstance(secret, str) else secret["source"]) in found["secrets"]
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in found["volumes"], name
        assert service["cap_drop"] == ["ALL"]
        assert re.search(r":v?\d+\.\d+", service["image"]), "pinned"


def test_composes_farthings_start_with_what_they_are_given() -> None:
    for name in ("proxy1", "proxy2", "proxy3"):
        service = composed()["services"][name]
        environment = {
            key: re.sub(r"\$\{[^:}]*(:-([^}]*)|[^}]*)\}", r"\2", text) or "t"
            for key, text in service["environment"].items()
        }
        config = configured(environment, DEPLOY / "farthing.toml")
        assert config.store.url.get_secret_value() == "redis://valkey:6379/0"
        assert config.server.admin_token is not None
        assert int(service["stop_grace_period"].removesuffix("s")) > config.server.drain_s
        assert service["read_only"]
    volumes = [composed()["services"][f"proxy{n}"]["volumes"] for n in (1, 2, 3)]
    assert len({str(one) for one in volumes}) == 3, "each has its own state"


def test_nginx_and_prometheus_look_for_the_farthings_that_there_are() -> None:
    named = re.findall(r"^server (\w+):8080", (DEPLOY / "nginx" / "upstreams.conf").read_text("utf-8"), re.MULTILINE)
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"][0]
    assert named == [name for name in composed()["services"] if name.startswith("proxy")]
    assert scraped["static_configs"][0]["targets"] == [f"{name}:8080" for name in named]
    assert scraped["job_name"] == "farthing"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "value"), MANIFESTS, ids=[f"{name} {value['kind']}" for name, value in MANIFESTS])
def test_manifests_are_valid_by_kubernetes_own_schemas(name: str, value: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(value, version, strict=True)


def test_kustomize_is_given_files_that_exist_and_misses_none() -> None:
    found = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))
    assert set(found["resources"]) == {name for name, _ in MANIFESTS} - {"secret.example.yaml"}
    assert all((KUBERNETES / name).exists() for one in found["configMapGenerator"] for name in one["files"])


def test_labels_names_and_ports_of_the_manifests_fit_each_other() -> None:
    (replicas,) = of_kind("StatefulSet")
    spec = replicas["spec"]
    labels = spec["template"]["metadata"]["labels"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["selector"]["matchLabels"] == labels
    for service in of_kind("Service"):
        assert service["spec"]["selector"] == labels
        assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    assert spec["serviceName"] in {service["metadata"]["name"] for service in of_kind("Service")}
    assert of_kind("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"] == labels
    target = of_kind("HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", replicas["metadata"]["name"])
    keys = set(of_kind("Secret")[0]["stringData"])
    assert keys == {"secret", "admin-token"}
    volumes = {one["name"] for one in spec["template"]["spec"]["volumes"]}
    volumes |= {one["metadata"]["name"] for one in spec["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_a_pod_has_time_to_drain() -> None:
    config = configured({}, KUBERNETES / "farthing.toml")
    pod = of_kind("StatefulSet")[0]["spec"]["template"]["spec"]
    waits_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > waits_s + config.server.drain_s


async def test_probes_and_the_autoscalers_metric_are_real(tmp_path: Path) -> None:
    container = of_kind("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
    wanted = of_kind("HorizontalPodAutoscaler")[0]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert (await proxy.client.get(container[probe]["httpGet"]["path"])).status_code == 200
        metrics = (await proxy.client.get("/metrics")).text
    assert wanted in {family.name for family in text_string_to_metric_families(metrics)}


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed (Debian: apt install systemd)"
)
def test_systemd_understands_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "farthing.service").read_text("utf-8")
    shipped = "ExecStart=/opt/farthing/bin/farthing serve "
    assert shipped in unit
    (tmp_path / "farthing.service").write_text(unit.replace(shipped, f"ExecStart={sys.executable} -m farthing serve "))
    verify = ["systemd-analyze", "verify", str(tmp_path / "farthing.service")]
    verified = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    rate = ["systemd-analyze", "security", "--offline=true", str(tmp_path / "farthing.service")]
    rated = subprocess.run(rate, capture_output=True, text=True, check=False).stdout
    exposure = re.search(r"Overall exposure level for farthing.service: ([\d.]+)", rated)
    assert exposure is not None
    assert float(exposure[1]) < 2.0
