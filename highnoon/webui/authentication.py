"""Checks every request before anything else handles it, and adds the security headers to every answer.

In order: the Host header (against DNS rebinding), who sends it, what they may do, and for changes by a browser the
Origin header and a token from one of our own pages (against cross-site requests). A program with an Authorization
header needs neither: no other site can make a browser send one.

Decides by the path that the router takes, `scope["path"]`, never by `request.url`: that is put together with the Host
header, and some versions of Starlette take a part of such a header for the path.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Mapping
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.urls import host_name
from highnoon.shared.store.audit import Actor, acting_as
from highnoon.webui.responses import problem_response
from highnoon.webui.sessions import SESSION_S, Authenticator, LoginLimiter, Principal
from highnoon.webui.settings import TokenHolder

_log = logging.getLogger("highnoon.webui.authentication")

ANONYMOUS_PATHS = frozenset(
    {"/health", "/login", "/static/app.css", "/static/icon.svg", "/static/login.js", "/static/page.js"}
)
"""What answers without a credential; nothing about the studies is in it."""

CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_BODY = 1_000_000
_FORMS = "application/x-www-form-urlencoded"

HEADERS = {
    # plotly writes its style sheet and sizes into the page; scripts come from our own files only.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with that a form's Origin is null, and ours could not be distinguished from another's.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Refused(Exception):
    """The request is rejected; `response` is the answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Authentication:
    """ASGI middleware around everything that the dashboard serves."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator, hosts: frozenset[str], port: int) -> None:
        self._app = app
        self.authenticator = authenticator
        self._hosts = hosts
        self._limiter = LoginLimiter()
        # Cookies are shared by all ports of a host: two dashboards on one host must not end each other's sessions.
        self._cookie = f"highnoon_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards an admitted request; answers the others."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        cookies: list[str] = []

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "cache-control": "no-store"}.items():
                    headers.setdefault(name, value)
                for cookie in cookies:
                    headers.append("set-cookie", cookie)
            await send(message)

        try:
            scope["authentication"] = self
            request = Request(scope, receive)
            request.state.arrived_at = time.time()
            receive, actor = await self._admit(request, receive, cookies)
        except Refused as refused:
            await refused.response(scope, receive, secured)
            return
        with acting_as(actor):
            await self._app(scope, receive, secured)

    async def _admit(self, request: Request, receive: Receive, cookies: list[str]) -> tuple[Receive, Actor]:
        """Sets the principal; returns how the handler receives the body, and who acts. Raises Refused."""
        self._check_host(request)
        if not request.scope["query_string"].isascii():
            raise Refused(problem_response(400, "The address has bytes that are no text."))
        is_change = request.method not in _SAFE
        body, receive = await _body(request, receive) if is_change else (b"", receive)
        if request.scope["path"] in ANONYMOUS_PATHS:
            request.state.principal = None
            if is_change:
                _check_origin(request)
            return receive, Actor(name=f"anonymous@{_client(request)}", via="dashboard")
        principal, by_cookie = self._authenticate(request, cookies)
        if is_change and not principal.may_steer and request.scope["path"] != "/logout":
            raise _refusal(request, 403, "A viewer may read, not change. Log in with the operator's token.")
        if is_change and by_cookie:
            _check_origin(request)
            _check_csrf(request, body, principal)
        request.state.principal = principal
        via = "dashboard (session)" if by_cookie else "dashboard (token)"
        return receive, Actor(name=f"{principal.name}@{_client(request)}", via=via)

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host", "")
        name = host_name(host)
        if "host" not in request.headers and not self._hosts:
            return  # health checks of HTTP/1.0
        if not name:
            detail = f"The Host header must be a name or an address, with or without a port (got {host!r})."
            raise Refused(problem_response(400, detail))
        if self._hosts and name not in self._hosts:
            hint = "Add it to HIGHNOON_WEBUI_HOSTS to allow it."
            raise Refused(problem_response(421, f"This dashboard is not called by the name {name!r}. {hint}"))

    def _authenticate(self, request: Request, cookies: list[str]) -> tuple[Principal, bool]:
        """The sender, and whether a cookie names them. Raises Refused without a credential where one is needed."""
        token = _bearer(request.headers)
        if token is not None and not self.authenticator.is_open:
            holder = self.check_token(request, token)
            if holder is not None:
                return Principal(name=holder.name, role=holder.role), False
            raise _refusal(request, 401, "The token is wrong.")
        principal = self.authenticator.principal(request.cookies.get(self._cookie, ""))
        if principal is not None:
            return principal, True
        if not self.authenticator.is_open:
            raise _refusal(request, 401, "A token is needed: log in, or send it as Authorization: Bearer TOKEN.")
        session = self.authenticator.new_session()
        fresh = self.authenticator.principal(session)
        assert fresh is not None, "a session made just now is valid"
        cookies.append(self.cookie(session, secure=request.scope["scheme"] == "https"))
        return fresh, True

    def check_token(self, request: Request, token: str) -> TokenHolder | None:
        """Whose token it is; None for a wrong one. Raises Refused (429) instead, once a client sent too many."""
        holder = self.authenticator.holder_of(token)
        if holder is not None:
            return holder
        client = _client(request)
        wait_s = self._limiter.wait_s(client)
        if wait_s > 0:
            response = _refusal(request, 429, f"Too many wrong tokens. Try again in {wait_s:.0f} s.").response
            response.headers["retry-after"] = str(int(wait_s) + 1)
            raise Refused(response)
        self._limiter.note_wrong(client)
        event(_log, "wrong_token", level=logging.WARNING, client=client)
        return None

    def cookie(self, session: str, *, secure: bool, max_age_s: int = SESSION_S) -> str:
        """A Set-Cookie header; with `max_age_s` 0 it logs out."""
        kind = "; Secure" if secure else ""
        return f"{self._cookie}={session}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{kind}"


async def _body(request: Request, receive: Receive) -> tuple[bytes, Receive]:
    """The body of a change, read once, and a function that gives it out again.

    Raises Refused for a huge one, and for one that breaks off: a change is made as it was sent, or not at all.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY:
                raise _refusal(request, 413, f"A request may have {_MOST_BODY:,} bytes.")
    except ClientDisconnect:
        raise _refusal(request, 400, "The request broke off before its end; nothing was changed.") from None
    messages: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return bytes(body), again


def _client(request: Request) -> str:
    return request.client.host if request.client else "unknown"


_FROM_ELSEWHERE = (
    "A change by a program needs a token: set HIGHNOON_TOKEN where the dashboard runs, and send the header "
    "Authorization: Bearer TOKEN. Without it changes are accepted from this dashboard's own pages only (Origin)."
)


def _check_origin(request: Request) -> None:
    """Browsers send where a change comes from; a change without it is refused."""
    origin = request.headers.get("origin")
    if origin is None:
        allowed = request.headers.get("sec-fetch-site") == "same-origin"
    else:
        scheme, _, host = origin.partition("://")
        allowed = scheme in ("http", "https") and host == request.headers.get("host")
    if not allowed:
        raise _refusal(request, 403, _FROM_ELSEWHERE)


def _check_csrf(request: Request, body: bytes, principal: Principal) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").startswith(_FORMS):
        given = parse_qs(body.decode("utf-8", "replace")).get(CSRF_FIELD, [""])[0]
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), principal.csrf.encode()):
        raise _refusal(request, 403, "This page is older than its session: reload it and try again.")


def _bearer(headers: Headers) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _refusal(request: Request, status: int, detail: str) -> Refused:
    """A person who opens a page is sent to the login; programs get the problem."""
    path = request.scope["path"]
    wants_page = "text/html" in request.headers.get("accept", "") and not path.startswith("/api/")
    if status == 401 and wants_page and request.method in _SAFE:
        query = request.scope["query_string"].decode("ascii")
        here = quote(path) + (f"?{query}" if query else "")
        return Refused(RedirectResponse(f"/login?next={quote(here, safe='')}", status_code=303))
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"} if status == 401 else {}
    return Refused(problem_response(status, detail, headers=headers))
