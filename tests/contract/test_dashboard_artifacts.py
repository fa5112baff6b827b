"""Artifacts on the dashboard: listed on a trial's page, sent as attachments, to those who may read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import highnoon as hn
from tests.web import TOKEN, VIEWER, Visitor, dashboard

FILE = "plot of <b>.html"
CONTENT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    manager = hn.HPOTrialManager(
        "digits", storage=f"sqlite:///{folder}/hpo.db", n_trials=2, artifacts=folder / "store", seed=1
    )

    def objective(params: dict[str, Any]) -> float:
        (folder / "plot").write_text(CONTENT)
        hn.save_artifact(folder / "plot", FILE)
        return float(params["x"])

    manager.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    return folder


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    environ = {"HIGHNOON_ARTIFACTS_URL": str(folder / "store")}
    with dashboard(f"sqlite:///{folder}/hpo.db", folder / "home", environ=environ) as address:
        yield address


def test_a_trials_page_links_its_files_and_each_is_an_attachment(address: str) -> None:
    with Visitor(address) as visitor:
        page = visitor.get("/hpo/studies/digits/trials/0")
        assert page.status_code == 200, page.text[:500]
        link = re.search(r'href="(/api/hpo/studies/digits/trials/0/artifacts/[0-9a-f]+)" download>([^<]*)<', page.text)
        assert link is not None and link[2] == "plot of &lt;b&gt;.html"

        file = visitor.get(link[1])
        assert (file.status_code, file.text) == (200, CONTENT)
        assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''plot%20of%20%3Cb%3E.html"
        assert file.headers["content-type"] == "application/octet-stream"
        assert file.headers["x-content-type-options"] == "nosniff"
        assert file.headers["content-security-policy"].split("; ")[0] == "sandbox"
        assert "script-src" not in file.headers["content-security-policy"]
        assert file.headers["x-frame-options"] == "DENY"
        assert file.headers["content-length"] == str(len(CONTENT))

        (listed,) = visitor.api("GET", "/studies/digits/trials/0/artifacts").json()["artifacts"]
        assert (listed["name"], listed["size_bytes"], len(listed["sha256"])) == (FILE, len(CONTENT), 64)


def test_only_files_of_the_trial_are_sent(address: str, folder: Path) -> None:
    with Visitor(address) as visitor:
        (of_other,) = visitor.api("GET", "/studies/digits/trials/1/artifacts").json()["artifacts"]
        (folder / "store" / "not-ours").write_text("secret")
        for wrong in (of_other["id"], "not-ours", "..%2Fhpo.db", "%2e%2e", "x"):
            assert visitor.api("GET", f"/studies/digits/trials/0/artifacts/{wrong}").status_code == 404, wrong
        assert visitor.api("GET", "/studies/digits/trials/9/artifacts").status_code == 404


def test_a_store_that_is_away_is_a_problem_of_the_file_only(address: str, folder: Path) -> None:
    with Visitor(address) as visitor:
        (listed,) = visitor.api("GET", "/studies/digits/trials/0/artifacts").json()["artifacts"]
        shutil.move(folder / "store", folder / "away")
        try:
            answer = visitor.api("GET", f"/studies/digits/trials/0/artifacts/{listed['id']}")
            assert answer.status_code == 503 and "cannot be read" in answer.json()["detail"]
            assert visitor.get("/hpo/studies/digits/trials/0").status_code == 200
        finally:
            shutil.move(folder / "away", folder / "store")


def test_files_are_for_those_who_may_read(folder: Path) -> None:
    environ = {
        "HIGHNOON_ARTIFACTS_URL": str(folder / "store"),
        "HIGHNOON_TOKEN": TOKEN,
        "HIGHNOON_WEBUI_VIEWER_TOKEN": VIEWER,
    }
    with dashboard(f"sqlite:///{folder}/hpo.db", folder / "closed", host="0.0.0.0", environ=environ) as address:
        path = f"{address}/api/hpo/studies/digits/trials/0/artifacts"
        assert httpx.get(path, timeout=60).status_code == 401
        headers = {"authorization": f"Bearer {VIEWER}"}
        (listed,) = httpx.get(path, headers=headers, timeout=60).json()["artifacts"]
        assert httpx.get(f"{path}/{listed['id']}", timeout=60).status_code == 401
        assert httpx.get(f"{path}/{listed['id']}", headers=headers, timeout=60).text == CONTENT
