"""The files of the pages: our own styles and scripts, and plotly's JavaScript out of the Python package.

Addresses of files carry a version, so that browsers keep them. Nothing comes from another host.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from highnoon.webui.responses import compressed_response

router = APIRouter()

_HERE = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PLOTLY = "plotly.min.js"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file, compressed once."""

    media_type: str
    compressed: bytes
    version: str


@router.get("/static/{name}", include_in_schema=False)
def static(request: Request, name: str) -> Response:
    """One of our files, or plotly's."""
    asset = find(name)
    if asset is None:
        raise HTTPException(404)
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == asset.version else "no-cache"
    headers = {"cache-control": kept, "etag": f'"{asset.version}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return compressed_response(request, asset.compressed, media_type=asset.media_type, headers=headers)


@lru_cache(maxsize=32)
def find(name: str) -> Asset | None:
    """The file of that name, or None."""
    path = _plotly() if name == _PLOTLY else {entry.name: entry for entry in _HERE.iterdir()}.get(name)
    if path is None or path.suffix not in _TYPES:
        return None
    content = path.read_bytes()
    return Asset(
        media_type=_TYPES[path.suffix],
        compressed=gzip.compress(content, 6, mtime=0),
        version=hashlib.sha256(content).hexdigest()[:12],
    )


def address(name: str) -> str:
    """The address of a file with its version, for the templates. Raises LookupError where there is none."""
    asset = find(name)
    if asset is None:
        raise LookupError(f"there is no static file {name}")
    return f"/static/{name}?v={asset.version}"


def _plotly() -> Path:
    """Found without importing plotly, which takes a second and is not needed."""
    spec = find_spec("plotly")
    assert spec is not None and spec.origin is not None, "plotly is a dependency"
    return Path(spec.origin).parent / "package_data" / _PLOTLY
