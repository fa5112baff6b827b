"""What is recorded beside trials without a coordinator: what they ran in, notes and tags; on each kind of storage."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import highnoon as hn
from highnoon.shared.domain.errors import InvalidInput, StudyConflict, UserInputError
from highnoon.shared.domain.note import Note
from highnoon.shared.domain.trial_environment import ENVIRONMENT, GIT, HOST
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.runtime.environment_record import EnvironmentRecord
from highnoon.shared.store.optuna_store import OptunaStore
from tests.command import answer_to
from tests.web import Visitor, dashboard

SPACE: dict[str, Any] = {"x": ("uniform", 0.0, 1.0)}


def objective(params: dict[str, Any]) -> float:
    return float(params["x"])


@pytest.fixture
def manager(optuna_store: OptunaStore) -> hn.HPOTrialManager:
    """Of a study with three trials."""
    manager = hn.HPOTrialManager("recorded", n_trials=3, storage=optuna_store.url, sampler="random")
    manager.optimize(objective, SPACE)
    return manager


def test_each_trial_has_what_it_ran_in(manager: hn.HPOTrialManager) -> None:
    trial = manager.trials[1]
    assert trial.attrs[HOST] == socket.gethostname()
    here = EnvironmentRecord.here([device.name for device in Gpus().devices()])
    assert trial.attrs[ENVIRONMENT] == here.digest
    content = manager.study.user_attrs[f"{ENVIRONMENT}:{trial.attrs[ENVIRONMENT]}"]
    assert content["python"] == platform.python_version()
    assert content["packages"]["optuna"] == optuna.__version__
    assert "cpu" in content and "gpus" in content and "system" in content
    assert len([name for name in manager.study.user_attrs if name.startswith(ENVIRONMENT)]) == 1, "once for all"
    frame = pytest.importorskip("pandas") and manager.trials_dataframe()
    assert set(frame[f"user_attrs_{HOST}"]) == {socket.gethostname()}


def test_the_commit_of_the_objective_and_whether_it_was_changed(tmp_path: Path) -> None:
    # Given a script in a repository
    script = tmp_path / "mine.py"
    script.write_text(
        "import json, highnoon as hn\n"
        "def objective(params):\n    return params['x']\n"
        "hpo = hn.HPOTrialManager('git', n_trials=1)\n"
        "hpo.optimize(objective, {'x': ('uniform', 0.0, 1.0)}, show_progress=False)\n"
        "print(json.dumps(hpo.trials[0].attrs))\n"
    )

    def git(*arguments: str) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", str(tmp_path), *options, *arguments], capture_output=True, check=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    git("add", "mine.py")
    git("commit", "-qm", "Add an objective")

    def commit_of_a_run() -> str:
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd="/")
        return str(json.loads(done.stdout)[GIT])

    # Then its trials have the commit, and whether files differ from it
    assert commit_of_a_run() == git("rev-parse", "HEAD")
    script.write_text(script.read_text() + "\n")
    assert commit_of_a_run() == git("rev-parse", "HEAD") + "+"


def test_what_a_study_sets_for_its_trials_is_recorded() -> None:
    manager = hn.HPOTrialManager("threads", n_trials=1, environment={"OMP_NUM_THREADS": "3"}, isolation="spawn")
    manager.optimize(objective, SPACE)
    content = manager.study.user_attrs[f"{ENVIRONMENT}:{manager.trials[0].attrs[ENVIRONMENT]}"]
    assert content["threads"]["OMP_NUM_THREADS"] == "3"


def test_notes_and_tags_are_written_and_read_as_on_a_cluster(manager: hn.HPOTrialManager) -> None:
    assert manager.note() == Note()
    assert manager.note("worth a look", trial=1, tag="baseline") == Note(text="worth a look", tags=("baseline",))
    assert manager.note(tag="sgd", trial=1).tags == ("baseline", "sgd")
    assert manager.note(untag="baseline", trial=1) == Note(text="worth a look", tags=("sgd",))
    assert manager.note("x" * 5000) == manager.note() == Note(text="x" * 5000)
    assert manager.note("short") == manager.note() == Note(text="short"), "nothing is left of a longer one"
    assert manager.note("", trial=1, untag="sgd") == manager.note(trial=1) == Note()
    with pytest.raises(UserInputError, match="no trial 9"):
        manager.note("a", trial=9)
    with pytest.raises(InvalidInput, match="without a comma"):
        manager.note(tag="a,b")


def test_a_note_that_others_have_changed_since_it_was_read_stays(manager: hn.HPOTrialManager) -> None:
    seen = manager.note("first", trial=1).version
    others = manager.note(tag="theirs", trial=1)
    with pytest.raises(StudyConflict, match="changed by another person meanwhile: read them again"):
        manager.note("mine", trial=1, seen=seen)
    assert manager.note(trial=1) == others
    assert manager.note("mine", trial=1, seen=others.version) == Note(text="mine", tags=("theirs",))
    assert manager.note("new", seen=manager.note().version) == Note(text="new"), "of the study, where there was none"


def test_they_are_where_optuna_dashboard_has_them(manager: hn.HPOTrialManager) -> None:
    manager.note("a text", trial=2)
    trial_id = manager.study.get_trials()[2]._trial_id
    attrs = manager.study._storage.get_study_system_attrs(manager.study._study_id)
    assert attrs[f"dashboard:{trial_id}:note_str:0"] == "a text"
    assert attrs[f"dashboard:{trial_id}:note_ver"] == 1


def test_the_command_line_and_the_dashboard_show_them_of_a_file(tmp_path: Path) -> None:
    # Given a study in a file of its own
    url = f"sqlite:///{tmp_path}/hpo.db"
    manager = hn.HPOTrialManager("shown", n_trials=2, storage=url, sampler="random")
    manager.optimize(objective, SPACE)
    manager.note("the best of all", trial=1, tag="keep")
    manager.note(tag="first")

    # Then the command line has what it ran in, its notes and its tags
    rows = json.loads(answer_to("trials", "shown", "--storage", url, "--json").out)
    found = {row["number"]: row for row in rows}
    assert (found[1]["note"], found[1]["tags"], found[0]["tags"]) == ("the best of all", ["keep"], [])
    assert found[0]["host"] == socket.gethostname() and len(found[0]["environment"]) == 64
    assert "first" in answer_to("list", "--storage", url, "--json").out

    # And the pages
    with dashboard(url, tmp_path) as address, Visitor(address) as visitor:
        page = visitor.get("/hpo/studies/shown/trials/1").text
        assert "the best of all" in page and ">keep</small>" in page
        assert f"<td>{platform.python_version()}</td>" in page and socket.gethostname() in page


@pytest.mark.parametrize("number", ["0", "a", 1.5, True, [1]])
def test_what_is_no_number_of_a_trial_is_refused(manager: hn.HPOTrialManager, number: Any) -> None:
    reads: list[Callable[[], object]] = [
        lambda: manager.metric_history(number),
        lambda: manager.note("text", trial=number),
        lambda: manager.artifacts(number),
        lambda: manager.artifact(number, "model"),
    ]
    for read in reads:
        with pytest.raises(InvalidInput, match=r"must be the number of a trial, such as 7 \(got"):
            read()


def test_a_number_of_numpy_names_a_trial(manager: hn.HPOTrialManager) -> None:
    number: Any = np.int64(1)

    manager.note("second", trial=number)

    assert manager.note(trial=1).text == "second"
    assert manager.metric_history(number) == {}
