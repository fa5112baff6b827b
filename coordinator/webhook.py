"""Posts one notification to one receiver, within a deadline that covers all of it.

The timeout of a socket begins again with each byte: a receiver that sends its answer byte by byte would keep a sender
for ever. So the connection is cut off when the deadline has passed.
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

DEADLINE_S = 20.0
_SILENCE_S = 10.0


def post(url: str, body: bytes, headers: Mapping[str, str], *, deadline_s: float = DEADLINE_S) -> str:
    """Posts it, and follows no redirect; why it was not received, empty when it was."""
    cut = _Cut()
    opener = urllib.request.build_opener(_NoRedirect, _Http(cut), _Https(cut))
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310 - checked before
    timer = threading.Timer(deadline_s, cut.off)
    timer.daemon = True
    timer.start()
    try:
        opener.open(request, timeout=_SILENCE_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"the receiver answered {error.code}"
    except (OSError, ValueError) as error:
        trouble = f"the receiver is not reached ({error})"
    except Exception as error:  # http.client has errors of its own
        trouble = f"the receiver gave no answer ({type(error).__name__})"
    else:
        trouble = ""
    finally:
        timer.cancel()
    # To http.client an answer that was cut off in its headers is a whole one.
    return f"the receiver did not answer within {deadline_s:g} s" if cut.is_off else trouble


class _Cut:
    """Cuts off the connection that was made last."""

    def __init__(self) -> None:
        self.is_off = False
        self._connection: http.client.HTTPConnection | None = None

    def making(self, kind: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        """Makes connections of this kind, and keeps the last one at hand."""
        cut = self

        class Connection(kind):  # type: ignore[valid-type,misc]
            def connect(self) -> None:
                super().connect()
                if cut.is_off:  # when there was no socket yet, or none that could be cut off
                    raise TimeoutError

        def make(host: str, **options: Any) -> http.client.HTTPConnection:
            connection: http.client.HTTPConnection = Connection(host, **options)
            self._connection = connection
            return connection

        return make

    def off(self) -> None:
        """Ends the connection: a reader gets no more."""
        self.is_off = True
        if self._connection is not None and isinstance(self._connection.sock, socket.socket):
            with suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, cut: _Cut) -> None:
        super().__init__()
        self._cut = cut

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._cut.making(http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, cut: _Cut) -> None:
        super().__init__()
        self._cut = cut

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._cut.making(http.client.HTTPSConnection), req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
