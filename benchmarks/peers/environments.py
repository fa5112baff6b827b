"""The environments of other programs, each below build/peers with its locked packages: they cannot share ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = ("hyperopt", "ray", "smac", "syne")


def python_of(name: str) -> str:
    """The interpreter of an environment; installs the packages of its lock file first where they are missing."""
    lock = HERE / f"{name}.txt"
    folder = ROOT / "build" / "peers" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if done.is_file() and done.read_text() == lock.read_text():
        return str(python)
    print(f"installing the packages of {lock.name} into {folder.relative_to(ROOT)}: some minutes", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
    subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
    done.write_text(lock.read_text())
    return str(python)
