"""Whatever reaches the dashboard: no fault of the server, nothing without a credential, no change by a viewer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from highnoon.shared.store.audit import AuditLog
from highnoon.webui.application import create
from highnoon.webui.authentication import ANONYMOUS_PATHS
from highnoon.webui.settings import web_settings
from tests.fuzz import bounded, damaged_table, json_values
from tests.ledger import FAILED, Ledger

OPERATOR, VIEWER = "operator-token-of-the-tests", "viewer-token-of-the-tests"
POINT = {"params": {"x": 1.0}}
STUDY = {"name": "fuzzed", "objective": "train.py:train", "n_trials": 2, "search_space": {"x": ["uniform", 0.0, 1.0]}}

Answer = tuple[int, bytes]


class Dashboard:
    """The application without a server: what a server makes of any bytes that it takes for HTTP."""

    def __init__(self, url: str, home: Path) -> None:
        environ = {
            "HIGHNOON_HOME": str(home),
            "HIGHNOON_TOKEN": OPERATOR,
            "HIGHNOON_WEBUI_VIEWER_TOKEN": VIEWER,
        }
        settings = web_settings(host="0.0.0.0", storage=url, environ=environ)
        self.application = create(settings, database=lambda: url, port=0)

    def send(
        self, method: str, path: str, *, query: bytes = b"", headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> Answer:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "root_path": "",
            "query_string": query,
            "headers": [(b"host", b"localhost"), *headers],
            "client": ("10.0.0.7", 4000),
            "server": ("localhost", 80),
        }
        sent: list[dict[str, Any]] = []

        requests = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not requests:
                await asyncio.Event().wait()  # the client stays
            return requests.pop()

        async def send(message: Any) -> None:
            sent.append(dict(message))

        asyncio.run(asyncio.wait_for(self.application.asgi(scope, receive, send), 60))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def dashboard(ledger: Ledger, tmp_path: Path) -> Dashboard:
    study = ledger.study(n_trials=3, search_space={"x": ["uniform", 0.0, 1.0]}, name="digits")
    first, second, _ = ledger.tickets(study)
    ledger.run(first)
    ledger.run(second, FAILED)
    ledger.nodes.enter("w1", host="node-a", pid=1, slots=2, queues=["cpu"])
    return Dashboard(ledger.database.url, tmp_path)


_segments = st.sampled_from(["digits", "1", "0", "-1", "w1", "nope", "..", "\ufffd", "a" * 500, "9" * 30]) | st.text(
    max_size=10
).filter(lambda text: "/" not in text)
_routes = st.sampled_from(
    [
        "/", "/hpo", "/hpo/new", "/hpo/cluster", "/docs", "/openapi.json", "/static/{}", "/hpo/studies/{}",
        "/hpo/studies/{}/trials", "/hpo/studies/{}/trials/{}", "/hpo/studies/{}/trials/{}/retry",
        "/hpo/studies/{}/enqueue", "/hpo/studies/{}/{}", "/hpo/workers/{}/{}", "/api/hpo/studies",
        "/api/hpo/studies/{}", "/api/hpo/studies/{}/trials", "/api/hpo/studies/{}/trials/{}",
        "/api/hpo/studies/{}/trials/{}/retry", "/api/hpo/studies/{}/trials/{}/log", "/api/hpo/studies/{}/best",
        "/api/hpo/studies/{}/importance", "/api/hpo/studies/{}/figures/{}", "/api/hpo/studies/{}/export/best",
        "/api/hpo/studies/{}/export/trials", "/api/hpo/workers", "/api/hpo/workers/{}",
    ]
)  # fmt: skip


@st.composite
def paths(draw: st.DrawFn) -> str:
    route = draw(_routes)
    return route.format(*[draw(_segments) for _ in range(route.count("{}"))])


_methods = st.sampled_from(["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
_queries = st.binary(max_size=40) | st.dictionaries(
    st.sampled_from(["page", "per_page", "sort", "state", "q", "format", "x", "y", "raw", "like", "cause", "next"]),
    st.sampled_from(["0", "-1", "9" * 30, "nan", "value", "-number", "\0", "<script>", "//evil"]) | st.text(max_size=8),
    max_size=3,
).map(lambda fields: urlencode(fields, errors="surrogatepass").encode())
_bodies = (
    st.binary(max_size=80)
    | (
        json_values | damaged_table(STUDY) | damaged_table(POINT) | damaged_table({"state": "paused", "add_trials": 1})
    ).map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(
            ["csrf", "token", "count", "x", "action", "space-0-name", "space-0-kind", "space-0-low", "n_trials"]
        )
        | st.text(max_size=8),
        st.text(max_size=12),
        max_size=4,
    ).map(lambda fields: urlencode(fields, errors="surrogatepass").encode())
)
_values = st.binary(max_size=40)
_headers = st.lists(
    st.tuples(
        st.sampled_from(
            [b"authorization", b"cookie", b"origin", b"accept", b"content-type", b"x-csrf-token", b"sec-fetch-site",
             b"accept-encoding", b"if-none-match", b"x-forwarded-proto", b"host"]
        ),
        _values
        | st.sampled_from(
            [b"Bearer ", b"Bearer \xff\xfe", b"Basic b3A6b3A=", b"highnoon_0=..", b"highnoon_0=operator.1.x.\xff",
             b"null", b"text/html", b"application/json", b"application/x-www-form-urlencoded",
             b"multipart/form-data; boundary=x", b"gzip;q=nan", b"[::1", b"http://[", b"same-origin"]
        ),
    ),
    max_size=4,
)  # fmt: skip


@bounded
@given(method=_methods, path=paths(), query=_queries, headers=_headers, body=_bodies)
def test_without_a_credential_there_is_nothing(
    dashboard: Dashboard, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    status, answer = dashboard.send(method, path, query=query, headers=headers, body=body)
    assert status in (303, 400, 401, 403, 413, 421, 429), (status, answer)
    assert b"node-a" not in answer and b'"trials"' not in answer


@bounded
@given(method=_methods, query=_queries, headers=_headers, body=_bodies, path=st.sampled_from(sorted(ANONYMOUS_PATHS)))
@example(method="POST", query=b"", headers=[(b"origin", b"//[")], body=b"", path="/login")
@example(method="GET", query=b"\x80", headers=[], body=b"", path="/login")
def test_nothing_that_is_sent_to_the_login_logs_in_or_fails(
    dashboard: Dashboard, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    status, answer = dashboard.send(method, path, query=query, headers=headers, body=body)
    assert status < 500 and b"digits" not in answer, (status, answer)
    # Only a session opens the studies
    assert (status, method, path) != (303, "POST", "/login")


@bounded
@given(method=_methods, path=paths(), query=_queries, headers=_headers, body=_bodies)
def test_a_viewer_changes_nothing(
    dashboard: Dashboard,
    ledger: Ledger,
    method: str,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    own = [(name, value) for name, value in headers if name != b"authorization"]
    bearer = [(b"authorization", f"Bearer {VIEWER}".encode()), *own]
    status, answer = dashboard.send(method, path, query=query, headers=bearer, body=body)
    assert status < 500, (status, answer)
    if method not in ("GET", "HEAD", "OPTIONS"):
        assert status in (400, 403, 413, 421)
    assert len(AuditLog(ledger.database).entries(limit=9)) == 1, "that it was created"


@bounded
@given(method=_methods, path=paths(), query=_queries, headers=_headers, body=_bodies)
@example(method="GET", path="/hpo/new", query=b"", headers=[], body=b"")
def test_nothing_that_an_operator_sends_is_a_fault_of_the_server(
    dashboard: Dashboard, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    own = [(name, value) for name, value in headers if name not in (b"authorization", b"content-type", b"host")]
    kinds = (b"application/x-www-form-urlencoded", b"application/json")
    sent = [(b"authorization", f"Bearer {OPERATOR}".encode()), (b"content-type", kinds[path.startswith("/api/")]), *own]
    status, answer = dashboard.send(method, path, query=query, headers=sent, body=body)
    assert status < 500, (status, answer)
