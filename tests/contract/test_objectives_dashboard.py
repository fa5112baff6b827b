"""The dashboard's pages and API for a study with several objectives, ours and another program's."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from tests.ledger import Ledger, point
from tests.web import Visitor, dashboard

SPEC = {
    "name": "goals",
    "objective": "train.py:train",
    "objectives": {"loss": "minimize", "accuracy": "maximize"},
    "constraints": {"latency_ms": "<= 20"},
    "search_space": {"x": ["uniform", 0.0, 1e9]},
}


@pytest.fixture
def visitor(ledger: Ledger, tmp_path: Path) -> Visitor:
    spec = StudySpec.from_json(SPEC)
    optuna_id = ledger.access.store.create_study(spec.name, spec.direction, spec.scoring)
    record = ledger.studies.create(spec.name, spec.to_json(), queue="cpu", n_trials=5, optuna_study_id=optuna_id)
    values = [(0.3, 0.9), (0.4, 0.8), (0.1, 0.5), (0.05, 0.99)]
    for ticket, (loss, accuracy) in zip(ledger.tickets(record), values, strict=False):
        misses = {"latency_ms": 0.5 if loss < 0.1 else -0.5}
        metrics = {"latency_ms": 20 * (1 + misses["latency_ms"]), "epochs": 7.0}
        outcome = Outcome(ending=Ending.COMPLETED, values=(loss, accuracy), misses=misses, metrics=metrics)
        ledger.finish(ledger.start(ticket, new=point(loss)), outcome)
    theirs = optuna.create_study(
        storage=ledger.database.url, study_name="theirs", directions=["minimize", "maximize", "minimize"]
    )
    theirs.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_int("k", 1, 5), 0.5), n_trials=6)
    with dashboard(ledger.database.url, tmp_path) as address:
        yield Visitor(address)  # type: ignore[misc]


def test_pages_api_and_files_show_the_front(visitor: Visitor) -> None:
    study = visitor.get("/hpo/studies/goals").text
    assert "None beats these in all objectives." in study and "Pareto front" in study and "Hypervolume" in study
    assert "Feasible trials have latency_ms &lt;= 20." in study
    assert "minimize loss, maximize accuracy" in study and "off without prune_on" in study
    listed = visitor.get("/hpo/studies/goals/trials", sort="-values.accuracy").text
    assert listed.index(">3</a>") < listed.index(">0</a>") < listed.index(">2</a>") and "infeasible" in listed
    trial = visitor.get("/hpo/studies/goals/trials/3").text
    assert "latency_ms missed by 0.5" in trial and "&lt;= 20 missed" in trial
    assert '>epochs</th><td title="7.0">7<' in trial
    assert "&lt;= 20 kept" in visitor.get("/hpo/studies/goals/trials/0").text
    assert "infeasible" in visitor.get("/hpo/studies/goals/compare?trial=0&trial=3").text
    theirs = visitor.get("/hpo/studies/theirs/compare?trial=0&trial=1").text
    rows = re.findall(r'<tr><th scope="row">(\d|Value)</th>(.*?)</tr>', theirs)
    assert len(rows) == 3 and not [row for row in rows if "–" in row[1]], theirs
    assert visitor.get("/hpo").text.count("objectives</small>") == 2

    front = visitor.api("GET", "/studies/goals/best").json()["front"]
    assert [trial["number"] for trial in front] == [2, 0]
    assert visitor.api("GET", "/studies/goals").json()["objectives"] == SPEC["objectives"]
    assert visitor.api("GET", "/studies/goals/export/best", params={"format": "python"}).text.startswith("# The best")
    refused = visitor.api("GET", "/studies/goals/export/best", params={"format": "toml"})
    assert refused.status_code == 422 and "Valid: json, python." in refused.text
    head, first = visitor.api("GET", "/studies/goals/export/trials").text.splitlines()[:2]
    assert "values.loss,values.accuracy" in head and ",0.3,0.9," in first


def test_comparison_of_studies_shows_of_a_front_its_first_trial(visitor: Visitor) -> None:
    page = visitor.get("/hpo/compare", study=["goals", "theirs"]).text
    best = re.search(r'<th scope="row">Best</th><td class="num">(.*?)</td>', page)
    assert best is not None and "first of 2 on the front" in best[1] and '/goals/trials/2"' in best[1], best
    assert re.sub("<[^>]*>", "", best[1]).startswith("0.1, 0.5 ")
    assert re.search(r'<th scope="row">x</th><td class="num">0.1<', page), "its parameters"
    assert re.search(r'<th scope="row">epochs</th><td class="num">7<', page), "its metrics"


@pytest.mark.parametrize("study", ["goals", "theirs"])
def test_every_figure_is_drawn(visitor: Visitor, study: str) -> None:
    for kind in ("pareto", "hypervolume", "history", "slice", "parallel", "contour", "importance", "intermediate"):
        for objective in (0, 1, 9):
            answer = visitor.api("GET", f"/studies/{study}/figures/{kind}", params={"objective": objective})
            assert answer.status_code == 200, (kind, answer.text)
            assert answer.json()["data"] or kind in ("contour", "intermediate"), (kind, answer.text)
    assert visitor.get(f"/hpo/studies/{study}").status_code == 200
    assert visitor.get(f"/hpo/new?like={study}").status_code == 200
    chosen = visitor.api("GET", f"/studies/{study}/figures/pareto", params={"x": "accuracy", "y": "loss"})
    assert chosen.status_code == 200
