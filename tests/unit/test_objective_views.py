"""What people see of several objectives and of constraints: figures, tables, files, the form of a new study."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from rich.console import Console

from highnoon.coordinator.cli.tables import front_table, ordered, trials_table
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.best_config import FRONT
from highnoon.shared.views.charts import FIGURES, Figure, FigureInput
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.trial_export import csv_head, csv_rows
from highnoon.shared.views.trials import best_of, by_objective, front_by_objectives, front_by_size, trial_object
from highnoon.webui.forms import form_of, read_form, with_problems, written
from highnoon.webui.listing import TrialQuery, choose_trials

NAMES, WAYS = ("loss", "accuracy"), ("minimize", "maximize")
SPACE = parse_space({"x": ["uniform", 0.0, 1.0], "y": ["uniform", 0.0, 1.0]})


def trial(number: int, *values: float, miss: float = 0.0, **more: Any) -> Trial:
    constraints = {"latency_ms": miss} if miss else {}
    params = {"x": number / 10, "y": 0.5}
    state = more.pop("state", TrialState.COMPLETE)
    return Trial(number=number, state=state, params=params, values=values, constraints=constraints, **more)


TRIALS = [
    trial(0, 0.3, 0.9),
    trial(1, 0.4, 0.8),
    trial(2, 0.1, 0.5),
    trial(3, 0.05, 0.99, miss=0.5),
    trial(4, state=TrialState.PRUNED),
    trial(5, float("inf"), 0.1),
]


def drawn(kind: str, trials: list[Trial] = TRIALS, **more: Any) -> Figure:
    place = more.get("objective", 0)
    asked = FigureInput(
        trials=by_objective(trials, place),
        space=SPACE,
        maximize=WAYS[place] == "maximize",
        objectives=NAMES,
        directions=WAYS,
        **more,
    )
    figure = FIGURES[kind](asked)
    json.loads(dumps(figure.to_json()))
    return figure


def test_equals_on_the_front_are_drawn_once_and_counted_each() -> None:
    # Given a front of three equal trials and another one
    trials = [trial(number, 0.1, 0.5) for number in range(3)] + [trial(3, 0.3, 0.9), trial(4, 0.4, 0.8)]
    found = traces(drawn("pareto", trials))
    assert found["not beaten"] == ([0.1, 0.3], [0.5, 0.9])
    assert found["trials"] == ([0.4], [0.8])


def traces(figure: Figure) -> dict[str, Any]:
    return {trace["name"]: (trace["x"], trace["y"]) for trace in figure.data}


def test_the_front_has_feasible_trials_only() -> None:
    assert [one.number for one in front_by_objectives(TRIALS, WAYS)] == [2, 0]
    assert front_by_objectives([], WAYS) == []


def test_the_best_and_loss_against_size_are_of_feasible_trials() -> None:
    found = [
        Trial(number=number, state=TrialState.COMPLETE, params={}, value=loss, loss=loss, params_count=size)
        for number, (loss, size) in enumerate([(0.5, 10), (0.4, 20)])
    ]
    outside = Trial(
        number=2, state=TrialState.COMPLETE, params={}, value=0.1, loss=0.1, params_count=5, constraints={"a": 1.0}
    )
    best = best_of([*found, outside], maximize=False)
    assert best is not None and best.number == 1
    assert front_by_size([*found, outside], maximize=False) == found


def test_the_pareto_figure_shows_the_front_the_others_and_what_is_infeasible() -> None:
    figure = drawn("pareto")
    assert traces(figure) == {
        "infeasible": ([0.05], [0.99]),
        "trials": ([0.4], [0.8]),
        "not beaten": ([0.1, 0.3], [0.5, 0.9]),
    }
    assert figure.layout["yaxis"]["title"]["text"] == "accuracy (more is better)"
    assert traces(drawn("pareto", params=("accuracy", "loss")))["not beaten"] == ([0.5, 0.9], [0.1, 0.3])


def test_the_hypervolume_never_falls() -> None:
    volume = traces(drawn("hypervolume"))["hypervolume"][1]
    assert volume == sorted(volume) and 0 <= volume[0] < volume[-1] <= 1


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.parametrize("place", [0, 1])
def test_every_figure_can_be_drawn_of_each_objective(kind: str, place: int) -> None:
    many = [trial(number, (number * 7 % 50) / 50, (number * 3 % 50) / 50, miss=number % 4 - 2) for number in range(60)]
    params = ("x", "y") if kind == "contour" else ()
    drawn(kind, many, objective=place, params=params, importance={"x": 0.5, "y": 0.5})
    drawn(kind, TRIALS[3:5], objective=place, params=params)
    drawn(kind, [], objective=place, params=params)


def test_the_history_goes_by_one_objective_and_marks_what_is_infeasible() -> None:
    history = drawn("history", objective=1)
    assert traces(history)["best so far"][1][-1] == 0.9
    assert traces(history)["infeasible"] == ([3], [0.99])
    assert history.layout["yaxis"]["title"]["text"] == "accuracy"


def test_a_table_has_a_column_for_each_objective() -> None:
    head, *lines = trials_table(TRIALS, {}, Console(file=io.StringIO()), NAMES)
    assert head.split() == ["trial", "state", "loss", "accuracy", "took", "parameters"]
    assert "COMPLETE infeasible" in lines[3]
    assert lines[4].split()[:4] == ["4", "PRUNED", "-", "-"]
    goals = dict(zip(NAMES, WAYS, strict=True))
    by_accuracy = ordered(TRIALS, "accuracy", names=["x"], maximize=False, goals=goals)
    assert [one.number for one in by_accuracy] == [3, 0, 1, 2, 5, 4]
    assert [line.split()[0] for line in front_table(front_by_objectives(TRIALS, WAYS), NAMES)] == ["trial", "2", "0"]


def test_an_export_has_a_column_for_each_objective_and_says_what_is_feasible() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_head(["x"], NAMES) + csv_rows(TRIALS, ["x"], {}, NAMES))))
    assert [row["values.accuracy"] for row in rows] == ["0.9", "0.8", "0.5", "0.99", "", "0.1"]
    assert [row["feasible"] for row in rows] == ["true", "true", "true", "false", "", "true"]
    assert trial_object(TRIALS[3])["constraints"] == {"latency_ms": 0.5}


def test_the_front_is_taken_away_as_json_and_as_python() -> None:
    front = front_by_objectives(TRIALS, WAYS)
    read = json.loads(FRONT["json"]("digits", front, NAMES))
    assert read["front"][0] == {"trial": 2, "values": {"loss": 0.1, "accuracy": 0.5}, "params": {"x": 0.2, "y": 0.5}}
    scope: dict[str, Any] = {}
    exec(FRONT["python"]("two\nlines", front, NAMES), scope)
    assert scope["front"][1] == ({"loss": 0.3, "accuracy": 0.9}, {"x": 0.0, "y": 0.5})


def test_the_list_of_trials_is_sorted_by_an_objective() -> None:
    page = choose_trials(TRIALS, TrialQuery(sort="-values.accuracy"), {}, NAMES)
    assert [one.number for one in page.items] == [3, 0, 1, 2, 5, 4]
    with pytest.raises(InvalidInput, match=r"values\.loss"):
        choose_trials(TRIALS, TrialQuery(sort="values.los"), {}, NAMES)


def test_the_form_has_objectives_and_constraints() -> None:
    sent = {
        "name": "digits",
        "objective": "train.py:train",
        "objectives": "loss = minimize, accuracy=maximize",
        "constraints": "latency_ms <= 20, accuracy >= 0.5",
        "prune_on": "loss",
        "space-0-name": "x",
        "space-0-kind": "uniform",
        "space-0-low": "0",
        "space-0-high": "1",
    }
    spec = StudySpec.from_json(written(read_form(sent)))
    assert spec.objectives == {"loss": "minimize", "accuracy": "maximize"}
    assert spec.constraints == {"latency_ms": "<= 20", "accuracy": ">= 0.5"}
    again = StudySpec.from_json({**written(form_of(spec.to_json(), name="digits")), "seed": None})
    assert again == spec

    form = read_form({**sent, "objectives": "loss = least, accuracy = maximize", "constraints": "fast"})
    with pytest.raises(InvalidInput) as refused:
        StudySpec.from_json(written(form))
    assert {"objectives", "constraints"} <= set(with_problems(form, refused.value.problems).errors)
