"""Every figure for every kind of study: none, one, infinite, huge, maximised. What comes out is strict JSON."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.trial import Report, Trial
from highnoon.shared.store.attempt_queries import AttemptSpan
from highnoon.shared.views.charts import FIGURES, Figure, FigureInput, figure_input, metric_curves
from highnoon.shared.views.formats import dumps

SPACE = parse_space(
    {
        "rate": ["log_uniform", 1e-5, 1e-1],
        "units": ["int", 8, 64, 8],
        "wide": ["int_log", 1, 1000],
        "drop": ["uniform", 0.0, 0.5],
        "opt": ["categorical", ["adam", None, True, 3]],
    }
)
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def trial(number: int, **changes: Any) -> Trial:
    dice = random.Random(number)
    params = {
        "rate": 10 ** dice.uniform(-5, -1),
        "units": dice.randrange(8, 65, 8),
        "wide": dice.randrange(1, 1000),
        "drop": dice.uniform(0, 0.5),
        "opt": dice.choice(["adam", None, True, 3]),
    }
    usual = {
        "state": TrialState.COMPLETE,
        "value": dice.uniform(0.1, 0.9),
        "reports": tuple(Report(step=step, value=1 / (step + 1)) for step in range(4)),
        "started_at": START + timedelta(seconds=number),
        "ended_at": START + timedelta(seconds=number + 5),
    }
    return Trial(number=number, params=params, **{**usual, **changes})


def asked(*trials: Trial, maximize: bool = False, **more: Any) -> FigureInput:
    space = SPACE if trials else {}
    return FigureInput(trials=trials, space=space, maximize=maximize, **more)


def span(number: int, ending: Ending | None = Ending.COMPLETED, **changes: Any) -> AttemptSpan:
    usual = {"ticket_id": number, "attempt": 1, "host": "node-a", "pid": 40 + number % 2, "trial_number": number}
    times = {
        "started_at": 100.0 + number,
        "ended_at": 105.0 + number,
        "cause": None,
        "limit_bytes": None,
        "peak_rss_bytes": 10**9,
        "peak_bytes": 10**9,
    }
    return AttemptSpan(**{**usual, **times, "ending": ending, **changes})


def drawn(kind: str, given: FigureInput) -> Figure:
    if kind == "contour" and not given.params:
        given = replace(given, params=("rate", "units"))
    figure = FIGURES[kind](given)
    json.loads(dumps(figure.to_json()))
    return figure


@pytest.mark.parametrize("kind", FIGURES)
def test_a_study_without_trials_has_a_reason_and_no_picture(kind: str) -> None:
    figure = drawn(kind, asked())
    assert not figure.data and figure.note


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value": math.inf},
        {"value": -math.inf},
        {"state": TrialState.FAIL, "value": None},
        {"state": TrialState.RUNNING, "value": None, "ended_at": None},
        {"state": TrialState.WAITING, "value": None, "started_at": None, "ended_at": None, "reports": ()},
        {"state": TrialState.PRUNED},
        {"reports": (Report(step=0, value=math.nan), Report(step=1, value=math.inf))},
        {"params": {}},
    ],
    ids=["complete", "inf", "-inf", "failed", "running", "waiting", "pruned", "nan reports", "no params"],
)
def test_one_trial_of_any_kind_breaks_no_figure(kind: str, changes: dict[str, Any]) -> None:
    odd = trial(0)
    odd = Trial(**{**{name: getattr(odd, name) for name in odd.__slots__}, **changes})
    drawn(kind, asked(odd, importance={"rate": 1.0}, spans=[span(0)], causes=[(Ending.COMPLETED, None, 1)]))
    drawn(kind, asked(odd, trial(1), trial(2), maximize=True))


@pytest.mark.parametrize("kind", ["history", "slice", "parallel", "contour", "intermediate", "pareto"])
def test_ten_thousand_trials_are_a_picture_and_not_a_table(kind: str) -> None:
    trials = [trial(number, params_count=1000 + number, loss=0.5) for number in range(10_000)]

    figure = drawn(kind, asked(*trials))

    assert len(dumps(figure.to_json())) < 400_000
    assert "shown" in figure.note and "10,000" in figure.note


def test_the_history_keeps_every_improvement() -> None:
    values = [0.9 if number != 4567 else 0.1 for number in range(10_000)]
    figure = drawn("history", asked(*(trial(number, value=value) for number, value in enumerate(values))))

    completed, best = figure.data[1], figure.data[2]
    assert 4567 in completed["x"] and best["y"] == [0.9, 0.1, 0.1] and best["x"] == [0, 4567, 9999]


def test_more_is_better_when_it_is_maximised() -> None:
    trials = [trial(number, value=float(number % 7)) for number in range(20)]
    assert drawn("history", asked(*trials, maximize=True)).data[2]["y"][-1] == 6.0
    assert drawn("history", asked(*trials)).data[2]["y"][-1] == 0.0


def test_a_few_diverged_values_do_not_flatten_the_others() -> None:
    trials = [trial(number) for number in range(100)] + [trial(100, value=1e9), trial(101, value=math.inf)]
    figure = drawn("history", asked(*trials))
    assert figure.layout["yaxis"]["range"][1] < 10 and "1 far outliers" in figure.note


def test_score_and_raw_loss_are_two_views() -> None:
    trials = [trial(number, value=0.5, loss=0.25, params_count=7) for number in range(3)]
    assert drawn("history", asked(*trials)).data[1]["y"] == [0.5] * 3
    assert drawn("history", asked(*trials, raw=True)).data[1]["y"] == [0.25] * 3

    pruned = trial(3, value=0.5, loss=0.125, params_count=7, state=TrialState.PRUNED)
    assert drawn("history", asked(*trials, pruned)).data[0]["y"] == [0.5]
    assert drawn("history", asked(*trials, pruned, raw=True)).data[0]["y"] == [0.125]


def test_the_timeline_has_a_lane_per_slot_and_a_bar_per_attempt() -> None:
    spans = [span(0), span(1, Ending.FAILED, cause="exception"), span(2, None, ended_at=None)]
    figure = drawn("timeline", asked(trial(0), spans=spans, causes=[(Ending.COMPLETED, None, 9)]))

    assert [bar["name"] for bar in figure.data] == ["completed", "failed", "running"]
    assert {lane for bar in figure.data for lane in bar["y"]} == {"node-a · 0", "node-a · 1"}
    assert "3 newest attempts of 10" in figure.note


def test_trials_of_one_report_are_seen() -> None:
    one, lines = trial(0, reports=(Report(step=3, value=0.5),)), trial(1)
    completed, best = drawn("intermediate", asked(one, lines)).data
    assert completed["mode"] == "lines+markers" and completed["marker"]["size"] == [5, 5, 0, 0, 0, 0, 0]
    assert drawn("intermediate", asked(lines)).data[0]["mode"] == "lines"
    (_, best) = drawn("intermediate", asked(one)).data
    assert best["name"] == "best (trial 0)" and best["marker"]["size"][0] == 5


def test_supervisor_takes_the_lane_of_the_one_that_it_replaces() -> None:
    spans = [span(0, pid=70), span(1, pid=71), span(6, pid=40), span(7, pid=70), span(8, None, ended_at=None, pid=41)]
    figure = drawn("timeline", asked(trial(0), spans=spans))
    lanes = {place: lane for bar in figure.data for place, lane in zip(bar["base"], bar["y"], strict=True)}
    assert [lanes[one.started_at * 1000].partition(" · ")[2] for one in spans] == ["0", "1", "1", "0", "2"]


def test_memory_counts_the_attempts_without_a_measured_peak() -> None:
    spans = [span(0), span(1, peak_bytes=None), span(2, None, ended_at=None, peak_bytes=None)]
    assert drawn("memory", asked(*map(trial, range(3)), spans=spans)).note == "2 attempts without a reading."
    causes = [(Ending.COMPLETED, None, 9)]
    figure = drawn("memory", asked(*map(trial, range(3)), spans=[span(0), span(1)], causes=causes))
    assert figure.note == "The 2 newest attempts of 9."


def test_outcomes_count_causes_also_without_a_ledger() -> None:
    failed = trial(
        1, state=TrialState.FAIL, value=None, attrs={"highnoon:ending": "failed", "highnoon:cause": "exited"}
    )
    (bar,) = drawn("outcomes", asked(trial(0), failed)).data
    assert dict(zip(bar["y"], bar["x"], strict=True)) == {"complete": 1, "failed: exited": 1}


def test_names_of_people_are_no_markup() -> None:
    failed = trial(0, state=TrialState.FAIL, value=None, attrs={"highnoon:cause": '<a href="x">&'})
    (bar,) = drawn("outcomes", asked(failed)).to_json()["data"]
    assert bar["y"] == ['fail: &lt;a href="x"&gt;&amp;']


def test_the_front_is_what_nothing_beats() -> None:
    sizes = [(10, 0.5), (20, 0.6), (30, 0.4), (40, 0.4)]
    trials = [trial(n, value=loss, loss=loss, params_count=size) for n, (size, loss) in enumerate(sizes)]
    assert drawn("pareto", asked(*trials)).data[1]["x"] == [10, 30]


def test_a_figure_of_chosen_parameters_shows_these_alone() -> None:
    trials = [trial(number) for number in range(5)]
    assert [panel["name"] for panel in drawn("slice", asked(*trials, params=["drop", "opt"])).data] == ["drop", "opt"]
    shares = {"rate": 0.5, "units": 0.3, "drop": 0.2}
    (bar,) = drawn("importance", asked(*trials, params=["units", "drop"], importance=shares)).data
    assert (bar["y"], bar["x"]) == (["drop", "units"], pytest.approx([0.4, 0.6]))
    parallel = drawn("parallel", asked(*trials, params=["drop", "opt"]))
    assert parallel.layout["xaxis"]["ticktext"] == ["drop", "opt", "value"]


@pytest.mark.parametrize("kind", ["slice", "parallel", "importance"])
def test_of_sixty_parameters_those_are_drawn_that_matter_most(kind: str) -> None:
    names = [f"p{number}" for number in range(60)]
    space = parse_space({name: ["uniform", 0.0, 1.0] for name in names})
    trials = [trial(number) for number in range(30)]
    many = [
        replace(one, params={name: (one.number + index) % 7 / 7 for index, name in enumerate(names)}) for one in trials
    ]
    shares = {name: float(index) for index, name in enumerate(names)}
    few = FIGURES[kind](FigureInput(trials=many, space=space, maximize=False, importance=shares, most_params=10))
    whole = FIGURES[kind](FigureInput(trials=many, space=space, maximize=False, importance=shares))
    assert "The 10 of 60 parameters that matter most." in few.note and "of 60" not in whole.note
    text = dumps(few.to_json())
    assert "p59" in text and "p50" in text and "p49" not in text
    assert len(text) < len(dumps(whole.to_json())) / 3


def test_parallel_coordinates_end_at_the_value() -> None:
    figure = FIGURES["parallel"](asked(trial(0, value=0.25), trial(1, value=0.75)))
    assert figure.layout["xaxis"]["ticktext"][-1] == "value"
    ends = [y for trace in figure.data for x, y in zip(trace["x"], trace["y"], strict=True) if x == len(SPACE)]
    assert sorted(ends) == [0.0, 1.0]


def test_parallel_coordinates_name_the_objective_as_the_history_does() -> None:
    given = asked(trial(0), trial(1), objectives=["loss", "latency_ms"], objective=1)
    assert drawn("parallel", given).layout["xaxis"]["ticktext"][-1] == "latency_ms"
    assert drawn("history", given).layout["yaxis"]["title"]["text"] == "latency_ms"


def test_parallel_coordinates_name_the_axes_on_which_values_have_moved() -> None:
    def scales(*values: float) -> list[int]:
        shown = asked(*(trial(number, value=value) for number, value in enumerate(values)))
        found: list[int] = FIGURES["parallel"](shown).layout["meta"]
        return found

    before, same, after = scales(1000.1, 1000.4), scales(1000.1, 1000.4, 1000.2), scales(1000.1, 1000.4, 1000.0)
    assert before == same and len(before) == len(SPACE) + 1
    assert before[:-1] == after[:-1] and before[-1] != after[-1]


def test_thousands_of_choices_are_no_axis() -> None:
    space = parse_space(
        {"word": ["categorical", [f"choice-{number:04}" for number in range(3000)]], "x": ["uniform", 0, 1]}
    )
    trials = [replace(trial(number), params={"word": f"choice-{number:04}", "x": 0.5}) for number in range(40)]
    for kind in ("slice", "parallel", "contour"):
        asked = FigureInput(trials=trials, space=space, maximize=False, params=("word", "x"))
        assert len(dumps(FIGURES[kind](asked).to_json())) < 20_000, kind


def test_a_contour_without_choices_takes_two_different_parameters() -> None:
    space = parse_space({"rate": ("uniform", 0.0, 1.0), "units": ("int", 1, 9)})
    given = figure_input("contour", [], space, ["minimize"], importance=lambda: {"rate": 1.0})
    assert given.params == ["rate", "units"]


def test_a_contour_has_a_panel_for_each_pair_of_parameters() -> None:
    trials = [trial(number) for number in range(5)]
    one = drawn("contour", asked(*trials, params=["rate", "units"]))
    assert [trace["type"] for trace in one.data] == ["contour", "scatter"] and "grid" not in one.layout
    three = drawn("contour", asked(*trials, params=["rate", "units", "drop"]))
    assert [trace["xaxis"] for trace in three.data] == ["x", "x", "x2", "x2", "x3", "x3"]
    assert three.layout["xaxis3"]["title"]["text"] == "units" and three.layout["yaxis3"]["title"]["text"] == "drop"
    assert "two different" in drawn("contour", asked(*trials, params=["rate", "rate"])).note


def test_each_logged_metric_has_a_panel() -> None:
    curves = {f"<metric {index}>": [(step, step / (index + 1)) for step in range(100)] for index in range(30)}
    figure = metric_curves({**curves, "few": [(0, math.inf), (5, 1.0)]}).to_json()
    assert len(json.loads(dumps(figure))["data"]) == 31 and figure["data"][0]["name"] == "&lt;metric 0&gt;"
    assert [trace["mode"] for trace in figure["data"][-2:]] == ["lines", "lines+markers"]
    assert (figure["data"][-1]["x"], figure["data"][-1]["y"]) == ([0, 5], [None, 1.0])
    assert figure["layout"]["yaxis31"]["title"]["text"] == "few" and figure["layout"]["grid"]["rows"] == 11
    assert figure["note"] == "1 value that is not finite: a gap."
    assert metric_curves({}).data == () and "hn.log" in metric_curves({}).note
