"""Serves a process's metrics to Prometheus: GET /metrics, on loopback or with the token.

Owns access and the server. The metrics themselves are defined where they are counted:
`coordinator/cluster_metrics.py` and `workers/node_metrics.py`.
"""

from __future__ import annotations

import hmac
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.urls import is_loopback

_Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_SLOWEST_REQUEST_S = 10.0

_MOST_THREADS = 50
"""Of the process: a connection takes a thread and a descriptor, which agent and coordinator need for other things."""


@contextmanager
def exposed(registry: CollectorRegistry, *, host: str, port: int, key: str, token: str | None) -> Iterator[int]:
    """Serves the registry from threads of this process, and gives the port; port 0 takes a free one.

    Without a token it answers only to the names of loopback: a page in a browser could otherwise be led here by its
    own name server. Raises InvalidInput, naming the setting `key`, for a port that cannot be had.
    """
    try:
        server = _Server((host, port), _family(host, port))
    except OSError as error:
        hint = "Choose another port, or 0 for no metrics."
        raise InvalidInput.of(
            "settings", key, f"cannot listen on {host} ({error.strerror or error})", value=port, hint=hint
        ) from None
    server.set_app(_guarded(make_wsgi_app(registry), token))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _guarded(metrics: _Wsgi, token: str | None) -> _Wsgi:
    one_at_a_time = threading.Lock()  # collectors keep files and readings between two scrapes

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = _refusal(environ, token)
        if refusal is None:
            with one_at_a_time:
                return metrics(environ, start_response)
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if refusal.startswith("401"):
            headers.append(("WWW-Authenticate", "Bearer"))
        start_response(refusal, headers)
        return [f"{refusal}\n".encode()]

    return app


def _refusal(environ: dict[str, Any], token: str | None) -> str | None:
    """The status with which a request is refused; None for one that is allowed."""
    if token is None:
        if not is_loopback(_host_name(str(environ.get("HTTP_HOST", "")))):
            return "421 Misdirected Request"
    else:
        kind, _, given = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        known = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
        if kind.lower() != "bearer" or not known:
            return "401 Unauthorized"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return "405 Method Not Allowed"
    return None if environ["PATH_INFO"] == "/metrics" else "404 Not Found"


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _family(host: str, port: int) -> socket.AddressFamily:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]


class _Handler(WSGIRequestHandler):
    """Logs no requests, and gives up slow ones."""

    timeout = _SLOWEST_REQUEST_S

    def log_message(self, format: str, *args: object) -> None:
        return


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Closes what comes while there are too many."""
        if threading.active_count() < _MOST_THREADS:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def server_bind(self) -> None:
        """As WSGIServer does, but for its query to the name server, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]
        self.setup_environ()
