"""Who sends a request: tokens compared in constant time, signed sessions in a cookie, and a limit on wrong tokens.

Pure but for the clock; nothing is kept that a restart would lose, except recent wrong tokens. A session is
signed with a key made from the tokens: other tokens end all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from highnoon.shared.domain.states import StrEnum
from highnoon.webui.settings import Tokens

SESSION_S = 7 * 24 * 3600
_MOST_WRONG, _MOST_WRONG_OF_ALL, _WINDOW_S = 5, 50, 60.0
_MOST_CLIENTS = 1000


class Role(StrEnum):
    """What a principal may do."""

    VIEWER = "viewer"
    """Read everything."""
    OPERATOR = "operator"
    """Start, steer and delete studies as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The sender of a request. `csrf` is what their forms must carry; empty for a program with a token."""

    role: Role
    csrf: str = ""

    @property
    def may_steer(self) -> bool:
        return self.role is Role.OPERATOR


class Authenticator:
    """Checks tokens and sessions. Without tokens it is open, and a session only ties forms to a browser."""

    def __init__(self, tokens: Tokens | None, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._clock = clock
        words = secrets.token_bytes(32) if tokens is None else f"{tokens.operator}\n{tokens.viewer}".encode()
        self._key = hashlib.sha256(b"highnoon session\n" + words).digest()

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return self._tokens is None

    def role_of(self, token: str) -> Role | None:
        """The role that a token opens; None for a wrong one. Takes as long for a right one as for a wrong one."""
        if self._tokens is None:
            return None
        given = token.encode("utf-8", "surrogateescape")
        is_operator = hmac.compare_digest(given, self._tokens.operator.encode())
        is_viewer = hmac.compare_digest(given, (self._tokens.viewer or secrets.token_hex(32)).encode())
        return Role.OPERATOR if is_operator else Role.VIEWER if is_viewer else None

    def new_session(self, role: Role) -> str:
        """A cookie's value."""
        content = f"{role}.{int(self._clock())}.{secrets.token_urlsafe(16)}"
        return f"{content}.{self._signature('session', content)}"

    def principal(self, session: str) -> Principal | None:
        """The owner of a session cookie; None for one that is forged, too old, or of other tokens."""
        content, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature("session", content).encode()):
            return None
        role, issued, _ = content.split(".", 2)
        if not 0 <= self._clock() - int(issued) < SESSION_S:
            return None
        return Principal(role=Role(role), csrf=self._signature("csrf", content))

    def _signature(self, purpose: str, content: str) -> str:
        return hmac.new(
            self._key, f"{purpose}\n{content}".encode("utf-8", "surrogateescape"), hashlib.sha256
        ).hexdigest()


class LoginLimiter:
    """Wrong tokens of the last minute, by client and of all: beyond a few, further ones are refused for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_client: dict[str, deque[float]] = {}
        self._all: deque[float] = deque()

    def wait_s(self, client: str) -> float:
        """For how long this client is to be refused; 0 when it may try."""
        now = self._clock()
        own = self._by_client.get(client, deque())
        return max(_wait_s(own, _MOST_WRONG, now), _wait_s(self._all, _MOST_WRONG_OF_ALL, now))

    def note_wrong(self, client: str) -> None:
        """Counts a wrong token against a client."""
        now = self._clock()
        if len(self._by_client) >= _MOST_CLIENTS:
            self._by_client = {who: when for who, when in self._by_client.items() if when[-1] > now - _WINDOW_S}
        for moments, most in (
            (self._by_client.setdefault(client, deque()), _MOST_WRONG),
            (self._all, _MOST_WRONG_OF_ALL),
        ):
            moments.append(now)
            while len(moments) > most:
                moments.popleft()


def _wait_s(moments: deque[float], most: int, now: float) -> float:
    return max(0.0, moments[0] + _WINDOW_S - now) if len(moments) >= most else 0.0
