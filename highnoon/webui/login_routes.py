"""Logging in and out, for browsers. `authentication` decides who is admitted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from highnoon.webui.rendering import authentication_of, form_fields, shown

router = APIRouter(include_in_schema=False)

Sent = Annotated[dict[str, str], Depends(form_fields)]


@router.get("/login")
def login_page(request: Request) -> Response:
    """Asks for the token."""
    if authentication_of(request).is_open:
        return RedirectResponse("/hpo", status_code=303)
    return shown(request, "login.html", {"next": _local(request.query_params.get("next", "")), "wrong": ""})


@router.post("/login")
def login(request: Request, sent: Sent) -> Response:
    """Starts a session for a right token. Too many wrong ones are refused for a while."""
    authentication = authentication_of(request)
    role = authentication.check_token(request, sent.get("token", "").strip())
    there = _local(sent.get("next", ""))
    if role is None:
        return shown(request, "login.html", {"next": there, "wrong": "This token is not the right one."}, status=401)
    answer = RedirectResponse(there, status_code=303)
    answer.headers["set-cookie"] = authentication.session_cookie(role, secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """Forgets the session in this browser."""
    answer = RedirectResponse("/login", status_code=303)
    answer.headers["set-cookie"] = authentication_of(request).cookie("", secure=False, max_age_s=0)
    return answer


def _local(address: str) -> str:
    """Only our own pages: never `//elsewhere` or `https:`."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours and "\\" not in address else "/hpo"
