"""Who sends a request: tokens compared in constant time, signed sessions in a cookie, and a limit on wrong tokens.

Pure but for the clock; nothing is kept that a restart would lose, except recent wrong tokens. A session is
signed with a key made from its holder's token: another token ends the sessions of that holder.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from highnoon.webui.settings import Role, TokenHolder, Tokens

SESSION_S = 7 * 24 * 3600
_MOST_WRONG, _WINDOW_S = 5, 60.0
_MOST_CLIENTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The sender of a request. `csrf` is what their forms must carry; empty for a program with a token."""

    name: str
    role: Role
    csrf: str = ""

    @property
    def may_steer(self) -> bool:
        return self.role is Role.OPERATOR


class Authenticator:
    """Checks tokens and sessions. Without tokens it is open, and a session only ties forms to a browser."""

    def __init__(self, tokens: Tokens | None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.is_open = tokens is None
        """Whether no token is needed."""
        self._local = TokenHolder(name="local", role=Role.OPERATOR, token=secrets.token_hex(32))
        """Any client of an open dashboard."""
        self._holders = (self._local,) if tokens is None else tokens.holders

    def holder_of(self, token: str) -> TokenHolder | None:
        """Whose token it is; None for a wrong one. Takes as long for a right one as for a wrong one."""
        given = token.encode("utf-8", "surrogateescape")
        found = [holder for holder in self._holders if hmac.compare_digest(given, holder.token.encode())]
        return found[0] if found and not self.is_open else None

    def new_session(self, holder: TokenHolder | None = None) -> str:
        """A cookie's value."""
        holder = self._local if holder is None else holder
        content = f"{holder.name}.{int(self._clock())}.{secrets.token_urlsafe(16)}"
        return f"{content}.{_signature(holder, 'session', content)}"

    def principal(self, session: str) -> Principal | None:
        """The owner of a session cookie; None for one that is forged, too old, or of another token."""
        content, _, signature = session.rpartition(".")
        name = content.partition(".")[0]
        holder = next((holder for holder in self._holders if holder.name == name), None)
        if holder is None or not _is_equal(signature, _signature(holder, "session", content)):
            return None
        _, issued, _ = content.split(".", 2)
        if not 0 <= self._clock() - int(issued) < SESSION_S:
            return None
        return Principal(name=holder.name, role=holder.role, csrf=_signature(holder, "csrf", content))


def _is_equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())


def _signature(holder: TokenHolder, purpose: str, content: str) -> str:
    key = hashlib.sha256(f"highnoon session\n{holder.token}".encode()).digest()
    return hmac.new(key, f"{purpose}\n{content}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


class LoginLimiter:
    """Wrong tokens of the last minute, by client: beyond a few, further wrong ones are answered with a time to wait.

    A right token is never refused: clients behind one proxy share an address, and one must not lock out the others.
    What makes guessing hopeless is the length of a token.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_client: dict[str, deque[float]] = {}

    def wait_s(self, client: str) -> float:
        """For how long this client has no further guess; 0 when it may try."""
        moments = self._by_client.get(client, deque[float]())
        return max(0.0, moments[0] + _WINDOW_S - self._clock()) if len(moments) >= _MOST_WRONG else 0.0

    def note_wrong(self, client: str) -> None:
        """Counts a wrong token against a client."""
        moments = self._by_client.pop(client, deque[float](maxlen=_MOST_WRONG))
        moments.append(self._clock())
        if len(self._by_client) >= _MOST_CLIENTS:
            del self._by_client[next(iter(self._by_client))]
        self._by_client[client] = moments
