"""What the dashboard keeps between two requests: of which studies, of how many, and for how long."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.store.optuna_store import quiet
from highnoon.shared.store.study_view import StudyView
from highnoon.webui import study_repository
from highnoon.webui.results import FigureCache
from highnoon.webui.study_repository import StudyRepository


@pytest.fixture
def url(tmp_path: Path) -> str:
    quiet()
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def repository(url: str) -> Iterator[StudyRepository]:
    make_study(url, "digits", 1.0, 2.0, 3.0)
    with closing(StudyRepository(lambda: url)) as repository:
        yield repository


def make_study(url: str, name: str, *values: float) -> None:
    study = optuna.create_study(study_name=name, storage=url)
    domains = {name: FloatDistribution(0.0, 9.0) for name in "xy"}
    study.add_trials(
        [optuna.create_trial(value=one, params={"x": one, "y": 9.0 - one}, distributions=domains) for one in values]
    )


def values_of(repository: StudyRepository, name: str) -> list[float | None]:
    return [trial.value for trial in repository.trials(name).trials]


def test_study_that_was_deleted_and_made_again_is_another_one(repository: StudyRepository, url: str) -> None:
    figures = FigureCache(repository)
    before = figures.figure(repository.study("digits"), "history")
    assert values_of(repository, "digits") == [1.0, 2.0, 3.0]

    # Another program: on SQLite the new study and its trials get the ids of the old ones
    optuna.delete_study(study_name="digits", storage=url)
    repository.invalidate("digits")
    with pytest.raises(UnknownStudy):
        repository.trials("digits")
    make_study(url, "digits", 6.0, 5.0, 4.0)
    repository.invalidate("digits")

    assert values_of(repository, "digits") == [6.0, 5.0, 4.0]
    assert repository.study("digits", fresh=True).best == 4.0
    assert figures.figure(repository.study("digits"), "history") != before


def test_list_of_studies_reads_best_values_and_no_trials(
    repository: StudyRepository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(url, "empty")

    def refuse(view: StudyView) -> object:
        raise AssertionError("the trials of a study were read")

    monkeypatch.setattr(StudyView, "read", refuse)
    assert [(study.name, study.best, study.total) for study in repository.studies()] == [
        ("empty", None, 0),
        ("digits", 1.0, 3),
    ]


def test_studies_that_were_asked_for_longest_ago_make_room(
    repository: StudyRepository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("second", "third"):
        make_study(url, name, 1.0, 2.0, 3.0)
    size = repository.trials("digits").size_bytes
    monkeypatch.setattr(study_repository, "_MOST_BYTES", 2 * size)

    repository.trials("second")
    repository.trials("digits")
    repository.trials("third")
    assert len(repository._entries) == 3, "an open page may follow each of them"

    monkeypatch.setattr(study_repository, "_FOLLOWED_S", 0.0)
    repository.invalidate("third")
    repository.trials("third")
    assert list(repository._entries) == ["digits", "third"]

    monkeypatch.setattr(study_repository, "_MOST_BYTES", size - 1)
    assert len(repository.trials("second").trials) == 3, "a study that is too large alone can be shown"
    assert list(repository._entries) == ["second"]


def test_only_the_newest_studies_are_read_before_they_are_asked_for(
    repository: StudyRepository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("second", "third"):
        make_study(url, name, 1.0, 2.0, 3.0)
    monkeypatch.setattr(study_repository, "_MOST_WARMED", 4)

    repository.warm()

    assert set(repository._entries) == {"second", "third"}


def test_figures_that_ask_together_have_the_importance_computed_once(
    repository: StudyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    compute = StudyView.param_importance

    def counted(view: StudyView, objective: int = 0) -> dict[str, float]:
        computed.append(objective)
        return compute(view, objective)

    monkeypatch.setattr(StudyView, "param_importance", counted)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(repository.importance, ["digits"] * 4))
    assert computed == [0] and answers == [answers[0]] * 4


def test_contour_of_an_objective_begins_with_what_matters_for_it(repository: StudyRepository, url: str) -> None:
    study = optuna.create_study(study_name="two", storage=url, directions=["minimize", "minimize"])
    dice, domains = random.Random(1), {name: FloatDistribution(0.0, 1.0) for name in "abcd"}
    for _ in range(60):
        params = {name: dice.random() for name in "abcd"}
        values = [params["a"] + params["b"] / 2, params["c"] + params["d"] / 2]
        study.add_trial(optuna.create_trial(values=values, params=params, distributions=domains))
    figures = FigureCache(repository)

    def axes(objective: int) -> set[str]:
        figure = json.loads(gzip.decompress(figures.figure(repository.study("two"), "contour", objective=objective)))
        return {figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")}

    assert (axes(0), axes(1)) == ({"a", "b"}, {"c", "d"})
