"""For `make docs`: the guide is the customer's text, byte for byte, and its last line links to pages of another product."""

from __future__ import annotations

from typing import Any

_ELSEWHERE = "[← Agent Tools](agent-tools.md) | [WebUI Guide →](webui.md)"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return markdown.replace(_ELSEWHERE, "") if page.file.src_uri == "hpo-guide.md" else markdown
