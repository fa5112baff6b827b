"""What is shipped: the four rooms, pinned by hash from anywhere, and an SDK that imports no TensorFlow by itself."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
BESIDE_THE_LOCK = {"gp", "mlflow", "tensorboard", "wandb"}
"""PyTorch, and services that people run: nothing else of ours needs them, and a test of them skips without."""
PACKAGES = ("highnoon", "coordinator", "workers", "shared")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def locked() -> dict[str, list[str]]:
    """Each locked requirement with its hashes; a name may stand there once per Python version."""
    requirements: dict[str, list[str]] = {}
    entry = ""
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if re.match(r"[a-z0-9]", line):
            entry = line.removesuffix("\\").strip()
            requirements[entry] = []
        elif line.strip().startswith("--hash=sha256:"):
            requirements[entry].append(line)
    return requirements


NEWER_THAN_3_10 = {
    *("LiteralString", "Never", "NotRequired", "Required", "Self", "TypeVarTuple", "Unpack", "assert_never"),
    *("assert_type", "dataclass_transform", "override", "reveal_type", "TypeAliasType"),
}
"""What `typing` has had since 3.11 or later; typing_extensions has it for 3.10."""


def test_nothing_is_taken_from_typing_that_python_3_10_lacks() -> None:
    sources = [path for package in (*PACKAGES, "benchmarks", "tests") for path in (ROOT / package).rglob("*.py")]
    taken = [
        f"{path.relative_to(ROOT)}: {name.name}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
        for name in node.names
        if name.name in NEWER_THAN_3_10
    ]
    assert len(sources) > 300 and taken == []


def test_there_is_one_import_name_and_two_launchers(pyproject: dict[str, Any]) -> None:
    setuptools = pyproject["tool"]["setuptools"]

    assert setuptools["packages"]["find"]["include"] == ["highnoon*", "coordinator", "workers"]
    for name in ("coordinator", "workers"):
        folder = ROOT / setuptools["package-dir"][name]
        assert {path.name for path in folder.glob("*.py")} == {"__init__.py", "__main__.py"}
        assert (folder / "__main__.py").read_text() == (ROOT / name / "__main__.py").read_text()
    for name in ("coordinator", "workers", "shared"):
        assert (ROOT / "highnoon" / name).readlink() == Path("..", name)


def test_each_locked_requirement_is_one_version_with_hashes(locked: dict[str, list[str]]) -> None:
    assert len(locked) > 50
    assert [entry for entry in locked if not re.match(r"[a-z0-9.-]+==\S+", entry)] == []
    assert [entry for entry, hashes in locked.items() if not hashes] == []


def test_the_lock_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    assert (
        re.findall(r"\S+://\S*|file:\S*|^-(?:-index|-extra-index|-find-links|i|f)\S*|.* @ .*", text, re.MULTILINE) == []
    )


def test_the_lock_has_everything_that_the_project_asks_for(
    pyproject: dict[str, Any], locked: dict[str, list[str]]
) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    locked_extras = [requirements for extra, requirements in extras.items() if extra not in BESIDE_THE_LOCK]
    wanted = [*project["dependencies"], *chain.from_iterable(locked_extras)]
    names = {canonical(entry) for entry in locked}

    assert set(extras) > BESIDE_THE_LOCK
    assert {canonical(requirement) for requirement in wanted} - names == {canonical(project["name"])}


def test_each_command_leads_to_a_function(pyproject: dict[str, Any]) -> None:
    for target in pyproject["project"]["scripts"].values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_importing_the_sdk_imports_no_tensorflow() -> None:
    heavy = "{'tensorflow', 'keras', 'celery', 'sklearn'}"
    code = f"import sys, highnoon; print(sorted({heavy} & set(sys.modules)))"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert (said.stdout.strip(), said.stderr) == ("[]", "")


def canonical(requirement: str) -> str:
    name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
