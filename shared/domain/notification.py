"""Notifications of a study: the table `notify` of a study file, what is posted, and its signature. No I/O."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from highnoon.shared.domain.errors import Problem, nearest

EVENTS = ("finished", "failed", "best")
"""The study is over; a trial has failed for good; a trial is better than all before."""

_KEYS = ("url", "on")
_PORTS = {"https": 443, "http": 80}
_LONGEST_URL = 2_000


def notify_problems(written: object) -> list[Problem]:
    """Every mistake in the table `notify`."""
    hint = 'Write for example notify = {url = "https://hooks.example.com/hpo", on = ["finished"]}.'
    if not isinstance(written, Mapping) or not isinstance(written.get("url"), str):
        return [Problem(key="notify", message="must be a table with a url", value=written, hint=hint)]
    problems = [
        Problem(key=f"notify.{key}", message="is no key of it", hint=nearest(str(key), _KEYS))
        for key in written
        if key not in _KEYS
    ]
    flaw = url_flaw(written["url"])
    if flaw:
        problems.append(Problem(key="notify.url", message=flaw, value=written["url"]))
    events = written.get("on", EVENTS[:1])
    if not isinstance(events, list | tuple) or not events:
        problems.append(Problem(key="notify.on", message="must be a list of events", value=events, hint=hint))
    else:
        problems += [
            Problem(key="notify.on", message="is no event", value=event, hint=nearest(str(event), EVENTS))
            for event in events
            if event not in EVENTS
        ]
    return problems


def notify_table(written: Mapping[str, Any]) -> dict[str, Any]:
    """As the study keeps it; of one without `notify_problems`."""
    return {"url": written["url"], "on": [event for event in EVENTS if event in written.get("on", EVENTS[:1])]}


def url_flaw(url: str) -> str:
    """Why nothing can be posted to the address; empty when it can."""
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"must be at most {_LONGEST_URL:,} printable ASCII characters"
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "is no address"
    try:
        has_port = parts.port != 0
    except ValueError:
        has_port = False
    if not has_port:
        return "must have a port from 1 to 65535, or none"
    if parts.scheme not in ("http", "https") or not host:
        return "must begin with https:// or http:// and a host"
    return "must not hold a password: everyone who reads the study can read it" if "@" in parts.netloc else ""


def host_of(url: str) -> str:
    """The host that an allow-list names; with its port where that is not the scheme's own. For one without a flaw."""
    parts = urlsplit(url)
    is_usual = parts.port in (None, _PORTS[parts.scheme])
    return (parts.hostname or "") if is_usual else f"{parts.hostname}:{parts.port}"


def is_allowed(url: str, hosts: Sequence[str]) -> bool:
    """`*.example.com` in the list stands for every host below it, `host:8443` for that port."""
    if url_flaw(url):
        return False
    parts = urlsplit(url)
    names = {host_of(url), f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"}
    lowered = [known.lower() for known in hosts]  # as a host is in an address that was read
    return any(
        name == known or (known.startswith("*.") and name.endswith(known[1:])) for known in lowered for name in names
    )


def signature(key: str, timestamp: str, body: bytes) -> str:
    """What a receiver computes too: HMAC-SHA256 of timestamp, a dot, and the body."""
    signed = hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"
