"""The dashboard: `from highnoon.webui import app; app.run(host="0.0.0.0", port=8000)`, then open /hpo.

Only the object is here; what it serves is imported when it is used. `app` is an ASGI application as well, for a server
of your own: it then takes its addresses and tokens from the environment, and always needs a token.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from highnoon.shared.runtime.extras import missing_extra_named

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Dashboard", "app"]


class Dashboard:
    """All studies of one database: shows them, and changes them."""

    def __init__(self) -> None:
        self._asgi: Any = None

    def run(self, host: str | None = None, port: int | None = None, *, storage: str | None = None) -> None:
        """Serves until a signal ends it. Everywhere but on loopback a token is needed, which is printed at the start.

        Where they are not given, HIGHNOON_WEBUI_HOST and HIGHNOON_WEBUI_PORT decide, else 127.0.0.1 and 8000.
        `storage` is the address of a database, as for HPOTrialManager; by default HIGHNOON_DATABASE_URL, else the
        stack that `coordinator start` runs in HIGHNOON_HOME. Raises InvalidInput for a mistake in any of these.
        """
        with missing_extra_named("the dashboard", "dashboard"):
            from highnoon.webui.server import serve

        with suppress(KeyboardInterrupt):  # the server has ended in order, and a script's last line needs no traceback
            serve(host=host, port=port, storage=storage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Raises InvalidInput at the first request for a mistake in the environment."""
        if self._asgi is None:
            with missing_extra_named("the dashboard", "dashboard"):
                from highnoon.webui.application import create
                from highnoon.webui.server import database_of
                from highnoon.webui.settings import web_settings

            settings = web_settings(host="", storage=None)
            self._asgi = create(settings, database=database_of(settings), port=0).asgi
        await self._asgi(scope, receive, send)


app = Dashboard()
