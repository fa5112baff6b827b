"""From a browser's fields to a study's table, and back with messages beside the fields."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.param import Categorical
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.study_file import build_spec
from highnoon.webui.forms import (
    FIELDS,
    StudyForm,
    form_of,
    mistakes,
    point,
    read_form,
    settings,
    with_problems,
    written,
)
from tests.made_up import spec_of

SENT = {
    "name": "digits",
    "objective": "train.py:objective",
    "direction": "minimize",
    "n_trials": "20",
    "sampler": "tpe",
    "pruner": "median",
    "trial_timeout": "60",
    "space-0-name": "rate",
    "space-0-kind": "log_uniform",
    "space-0-low": "1e-5",
    "space-0-high": "0.1",
    "space-0-step": "left over from another kind",
    "space-2-name": "units",
    "space-2-kind": "int",
    "space-2-low": "32",
    "space-2-high": "512",
    "space-2-step": "32",
    "space-10-name": "optimizer",
    "space-10-kind": "categorical",
    "space-10-choices": 'adam, sgd, true, 3, 0.5, null, "4"',
    "space-11-kind": "uniform",
    "csrf": "x",
}


def test_fields_become_a_study_file() -> None:
    table = written(read_form(SENT))

    assert table["search_space"] == {
        "rate": ["log_uniform", 1e-5, 0.1],
        "units": ["int", 32, 512, 32],
        "optimizer": ["categorical", ["adam", "sgd", True, 3, 0.5, None, "4"]],
    }
    assert (table["n_trials"], table["trial_timeout"]) == (20, 60.0) and "timeout" not in table
    StudySpec.from_json(table)


def test_a_study_is_shown_in_fields_that_give_the_same_study() -> None:
    spec = spec_of(trial_timeout=60.0, target_value=0.25)

    again = written(form_of(spec.to_json(), name="digits"))

    assert again["search_space"] == spec.to_json()["search_space"]
    assert StudySpec.from_json(again).distinct_from(spec) == []
    assert (again["trial_timeout"], again["target_value"]) == (60.0, 0.25)


def test_numbers_and_choices_of_a_study_are_those_of_one_like_it() -> None:
    space = {
        "rate": ["uniform", 0.12345678, 1234567.5],
        "small": ["log_uniform", 1.0000001e-9, 1.0],
        "stepped": ["uniform", 0.0, 0.123456789, 0.041152263],
        "names": [
            "categorical",
            ["a,b", 'say "x"', '5" pipe', "a;b", "", " c ", "3", 3, 3.0000001, "true", "\u2028", "a\\"],
        ],
        "quoted": [
            "categorical",
            ['"a', 'b"', '"c"', 'd "e, f" g', '"h", i', "=", '="j'],
        ],
    }
    space["inner"] = {"type": "int", "low": 1, "high": 8, "when": {"names": ["a;b", "a,b", "3", 3]}, "default": 4}
    space["text"] = {"type": "categorical", "choices": ["x,y", "z"], "when": {"quoted": ['"a', "="]}, "default": "x,y"}
    spec = spec_of(search_space=space, timeout=1234567.0, trial_timeout=0.1234567, target_value=0.12345678)

    again = StudySpec.from_json(written(form_of(spec.to_json(), name="digits")))

    assert again.to_json() == {**spec.to_json(), "seed": None}


def test_keys_without_a_field_go_to_a_study_like_it() -> None:
    environment = {"KERAS_BACKEND": "torch", "NOTE": 'ä "quoted" \\ \U0001f600'}
    keys = {
        "environment": environment, "isolation": "spawn", "trial_memory_limit": 1_500_000_000, "param_budget": 1000,
        "param_budget_hard": True, "keep_best": 3, "keep_checkpoints": 0, "memory_warning_pct": 0.8,
        "memory_grace_steps": 4, "prefetch_buffer_size": 2, "admission": "measured",
        "notify": {"url": "https://hooks.example.com/hpo", "on": ["finished", "best"]},
    }  # fmt: skip
    spec = spec_of(**keys)
    form = form_of(spec.to_json(), name="digits")
    assert form.more_is_used and 'isolation = "spawn"' in form.value("more").splitlines()

    # As a browser sends it
    sent = {**form.values, "more": form.value("more").replace("\n", "\r\n")}
    again = StudySpec.from_json(written(StudyForm(values=read_form(sent).values, rows=form.rows)))

    assert again.to_json() == {**spec.to_json(), "seed": None}
    assert form_of(spec_of().to_json(), name="digits").value("more") == ""


def test_every_key_of_a_study_is_in_a_field_or_among_the_more_keys() -> None:
    of_a_submission = {"bundle", "code", "git"}
    odd = dict.fromkeys(StudySpec.model_fields, "odd") | {"sampler": {"name": "tpe"}, "pruner": {"name": "none"}}
    odd |= {"search_space": None, "objectives": {}, "constraints": {}, "early_stop": None}
    odd |= {"param_constraints": [], "warm_start": []}
    more = {line.partition(" = ")[0] for line in form_of(odd, name="digits").value("more").splitlines()}
    assert more | set(FIELDS) | of_a_submission | {"search_space"} == {*StudySpec.model_fields, *FIELDS}
    assert not more & of_a_submission


def test_more_keys_that_cannot_be_are_refused() -> None:
    def errors(more: str) -> dict[str, str]:
        form = read_form({**SENT, "more": more})
        return dict(with_problems(form, mistakes(form)).errors)

    assert errors('keep_best = 3\nisolation = "none"') == {}
    assert "cannot be read" in errors("keep_best 3")["more"] and "cannot be read" in errors("a = 1\na = 2")["more"]
    assert written(read_form({**SENT, "space-10-choices": "[" * 5000}))["search_space"]["optimizer"][1] == ["[" * 5000]
    for text in (f"keep_best = {'9' * 5000}", f"environment = {'[' * 5000}"):
        assert "cannot be read" in errors(text)["more"]
        with pytest.raises(InvalidInput, match="sampler"):
            StudySpec.from_json(written(read_form({**SENT, "sampler_options": text})))
    assert errors("n_trials = 3")["more"] == "n_trials has a field of its own."
    assert errors("search_space.x = 1")["more"] == "search_space has a field of its own."
    with pytest.raises(InvalidInput, match="keep_bets"):
        StudySpec.from_json(written(read_form({**SENT, "more": "keep_bets = 3"})))


def test_options_of_a_sampler_and_a_pruner_are_written_as_in_a_study_file() -> None:
    sent = {
        **SENT,
        "sampler_options": "n_startup_trials = 20, multivariate = false",
        "early_stop": "30",
        "warm_start": "first, second",
    }
    sent |= {"pruner": "patient", "pruner_options": 'patience = 3, wrapped = {name = "percentile", percentile = 50.0}'}
    table = written(read_form(sent))
    spec = StudySpec.from_json(table)

    assert spec.sampler.options == {"n_startup_trials": 20, "multivariate": False}
    assert spec.pruner.options == {"patience": 3, "wrapped": {"name": "percentile", "percentile": 50.0}}
    assert spec.early_stop is not None and spec.early_stop.patience == 30
    assert spec.warm_start == ("first", "second")

    # And a study like it has them again
    assert StudySpec.from_json({**written(form_of(spec.to_json(), name="digits")), "seed": spec.seed}) == spec

    wrong = {"sampler_options": "n_startup_trails = 20", "pruner": "threshold", "early_stop": "soon"}
    form = read_form({**SENT, **wrong})
    with pytest.raises(InvalidInput) as refused:
        StudySpec.from_json(written(form))
    assert set(with_problems(form, refused.value.problems).errors) == {"sampler_options", "pruner", "early_stop"}
    form = read_form({**SENT, "sampler_options": "n_startup_trials 20"})
    with pytest.raises(InvalidInput) as refused:
        StudySpec.from_json(written(form))
    assert set(with_problems(form, refused.value.problems).errors) == {"sampler_options"}


def test_message_about_an_option_names_it() -> None:
    wrong = {"sampler": "pbt", "sampler_options": 'population = 1, mutate = "rate"'}
    with pytest.raises(InvalidInput) as refused:
        StudySpec.from_json(written(read_form({**SENT, **wrong})))
    shown = with_problems(read_form({**SENT, **wrong}), refused.value.problems)
    assert shown.error("sampler_options") == "population must be at least 2. mutate must be a list."


def test_messages_stand_beside_their_fields() -> None:
    form = read_form({**SENT, "n_trials": "many", "name": "a/b", "sampler": "tpee", "space-2-low": "900"})

    with pytest.raises(InvalidInput) as refused:
        StudySpec.from_json(written(form))
    shown = with_problems(form, refused.value.problems)

    assert set(shown.errors) == {"n_trials", "name", "sampler", "space-1"}
    assert "900" in shown.errors["space-1"] and "whole number" in shown.errors["n_trials"]
    assert shown.value("n_trials") == "many" and not shown.general


def test_advice_is_for_a_form_and_not_for_a_file() -> None:
    wrong = with_problems(
        read_form({}),
        [
            Problem(key="name", message="is missing", hint='Write for example name = "digits".'),
            Problem(key="sampler", message="is endless", hint="Set points under [sampler], or give it a step."),
        ],
    )
    assert wrong.error("name") == "is missing. Write for example digits."
    assert wrong.error("sampler") == "is endless. Set points as an option of the sampler, or give it a step."


@pytest.mark.parametrize(
    "wrong",
    [
        {"constraints": "latency_ms"},
        {"objectives": "loss"},
        {"warm_start": "first,,"},
        {"name": ""},
        {"objective": ""},
        {"objectives": "loss = minimize, ms = minimize", "pruner": "asha"},
    ],
)
def test_what_advice_has_as_an_example_may_be_written_into_the_field(wrong: dict[str, str]) -> None:
    def refused(sent: dict[str, str]) -> dict[str, str]:
        form = read_form(sent)
        try:
            StudySpec.from_json(written(form))
        except InvalidInput as invalid:
            return dict(with_problems(form, invalid.problems).errors)
        return {}

    name, *_ = errors = refused({**SENT, **wrong})
    example = re.search(r"Write for example (.+)\.", errors[name])
    assert example is not None, errors
    name = "prune_on" if name == "pruner" else name
    assert refused({**SENT, **wrong, name: example[1]}) == {}


def test_what_names_no_field_stands_above() -> None:
    shown = with_problems(read_form(SENT), [Problem(key="isolation", message="must be 'fork'", value="x")])
    assert shown.has_errors and shown.general == ["isolation: must be 'fork' (got 'x')."]


def test_a_space_without_a_parameter_is_reported_at_its_only_row(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("def objective(params): ...")
    form = read_form({key: word for key, word in SENT.items() if not key.startswith("space")})
    with pytest.raises(InvalidInput) as refused:
        build_spec(written(form), "form", tmp_path)
    assert set(with_problems(form, refused.value.problems).errors) == {"space-0"}


def test_a_duplicate_name_is_reported_at_its_row() -> None:
    form = read_form({**SENT, "space-2-name": "rate"})

    assert [problem.key for problem in mistakes(form)] == ["search_space.rate"]
    assert with_problems(form, mistakes(form)).errors["space-1"] == "is given twice."


def test_field_of_blanks_is_read_at_once() -> None:
    began_s = time.process_time()
    form = StudyForm(values={"objectives": "loss" + " " * 50_000 + "x", "constraints": "ms" + " " * 50_000 + "<= 2"})
    table = written(form)
    assert time.process_time() - began_s < 2.0, "while one field is read nothing else is answered"
    assert table["constraints"] == {"ms": "<= 2"} and isinstance(table["objectives"], str)


def test_names_that_are_there_twice_are_refused_in_fields_of_pairs() -> None:
    form = read_form(
        {**SENT, "objectives": "loss = minimize, loss = maximize", "constraints": "ms <= 20, ms >= 5, b < 1"}
    )

    assert with_problems(form, mistakes(form)).errors == {
        "objectives": "loss is given twice. Leave one of them out.",
        "constraints": "ms is given twice. Leave one of them out.",
    }
    with pytest.raises(InvalidInput, match="epochs: is given twice"):
        settings({"settings": "epochs=20 warmup=1 epochs=30"})


@pytest.mark.parametrize("key", ["space--1-name", "space-x-name", "space-1-shape", "space-99999999-name", "space-1"])
def test_strange_rows_are_not_rows(key: str) -> None:
    assert all(not row.get("name") for row in read_form({key: "x"}).rows)


def test_an_empty_form_is_a_form() -> None:
    assert StudyForm().value("name") == "" and len(read_form({}).rows) == 1


def test_a_point_takes_the_types_of_its_space() -> None:
    space = parse_space(
        {"rate": ["uniform", 0.0, 1.0], "units": ["int", 1, 9], "flag": ["categorical", [True, False, None, "a"]]}
    )
    sent = {"param-rate": "1", "param-units": "4", "param-flag": "true", "other": "x"}

    assert point(sent, space) == {"rate": 1.0, "units": 4, "flag": True}
    assert point({"param-rate": " ", "param-flag": "none", "param-new": "x"}, space) == {"flag": None, "new": "x"}


def test_choices_that_are_shown_alike_stay_apart() -> None:
    space = {"beta": Categorical((0.999, 0.99999, 0.999999, 1, "1", 0.1))}
    for word, chosen in {"0.99999": 0.99999, "0.999999": 0.999999, "1": 1, '"1"': "1", "0.1": 0.1}.items():
        assert point({"param-beta": word}, space) == {"beta": chosen}
        assert type(point({"param-beta": word}, space)["beta"]) is type(chosen)


def test_conditions_defaults_and_constraints_go_there_and_back() -> None:
    sent = {
        **SENT,
        "space-12-name": "momentum",
        "space-12-kind": "uniform",
        "space-12-low": "0",
        "space-12-high": "1",
        "space-12-when": "optimizer = sgd, 3; units = 64",
        "space-12-default": "0.5",
        "param_constraints": "momentum <= units\n\n rate < 0.1 \n",
    }
    table = written(read_form(sent))
    assert table["search_space"]["momentum"] == {
        "type": "uniform",
        "low": 0.0,
        "high": 1.0,
        "when": {"optimizer": ["sgd", 3], "units": [64]},
        "default": 0.5,
    }
    assert table["param_constraints"] == ["momentum <= units", "rate < 0.1"]
    spec = StudySpec.from_json(table)
    again = StudySpec.from_json(written(form_of(spec.to_json(), name="digits")))
    assert again.search_space == spec.search_space and again.param_constraints == spec.param_constraints

    form = read_form({**sent, "space-12-when": "sgd", "param_constraints": "a <="})
    with pytest.raises(InvalidInput) as refused:
        StudySpec.from_json(written(form))
    shown = with_problems(form, refused.value.problems)
    assert "when must be a table" in shown.errors["space-3"] and "cannot be read" in shown.errors["param_constraints"]


def test_without_rows_the_objective_defines_the_space() -> None:
    table = written(read_form({key: value for key, value in SENT.items() if not key.startswith("space-")}))
    assert "search_space" not in table
    spec = StudySpec.from_json(table)
    assert spec.defines_by_run and "search_space" not in written(form_of(spec.to_json(), name="digits"))


def test_form_of_a_study_without_a_space_has_an_empty_row_to_fill_and_to_copy() -> None:
    table = {"name": "digits", "objective": "train.py:objective", "n_trials": 3}
    form = form_of(StudySpec.from_json(table).to_json(), name="again")
    (row,) = form.rows
    assert not row["name"] and row["kind"]
