"""Bare machines: the units of systemd are such that systemd takes them, and the example for Slurm works off a study."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from highnoon.shared.runtime.settings import load_settings
from tests.cluster import PERIODS, Cluster
from tests.support import eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
BATCH = DEPLOY / "slurm" / "workers.sbatch"
MOST_EXPOSED = 50
"""In tenths, of ten, as `systemd-analyze security` counts; an ordinary service without any protection has 96."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    """Where the installation would be, a Python that is there: systemd looks for it."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/highnoon/bin/python", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    # It also looks at units of this machine that ours is ordered after, which are not our business.
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_confined(unit: Path) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_credentials_of_a_unit_are_found_by_a_systemd_without_the_specifier_for_them(unit: Path) -> None:
    """Since 247 systemd has credentials, since 251 `%d`. The path is the one that systemd.exec(5) names."""
    text = unit.read_text()
    assert "=%d" not in text
    read = re.findall(r"_FILE=/run/credentials/%n/(\w+)", text)
    assert read == re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE) == ["database", "redis"]


def test_environment_file_of_the_docs_is_taken_and_has_what_the_unit_names(tmp_path: Path) -> None:
    written = (
        (DEPLOY.parent / "docs" / "machines.md").read_text().partition("worker.env <<'END'\n")[2].partition("END")[0]
    )
    environ = dict(line.split("=", 1) for line in written.splitlines())
    unit = (DEPLOY / "systemd" / "highnoon-worker.service").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", unit)) == {"WORKER_QUEUES", "WORKER_SLOTS"} <= environ.keys()

    passwords = re.findall(r"(HIGHNOON_\w+_FILE)=", unit)
    assert len(passwords) == 2
    _file(tmp_path / "password", "p")
    settings = load_settings({**environ, **dict.fromkeys(passwords, str(tmp_path / "password"))})
    assert settings.objectives == ("/srv/objectives/*",) and ":p@db.example.org" in str(settings.database_url)


def test_a_worker_is_given_longer_than_it_may_drain() -> None:
    settings = load_settings({})
    unit = (DEPLOY / "systemd" / "highnoon-worker.service").read_text()
    assert "KillMode=mixed" in unit, "the signal is for the agent alone"
    longest_s = settings.drain_s + 4 * settings.kill_grace_s + 5
    assert _number_after("TimeoutStopSec=", unit) > longest_s
    assert _number_after("--signal=TERM@", BATCH.read_text()) > longest_s


def test_a_drained_worker_is_not_started_again_and_a_failed_one_is() -> None:
    unit = (DEPLOY / "systemd" / "highnoon-worker.service").read_text()
    assert "\nRestart=on-failure\n" in unit and "\nWantedBy=multi-user.target\n" in unit


def _number_after(words: str, text: str) -> int:
    return int(text.partition(words)[2].split()[0])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this machine")
def test_shellcheck_finds_nothing_in_the_batch_script() -> None:
    done = subprocess.run(["shellcheck", "--severity=style", str(BATCH)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("cores", ["8", None])
def test_step_asks_for_the_cores_of_its_job_where_slurm_names_them(tmp_path: Path, cores: str | None) -> None:
    """Without `--cpus-per-task`, for instance in a job by `--ntasks`, Slurm sets no such variable."""
    _file(tmp_path / "srun", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    named = {} if cores is None else {"SLURM_CPUS_PER_TASK": cores}
    environ = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **named}
    done = subprocess.run(["bash", str(BATCH)], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = [] if cores is None else [f"--cpus-per-task={cores}"]
    program = f"{tmp_path}/highnoon/.venv/bin/python"
    assert done.stdout.splitlines()[: len(asked) + 2] == [*asked, program, "-m"]


def test_a_node_of_a_batch_system_works_off_a_study_and_gives_its_machine_back(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    # Given what docs/machines.md asks for: passwords in files, an installation below HOME, and a study that waits
    cluster = Cluster(postgres_url, redis_url, tmp_path)
    script = BATCH.read_text()
    for name, url, account in (
        (
            "postgres_worker",
            postgres_url.replace("+psycopg2", "", 1),
            "postgresql://highnoon_worker@db.example.org:5432/",
        ),
        ("redis_worker", redis_url, "redis://worker@db.example.org:6379/"),
    ):
        parts = urlsplit(url)
        assert account in script
        bare = f"{parts.scheme}://{parts.username + '@' if parts.username else ''}{parts.hostname}:{parts.port}/"
        script = script.replace(account, bare)
        _file(tmp_path / "highnoon" / "secrets" / name, f"{parts.password}\n")
    script = script.replace("/highnoon\n", urlsplit(postgres_url).path + "\n", 1)
    script = script.replace('"$HOME/projects/*"', '"*"')
    _file(tmp_path / "highnoon" / ".venv" / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    # As Slurm's since 22.05: a step gets one core unless it asks, whatever the job has.
    srun = '[ "$1" = --cpus-per-task="$SLURM_CPUS_PER_TASK" ] || exit 64; shift; exec "$@"'
    _file(tmp_path / "bin" / "srun", f"#!/bin/sh\n{srun}\n")
    _file(tmp_path / "workers.sbatch", script)
    try:
        cluster.start_coordinator()
        name = cluster.submit_here("good", 6, name="batch")

        # When Slurm runs the script
        with (tmp_path / "workers.log").open("w") as log:
            node = subprocess.Popen(
                ["bash", str(tmp_path / "workers.sbatch")],
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("HIGHNOON_")},
                    **{name: value for name, value in PERIODS.items() if name != "HIGHNOON_OBJECTIVES"},
                    "HOME": str(tmp_path),
                    "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                    "SLURM_JOB_ID": "7",
                    "SLURM_CPUS_PER_TASK": str(_number_after("--cpus-per-task=", script)),
                    "SLURM_TMPDIR": str(tmp_path),
                },
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        cluster.processes.append(node)

        # Then the node works the study off, and ends by itself
        with cluster.books() as books:
            books.wait_until_over(name)
            books.assert_balanced(name, 6)
        eventually(lambda: node.poll() is not None, 60, what="the node ends")
        assert node.returncode == 0, cluster.logs()
        assert (tmp_path / "highnoon-7").is_dir()
    finally:
        cluster.stop()


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o700)
