"""The manifests of deploy/kubernetes, without a cluster: their schemas, that they fit together, and KEDA's question."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import psycopg2.errors
import pytest
import yaml

from highnoon.coordinator.local.deployment import PASSWORDS
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.settings import load_settings
from tests.conftest import empty_database
from tests.deploy.custom_resources import SCHEMAS
from tests.ledger import Ledger
from tests.web import TOKEN, dashboard

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
RESOURCES: list[dict[str, Any]] = [
    resource
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for resource in yaml.safe_load_all(path.read_text())
]
PODS = ["coordinator", "webui", "worker-cpu", "worker-gpu"]


def _of(kind: str) -> dict[str, dict[str, Any]]:
    return {resource["metadata"]["name"]: resource for resource in RESOURCES if resource["kind"] == kind}


def _identify(resource: dict[str, Any]) -> str:
    return f"{resource['kind']}-{resource['metadata']['name']}"


@pytest.mark.parametrize("resource", RESOURCES, ids=_identify)
def test_every_manifest_fits_its_schema(resource: dict[str, Any]) -> None:
    """Kubernetes' own for what is its own, of the oldest release that we name and of the newest one known here."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    schema = SCHEMAS.get((resource["apiVersion"], resource["kind"]))
    if schema is not None:
        jsonschema.validate(resource, schema)
        return
    for version in ("1.33", kubernetes_validate.latest_version().rpartition(".")[0]):
        kubernetes_validate.validate(resource, version, strict=True)


def test_every_manifest_is_part_of_the_kustomization() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kustomize_puts_it_together() -> None:
    """Every image is one that the kustomization names, every pod gets the addresses that it generates."""
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    resources = list(yaml.safe_load_all(built.stdout))
    assert {resource["metadata"].get("namespace", "highnoon") for resource in resources} == {"highnoon"}
    generated = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "ConfigMap"}
    containers = [
        resource["spec"]["template"]["spec"]["containers"][0]
        for resource in resources
        if resource["kind"] == "Deployment"
    ]
    assert len(containers) == len(PODS)
    for container in containers:
        assert container["image"].startswith("registry.example.org/highnoon-")
        assert {source["configMapRef"]["name"] for source in container["envFrom"]} <= generated


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_confined(name: str) -> None:
    pod = _of("Deployment")[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert container["resources"]["limits"]["memory"] and container["livenessProbe"]
    # A second signal hands back at once what still runs: nothing may come before Kubernetes' own.
    assert "lifecycle" not in container
    settings = load_settings({})
    if name.startswith("worker"):
        assert pod["terminationGracePeriodSeconds"] > settings.drain_s + 4 * settings.kill_grace_s + 5


@pytest.mark.parametrize("name", PODS)
def test_every_secret_of_a_pod_is_made_by_init_deploy_and_handed_over_by_the_documentation(name: str) -> None:
    (secret,) = [v["secret"] for v in _of("Deployment")[name]["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    keys = {item["key"] for item in secret["items"]}
    handed_over = re.search(r"for name in ([a-z_ ]+); do", (ROOT / "docs" / "kubernetes.md").read_text())
    assert handed_over and keys <= set(handed_over[1].split()) <= set(PASSWORDS)


def test_what_is_scaled_and_watched_is_there() -> None:
    deployments, services = _of("Deployment"), _of("Service")
    for scaled in _of("ScaledObject").values():
        assert scaled["spec"]["scaleTargetRef"]["name"] in deployments
        # A number here would be set again by every `apply`, against KEDA.
        assert "replicas" not in deployments[scaled["spec"]["scaleTargetRef"]["name"]]["spec"]
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["authenticationRef"]["name"] in _of("TriggerAuthentication")
    for monitor in _of("ServiceMonitor").values():
        watched = [s for s in services.values() if _matches(monitor["spec"]["selector"], s["metadata"]["labels"])]
        assert watched and all(_has_port(s["spec"]["ports"], monitor["spec"]["endpoints"]) for s in watched)
    for monitor in _of("PodMonitor").values():
        templates = [deployment["spec"]["template"] for deployment in deployments.values()]
        seen = [t for t in templates if _matches(monitor["spec"]["selector"], t["metadata"]["labels"])]
        ports = [t["spec"]["containers"][0]["ports"] for t in seen]
        assert len(seen) == 2 and all(_has_port(there, monitor["spec"]["podMetricsEndpoints"]) for there in ports)


def test_monitors_name_the_jobs_that_alerts_and_dashboard_ask_for() -> None:
    """By default the operator names a job after its Service or PodMonitor."""
    prometheus = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text())
    named = [
        {rule["replacement"] for rule in endpoint.get("relabelings", []) if rule["targetLabel"] == "job"}
        for monitor in (*_of("ServiceMonitor").values(), *_of("PodMonitor").values())
        for endpoint in monitor["spec"].get("endpoints", monitor["spec"].get("podMetricsEndpoints"))
    ]
    assert named == [{scraped["job_name"]} for scraped in prometheus["scrape_configs"]]
    alerts = (ROOT / "deploy" / "monitoring" / "alerts.yml").read_text()
    assert set(re.findall(r'job="([^"]+)"', alerts)) == {"highnoon-coordinator"} <= set().union(*named)
    board = (ROOT / "deploy" / "monitoring" / "grafana-dashboard.json").read_text()
    patterns = re.findall(r'job=~\\"([^"\\]+)\\"', board)
    assert patterns and all(re.fullmatch(pattern, job) for pattern in patterns for job in set().union(*named))
    assert not re.search(r'job="', board.replace("\\", "")), "each job of the dashboard is asked for by a pattern"


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(asked["key"]) in asked["values"] for asked in selector.get("matchExpressions", [])
    )


def _has_port(ports: list[dict[str, Any]], endpoints: list[dict[str, Any]]) -> bool:
    return {endpoint["port"] for endpoint in endpoints} <= {port["name"] for port in ports}


# --- The dashboard behind an Ingress ----------------------------------------------------------------------------------

INGRESS = "127.0.0.2"
"""Not 127.0.0.1, which is trusted without a setting."""


@pytest.fixture
def webui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, Any], str]]:
    """The container of the dashboard, and the address of one that has its environment and names of its own."""
    (container,) = _of("Deployment")["webui"]["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        if not variable["name"].endswith("_FILE"):
            monkeypatch.setenv(variable["name"], variable["value"])
    environ = {"HIGHNOON_TOKEN": TOKEN, "HIGHNOON_WEBUI_HOSTS": "hpo.example.org"}
    (tmp_path / "studies.db").touch()
    with dashboard(f"sqlite:///{tmp_path / 'studies.db'}", tmp_path, host="0.0.0.0", environ=environ) as address:
        yield container, address


def test_probes_of_the_dashboard_pass_where_it_has_a_name(webui: tuple[dict[str, Any], str]) -> None:
    container, address = webui
    for name in ("livenessProbe", "readinessProbe"):
        asked = container[name]["httpGet"]
        # The kubelet sends the address of the pod where the probe names no host.
        headers = {"Host": "10.42.0.7:8000"} | {one["name"]: one["value"] for one in asked.get("httpHeaders", [])}
        answer = httpx.get(address + asked["path"], headers=headers)
        assert answer.status_code == 200, (name, answer.text)


def test_sessions_behind_an_ingress_with_tls_are_secure(webui: tuple[dict[str, Any], str]) -> None:
    _, address = webui
    headers = {"Host": "hpo.example.org", "Origin": "https://hpo.example.org", "X-Forwarded-Proto": "https"}
    with httpx.Client(base_url=address, transport=httpx.HTTPTransport(local_address=INGRESS)) as ingress:
        answer = ingress.post("/login", data={"token": TOKEN}, headers=headers)
    assert answer.status_code == 303, answer.text
    assert "Secure" in answer.headers["set-cookie"].split("; ")


# --- KEDA's question, on a real ledger --------------------------------------------------------------------------------


@contextmanager
def _keda(url: str) -> Iterator[psycopg2.extensions.cursor]:
    """As the account that docs/kubernetes.md makes for KEDA: its statements, from there."""
    statements = re.findall(r'-c "([^"]+)"', (ROOT / "docs" / "kubernetes.md").read_text())
    assert len(statements) == 4 and statements[0].startswith("CREATE ROLE highnoon_keda LOGIN PASSWORD '...'")
    admin = url.replace("+psycopg2", "", 1)
    with closing(psycopg2.connect(admin)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement.replace("DATABASE highnoon ", f"DATABASE {admin.rpartition('/')[2]} "))
        try:
            with closing(psycopg2.connect(admin, user="highnoon_keda", password="...")) as reader:
                reader.autocommit = True
                with reader.cursor() as reading:
                    yield reading
        finally:
            cursor.execute("DROP OWNED BY highnoon_keda")
            cursor.execute("DROP ROLE highnoon_keda")


def test_keda_counts_what_waits_and_what_runs_and_may_do_nothing_else(stack: Stack) -> None:
    with empty_database(stack) as url, closing(Ledger(url)) as ledger, _keda(url) as keda:
        for_cpus = ledger.study(5, name="for-cpus")
        paused = ledger.study(7, name="paused")
        ledger.start(ledger.tickets(paused)[0])
        ledger.studies.pause(paused.id)
        ledger.study(3, name="for-gpus", queue="gpu")
        ledger.start(ledger.tickets(for_cpus)[0])

        counted = {}
        for name, scaled in _of("ScaledObject").items():
            (trigger,) = scaled["spec"]["triggers"]
            keda.execute(trigger["metadata"]["query"])
            counted[name] = keda.fetchone()
        assert counted == {"worker-cpu": (6,), "worker-gpu": (3,)}, "what runs, and what may begin"

        for forbidden in (
            "SELECT * FROM hn_workers",
            "UPDATE hn_tickets SET state = 'waiting'",
            "CREATE TABLE x (y int)",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                keda.execute(forbidden)
