"""The dashboard from outside: what importing it costs, and that its documentation is right."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Match

from highnoon.shared.views.charts import FIGURES
from highnoon.webui import api
from highnoon.webui.application import create
from highnoon.webui.assets import address, find
from highnoon.webui.authentication import ANONYMOUS_PATHS
from highnoon.webui.settings import web_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "dashboard.md").read_text()


def test_importing_the_sdk_and_the_dashboards_name_imports_no_web_framework() -> None:
    heavy = "{'fastapi', 'starlette', 'uvicorn', 'jinja2', 'plotly', 'optuna', 'sqlalchemy', 'tensorflow'}"
    code = "import sys, highnoon\nfrom highnoon.webui import app\n"
    code += f"print(sorted({heavy} & set(sys.modules)), app.run.__name__)"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert (shown.stdout.strip(), shown.stderr) == ("[] run", "")


def test_every_operation_is_documented_and_no_other(tmp_path: Path) -> None:
    settings = web_settings(host="127.0.0.1", storage=None, environ={"HIGHNOON_HOME": str(tmp_path)})
    asgi = create(settings, database=lambda: "sqlite:///never.db", port=0).asgi
    schema = asgi._app.openapi()  # type: ignore[attr-defined]

    documented = set(re.findall(r"^\| `(\w+) (/api/\S+)`", TEXT, re.MULTILINE))

    operations = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert operations == documented


@pytest.mark.parametrize("study", ["digits", "team/digits"])
def test_each_address_of_the_api_leads_to_its_own_operation(study: str) -> None:
    routes = [route for route in api.router.routes if isinstance(route, APIRoute)]
    for kind, route in product((*FIGURES, "metrics"), routes):
        known = {"study": study, "number": "7", "kind": kind, "artifact": "a1", "worker": "w1"}
        path = route.path_format.format(**known)
        for method in route.methods:
            scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
            assert next(one for one in routes if one.matches(scope)[0] is Match.FULL) is route, (method, path)


def test_every_variable_of_the_dashboard_is_documented() -> None:
    source = (ROOT / "highnoon" / "webui" / "settings.py").read_text()
    variables = set(re.findall(r"HIGHNOON_[A-Z_]+", source))
    assert {variable for variable in variables if f"`{variable}`" not in TEXT} == set()


def test_files_have_versions_and_plotly_comes_from_its_package() -> None:
    for name in ("app.css", "page.js", "figures.js", "space.js", "login.js", "icon.svg", "plotly.min.js"):
        assert re.fullmatch(rf"/static/{re.escape(name)}\?v=[0-9a-f]{{12}}", address(name))
    assert find("../settings.py") is None and find("") is None
    assert all(find(path.removeprefix("/static/")) for path in ANONYMOUS_PATHS if path.startswith("/static/"))


def test_no_page_or_script_names_another_host() -> None:
    for path in (ROOT / "highnoon" / "webui").rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text())
            assert [host for host in found if "w3.org" not in host] == [], path
            assert not re.search(r"\son\w+=|<script>|javascript:", path.read_text()), path
