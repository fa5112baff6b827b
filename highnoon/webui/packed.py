"""Answers that are kept gzipped, for clients that take them so and for those that do not."""

from __future__ import annotations

import gzip
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def packed_response(
    request: Request, packed: bytes, *, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Sends gzipped bytes as they are, or unpacked to a client that does not say that it takes gzip."""
    told = {"vary": "accept-encoding", **(headers or {})}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type=media_type, headers={**told, "content-encoding": "gzip"})
    return Response(gzip.decompress(packed), media_type=media_type, headers=told)
