"""A dashboard for tests: served on a free port from a thread of this process, as `serve` would."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from highnoon.webui.application import create
from highnoon.webui.server import database_of, server_of
from highnoon.webui.settings import web_settings
from tests.support import eventually

TOKEN, VIEWER = "operator-token-of-the-tests", "viewer-token-of-the-tests"


@contextmanager
def dashboard(
    storage: str | None, home: Path, *, host: str = "127.0.0.1", environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a dashboard that believes to listen on `host`; it listens on loopback."""
    # Workers of tests beat once, when they enter.
    variables = {"HIGHNOON_HOME": str(home), "HIGHNOON_PRESENCE_S": "600", **(environ or {})}
    settings = web_settings(host=host, storage=storage, environ=variables)
    application = create(settings, database=database_of(settings), port=0)
    server = server_of(application, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, name="dashboard")
    thread.start()
    try:
        eventually(lambda: server.started, 30, what="the dashboard answers")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


class Visitor:
    """A browser without scripts: keeps cookies, sends its Origin, and carries the token of the last page it saw."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = httpx.Client(base_url=address, timeout=60, headers={"accept": "text/html"})
        self.csrf = ""

    def get(self, path: str, **query: Any) -> httpx.Response:
        answer = self.client.get(path, params=query or None)
        found = re.search(r'name="csrf" content="([^"]*)"', answer.text)
        self.csrf = found[1] if found else self.csrf
        return answer

    def post(self, path: str, **fields: str) -> httpx.Response:
        return self.client.post(path, data={"csrf": self.csrf, **fields}, headers={"origin": self.address})

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"origin": self.address, "x-csrf-token": self.csrf, "accept": "application/json"}
        headers |= options.pop("headers", {})
        return self.client.request(method, f"/api/hpo{path}", headers=headers, **options)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
