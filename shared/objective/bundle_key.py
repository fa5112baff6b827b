"""The cluster key: who holds it may say what the workers run. It signs the names of bundles.

A cluster is told its key by HIGHNOON_CLUSTER_KEY; an embedded home makes one for itself, in a file for its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.settings import Settings

KEY_FILE = "cluster.key"
_PURPOSE = b"highnoon bundle "


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """Never shown, also not by repr."""

    secret: str = field(repr=False)

    def sign(self, digest: str) -> str:
        """The signature of a bundle's name."""
        return hmac.new(self.secret.encode(), _PURPOSE + digest.encode(), hashlib.sha256).hexdigest()

    def has_signed(self, digest: str, signature: str) -> bool:
        """Whether the holder of this key has signed that bundle."""
        return hmac.compare_digest(self.sign(digest).encode(), signature.encode())


def key_of(settings: Settings) -> ClusterKey | None:
    """The key that this process was told, or that its home keeps; None when there is neither."""
    if settings.cluster_key is not None:
        return ClusterKey(settings.cluster_key)
    try:
        return ClusterKey((settings.home / KEY_FILE).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def kept_key(settings: Settings) -> ClusterKey:
    """As `key_of`; makes one and keeps it in the home when there is none. Raises EmbeddedServiceError."""
    known = key_of(settings)
    if known is not None:
        return known
    path = settings.home / KEY_FILE
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(draft, path)  # whole, and never over a key that another process has just made
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return ClusterKey(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise EmbeddedServiceError(f"cannot keep a key in {path} ({error.strerror}); set HIGHNOON_HOME") from error
