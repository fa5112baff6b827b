"""What goes wrong, as RFC 9457 problem+json: one shape for every error of the API. Never a traceback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from highnoon.shared.domain.errors import (
    HighNoonError,
    InvalidInput,
    NoCompletedTrial,
    Problem,
    ServiceError,
    StudyConflict,
    UnknownStudy,
    UnknownWorker,
    UserInputError,
    WorkerConflict,
)
from highnoon.webui.plain import dumps

MEDIA_TYPE = "application/problem+json"


class Mistake(BaseModel):
    """One mistake in a request: where, what, and the nearest right thing."""

    key: str
    message: str
    value: Any = None
    hint: str = ""


class ProblemDetail(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Mistake] = Field(default_factory=list)


def problem_response(
    status: int, detail: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that says what is wrong."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [mistake(problem) for problem in problems],
    }
    return Response(dumps(body), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def mistake(problem: Problem) -> dict[str, Any]:
    """A Problem for programs."""
    return {"key": problem.key, "message": problem.message, "value": problem.value, "hint": problem.hint}


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


def problems_of(error: HighNoonError) -> Sequence[Problem]:
    """The single mistakes, where an error has some."""
    return error.problems if isinstance(error, InvalidInput) else ()
