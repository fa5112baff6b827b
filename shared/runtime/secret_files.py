"""Secrets in files: a deployment's, as Compose, Kubernetes and systemd hand them over, and tokens of our own.

Turns each `..._FILE` variable into its value: a password inside an address, or a token. Owns the list of what is secret
and the reading of the files; the settings check what a token or an address must look like. A token of our own is long,
kept in a file for its owner alone, and the same at every start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from highnoon.shared.domain.errors import InvalidInput, Problem

SHORTEST_TOKEN = 16

PASSWORD_OF = {
    "HIGHNOON_DATABASE_PASSWORD_FILE": "HIGHNOON_DATABASE_URL",
    "HIGHNOON_REDIS_PASSWORD_FILE": "HIGHNOON_REDIS_URL",
}
"""The file holds the password of an address that is written without one."""

WHOLE_VALUE_OF = {
    "HIGHNOON_TOKEN_FILE": "HIGHNOON_TOKEN",
    "HIGHNOON_WEBUI_VIEWER_TOKEN_FILE": "HIGHNOON_WEBUI_VIEWER_TOKEN",
    "HIGHNOON_WEBUI_TOKENS_FILE": "HIGHNOON_WEBUI_TOKENS",
    "HIGHNOON_FLOWER_PASSWORD_FILE": "HIGHNOON_FLOWER_PASSWORD",
    "HIGHNOON_METRICS_TOKEN_FILE": "HIGHNOON_METRICS_TOKEN",
    "HIGHNOON_CLUSTER_KEY_FILE": "HIGHNOON_CLUSTER_KEY",
    "HIGHNOON_NOTIFY_KEY_FILE": "HIGHNOON_NOTIFY_KEY",
    "HIGHNOON_ARTIFACTS_OPTIONS_FILE": "HIGHNOON_ARTIFACTS_OPTIONS",
}
"""The file holds all of it."""

SECRET_FILES = (*PASSWORD_OF, *WHOLE_VALUE_OF)

SECRET_VARIABLES = (
    *PASSWORD_OF.values(),
    *WHOLE_VALUE_OF.values(),
    *SECRET_FILES,
    "HIGHNOON_DB_URL",
    "HIGHNOON_ARTIFACTS_URL",
    "OPTUNA_STORAGE",
    "PGPASSWORD",
)
"""No process that runs code of users has them in its environment, and the settings among them are never shown."""


def with_secret_files(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """The environment as if every secret stood in it, without the variables that name files; and all mistakes."""
    environment = {name: value for name, value in environ.items() if name not in SECRET_FILES}
    problems: list[Problem] = []
    for name in SECRET_FILES:
        if not environ.get(name):
            continue
        secret = _read(name, environ[name])
        problem = secret if isinstance(secret, Problem) else _place(name, secret, environment)
        if problem is not None:
            problems.append(problem)
    return environment, problems


def _read(name: str, path: str) -> str | Problem:
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        hint = "python -m coordinator init-deploy makes the secrets of deploy/."
        return Problem(key=name, message=f"cannot be read ({error})", value=path, hint=hint)
    return secret or Problem(key=name, message="the file is empty", value=path)


def _place(name: str, secret: str, environment: dict[str, str]) -> Problem | None:
    """Writes the secret where it belongs, never over another one."""
    target = WHOLE_VALUE_OF.get(name) or PASSWORD_OF[name]
    if name in WHOLE_VALUE_OF:
        if environment.get(target):
            return Problem(key=name, message=f"and {target} are both set", hint="Set only one of the two.")
        environment[target] = secret
        return None
    scheme, separator, rest = environment.get(target, "").partition("://")
    if not separator:
        return Problem(key=name, message=f"is set, but no address in {target}", hint="Name the address there.")
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    if ":" in user:
        return Problem(key=name, message=f"is set, and {target} has a password too", hint="Take it out of the address.")
    environment[target] = f"{scheme}://{user}:{quote(secret, safe='')}@{host}{slash}{path}"
    return None


def kept_token(path: Path, *, remedy: str) -> tuple[str, bool]:
    """The token of that file, and whether it was made just now. Raises InvalidInput for a file that cannot be used."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            token = path.read_text(encoding="ascii").strip()
            if len(token) >= SHORTEST_TOKEN:
                path.chmod(0o600)
                return token, False
            path.unlink()
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(draft, path)  # whole, and never over one that another process has just made
            return draft.read_text().strip(), True
        except FileExistsError:
            return path.read_text().strip(), False
        finally:
            draft.unlink()
    except (OSError, ValueError) as error:
        raise InvalidInput.of("settings", str(path), f"cannot be used ({error})", hint=remedy) from None
