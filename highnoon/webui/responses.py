"""What the dashboard answers with: strict JSON, kept gzipped bytes, and RFC 9457 problem+json for every error."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from highnoon.shared.domain.errors import (
    ABSENT,
    HighNoonError,
    NoCompletedTrial,
    Problem,
    ServiceError,
    StudyConflict,
    UnknownStudy,
    UnknownWorker,
    UserInputError,
    WorkerConflict,
)
from highnoon.shared.views.formats import dumps

PROBLEM_TYPE = "application/problem+json"


class JsonResponse(Response):
    """JSON without nan and infinity."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content).encode()


class ProblemDetail(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Problem] = Field(default_factory=list)
    done: list[str] = Field(default_factory=list, description="What of the request was done before the error.")


def problem_response(
    status: int,
    detail: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
    done: Sequence[str] = (),
) -> Response:
    """An error for programs."""
    title = HTTPStatus(status).phrase
    body = ProblemDetail(title=title, status=status, detail=detail, errors=list(problems), done=list(done)).model_dump()
    body["errors"] = [{key: part for key, part in one.items() if part is not ABSENT} for one in body["errors"]]
    return Response(dumps(body), status_code=status, media_type=PROBLEM_TYPE, headers=dict(headers or {}))


def compressed_response(
    request: Request, compressed: bytes, *, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Sends gzipped bytes as they are, or decompressed to a client that does not accept gzip."""
    sent = {"vary": "accept-encoding", **(headers or {})}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(compressed, media_type=media_type, headers={**sent, "content-encoding": "gzip"})
    return Response(gzip.decompress(compressed), media_type=media_type, headers=sent)


def status_of(error: HighNoonError) -> int:
    """The HTTP status of one of our errors."""
    match error:
        case UnknownStudy() | UnknownWorker() | NoCompletedTrial():
            return 404
        case StudyConflict() | WorkerConflict():
            return 409
        case UserInputError():
            return 422
        case ServiceError():
            return 503
        case _:
            return 500


def redirect(address: str) -> Response:
    """To a page of ours, after a form was executed."""
    return RedirectResponse(address, status_code=303)
