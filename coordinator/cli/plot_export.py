"""A figure into a file: HTML that needs no network, a picture, or JSON. What is drawn stands in `shared.studies`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PICTURES = (".png", ".svg", ".pdf")
SUFFIXES = (".html", ".json", *_PICTURES)
_WIDTH, _HEIGHT, _SCALE = 1000, 600, 2


def check_suffix(path: Path) -> None:
    """Raises InvalidInput for a file that cannot be written, before anything is drawn for it."""
    if path.suffix.lower() not in SUFFIXES:
        raise _wrong(path, "has no suffix that says how to draw", nearest(path.suffix or path.name, SUFFIXES))
    if not path.parent.is_dir():
        raise _wrong(path, "lies in a folder that does not exist")
    if path.suffix.lower() in _PICTURES:
        try:
            import kaleido  # noqa: F401
        except ImportError:
            remedy = f"Install it: pip install kaleido. Or draw {path.with_suffix('.html')}, which needs none."
            raise _wrong(path, f"a {path.suffix[1:].upper()} needs the package kaleido", remedy) from None


def write(figure: Figure, path: Path) -> None:
    """Writes it by its suffix. Raises InvalidInput when there is no browser that could make a picture."""
    if path.suffix.lower() == ".html":
        figure.write_html(path, include_plotlyjs=True)
    elif path.suffix.lower() == ".json":
        figure.write_json(path)
    else:
        try:
            figure.write_image(path, width=_WIDTH, height=_HEIGHT, scale=_SCALE)
        except (RuntimeError, ValueError) as error:  # kaleido finds no browser, or one that does not start
            why = " ".join(str(error).split()) or type(error).__name__
            remedy = f"Kaleido needs Chrome or Chromium; {path.with_suffix('.html')} needs none."
            raise _wrong(path, f"kaleido could not draw it: {why[:200]}", remedy) from error


def _wrong(path: Path, message: str, hint: str = "") -> InvalidInput:
    return InvalidInput("command line", [Problem(key="--output", message=message, value=str(path), hint=hint)])
