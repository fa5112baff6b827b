"""Logging in and out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from highnoon.webui.rendering import Sent, authentication_of, rendered
from highnoon.webui.responses import redirect

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login_page(request: Request) -> Response:
    """The form for the token."""
    if authentication_of(request).authenticator.is_open:
        return redirect("/hpo")
    return rendered(request, "login.html", {"next": _local(request.query_params.get("next", "")), "wrong": ""})


@router.post("/login")
def login(request: Request, sent: Sent) -> Response:
    """Starts a session for a right token. Too many wrong ones are refused for a while."""
    authentication = authentication_of(request)
    holder = authentication.check_token(request, sent.get("token", "").strip())
    there = _local(sent.get("next", ""))
    if holder is None:
        return rendered(request, "login.html", {"next": there, "wrong": "This token is not the right one."}, status=401)
    answer = redirect(there)
    session = authentication.authenticator.new_session(holder)
    answer.headers["set-cookie"] = authentication.cookie(session, secure=request.scope["scheme"] == "https")
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """Removes the session from this browser."""
    answer = redirect("/login")
    answer.headers["set-cookie"] = authentication_of(request).cookie("", secure=False, max_age_s=0)
    return answer


def _local(address: str) -> str:
    """Only our own pages: never `//elsewhere` or `https:`."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours and "\\" not in address else "/hpo"
