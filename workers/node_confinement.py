"""Whether the trials of this node are confined, and to what: from HIGHNOON_CONFINE_TRIALS, HIGHNOON_TRIAL_PATHS and
HIGHNOON_TRIAL_PORTS. `trial.confinement` enforces it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.secret_files import SECRET_FILES
from highnoon.shared.runtime.settings import Settings
from highnoon.workers.trial.confinement import Confinement, landlock_version, missing

_log = logging.getLogger("highnoon.workers.node_confinement")

_USUAL_PORTS = {"database_url": 5432, "redis_url": 6379}


def confinement_of(settings: Settings, environ: Mapping[str, str]) -> Confinement | None:
    """None where trials are not confined. Raises InvalidInput for what would not protect anything.

    With "auto" it logs what this kernel cannot enforce, and does the rest.
    """
    if settings.confine_trials == "off":
        return None
    lacks = missing()
    problems = [*_problems(settings), *_lacking(settings, lacks)]
    if problems:
        raise InvalidInput("environment", problems)
    if lacks:
        event(_log, "confinement_incomplete", level=logging.WARNING, lacks="; ".join(lacks))
    if landlock_version() == 0:
        return None
    secret = [os.path.abspath(environ[name]) for name in SECRET_FILES if environ.get(name)]  # noqa: PTH100
    denied = dict.fromkeys(path for known in (str(settings.home), *secret) for path in (known, os.path.realpath(known)))
    paths = tuple(os.path.abspath(Path(path).expanduser()) for path in settings.trial_paths)  # noqa: PTH100
    return Confinement(paths=paths, ports=settings.trial_ports, denied=tuple(denied))


def _lacking(settings: Settings, lacks: tuple[str, ...]) -> Iterator[Problem]:
    if lacks and settings.confine_trials == "require":
        hint = "Write auto to confine trials as far as this machine can."
        yield _problem("confine_trials", f"this machine cannot confine {'; '.join(lacks)}", "require", hint)


def _problems(settings: Settings) -> Iterator[Problem]:
    for path in settings.trial_paths:
        if not Path(path).expanduser().exists():
            yield _problem("trial_paths", "does not exist", path, "")
    for name, usual in _USUAL_PORTS.items():
        address = urlsplit(getattr(settings, name) or "")
        port = address.port or usual
        if port in settings.trial_ports:
            yield _problem("trial_ports", f"holds the port of {name}", port, "Trials must not reach it.")
        if not address.hostname and settings.confine_trials == "require":
            hint = "Give it an address with a host: a trial may connect to any unix socket."
            yield _problem(name, "is reached by a unix socket", None, hint)


def _problem(name: str, message: str, value: object, hint: str) -> Problem:
    return Problem(key=f"HIGHNOON_{name.upper()}", message=message, value=value, hint=hint)
