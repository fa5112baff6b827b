"""The dashboard on a real PostgreSQL: its pages, its API, what may be changed, and who is let in."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import optuna
import pytest
from sqlalchemy import text

from highnoon import HPOTrialManager
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.note import NoteChange
from highnoon.shared.domain.states import StudyState, TicketState, WorkerState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.store import steering
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.audit import AuditLog
from highnoon.shared.store.control import Control
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import submit
from highnoon.shared.views.charts import FIGURES
from highnoon.webui import api
from highnoon.webui.app_state import AppState
from tests.conftest import empty_database
from tests.ledger import Ledger
from tests.made_up import FACTS, make_study
from tests.objectives import goes_on
from tests.ports import free_port, takes_calls
from tests.support import eventually
from tests.web import TOKEN, VIEWER, Visitor, dashboard

HERE = Path(__file__).parents[1]
NAME = "digits 'n' <b>bold<b> ?#%"
"""Everything that an address or a page could stumble over, but a slash, which no study of ours may be called by."""
PATH = "digits%20'n'%20%3Cb%3Ebold%3Cb%3E%20%3F%23%25"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("webui")


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    """A database with a study that no test changes."""
    with empty_database(stack) as url:
        make_study(url, NAME, n_trials=60, done=50, running=3)
        yield url


@pytest.fixture(scope="module")
def books(url: str) -> Iterator[Access]:
    with opened(url) as access:
        yield access


@pytest.fixture(scope="module")
def address(url: str, home: Path) -> Iterator[str]:
    """An open dashboard, on loopback."""
    with dashboard(url, home) as address:
        yield address


@pytest.fixture
def visitor(address: str) -> Iterator[Visitor]:
    with Visitor(address) as visitor:
        visitor.get("/hpo/cluster")
        yield visitor


@pytest.fixture(scope="module")
def closed(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard that others can reach, with a token for each role."""
    tokens = {"HIGHNOON_TOKEN": TOKEN, "HIGHNOON_WEBUI_VIEWER_TOKEN": VIEWER}
    with dashboard(url, tmp_path_factory.mktemp("closed"), host="0.0.0.0", environ=tokens) as address:
        yield address


_numbers = itertools.count(1)


@pytest.fixture
def mine(url: str) -> str:
    """The name of a study that the test may change: 50 of 60 trials are over, none runs."""
    name = f"mine-{next(_numbers)}"
    make_study(url, name, n_trials=60, done=50)
    return name


def record(books: Access, name: str) -> StudyRecord:
    return books.studies.get(name)


# --- Pages


def test_every_page_of_a_study_whose_name_and_logs_are_hostile(visitor: Visitor) -> None:
    pages = ["/hpo", f"/hpo/studies/{PATH}", f"/hpo/studies/{PATH}/trials", "/hpo/cluster", "/docs", "/hpo/new"]
    pages += [f"/hpo/studies/{PATH}/trials/{number}" for number in (0, 7, 49, 50)]
    pages += [
        f"/hpo/new?like={PATH}",
        f"/hpo/studies/{PATH}/trials?state=fail&cause=exception&sort=-params.units&page=9",
    ]
    for path in pages:
        page = visitor.get(path)

        assert page.status_code == 200, (path, page.text[:500])
        assert "<b>bold" not in page.text and "<script>alert" not in page.text, path
        assert "onclick" not in page.text and "<script>" not in page.text, path
        assert not re.search(r'(?:src|href)="https?:', page.text), path
    assert "&lt;script&gt;alert(7)" in visitor.get(f"/hpo/studies/{PATH}/trials/7").text


def test_studies_are_compared_beside_each_other(visitor: Visitor, mine: str, books: Access) -> None:
    # Given a hostile name among two studies, which were asked for other numbers of trials
    other = f"{mine}-wide"
    make_study(books.database.url, other, n_trials=40, done=20)

    page = visitor.get("/hpo/compare", study=[mine, other, NAME]).text

    assert "<b>bold" not in page and page.count("<polyline") == 3
    assert "50 / 60" in page and "20 / 40" in page
    best = books.optuna(record(books, other)).best_trial()
    assert best is not None and f'title="{best.value}"' in page
    assert re.search(r"<th scope=\"row\">n_trials</th><td.*>60<.*>40<", page), "what was asked differently"
    assert "Choose two or more" in visitor.get("/hpo/compare").text
    assert visitor.get("/hpo/compare", study="nowhere").status_code == 404
    assert 'name="study" value="' in visitor.get("/hpo").text


def test_notes_and_tags_are_written_by_forms_and_the_api(visitor: Visitor, mine: str, books: Access) -> None:
    visitor.post(f"/hpo/studies/{mine}/note", note="<i>sound</i>", tags="baseline, sgd")
    visitor.post(f"/hpo/studies/{mine}/trials/3/note", note="=odd", tags="")
    assert visitor.api("PATCH", f"/studies/{mine}/trials/4", json={"tags": ["kept", "a"]}).json()["tags"] == [
        "kept",
        "a",
    ]
    assert visitor.api("PATCH", f"/studies/{mine}/trials/4", json={"tags": ["a"]}).json() == {"note": "", "tags": ["a"]}
    assert visitor.api("PATCH", f"/studies/{mine}", json={"note": "<b>again"}).status_code == 200

    found = visitor.api("GET", f"/studies/{mine}").json()
    assert (found["note"], found["tags"]) == ("<b>again", ["baseline", "sgd"])
    page = visitor.get(f"/hpo/studies/{mine}").text
    assert "&lt;b&gt;again" in page and "<b>again" not in page and ">baseline</small>" in page
    assert ">baseline</small>" in visitor.get(f"/hpo?q={mine}").text
    assert "=odd" in visitor.get(f"/hpo/studies/{mine}/trials/3").text
    assert visitor.api("GET", f"/studies/{mine}/trials/4").json()["tags"] == ["a"]
    rows = csv.DictReader(io.StringIO(visitor.api("GET", f"/studies/{mine}/export/trials").text))
    assert {row["number"]: (row["tags"], row["note"]) for row in rows if row["tags"] or row["note"]} == {
        "3": ("", "'=odd"),
        "4": ("a", ""),
    }
    refused = visitor.api("PATCH", f"/studies/{mine}/trials/4", json={"tags": ["a,b"]})
    assert refused.status_code == 422 and refused.json()["errors"][0]["key"] == "tag"
    assert [entry.action for entry in AuditLog(books.database).entries(study=mine, limit=9)].count("note") == 5


def test_pages_use_the_words_of_study_files(visitor: Visitor) -> None:
    form = visitor.get("/hpo/new").text
    for key in ("n_trials", "direction", "trial_timeout", "sampler", "param_budget"):
        assert f'<code class="key">{key}</code>' in form, key
    pages = [form, visitor.get(f"/hpo/studies/{PATH}").text, visitor.get(f"/hpo/studies/{PATH}/trials").text]
    numbers = visitor.api("GET", f"/studies/{PATH}/trials", params={"state": "PRUNED"}).json()["trials"]
    pages.append(visitor.get(f"/hpo/studies/{PATH}/trials/{numbers[0]['number']}").text)
    for riddle in ("Trials over", "Left with status", "pruned pruner", "TOML"):
        assert not [page for page in pages if riddle in re.sub(r"<[^>]*>", "", page)], riddle


@pytest.mark.parametrize("path", ["", "/trials/50"])
def test_form_of_a_note_is_a_part_of_the_page_without_numbers(visitor: Visitor, path: str) -> None:
    """A part with an open form is not replaced while its study goes on."""
    parts = visitor.get(f"/hpo/studies/{PATH}{path}").text.split('data-part="')
    (name,) = [part.partition('"')[0] for part in parts if '/note"' in part]
    assert name == "note"


def test_form_of_a_note_that_has_changed_meanwhile_is_refused(visitor: Visitor, mine: str) -> None:
    seen = re.search(r'name="seen" value="(\w+)"', visitor.get(f"/hpo/studies/{mine}").text)
    assert seen is not None
    assert visitor.api("PATCH", f"/studies/{mine}", json={"note": "theirs", "tags": ["t"]}).status_code == 200
    assert visitor.post(f"/hpo/studies/{mine}/note", note="mine", tags="m", seen=seen[1]).status_code == 409
    found = visitor.api("GET", f"/studies/{mine}").json()
    assert (found["note"], found["tags"]) == ("theirs", ["t"])


def test_changes_of_one_request_are_reported_up_to_the_first_that_fails(visitor: Visitor, mine: str) -> None:
    change = {"priority": 7, "tags": ["t"], "add_trials": 1_000_000}
    before = visitor.api("GET", f"/studies/{mine}").json()
    refused = visitor.api("PATCH", f"/studies/{mine}", json=change)
    assert refused.status_code == 422 and refused.json()["errors"][0]["key"] == "count"
    assert refused.json()["done"] == ["priority", "tags"]
    after = visitor.api("GET", f"/studies/{mine}").json()
    assert (after["spec"]["priority"], after["tags"]) == (7, ["t"])
    assert after["spec"]["n_trials"] == before["spec"]["n_trials"]


def test_trials_are_compared_beside_each_other(visitor: Visitor) -> None:
    page = visitor.get(f"/hpo/studies/{PATH}/compare?trial=3&trial=7&trial=3").text
    assert page.count('<th scope="col" class="num">') == 2 and "units" in page and "dropout" in page
    assert "Choose two or more" in visitor.get(f"/hpo/studies/{PATH}/compare").text
    assert visitor.get(f"/hpo/studies/{PATH}/compare?trial=999").status_code == 404


@pytest.mark.parametrize(
    "path", ["/hpo/studies/nope", f"/hpo/studies/{PATH}/trials/99999", "/nope", "/static/../app.css"]
)
def test_an_unknown_address_is_answered_with_a_page(visitor: Visitor, path: str) -> None:
    page = visitor.get(path)
    assert page.status_code == 404 and "All studies" in page.text and "Traceback" not in page.text


def test_the_trial_list_is_chosen_sorted_and_paged(visitor: Visitor) -> None:
    page = visitor.get(f"/hpo/studies/{PATH}/trials")
    assert "1–50 of 53" in page.text and page.text.count('<th scope="row" class="num">') == 50
    assert visitor.get(f"/hpo/studies/{PATH}/trials", page="2").text.count('<th scope="row" class="num">') == 3
    assert visitor.get(f"/hpo/studies/{PATH}/trials", sort="params.nope").status_code == 422
    assert "No trial fits" in visitor.get(f"/hpo/studies/{PATH}/trials", state="waiting").text


def test_an_empty_database_is_answered_with_the_next_step(postgres_url: str, home: Path) -> None:
    with opened(postgres_url, create=True), dashboard(postgres_url, home) as address, Visitor(address) as visitor:
        assert "python -m coordinator start" in visitor.get("/hpo").text
        assert "No worker is there" in visitor.get("/hpo/cluster").text


def test_without_a_database_there_is_an_explanation_until_there_is_one(url: str, tmp_path: Path) -> None:
    with dashboard(None, tmp_path) as address, Visitor(address) as visitor:
        page = visitor.get("/hpo")
        assert page.status_code == 503 and "python -m coordinator start" in page.text
        assert visitor.get("/health").json() == {"status": "ok"}
        assert visitor.api("GET", "/studies").json()["title"] == "Service Unavailable"


def test_studies_of_a_manager_are_shown_and_not_steered(tmp_path: Path) -> None:
    # Given what the guide's quick start leaves, without any coordinator
    storage = f"sqlite:///{tmp_path}/hpo.db"
    manager = HPOTrialManager(study_name="quick start", n_trials=5, storage=storage, sampler="random")
    manager.optimize(lambda params: params["x"] ** 2, {"x": ("uniform", -1.0, 1.0), "y": ("int", 1, 5)})
    manager.note(tag="first-try")

    with dashboard(storage, tmp_path) as address, Visitor(address) as visitor:
        # Then it is there, with its best value
        (study,) = visitor.api("GET", "/studies").json()["studies"]
        assert (study["state"], study["complete"], study["id"]) == ("external", 5, None)
        assert study["best_value"] == manager.best_value
        for path in (
            "/hpo",
            "/hpo/studies/quick%20start",
            "/hpo/studies/quick%20start/trials",
            "/hpo/studies/quick%20start/trials/3",
        ):
            assert visitor.get(path).status_code == 200
        assert ">first-try</small>" in visitor.get("/hpo").text
        assert "No coordinator has used this database" in visitor.get("/hpo/cluster").text
        assert visitor.post("/hpo/studies/quick%20start/pause").status_code == 409


def test_trial_of_a_population_shows_its_member_and_what_it_goes_on_from(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/hpo.db"
    pbt = {"name": "pbt", "population": 2, "perturbation_interval": 1}
    manager = HPOTrialManager("population", n_trials=4, storage=storage, sampler=pbt, seed=1)
    manager.optimize(goes_on, {"rate": ("uniform", 0.01, 0.5)})

    with dashboard(storage, tmp_path) as address, Visitor(address) as visitor:
        first, last = (visitor.get(f"/hpo/studies/population/trials/{number}").text for number in (0, 3))
        assert "member 0, generation 0" in first and "Goes on from" not in first
        assert re.search(r"member \d, generation 1<", last) and re.search(
            r"Goes on from</dt><dd><a[^>]*>trial [01]<", last
        )
        # What ends every trial need not be explained beside each of them
        assert "segment end" not in visitor.get("/hpo/studies/population").text


def test_study_of_another_program_may_have_slashes_in_its_name(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/hpo.db"
    study = optuna.create_study(study_name="team/first try", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=3)
    parts = {"study": "team%2Ffirst%20try", "number": "2", "kind": "history", "artifact": "none"}

    with dashboard(storage, tmp_path) as address, Visitor(address) as visitor:
        for route in [route for route in api.router.routes if "{study" in route.path and "GET" in route.methods]:  # type: ignore[attr-defined]
            path = re.sub(r"\{(\w+)[^}]*\}", lambda part: parts[part[1]], route.path)  # type: ignore[attr-defined]
            answer = visitor.client.get(path)
            assert answer.status_code == (404 if path.endswith("/none") else 200), path
        assert visitor.api("GET", f"/studies/{parts['study']}").json()["name"] == study.study_name
        assert visitor.api("GET", f"/studies/{parts['study']}/").json()["name"] == study.study_name
        assert visitor.api("GET", "/studies/").json()["total"] == 1
        for kind in FIGURES:
            assert visitor.api("GET", f"/studies/{parts['study']}/figures/{kind}").json().keys() >= {"data", "note"}
        assert visitor.api("GET", f"/studies/{parts['study']}/trials").json()["total"] == 3
        assert visitor.api("GET", f"/studies/{parts['study']}/export/trials").text.startswith("number,")
        assert visitor.api("GET", f"/studies/{parts['study']}/trials/{10**30}/artifacts/none").status_code == 404


# --- Steering


def test_a_study_is_paused_resumed_extended_and_cancelled(visitor: Visitor, books: Access, mine: str) -> None:
    for act, state in (("pause", StudyState.PAUSED), ("resume", StudyState.RUNNING)):
        answer = visitor.post(f"/hpo/studies/{mine}/{act}")
        assert (answer.status_code, record(books, mine).state) == (303, state)
        assert httpx.URL(answer.headers["location"]).path.endswith(mine)
    assert visitor.post(f"/hpo/studies/{mine}/resume").status_code == 409

    assert visitor.post(f"/hpo/studies/{mine}/add", count="5").status_code == 303
    assert visitor.post(f"/hpo/studies/{mine}/set", priority="4", max_running="").status_code == 303
    assert (record(books, mine).spec["priority"], record(books, mine).spec["max_running"]) == (4, None)
    for wrong in ("0", "-1", "x", "99999"):
        assert visitor.post(f"/hpo/studies/{mine}/set", priority=wrong, max_running="2").status_code == 422
    assert books.studies.counts(record(books, mine).id).total == 65
    for wrong in ("0", "-1", "many", "", "99999999999"):
        assert visitor.post(f"/hpo/studies/{mine}/add", count=wrong).status_code == 422

    assert visitor.post(f"/hpo/studies/{mine}/delete").status_code == 409
    assert visitor.post(f"/hpo/studies/{mine}/cancel").status_code == 303
    assert record(books, mine).state is StudyState.CANCELLING


def test_a_study_that_is_over_is_deleted_whole(visitor: Visitor, url: str, books: Access) -> None:
    make_study(url, "old", n_trials=20)
    assert visitor.post("/hpo/studies/old/delete").status_code == 409
    assert Control(books.database).finish(
        record(books, "old").id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials"
    )

    assert visitor.post("/hpo/studies/old/delete").status_code == 303

    assert visitor.api("GET", "/studies/old").status_code == 404
    assert books.studies.find("old") is None and not books.store.exists("old")


def test_a_study_that_is_deleted_and_submitted_again_elsewhere_is_another_one(
    visitor: Visitor, url: str, books: Access
) -> None:
    make_study(url, "again", n_trials=12)
    figure = visitor.api("GET", "/studies/again/figures/history").json()
    assert visitor.api("GET", "/studies/again/trials").json()["total"] == 12

    # The command line does this in another process, and tells the dashboard nothing
    over = Control(books.database).finish(
        record(books, "again").id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials"
    )
    assert over
    steering.delete_study(books, record(books, "again"))
    make_study(url, "again", n_trials=20, done=9)

    def total() -> int:
        return int(visitor.api("GET", "/studies/again/trials").json()["total"])

    eventually(lambda: total() == 9, what="the new study is shown")
    assert visitor.api("GET", "/studies/again/figures/history").json() != figure


def test_a_failed_trial_runs_again_and_a_good_one_does_not(visitor: Visitor, books: Access, mine: str) -> None:
    trials = visitor.api("GET", f"/studies/{mine}/trials", params={"state": "FAIL"}).json()["trials"]
    failed = trials[0]["number"]

    assert visitor.post(f"/hpo/studies/{mine}/trials/{failed}/retry").status_code == 303

    assert books.studies.counts(record(books, mine).id).by_state[TicketState.WAITING] == 11
    complete = visitor.api("GET", f"/studies/{mine}/best").json()["number"]
    assert visitor.post(f"/hpo/studies/{mine}/trials/{complete}/retry").status_code == 409


def test_a_variation_is_the_next_trial(visitor: Visitor, books: Access, mine: str) -> None:
    fields = {"param-units": "64", "param-optimizer": "sgd", "param-dropout": "0.25", "param-l2": ""}
    assert visitor.post(f"/hpo/studies/{mine}/trials/0/enqueue", **fields).status_code == 303

    assert books.studies.counts(record(books, mine).id).total == 61
    params = books.optuna(record(books, mine)).start_trial(ordinal=99).params
    assert (params["units"], params["optimizer"], params["dropout"]) == (64, "sgd", 0.25) and len(params) == 6

    refused = visitor.post(
        f"/hpo/studies/{mine}/trials/0/enqueue", **{"param-units": "65000", "param-optimizer": "lion"}
    )
    assert refused.status_code == 422 and "lion" in refused.text
    assert 'value="65000"' in refused.text and "is outside of [" in refused.text, "the form keeps what was written"
    assert books.studies.counts(record(books, mine).id).total == 61


@pytest.mark.parametrize(("sampler", "is_offered"), [("grid", False), ("brute_force", False), ("random", True)])
def test_a_variation_is_offered_where_it_can_be_tried(
    visitor: Visitor, books: Access, sampler: str, is_offered: bool
) -> None:
    name = f"mine-{next(_numbers)}"
    space = {"units": ["int", 1, 8], "optimizer": ["categorical", ["adam", "sgd"]]}
    spec = StudySpec.from_json(
        {"name": name, "objective": "a:b", "search_space": space, "n_trials": 9, "sampler": sampler}
    )
    ledger = Ledger(books.database.url, create=False)
    ledger.run(ledger.tickets(submit(spec, ledger.access).record)[0])
    ledger.close()

    page = visitor.get(f"/hpo/studies/{name}/trials/0").text
    answer = visitor.post(f"/hpo/studies/{name}/trials/0/enqueue", **{"param-units": "3"})

    assert ("Try a variation" in page, answer.status_code == 303) == (is_offered, is_offered)


@pytest.mark.parametrize(("space", "has_points_left"), [(["int", 1, 2], True), (["int", 1, 1], False)])
def test_trials_are_added_to_a_grid_with_points_left_and_trained_longer_without(
    visitor: Visitor, books: Access, monkeypatch: pytest.MonkeyPatch, space: list[Any], has_points_left: bool
) -> None:
    monkeypatch.setattr(AppState, "has_checkpoint", lambda *_: True)
    name = f"mine-{next(_numbers)}"
    written = {"name": name, "objective": "a:b", "search_space": {"x": space}, "n_trials": 1, "sampler": "grid"}
    ledger = Ledger(books.database.url, create=False)
    ledger.run(ledger.tickets(submit(StudySpec.from_json(written), ledger.access).record)[0])
    ledger.close()

    offers = visitor.get(f"/hpo/studies/{name}").text, visitor.get(f"/hpo/studies/{name}/trials/0").text
    assert ("Add trials" in offers[0], "Train longer" in offers[1]) == (has_points_left, not has_points_left)
    refused = visitor.post(f"/hpo/studies/{name}/add", count="many")
    assert refused.status_code == 422 and f'href="/hpo/studies/{name}"' in refused.text, "back to the study"
    added = visitor.post(f"/hpo/studies/{name}/add", count="1")
    assert added.status_code == (303 if has_points_left else 409)


def test_causes_and_reasons_are_words_for_people(visitor: Visitor, mine: str, books: Access) -> None:
    stopped = visitor.api("GET", f"/studies/{mine}/trials", params={"cause": "memory_guard"}).json()["trials"][0]
    study, control = record(books, mine), Control(books.database)
    assert control.stop(study.id, "target_value", spec_version=study.spec_version)
    assert control.finish(study.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")
    eventually(lambda: "target value" in visitor.get("/hpo").text, 10, what="the reason is read")
    pages = ["/hpo", f"/hpo/studies/{mine}", f"/hpo/studies/{mine}/trials?cause=memory_guard"]
    for path in (*pages, f"/hpo/studies/{mine}/trials/{stopped['number']}"):
        shown = re.sub(r"<[^>]*>", "", visitor.get(path).text)
        assert ("target value" if path in pages[:2] else "memory guard") in shown, path
        assert "memory_guard" not in shown and "target_value" not in shown, path


FORM = {
    "name": "by form",
    "objective": "objectives.py:paraboloid",
    "code_dir": str(HERE),
    "direction": "minimize",
    "n_trials": "4",
    "sampler": "random",
    "pruner": "none",
    "resources": "cpu",
    "space-0-name": "x",
    "space-0-kind": "uniform",
    "space-0-low": "-5",
    "space-0-high": "5",
    "action": "submit",
}


def test_a_study_is_made_by_the_form(url: str, home: Path, books: Access) -> None:
    environ = {"HIGHNOON_OBJECTIVES": f"{HERE}/*.py:*"}
    with dashboard(url, home, environ=environ) as address, Visitor(address) as visitor:
        visitor.get("/hpo/new")
        functions = re.findall(r"^def (\w+)\(", (HERE / "objectives.py").read_text(), re.MULTILINE)

        answer = visitor.post("/hpo/new", **{**FORM, "objective": f"objectives.py:{functions[0]}"})

        assert (answer.status_code, answer.headers.get("location")) == (303, "/hpo/studies/by%20form"), answer.text
        made = record(books, "by form")
        assert (made.state, made.spec["search_space"]) == (StudyState.RUNNING, {"x": ["uniform", -5.0, 5.0]})
        assert visitor.get(answer.headers["location"]).status_code == 200


def test_a_worker_is_drained_and_one_in_quarantine_is_taken_back(visitor: Visitor, books: Access) -> None:
    nodes = Nodes(books.database)
    nodes.beat("w1", FACTS)
    for worker in ("good", "bad"):
        nodes.enter(worker, host=f"node-{worker}", pid=1, slots=1, queues=["gpu"])
    nodes.mark("bad", WorkerState.QUARANTINED, "its GPU <b>fell</b> off the bus")

    page = visitor.get("/hpo/cluster").text
    assert "its GPU &lt;b&gt;fell&lt;/b&gt; off the bus" in page and page.count("/reinstate") == 1
    assert "NVIDIA L4" in page and "64 GB" in page
    assert "<small>of 5</small>" in page, "four of w1 and one of good: bad takes nothing"

    assert visitor.post("/hpo/workers/good/drain").status_code == 303
    assert visitor.post("/hpo/workers/bad/reinstate").status_code == 303
    states = {worker.id: worker.state for worker in nodes.workers(silent_for_s=60)}
    assert states["good"] is WorkerState.DRAINING and states["bad"] is WorkerState.ACTIVE

    # One that drains is about to leave: it neither comes back nor drains twice
    for state in ("active", "draining"):
        assert visitor.api("PATCH", "/workers/good", json={"state": state}).status_code == 409
    assert visitor.api("PATCH", "/workers/nobody", json={"state": "draining"}).status_code == 404
    assert visitor.api("PATCH", "/workers/bad", json={"state": "gone"}).status_code == 422
    listed = visitor.api("PATCH", "/workers/bad", json={"state": "draining"}).json()["workers"]
    assert {worker["id"]: worker["state"] for worker in listed}["bad"] == "draining"
    for worker in ("good", "bad"):
        nodes.mark(worker, WorkerState.GONE)


def test_a_worker_is_gone_after_four_silences(url: str, home: Path, books: Access) -> None:
    nodes = Nodes(books.database)
    nodes.enter("silent", host="node-silent", pid=1, slots=1, queues=["gpu"])
    with dashboard(url, home, environ={"HIGHNOON_PRESENCE_S": "0.1"}) as address, Visitor(address) as visitor:
        visitor.get("/hpo/cluster")

        def listed() -> set[str]:
            return {worker["id"] for worker in visitor.api("GET", "/workers").json()["workers"]}

        eventually(lambda: "silent" not in listed(), 5, what="its last beat is too old")
        assert visitor.api("PATCH", "/workers/silent", json={"state": "draining"}).status_code == 404
    nodes.mark("silent", WorkerState.GONE)


def test_a_worker_of_start_is_not_offered_to_be_drained(
    visitor: Visitor, books: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(books.database)
    nodes.enter("own", host="node-own", pid=1, slots=1, queues=["gpu"])
    assert "/hpo/workers/own/drain" in visitor.get("/hpo/cluster").text

    monkeypatch.setattr(steering, "attach", lambda home: SimpleNamespace(database_url=books.database.url))
    assert "/drain" not in visitor.get("/hpo/cluster").text
    refused = visitor.api("PATCH", "/workers/own", json={"state": "draining"})
    assert refused.status_code == 409 and "pause its studies instead" in refused.text
    nodes.mark("own", WorkerState.GONE)


def test_a_viewer_cannot_drain_a_worker(closed: str) -> None:
    headers = {"authorization": f"Bearer {VIEWER}"}
    answer = httpx.patch(f"{closed}/api/hpo/workers/w1", headers=headers, json={"state": "draining"})
    assert answer.status_code == 403


def test_the_memory_of_an_attempt_is_drawn_beside_its_limit(visitor: Visitor) -> None:
    page = visitor.get(f"/hpo/studies/{PATH}/trials/7").text
    assert 'class="line"' in page and "of 4 GB" in page and 'class="limit"' in page
    result = visitor.api("GET", f"/studies/{PATH}/trials/7").json()["attempts"][0]["memory"]
    assert result["limit_bytes"] == 4e9 and len(result["samples"]) == 21
    figure = visitor.api("GET", f"/studies/{PATH}/figures/memory").json()
    assert "limit" in [trace["name"] for trace in figure["data"]]


def test_all_trials_as_parquet_and_a_second_csv_is_the_first(visitor: Visitor) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(
        io.BytesIO(visitor.get(f"/api/hpo/studies/{PATH}/export/trials", format="parquet").content)
    )
    assert table.num_rows == 53 and table.column("host").to_pylist()[0] == "node-a"
    first, second = (visitor.get(f"/api/hpo/studies/{PATH}/export/trials").text for _ in range(2))
    assert first == second and first.count("\r\n") == 54


def test_the_form_comes_back_with_every_mistake_beside_its_field(visitor: Visitor, books: Access) -> None:
    visitor.get("/hpo/new")
    # A folder that no study comes from, whatever the other tests have submitted.
    wrong = {"name": "by mistake", "code_dir": str(HERE.parent / "examples"), "n_trials": "many", "space-0-low": "9"}

    page = visitor.post("/hpo/new", **{**FORM, **wrong})

    assert page.status_code == 422 and books.studies.find("by mistake") is None
    fields = dict(re.findall(r'id="h-(\w+)"><strong>([^<]*)', page.text))
    assert "whole number" in fields["n_trials"] and "may be started here" in fields["objective"]
    assert "above high" in page.text and 'value="many"' in page.text


def test_form_names_the_mistakes_that_only_a_form_can_have_with_all_others(visitor: Visitor) -> None:
    visitor.get("/hpo/new")
    odd = "<b>x/y</b>"
    wrong = {"name": odd, "n_trials": odd, "constraints": odd, "timeout": odd, "more": odd, "space-0-low": "9"}
    page = visitor.post("/hpo/new", **{**FORM, **wrong, "space-1-name": FORM["space-0-name"], "space-1-kind": "int"})
    assert page.status_code == 422
    assert {"name", "n_trials", "constraints", "timeout"} <= {*re.findall(r'id="h-(\w+)"><strong>', page.text)}
    assert "cannot be read as lines of a study file" in page.text and "is given twice" in page.text


def test_form_of_a_study_like_another_has_the_keys_without_a_field(visitor: Visitor, books: Access) -> None:
    name = f"mine-{next(_numbers)}"
    make_study(books.database.url, name, n_trials=1, keep_best=3, environment={"NOTE": "</textarea><script>alert(1)"})

    page = visitor.get("/hpo/new", like=name).text
    assert "keep_best = 3" in page and "<script>alert" not in page
    refused = visitor.post("/hpo/new", **{**FORM, "more": "keep_best = 0\nn_trials = 3"})
    assert refused.status_code == 422 and "n_trials has a field of its own." in refused.text


def test_the_form_grows_without_scripts(visitor: Visitor) -> None:
    visitor.get("/hpo/new")
    page = visitor.post("/hpo/new", **{**FORM, "action": "add"})
    assert page.status_code == 200 and 'name="space-1-name"' in page.text and 'value="by form"' in page.text


def test_no_objective_but_the_allowed_ones_is_even_looked_at(visitor: Visitor) -> None:
    visitor.get("/hpo/new")
    for objective, folder in (("/etc/passwd.py:f", ""), ("os:system", ""), ("../x.py:f", "/srv"), ("a.py:f", "/root")):
        page = visitor.post("/hpo/new", **{**FORM, "objective": objective, "code_dir": folder})
        assert page.status_code == 422 and "there is no file" not in page.text and "no folder /" not in page.text


@pytest.mark.parametrize("key", ["sampler", "pruner"])
def test_no_sampler_or_pruner_but_the_allowed_ones_is_even_looked_at(
    url: str, home: Path, tmp_path: Path, books: Access, key: str
) -> None:
    # Given classes beside which there is nothing else, and others that are not there
    (tmp_path / "theirs.py").write_text("class Sampler: ...")
    (tmp_path / "broken.py").write_text("class")
    names = [f"{tmp_path}/{name}" for name in ("theirs.py:Sampler", "theirs.py:No", "broken.py:A", "no.py:A")]
    objective = "objectives.py:" + re.findall(r"^def (\w+)\(", (HERE / "objectives.py").read_text(), re.MULTILINE)[0]
    environ = {"HIGHNOON_OBJECTIVES": f"{HERE}/*.py:*"}

    with dashboard(url, home, environ=environ) as address, Visitor(address) as visitor:
        visitor.get("/hpo/new")
        for name in (*names, "os:system"):
            asked = {
                "name": "theirs",
                "objective": objective,
                "code_dir": str(HERE),
                "n_trials": 3,
                key: {"name": name},
            }
            answer = visitor.api("POST", "/studies", json={**asked, "search_space": {"x": ["uniform", 0, 1]}})
            assert answer.status_code == 422, name
            (problem,) = answer.json()["errors"]
            assert (problem["key"], problem["message"]) == (key, "is not one that may be started here")
            page = visitor.post("/hpo/new", **{**FORM, "objective": objective, key: name})
            assert page.status_code == 422 and page.text.count("one that may be started here") == 1
    assert books.studies.find("theirs") is None


# --- API


def test_the_guides_two_addresses_and_pagination(visitor: Visitor) -> None:
    result = visitor.api("GET", "/studies", params={"per_page": 1, "q": "BOLD"}).json()
    assert (result["total"], result["pages"], len(result["studies"])) == (1, 1, 1)
    study = result["studies"][0]
    assert (study["name"], study["trials"], study["running"]) == (NAME, 60, 3)

    by_id, by_name = (visitor.api("GET", f"/studies/{key}").json() for key in (study["id"], PATH))
    assert by_id == by_name and by_id["spec"]["n_trials"] == 60

    trials = visitor.api("GET", f"/studies/{PATH}/trials", params={"per_page": 20, "page": 3}).json()
    assert (trials["total"], trials["page"], len(trials["trials"])) == (53, 3, 13)


def test_one_trial_with_its_attempts_and_its_log(visitor: Visitor) -> None:
    trial = visitor.api("GET", f"/studies/{PATH}/trials/7").json()
    (attempt,) = trial["attempts"]
    assert (attempt["host"], attempt["attempt"], attempt["trial"]) == ("node-a", 1, 7)
    assert attempt["duration_s"] > 0 and attempt["peak_rss_bytes"] > 0
    log = visitor.api("GET", f"/studies/{PATH}/trials/7/log")
    assert log.headers["content-type"].startswith("text/plain") and "epoch 2" in log.text
    assert log.headers["x-content-type-options"] == "nosniff"


def test_exports_are_files_and_best_is_the_best(visitor: Visitor) -> None:
    trials = visitor.api("GET", f"/studies/{PATH}/trials", params={"state": "COMPLETE", "per_page": 500}).json()[
        "trials"
    ]
    best = min(trials, key=lambda trial: trial["value"])
    assert visitor.api("GET", f"/studies/{PATH}/best").json()["number"] == best["number"]
    for kind in ("json", "yaml", "toml", "python", "env"):
        answer = visitor.api("GET", f"/studies/{PATH}/export/best", params={"format": kind})
        assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(visitor.api("GET", f"/studies/{PATH}/export/trials").text)))
    lines = visitor.api("GET", f"/studies/{PATH}/export/trials", params={"format": "jsonl"}).text.splitlines()
    assert len(rows) == len(lines) == 53 and rows[7]["host"] == "node-a"
    assert json.loads(lines[7])["params"]["units"] == int(rows[7]["params.units"])


def test_figures_importance_and_workers(visitor: Visitor, books: Access) -> None:
    shares = visitor.api("GET", f"/studies/{PATH}/importance").json()["importance"]
    assert sum(shares.values()) == pytest.approx(1) and len(shares) == 6
    for kind in ("history", "slice", "parallel", "importance", "intermediate", "timeline", "outcomes", "memory"):
        assert visitor.api("GET", f"/studies/{PATH}/figures/{kind}").json()["data"], kind
    plain = visitor.client.get(f"/api/hpo/studies/{PATH}/figures/history", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.json()["data"]
    two_first = sorted(shares, key=lambda name: -shares[name])[:2]
    layout = visitor.api("GET", f"/studies/{PATH}/figures/contour").json()["layout"]
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == two_first
    contour = {"x": "units", "y": "dropout"}
    assert visitor.api("GET", f"/studies/{PATH}/figures/contour", params=contour).json()["data"]
    assert visitor.api("GET", f"/studies/{PATH}/figures/histroy").json()["errors"][0]["hint"] == "Did you mean history?"

    Nodes(books.database).beat("w1", FACTS)  # it may have been silent for too long by now
    (worker,) = (result := visitor.api("GET", "/workers").json())["workers"]
    assert (worker["host"], worker["slots"], len(worker["running"])) == ("node-a", 4, 3)
    (queue,) = result["queues"]
    assert (queue["resource"], queue["running"], queue["queued"]) == ("cpu", 3, 0) and queue["waiting"] >= 7


def test_changes_by_the_api(visitor: Visitor, books: Access, mine: str) -> None:
    assert visitor.api("PATCH", f"/studies/{mine}", json={"state": "paused"}).json()["state"] == "paused"
    assert visitor.api("PATCH", f"/studies/{mine}", json={"state": "paused"}).status_code == 200, "said twice"
    assert visitor.api("PATCH", f"/studies/{mine}", json={"state": "running", "add_trials": 2}).json()["trials"] == 62
    assert visitor.api("POST", f"/studies/{mine}/trials", json={"params": {"units": 64}}).status_code == 202
    changed = visitor.api("PATCH", f"/studies/{mine}", json={"priority": 3, "max_running": 2})
    assert changed.status_code == 200 and record(books, mine).spec["priority"] == 3
    assert visitor.api("PATCH", f"/studies/{mine}", json={"max_running": 0}).status_code == 200
    assert record(books, mine).spec["max_running"] is None
    for body in (
        {},
        {"priority": 0},
        {"max_running": -1},
        {"state": "exploded"},
        {"add_trials": 0},
        {"add_trials": True},
        {"more": 1},
        [],
        "x",
    ):
        result = visitor.api("PATCH", f"/studies/{mine}", json=body)
        assert result.status_code == 422 and result.headers["content-type"] == "application/problem+json", body
    assert visitor.api("DELETE", f"/studies/{mine}").status_code == 409

    result = visitor.api("POST", "/studies", json={**record(books, mine).spec, "name": "by api", "n_trials": -3}).json()
    assert {mistake["key"] for mistake in result["errors"]} == {"n_trials", "objective"}


def test_errors_of_the_api_have_values_only_where_something_was_written(visitor: Visitor, mine: str) -> None:
    def errors(**options: Any) -> list[dict[str, Any]]:
        answer = visitor.api("PATCH", f"/studies/{mine}", **options)
        assert answer.status_code == 422, answer.text
        return list(answer.json()["errors"])

    assert errors(json={}) == [
        {"key": "state", "message": "or add_trials, priority, max_running, note, tags is needed", "hint": ""}
    ]
    (broken,) = errors(content=b'{"state": ', headers={"content-type": "application/json"})
    assert broken["key"] == "body" and broken["message"].startswith("is not JSON: ") and "value" not in broken
    (odd,) = errors(json={"state": None, "add_trials": "x"})
    assert (odd["key"], odd["value"]) == ("add_trials", "x")
    (missing,) = visitor.api("POST", f"/studies/{mine}/trials", json={}).json()["errors"]
    assert missing["key"] == "params" and "value" not in missing


def test_errors_of_the_api_name_the_nearest_valid_key_or_choice(visitor: Visitor, mine: str) -> None:
    slip = visitor.api("PATCH", f"/studies/{mine}", json={"sate": "paused"}).json()
    choice = visitor.api("GET", f"/studies/{mine}/export/best?format=tml").json()
    assert (slip["detail"], choice["detail"]) == ("1 mistake", "1 mistake")
    assert slip["errors"] == [
        {"key": "sate", "message": "is not a known key", "value": "paused", "hint": "Did you mean state?"}
    ]
    (choice,) = choice["errors"]
    assert (choice["key"], choice["hint"]) == ("format", "Did you mean toml?")
    assert choice["message"] == "must be 'json', 'yaml', 'toml', 'python' or 'env'"


def test_every_wrong_value_of_a_change_is_named_before_anything_is_changed(visitor: Visitor, mine: str) -> None:
    change = {"priority": 0, "max_running": -1, "note": "x" * 10_001, "tags": ["a,b", ""], "add_trials": 1}
    refused = visitor.api("PATCH", f"/studies/{mine}", json=change).json()
    assert [one["key"] for one in refused["errors"]] == ["priority", "max_running", "note", "tag", "tag"]
    assert refused["done"] == []


def test_no_input_makes_a_500(visitor: Visitor) -> None:
    """Every operation of the OpenAPI with senseless values."""
    schema = visitor.client.get("/openapi.json").json()
    odd = ["", "0", "-1", "9" * 40, "1e999", "nan", "%00", "%F0%9F%92%A9", "'; drop table trials --", "..", "a" * 3000]
    bodies: list[Any] = [None, [], {}, {"params": {"units": 1e400}}, {"params": {"": None}}, {"name": "\x00"}]
    for path, methods in schema["paths"].items():
        if path.endswith("/events"):
            continue
        for method in methods:
            for index, word in enumerate(odd):
                for study in (word, PATH) if "{study}" in path else (word,):
                    address = path.replace("{study}", study or "x").replace("{number}", word or "x")
                    address = address.replace("{kind}", word or "x").removeprefix("/api/hpo")
                    query = "&".join(
                        f"{p['name']}={word}" for p in methods[method].get("parameters", []) if p["in"] == "query"
                    )
                    content = json.dumps(bodies[index % len(bodies)]).encode() if method in ("post", "patch") else None
                    answer = visitor.api(method.upper(), f"{address}?{query}", content=content)
                    assert answer.status_code < 500, (method, address, query, answer.text)


# --- Live


def test_a_change_is_heard_by_those_who_listen(visitor: Visitor, books: Access, mine: str) -> None:
    with visitor.client.stream("GET", "/api/hpo/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert "event: hello" in [next(lines), next(lines)]
        books.studies.pause(record(books, mine).id)
        for line in lines:
            if line == "event: change":
                assert json.loads(next(lines).removeprefix("data: ")) == [mine]
                break
    assert visitor.api("GET", f"/studies/{mine}").json()["state"] == "paused"


def test_a_page_that_is_open_does_not_keep_the_server(url: str, home: Path) -> None:
    with httpx.Client(timeout=60) as client, ExitStack() as streams:
        with dashboard(url, home) as address:
            stream = streams.enter_context(client.stream("GET", f"{address}/api/hpo/events"))
            lines = stream.iter_lines()
            next(lines)
            began = time.monotonic()
        assert time.monotonic() - began < 20
        assert "event: change" not in list(lines), "the stream came to its end"


def test_ctrl_c_ends_a_script_that_serves_without_a_traceback(url: str, tmp_path: Path) -> None:
    port = free_port()
    code = f"from highnoon.webui import app; app.run(port={port}, storage={url!r})"
    environ = {**os.environ, "HIGHNOON_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: takes_calls(port) or process.poll() is not None, 120, what="the dashboard listens")
        process.send_signal(signal.SIGINT)
        _, written = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in written, written


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_in_use_is_refused_before_an_address_is_shown(host: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "highnoon.webui", "--host", host, "--port", str(port)]
        environ = {**os.environ, "HIGHNOON_HOME": str(tmp_path)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    message = f"port: cannot listen on {host} (Address already in use) (got {port}). Choose another port or host."
    assert (done.returncode, done.stderr) == (2, f"error: dashboard:\n  {message}\n")


def test_an_outage_is_a_page_and_ends_by_itself(visitor: Visitor, closed: str, books: Access) -> None:
    with books.database.transaction() as connection:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))

    def page() -> int:
        return visitor.get(f"/hpo/studies/{PATH}").status_code

    assert page() in (200, 503)
    eventually(lambda: page() == 200, 15, what="the dashboard connects again")
    # The other dashboard of these tests has lost its connections as well.
    headers = {"authorization": f"Bearer {TOKEN}"}
    eventually(
        lambda: httpx.get(f"{closed}/api/hpo/studies/{PATH}", headers=headers, timeout=60).status_code == 200, 15
    )


def test_the_first_request_after_a_restart_of_the_database_is_answered(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack") as stack:
        make_study(stack.database_url, n_trials=5)
        with (
            dashboard(stack.database_url, tmp_path / "home") as address,
            httpx.Client(base_url=address, timeout=60) as client,
        ):
            paths = ["/hpo/cluster", "/hpo/studies/digits", "/api/hpo/studies/digits/trials/3", "/api/hpo/workers"]
            assert {client.get(path, timeout=60).status_code for path in paths} == {200}

            for path in paths:
                stack.postgres.stop()
                stack.postgres.start()
                answer = client.get(path, timeout=60)
                assert answer.status_code == 200, (path, answer.text[-600:])


# --- Who is let in


def test_loopback_is_open_under_its_own_names_only(visitor: Visitor) -> None:
    assert visitor.client.get("/hpo", headers={"host": "localhost:8000"}).status_code == 200
    refused = {"evil.example": 421, "127.0.0.1.evil.example": 421, "evil.example:8000": 421, "": 400, "[::1].evil": 400}
    for name, status in refused.items():
        answer = visitor.client.get("/hpo", headers={"host": name})
        assert answer.status_code == status and "digits" not in answer.text, name


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({"origin": "http://evil.example"}, {}),
        ({"origin": "null"}, {}),
        ({"sec-fetch-site": "cross-site"}, {}),
        ({"origin": "SELF"}, {"csrf": ""}),
        ({"origin": "SELF"}, {"csrf": "0" * 64}),
    ],
    ids=["no origin", "other origin", "null origin", "cross-site", "no token", "wrong token"],
)
def test_a_change_from_elsewhere_is_refused(
    visitor: Visitor, books: Access, mine: str, headers: dict[str, str], fields: dict[str, str]
) -> None:
    headers = {name: visitor.address if value == "SELF" else value for name, value in headers.items()}
    data = {"csrf": visitor.csrf, **fields}

    answer = visitor.client.post(f"/hpo/studies/{mine}/cancel", data=data, headers=headers)

    assert answer.status_code == 403 and record(books, mine).state is StudyState.RUNNING


def test_a_change_by_a_program_without_a_token_is_answered_with_how_to_send_it(address: str, mine: str) -> None:
    answer = httpx.patch(f"{address}/api/hpo/studies/{mine}", json={"state": "paused"})
    assert answer.status_code == 403
    assert "HIGHNOON_TOKEN" in answer.text and "Authorization: Bearer" in answer.text


def test_nothing_answers_without_a_credential(closed: str) -> None:
    with httpx.Client(base_url=closed, timeout=60) as client:
        schema_paths = _all_paths()
        for method, path in schema_paths:
            answer = client.request(method, path, headers={"origin": closed})
            assert answer.status_code in (401, 403), (method, path, answer.status_code)
            assert "digits" not in answer.text
        for path in ("/health", "/login", "/static/app.css", "/static/login.js"):
            assert client.get(path).status_code == 200
        page = client.get(f"/hpo/studies/{PATH}", headers={"accept": "text/html"})
        there = page.headers["location"].removeprefix("/login?next=")
        assert (page.status_code, unquote(unquote(there))) == (303, f"/hpo/studies/{NAME}")


def _all_paths() -> list[tuple[str, str]]:
    """Every route of the application, with something in the place of its parts."""
    from highnoon.webui import api, assets, login_pages, pages, study_comparison, study_pages, trial_pages

    found = [("GET", "/openapi.json"), ("GET", "/"), ("GET", "/nope")]
    modules = (api, pages, study_comparison, login_pages, trial_pages, study_pages, assets)
    for route in [route for module in modules for route in module.router.routes]:
        path = re.sub(r"\{(\w+)[^}]*\}", lambda part: "0" if part[1] == "number" else PATH, route.path)  # type: ignore[attr-defined]
        found += [(method, path) for method in route.methods if path not in ("/login",)]  # type: ignore[attr-defined]
    assert len(found) > 30
    return found


def test_an_operator_logs_in_and_out(closed: str, books: Access, mine: str) -> None:
    with Visitor(closed) as visitor:
        answer = visitor.post("/login", token=TOKEN, next=f"/hpo/studies/{mine}")

        assert (answer.status_code, answer.headers["location"]) == (303, f"/hpo/studies/{mine}")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and TOKEN not in cookie
        assert visitor.get(f"/hpo/studies/{mine}").status_code == 200
        assert visitor.post(f"/hpo/studies/{mine}/pause").status_code == 303
        assert record(books, mine).state is StudyState.PAUSED
        assert visitor.post("/logout").status_code == 303
        assert visitor.get("/hpo").status_code == 303


@pytest.mark.parametrize(
    "there", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_the_login_leads_nowhere_else(closed: str, there: str) -> None:
    with Visitor(closed) as visitor:
        assert visitor.post("/login", token=TOKEN, next=there).headers["location"] == "/hpo"


def test_a_viewer_looks_and_changes_nothing(closed: str, books: Access) -> None:
    with Visitor(closed) as visitor:
        visitor.post("/login", token=VIEWER)
        page = visitor.get(f"/hpo/studies/{PATH}")

        assert page.status_code == 200 and "Cancel" not in page.text and "New study" not in page.text
        for path in (f"/hpo/studies/{PATH}/cancel", "/hpo/new", f"/hpo/studies/{PATH}/trials/1/retry"):
            assert visitor.post(path).status_code == 403
        bearer = {"authorization": f"Bearer {VIEWER}"}
        assert httpx.get(f"{closed}/api/hpo/studies", headers=bearer, timeout=60).status_code == 200
        refused = httpx.patch(f"{closed}/api/hpo/studies/{PATH}", headers=bearer, json={"state": "paused"})
        assert refused.status_code == 403 and record(books, NAME).state is StudyState.RUNNING

        assert visitor.post("/logout").status_code == 303
        assert visitor.get("/hpo").status_code == 303


def test_a_program_needs_its_token_and_nothing_else(closed: str, books: Access, mine: str) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.patch(f"{closed}/api/hpo/studies/{mine}", headers=bearer, json={"state": "paused"})
    assert answer.status_code == 200 and record(books, mine).state is StudyState.PAUSED


def test_guesses_have_to_wait_and_lock_nobody_out(url: str, tmp_path: Path) -> None:
    with (
        dashboard(url, tmp_path, host="0.0.0.0", environ={"HIGHNOON_TOKEN": TOKEN}) as address,
        Visitor(address) as mallory,
        Visitor(address) as anna,
    ):
        anna.post("/login", token=TOKEN)
        statuses = [mallory.post("/login", token=f"guess {number}").status_code for number in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        guess = httpx.get(f"{address}/api/hpo/studies", headers={"authorization": "Bearer guess"}, timeout=60)
        assert guess.status_code == 429 and 0 < int(guess.headers["retry-after"]) <= 61

        # Behind a proxy everybody has one address: sessions, tokens of programs and logins go on
        assert anna.get("/hpo").status_code == 200
        program = httpx.get(f"{address}/api/hpo/studies", headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)
        assert program.status_code == 200
        assert anna.post("/login", token=TOKEN).status_code == 303


def test_the_audit_has_the_names_of_tokens(url: str, books: Access, mine: str, tmp_path: Path) -> None:
    tokens = {"HIGHNOON_WEBUI_TOKENS": f"anna:operator:{TOKEN}-a, ben:viewer:{TOKEN}-b, robot:operator:{TOKEN}-r"}
    with dashboard(url, tmp_path, host="0.0.0.0", environ=tokens) as address, Visitor(address) as anna:
        anna.post("/login", token=f"{TOKEN}-a")
        anna.get("/hpo")
        anna.post(f"/hpo/studies/{mine}/pause")
        for name, status in (("b", 403), ("r", 200)):
            bearer = {"authorization": f"Bearer {TOKEN}-{name}"}
            answer = httpx.patch(f"{address}/api/hpo/studies/{mine}", headers=bearer, json={"state": "running"})
            assert answer.status_code == status

    entries = AuditLog(books.database).entries(study=mine, limit=9)
    assert [(entry.action, entry.actor, entry.via) for entry in entries[-2:]] == [
        ("pause", "anna@127.0.0.1", "dashboard (session)"),
        ("resume", "robot@127.0.0.1", "dashboard (token)"),
    ]


def test_every_answer_carries_the_security_headers(visitor: Visitor) -> None:
    for path in ("/hpo", "/api/hpo/studies", "/nope", "/static/app.css", "/health", "/api/hpo/studies/nope"):
        headers = visitor.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["referrer-policy"] == "same-origin"
    assert visitor.client.get("/hpo").headers["cache-control"] == "no-store"
    assert visitor.client.get("/docs").headers["content-security-policy"] == policy


def test_form_that_breaks_off_changes_nothing(url: str, books: Access, mine: str, tmp_path: Path) -> None:
    notes = NoteStore(books.database)
    notes.change(mine, None, NoteChange(text="The whole note"))
    head = f"POST /hpo/studies/{mine}/note HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"
    with dashboard(url, tmp_path, environ={"HIGHNOON_TOKEN": TOKEN}) as address:
        there = urlsplit(address)
        with socket.create_connection((there.hostname, there.port), timeout=60) as connection:
            connection.sendall(f"{head}tags=&note=The+beg".encode())
    # The server ends when it has answered everything
    assert notes.of_study(mine)[None].text == "The whole note"


def test_a_huge_body_is_refused_before_it_is_read_whole(visitor: Visitor) -> None:
    answer = visitor.api("POST", "/studies", content=b"[" * 1_500_000)
    assert answer.status_code == 413


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_an_unused_database_is_explained(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else f"sqlite:///{tmp_path}/new.db"
    (tmp_path / "new.db").touch()
    with dashboard(url, tmp_path) as address, Visitor(address) as visitor:
        for path in ("/hpo", "/hpo/cluster", "/hpo/new", "/hpo/studies/x"):
            page = visitor.get(path)
            assert page.status_code == 503 and "start a coordinator on it" in page.text, (path, page.text)
