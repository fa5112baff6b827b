"""Secrets that we make ourselves: long, kept in a file for its owner alone, the same at every start."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, Problem

SHORTEST_TOKEN = 16


def kept_token(path: Path, *, remedy: str) -> tuple[str, bool]:
    """The token of that file, and whether it was made just now. Raises InvalidInput for a file that cannot be used."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            token = path.read_text(encoding="ascii").strip()
            if len(token) >= SHORTEST_TOKEN:
                path.chmod(0o600)
                return token, False
        except FileNotFoundError:
            pass
        token = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(token + "\n")
    except (OSError, ValueError) as error:
        problem = Problem(key=str(path), message=f"cannot be used ({error})", hint=remedy)
        raise InvalidInput("settings", [problem]) from None
    return token, True
