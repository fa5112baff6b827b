"""What an attempt ran in, beside its code: Python, packages, machine. Read once by each pool, for all its attempts."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
"""How many threads a library splits a sum between decides how it is rounded."""

_GIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """`content` is JSON: python, system, cpu, gpus, threads, packages (versions by name). `digest` names it."""

    digest: str
    content: Mapping[str, Any]

    @classmethod
    def here(cls, gpus: Iterable[str], environ: Mapping[str, str] = os.environ) -> EnvironmentRecord:
        """The record of this process, with these GPUs. About 0.1 s for 150 packages the first time; never raises."""
        content = {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpu": _cpu(),
            "gpus": list(gpus),
            "threads": {name: environ[name] for name in THREADS if name in environ},
            "packages": _packages(),
        }
        return cls(digest=_digest(content), content=content)


def packages_digest(content: Mapping[str, Any]) -> str:
    """Twelve characters that are the same for the same packages in the same versions."""
    return _digest(content.get("packages") or {})[:12]


def git_state(folder: Path) -> str | None:
    """The commit that a folder is checked out at, with `+` where its files differ; None outside of git.

    For a folder of the person who calls: git may run what its repository's configuration names.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def answer(*arguments: str) -> str:
        command = [git, "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
        environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, env=environ, check=True)
        return done.stdout.strip()

    try:
        commit = answer("rev-parse", "--verify", "HEAD")
        changed = answer("status", "--porcelain", "--", ".", ":(exclude,glob)**/__pycache__/**")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changed else commit if re.fullmatch("[0-9a-f]{40,64}", commit) else None


@cache
def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        try:
            read = distribution.metadata  # parsed at each access, also for `version`
            name, version = read["Name"], read["Version"]
        except Exception:  # noqa: S112 - what an interrupted installation has left
            continue
        if isinstance(name, str) and isinstance(version, str):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first on the path is imported
    return dict(sorted(found.items()))


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
