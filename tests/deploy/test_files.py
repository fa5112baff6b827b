"""What the files of deploy/ promise, checked without any engine: nothing open, privileged or unlimited."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from highnoon.coordinator.local.deployment import PASSWORDS, REDIS_ACL
from highnoon.coordinator.service import HEALTH_FILE
from highnoon.shared.runtime.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].startswith("${HIGHNOON_UID:?")
    assert service["mem_limit"] == service["memswap_limit"] and service["cpus"]
    assert service["logging"]["options"]["max-size"] and service["logging"]["options"]["max-file"]
    assert "privileged" not in service and "network_mode" not in service


def test_only_pages_with_a_login_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"webui", "flower", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "profiles" not in service])
def test_every_service_has_a_health_check_that_starts_no_python(name: str) -> None:
    test = SERVICES[name]["healthcheck"]["test"]
    assert test[0] in ("CMD", "CMD-SHELL")
    assert "python" not in " ".join(test) and "celery" not in " ".join(test)


def test_health_checks_look_at_the_files_that_are_touched() -> None:
    assert f"-name {HEALTH_FILE} " in SERVICES["coordinator"]["healthcheck"]["test"][1]
    assert "/var/lib/highnoon/nodes -name health " in SERVICES["worker-cpu"]["healthcheck"]["test"][1]


def test_a_worker_is_given_longer_than_it_may_drain() -> None:
    settings = load_settings({})
    for name in ("worker-cpu", "worker-gpu"):
        grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.drain_s + 4 * settings.kill_grace_s + 5
        assert "container_name" not in SERVICES[name] and "ports" not in SERVICES[name], "it could not be scaled"
        assert "REMAP_SIGTERM" not in SERVICES[name]["environment"]


def test_each_secret_is_made_by_init_deploy_and_goes_to_those_who_need_it() -> None:
    assert set(COMPOSE["secrets"]) == {*PASSWORDS, REDIS_ACL}
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {
        f"./secrets/{name}" for name in COMPOSE["secrets"]
    }
    given = {name: set(service.get("secrets", [])) for name, service in SERVICES.items()}
    for name in ("worker-cpu", "worker-gpu"):
        assert given[name] == {"postgres_worker", "redis_worker", "metrics_token", "cluster_key"}
    assert [name for name, secrets in given.items() if "postgres_admin" in secrets] == ["postgres"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_environment_holds_a_secret(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    secrets = [key for key in environment if re.search("PASSWORD|TOKEN|SECRET|KEY", key)]
    assert all(key.endswith("_FILE") and environment[key].startswith("/run/secrets/") for key in secrets)
    assert all("@" not in value or re.search(r"://[a-z_]+@", value) for value in map(str, environment.values()))


LOCKS = [
    ROOT / "requirements.lock",
    *sorted(ROOT.glob("deploy/requirements/*.txt")),
    *sorted(ROOT.glob("examples/*/requirements.txt")),
]
_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;\\]+)(?: ;[^\\]*)?(?: --hash=sha256:[0-9a-f]{64})+")


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_is_one_version_with_its_hashes_and_comes_from_an_index(path: Path) -> None:
    """No address of a file or a repository, no private index, nothing that may be newer tomorrow."""
    lines = _requirements(path)
    assert lines and [line for line in lines if not _PIN.fullmatch(line)] == []


@pytest.mark.parametrize("path", LOCKS[1:], ids=lambda path: str(path.relative_to(ROOT)))
def test_images_have_the_versions_of_the_project(path: Path) -> None:
    project = _pins(LOCKS[0])
    strange = {name for name, versions in _pins(path).items() if name in project and not versions <= project[name]}
    # CUDA's libraries decide some versions of their own.
    assert path.stem == "gpu" or not strange, "run make lock"
    assert "tensorflow" not in _pins(DEPLOY / "requirements" / "control.txt")


def _requirements(path: Path) -> list[str]:
    """Each with its hashes in one line, without comments."""
    text = re.sub(r"^ *#.*\n", "", path.read_text(), flags=re.MULTILINE)
    return [re.sub(r"\s+", " ", line) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def _pins(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pin in filter(None, map(_PIN.match, _requirements(path))):
        found.setdefault(pin["name"], set()).add(pin["version"])
    return found


@pytest.mark.parametrize("compose", [["docker", "compose"], ["docker-compose"]], ids=" ".join)
def test_compose_itself_accepts_the_file(compose: list[str], tmp_path: Path) -> None:
    """By its own schema of the specification; asks no engine."""
    if shutil.which(compose[0]) is None or subprocess.run([*compose, "version"], capture_output=True).returncode != 0:
        pytest.skip(f"no {' '.join(compose)} on this machine")
    base = [*compose, "-f", str(DEPLOY / "compose.yaml"), "--profile", "gpu", "--profile", "monitoring"]
    (tmp_path / "env").write_text("HIGHNOON_UID=1\nHIGHNOON_GID=1\n")
    accepted = subprocess.run(
        [*base, "--env-file", str(tmp_path / "env"), "config", "--quiet"], capture_output=True, text=True
    )
    assert accepted.returncode == 0, accepted.stderr
    (tmp_path / "none").touch()
    refused = subprocess.run(
        [*base, "--env-file", str(tmp_path / "none"), "config", "--quiet"], capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "init-deploy" in refused.stderr
