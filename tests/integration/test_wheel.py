"""The wheel in an environment of its own, in a folder whose modules have the names of ours and of the library's."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]

STUDY = """
name = "in-the-users-folder"
objective = "train.py:objective"
n_trials = 2
sampler = "random"
[search_space]
x = ["uniform", 0.0, 1.0]
"""

TRAIN = """
import json, random, coordinator, shared, utils, workers
import highnoon as hn

def objective(params):
    assert {module.MINE for module in (json, random, coordinator, shared, utils, workers)} == {True}
    hn.report(params["x"], 0)
    return params["x"]
"""

IN_PROCESS = """
import shared, workers, coordinator, utils
import highnoon as hn

hpo = hn.HPOTrialManager("in-process", n_trials=2, sampler="random", storage="sqlite:///hpo.db")
hpo.optimize(lambda params: params["x"], {"x": ("uniform", 0.0, 1.0)})
print(len(hpo.trials), shared.MINE, workers.MINE, coordinator.MINE, utils.MINE)
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="highnoon-wheel-"))
    folder.chmod(0o711)  # for the account of root's database
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    """Built from a copy: the build leaves files beside its sources."""
    source = folder / "source"
    source.mkdir()
    for name in ("highnoon", "coordinator", "workers", "shared", "deploy/launchers"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(folder: Path, wheel: Path) -> Path:
    """The programs of an environment with the wheel and the packages of this one, but not this one's own HighNoon."""
    environment = folder / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)], folder)
    python = environment / "bin" / "python"
    run([*PIP, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], folder)
    # As a line of a .pth: what the .pth files in there name, such as an editable installation, is not followed.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "packages.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return environment / "bin"


def run(argv: list[str], folder: Path, **environ: str) -> str:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HIGHNOON_"))}
    done = subprocess.run(
        argv, cwd=folder, env={**cleared, **environ}, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def users_folder(folder: Path, *modules: str) -> Path:
    """With packages named as ours were, and modules named as the library's."""
    folder.mkdir()
    for name in ("shared", "workers", "coordinator", "utils"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("MINE = True")
    for name in modules:
        (folder / f"{name}.py").write_text("MINE = True")
    return folder


def test_the_wheel_holds_one_import_name_and_two_launchers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"highnoon", "coordinator", "workers"}
    beside = sorted(name for name in names if not name.startswith("highnoon/"))
    assert beside == [f"{name}/__{part}__.py" for name in ("coordinator", "workers") for part in ("init", "main")]
    assert "highnoon/shared/domain/study.py" in names and "highnoon/webui/templates/base.html" in names


def test_a_study_runs_in_process_beside_the_users_packages(programs: Path, folder: Path) -> None:
    mine = users_folder(folder / "in process")
    (mine / "script.py").write_text(IN_PROCESS)
    assert run([str(programs / "python"), "script.py"], mine) == "2 True True True True\n"


def test_the_commands_work_in_a_folder_with_any_names(programs: Path, folder: Path) -> None:
    mine = users_folder(folder / "a project", "json", "random", "rich")
    (mine / "study.toml").write_text(STUDY)
    (mine / "train.py").write_text(dedent(TRAIN))
    said = run([str(programs / "highnoon"), "start", "study.toml", "--workers", "1"], mine, HIGHNOON_PRELOAD="")
    assert "2/2" in said
    assert "in-the-users-folder" in run([str(programs / "highnoon"), "list"], mine)
    assert "--queues" in run([str(programs / "highnoon-workers"), "start", "--help"], mine)
    # Then `python -m` works where no package of the user's has that very name
    for name in ("workers", "coordinator"):
        shutil.rmtree(mine / name)
        assert "start" in run([str(programs / "python"), "-m", name, "--help"], mine)
