"""The dashboard's process: which database, which tokens, which port; then uvicorn until a signal.

The application itself is put together in `application`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import uvicorn

from highnoon.shared.domain.errors import InvalidInput, ServiceUnavailable
from highnoon.shared.runtime.data_dir import attach
from highnoon.shared.runtime.processes import declare_only_our_code
from highnoon.shared.runtime.terminal import open_console, say
from highnoon.shared.store.optuna_store import quiet
from highnoon.webui.application import Application, create
from highnoon.webui.event_stream import EventStream
from highnoon.webui.settings import WebSettings, listening_at, web_settings

_SHUTDOWN_S = 5
"""How long a request may go on after the first signal."""


class Server(uvicorn.Server):
    """Ends the event streams first: the server would wait for them for as long as a page is open."""

    def __init__(self, config: uvicorn.Config, event_stream: EventStream) -> None:
        super().__init__(config)
        self._event_stream = event_stream

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn itself calls nothing before it waits for open connections."""
        self._event_stream.end()
        await super().shutdown(sockets)


def serve(*, host: str | None, port: int | None, storage: str | None) -> None:
    """Prints its address, and serves until SIGINT or SIGTERM. Raises InvalidInput, also for a port in use.

    Where `host` or `port` is None the environment decides: `listening_at`.
    """
    declare_only_our_code()
    quiet()
    host, port = listening_at(host, port)
    settings = web_settings(host=host, storage=storage)
    application = create(settings, database=database_of(settings), port=port)
    sockets = _listening(host, port)
    _announce(settings, host, port)
    server_of(application, host=host, port=port).run(sockets)


def server_of(application: Application, *, host: str, port: int) -> Server:
    """A server without logs of its own and without a Server header."""
    config = uvicorn.Config(
        application.asgi,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    return Server(config, application.event_stream)


def database_of(settings: WebSettings) -> Callable[[], str]:
    """The address of the database, looked up at every use: an embedded stack that is started again may have another."""

    def address() -> str:
        if settings.database_url is not None:
            return settings.database_url
        running = attach(settings.home)
        if running is None:
            raise ServiceUnavailable(f"nothing runs in {settings.home} now. Start it with: python -m coordinator start")
        return running.database_url

    return address


def _listening(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host that this machine has. Raises InvalidInput."""
    sockets: list[socket.socket] = []
    try:
        # A hosts file may name an address twice.
        for family, *_, address in dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)):
            try:
                sockets.append(socket.create_server(address, family=family))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except OSError as error:
        for one in sockets:
            one.close()
        message = f"cannot listen on {host} ({str(error.strerror).partition(' (')[0]})"  # the address is in the rest
        raise InvalidInput.of("dashboard", "port", message, value=port, hint="Choose another port or host.") from None
    return sockets


def _announce(settings: WebSettings, host: str, port: int) -> None:
    console = open_console(stderr=True)
    everywhere = ("0.0.0.0", "::")  # noqa: S104 - how a person writes it
    shown = "localhost" if host in everywhere else f"[{host}]" if ":" in host else host
    say(console, f"dashboard  http://{shown}:{port}/hpo")
    tokens = settings.tokens
    if tokens is None:
        return
    if tokens.fresh is not None:
        # Behind the #, so that the token reaches no server's log and no Referer.
        console.print(f"login      http://{shown}:{port}/login#{tokens.fresh}", soft_wrap=True)
    console.print(f"token      in {tokens.kept_in or 'the environment'}", soft_wrap=True)
