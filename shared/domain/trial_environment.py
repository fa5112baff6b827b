"""Environment variables that a study sets for its trials: which it may set, which libraries read when imported.

And the attributes that name what a trial ran in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.scalars import is_storable

ENVIRONMENT, HOST, GIT = "highnoon:environment", "highnoon:host", "highnoon:git"
"""Attributes of a trial that no coordinator runs: the digest of what it ran in, where, and the commit of its code."""

MOST_VARIABLES = 100
LONGEST_VALUE = 10_000

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECIDES_WHAT_RUNS = re.compile(
    r"HIGHNOON_.*|LD_.*|DYLD_.*|PYTHON.*|GCONV_PATH|PATH|HOME|SHELL|ENV|BASH_ENV|IFS|TMPDIR|.*_VISIBLE_DEVICES"
)
"""An allow-list of objectives would be worth little beside them, and devices are given out by the worker."""

_IS_READ_AT_IMPORT = re.compile(r"(KERAS|TF|XLA|JAX|OMP|MKL|KMP|OPENBLAS|BLIS)_.*|.*_NUM_THREADS")
_IS_READ_LATER = re.compile(r"(TF_CPP|TF_FORCE_GPU|TF_GPU)_.*")
"""Or, as TensorFlow's log level, not worth the slow start of each trial."""

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY|_KEY$", re.IGNORECASE)


def environment_problems(written: object) -> list[Problem]:
    """Every mistake in the table `environment` of a study."""
    key = "environment"
    if not isinstance(written, Mapping) or not all(isinstance(name, str) for name in written):
        hint = 'Write for example environment = {OMP_NUM_THREADS = "1"}.'
        return [Problem(key=key, message="must be a table of variables", value=written, hint=hint)]
    if len(written) > MOST_VARIABLES:
        return [Problem(key=key, message=f"has {len(written)} variables, and {MOST_VARIABLES} at most are possible")]
    problems = []
    for name, value in written.items():
        if not _NAME.fullmatch(name):
            message = "is no name of a variable: letters, digits and underscores"
            problems.append(Problem(key=f"{key}.{name}", message=message))
        elif _DECIDES_WHAT_RUNS.fullmatch(name):
            message = "decides which code runs or on which devices; it is set where the worker is started"
            problems.append(Problem(key=f"{key}.{name}", message=message, value=value))
        elif not isinstance(value, str):
            hint = f'Write "{str(value).lower()}".' if isinstance(value, bool | int | float) else ""
            problems.append(Problem(key=f"{key}.{name}", message="must be text", value=value, hint=hint))
        elif len(value) > LONGEST_VALUE or not is_storable(value):
            message = f"must be text of at most {LONGEST_VALUE:,} characters without zero bytes"
            problems.append(Problem(key=f"{key}.{name}", message=message, value=value))
    return problems


def read_at_import(names: Iterable[str]) -> tuple[str, ...]:
    """Those that libraries read when they are imported: a forked trial, which has them already, would ignore these."""
    found = (name for name in names if _IS_READ_AT_IMPORT.fullmatch(name) and not _IS_READ_LATER.fullmatch(name))
    return tuple(dict.fromkeys(found))


def secrets_in(environment: Mapping[str, str]) -> str:
    """A warning for names that look like secrets' names; empty without any."""
    names = [name for name in environment if _SECRET.search(name)]
    if not names:
        return ""
    it = "is" if len(names) == 1 else "are"
    return (
        f"environment: {', '.join(names)} {it} stored with the study, where everyone who reads the database or the "
        "dashboard finds it. Set a secret where the workers are started"
    )
