"""Where the dashboard listens."""

from __future__ import annotations

import socket

import pytest

from highnoon.webui.server import _listening


def test_an_address_that_a_hosts_file_names_twice_is_listened_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    twice = [(*one[:4], ("127.0.0.1", port)) for one in found] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: twice)
    (only,) = _listening("localhost", port)
    only.close()
