"""The real stack in real containers: scaled down and up in the middle of a study, one worker killed, nothing lost.

Needs a Docker engine, docker-compose (or the compose plugin), and HIGHNOON_TEST_BASE: a local image of Debian 12 with
python3, python3-venv and a way to the package indexes, for example

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm base
    rm -rf base/var/cache/apt/* base/var/lib/apt/lists/* base/usr/share/doc base/usr/share/locale base/usr/share/man
    tar -C base -c . | docker import - debian-python:bookworm

PostgreSQL and Redis then come from Debian as well (tests/deploy/images), so that no registry is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from highnoon.coordinator.local.deployment import prepare
from tests.stranger import Heard, family_of, hear, listeners
from tests.support import eventually

ROOT = Path(__file__).parents[2]
IMAGES = Path(__file__).with_name("images")
BASE = os.environ.get("HIGHNOON_TEST_BASE", "")
LARGEST_CONTROL_BYTES = 350_000_000
PORTS = {
    "postgres": (5432, Heard("postgresql")),
    "redis": (6379, Heard("redis")),
    "coordinator": (9464, Heard("http")),
    "worker-cpu": (9465, Heard("http")),
    "webui": (8000, Heard("http", frozenset({"/health", "/login"}))),
    "flower": (5555, Heard("http", frozenset({"/healthcheck"}))),
}
"""What listens in each service, and all that a neighbour in its network hears without a credential."""
ASKED = ("/hpo", "/api/hpo/studies", "/openapi.json", "/metrics", "/health", "/healthcheck", "/login", "/api/tasks")
TRIALS = 40

pytestmark = pytest.mark.timeout(3600)


def _why_not() -> str:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        return "no Docker engine answers here"
    if not _compose():
        return "neither docker-compose nor the plugin of docker is installed"
    return "" if BASE else "HIGHNOON_TEST_BASE names no local base image"


def _compose() -> list[str]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


@dataclass(frozen=True)
class Deployment:
    """deploy/ copied aside, with secrets of its own."""

    folder: Path

    def compose(self, *arguments: str) -> str:
        argv = [*_compose(), "--project-directory", str(self.folder / "deploy"), *arguments]
        done = subprocess.run(argv, cwd=self.folder / "deploy", env=self._environ(), capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def scale(self, workers: int) -> None:
        self.compose("up", "--detach", "--no-build", "--scale", f"worker-cpu={workers}")

    def coordinator(self, *arguments: str) -> str:
        return self.compose("exec", "-T", "coordinator", "python", "-m", "coordinator", *arguments)

    def closed(self) -> int:
        counted = "select count(*) from hn_tickets where state = 'closed'"
        return int(self.sql(counted))

    def sql(self, statement: str) -> str:
        password = (self.folder / "deploy" / "secrets" / "postgres_coordinator").read_text().strip()
        address = f"postgresql://highnoon_coordinator:{password}@127.0.0.1/highnoon"
        return self.compose("exec", "-T", "postgres", "psql", "-At", address, "-c", statement).strip()

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": "highnoon-test",
            "DOCKER_BUILDKIT": "0",
            "BASE": BASE,
            "POSTGRES_IMAGE": "highnoon-test-postgres",
            "REDIS_IMAGE": "highnoon-test-redis",
            "WEBUI_PORT": "18000",
            "FLOWER_PORT": "15555",
        }


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    why_not = _why_not()
    if why_not:
        pytest.skip(why_not)
    for name in ("postgres", "redis"):
        _docker(
            "build",
            "-f",
            str(IMAGES / f"{name}.Dockerfile"),
            "--build-arg",
            f"BASE={BASE}",
            "-t",
            f"highnoon-test-{name}",
            str(IMAGES),
        )
    folder = tmp_path_factory.mktemp("deployment")
    ignored = shutil.ignore_patterns(".git", ".venv", ".highnoon", "__pycache__", "secrets", ".env", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    prepare(folder / "deploy")
    found = Deployment(folder)
    try:
        found.compose("build")
        found.scale(3)
        yield found
    finally:
        found.compose("down", "--volumes", "--timeout", "10")


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, env={**os.environ, "DOCKER_BUILDKIT": "0"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def test_images_are_small(deployment: Deployment) -> None:
    sizes = {
        name: int(_docker("image", "inspect", "-f", "{{.Size}}", name))
        for name in ("highnoon-control", "highnoon-worker")
    }
    print({name: f"{size / 1e6:.0f} MB" for name, size in sizes.items()})
    assert sizes["highnoon-control"] <= LARGEST_CONTROL_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="looking into the containers' sockets needs root")
def test_no_port_of_any_container_answers_a_stranger(deployment: Deployment) -> None:
    deployment.coordinator("doctor")
    found = set()
    for container in deployment.compose("ps", "-q").split():
        (inspected,) = json.loads(_docker("inspect", container))
        service = inspected["Config"]["Labels"]["com.docker.compose.service"]
        port, expected = PORTS[service]
        listening = listeners(family_of(inspected["State"]["Pid"]))
        assert {there.port for there in listening} == {port}, service
        for network in inspected["NetworkSettings"]["Networks"].values():
            assert hear(network["IPAddress"], port, ASKED) == expected, service
        found.add(service)
    assert found == set(PORTS)


def test_a_study_survives_scaling_and_a_killed_container(deployment: Deployment) -> None:
    deployment.coordinator("submit", "/project/study.toml", "--n-trials", str(TRIALS))
    eventually(lambda: deployment.closed() >= 3, 300, what="three workers have begun")
    deployment.scale(1)
    deployment.scale(4)
    eventually(lambda: deployment.closed() >= TRIALS // 2, 600, what="half of it is done")
    _docker("kill", deployment.compose("ps", "-q", "worker-cpu").split()[0])
    eventually(lambda: deployment.closed() == TRIALS, 900, what="every trial is closed")

    assert deployment.sql("select state from hn_studies") == "finished"
    assert deployment.sql("select count(distinct trial_number) from hn_tickets") == str(TRIALS)
    said = deployment.compose("logs", "--no-color")
    assert "NOPERM" not in said and "permission denied" not in said.lower()
