"""A figure into a file: HTML that needs no network, a picture, or JSON. `shared.views.charts` makes the figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.coordinator.cli.command_io import mistake
from highnoon.shared.domain.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from highnoon.shared.views.charts import Figure

_PICTURES = (".png", ".svg", ".pdf")
SUFFIXES = (".html", ".json", *_PICTURES)
_WIDTH, _HEIGHT, _SCALE = 1000, 600, 2
_TITLE_HEIGHT = 110

_COLORS = {
    "$accent": "#1f6aa5", "$best": "#a34d06", "$pruned": "#6c5c93", "$stopped": "#b0147a", "$failed": "#b3261e",
    "$lost": "#7a5b2e", "$running": "#14683c", "$muted": "#676860", "$text": "#23241f", "$card": "#ffffff",
}  # fmt: skip
"""As the dashboard's style sheet has them for a light page."""

_COLOR_SCALES = {
    "$sequence": [[0, "#e2e1dc"], [1, _COLORS["$accent"]]],
    "$quality": [[0, _COLORS["$accent"]], [0.5, "#dfeaf3"], [1, _COLORS["$card"]]],
}


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


def plotly_figure(figure: Figure, title: str) -> Any:
    """The figure as plotly's own, in the colours of a light page, with its title and note above it."""
    import plotly.graph_objects as plotly

    content = _coloured(figure.to_json(title=title))
    note = content["note"]
    height = {"height": content["layout"]["height"] + _TITLE_HEIGHT} if "height" in content["layout"] else {}
    heading = {"text": content["title"], **({"subtitle": {"text": note}} if note else {})}
    layout = {"template": "plotly_white", "hovermode": "closest", **content["layout"], **height, "title": heading}
    return plotly.Figure({"data": content["data"], "layout": layout})


def write(figure: Any, path: Path) -> None:
    """Writes a plotly figure by the suffix. Raises InvalidInput when there is no browser that could make a picture."""
    if path.suffix.lower() == ".html":
        figure.write_html(path, include_plotlyjs=True)
    elif path.suffix.lower() == ".json":
        figure.write_json(path)
    else:
        try:
            figure.write_image(path, width=_WIDTH, height=figure.layout.height or _HEIGHT, scale=_SCALE)
        except (RuntimeError, ValueError) as error:  # kaleido finds no browser, or one that does not start
            why = " ".join(str(error).split()) or type(error).__name__
            remedy = f"Kaleido needs Chrome or Chromium; {path.with_suffix('.html')} needs none."
            raise _wrong(path, f"kaleido could not draw it: {why[:200]}", remedy) from error


def _coloured(value: Any) -> Any:
    if isinstance(value, str):
        return _COLOR_SCALES.get(value) or _COLORS.get(value, value)
    if isinstance(value, dict):
        return {key: _coloured(item) for key, item in value.items()}
    return [_coloured(item) for item in value] if isinstance(value, list) else value


def _wrong(path: Path, message: str, hint: str = "") -> InvalidInput:
    return mistake("--output", message, str(path), hint)
