"""The study: what a person may write, how each mistake is answered, and that the ledger gives it back unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from highnoon.shared.domain.errors import ABSENT, InvalidInput, Problem
from highnoon.shared.domain.param import Categorical, Float, Int
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.scalars import is_json
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.study_file import build_spec, load_study_file

BAD_STUDIES = Path(__file__).parent / "bad_studies"

GOOD: dict[str, Any] = {
    "name": "parabola",
    "objective": "train.py:objective",
    "search_space": {"x": ["uniform", -2.0, 2.0]},
}


def spec(**keys: Any) -> StudySpec:
    return StudySpec.from_json({**GOOD, **keys})


def problems(data: Mapping[str, Any]) -> dict[str, Problem]:
    with pytest.raises(InvalidInput) as caught:
        build_spec(data, "here", BAD_STUDIES)
    assert caught.value.source == "here"
    return {problem.key: problem for problem in caught.value.problems}


def problem(keys: Mapping[Any, Any]) -> Problem:
    found = problems({**GOOD, **keys})
    if "code_dir" in keys:
        found.pop("objective", None)  # no folder, no objective
    (only,) = found.values()
    return only


def test_three_keys_make_a_study() -> None:
    study = build_spec(GOOD, "here", BAD_STUDIES)
    assert (study.direction, study.n_trials, study.isolation, study.resources) == ("minimize", 50, "fork", "cpu")
    assert (study.sampler, study.pruner) == (SamplerSpec(name="tpe"), PrunerSpec(name="median"))
    assert (study.max_attempts, study.retry_errors, study.lambda_efficiency) == (3, 0, 0.1)
    assert study.code_dir == str(BAD_STUDIES)
    assert str(study.objective_ref) == "train.py:objective"


def test_the_guides_space_and_settings_are_accepted() -> None:
    study = spec(
        search_space={
            "learning_rate": ("log_uniform", 1e-5, 1e-3),
            "dropout": ("uniform", 0.0, 0.5),
            "hidden_dim": ("int", 128, 1024, 64),
            "use_dropout": ("categorical", [True, False]),
        },
        param_budget=1_000_000_000,
        lambda_efficiency=0.2,
        memory_warning_pct=0.85,
        memory_grace_steps=5,
        prefetch_buffer_size=None,
    )
    assert study.search_space == {
        "learning_rate": Float(low=1e-5, high=1e-3, log=True),
        "dropout": Float(low=0.0, high=0.5),
        "hidden_dim": Int(low=128, high=1024, step=64),
        "use_dropout": Categorical(choices=(True, False)),
    }
    assert (study.memory_warning_pct, study.memory_grace_steps, study.prefetch_buffer_size) == (0.85, 5, None)


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("tpe", {}),
        ({"name": "tpe"}, {}),
        ({"name": "tpe", "n_startup_trials": 0, "multivariate": True, "group": True}, ...),
        ({"name": "tpe", "n_ei_candidates": 48, "constant_liar": False}, ...),
        ({"name": "tpe", "options": {"n_ei_candidates": 48}}, {"n_ei_candidates": 48}),
        ({"name": "tpe", "n_ei_candidates": None}, {}),
        ({"name": "cmaes", "n_startup_trials": 5, "popsize": 8}, ...),
        ({"name": "random"}, {}),
    ],
)
def test_a_sampler_is_a_name_or_a_table(written: Any, options: Any) -> None:
    expected = {k: v for k, v in written.items() if k != "name"} if options is ... else options
    assert spec(sampler=written).sampler.options == expected


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("none", {}),
        ({"name": "median", "n_startup_trials": 3, "n_warmup_steps": 0, "interval_steps": 2, "n_min_trials": 2}, ...),
        ("percentile", {"percentile": 75.0}),
        ({"name": "percentile", "percentile": 50, "n_min_trials": 2}, {"percentile": 50.0, "n_min_trials": 2}),
        ({"name": "hyperband", "min_resource": 1, "max_resource": 27, "reduction_factor": 3}, ...),
        ({"name": "hyperband", "max_resource": "auto"}, {}),
    ],
)
def test_a_pruner_is_a_name_or_a_table(written: Any, options: Any) -> None:
    expected = {k: v for k, v in written.items() if k != "name"} if options is ... else options
    assert spec(pruner=written).pruner.options == expected


@pytest.mark.parametrize(
    ("keys", "key", "message", "hint"),
    [
        ({"name": ""}, "name", "1 to 100 printable characters", ""),
        ({"name": "x" * 101}, "name", "1 to 100 printable characters", ""),
        ({"name": "\u7814" * 100}, "name", "at most 255 bytes", ""),
        ({"name": "a/b"}, "name", "without slashes", 'Write for example "a-b".'),
        ({"name": " a"}, "name", "surrounding blanks", 'Write for example "a".'),
        ({"name": ".."}, "name", "must not be only dots", ""),
        ({"name": "--all"}, "name", "must not begin with -", 'Write for example "all".'),
        ({"name": "a\nb"}, "name", "printable", ""),
        ({"name": "\ud800"}, "name", "printable", ""),
        ({"name": 5}, "name", "must be text", ""),
        ({"direction": "minimise"}, "direction", "must be 'minimize' or 'maximize'", "Write minimize."),
        ({"direction": 1}, "direction", "must be 'minimize' or 'maximize'", ""),
        ({"n_trials": 0}, "n_trials", "must be at least 1", ""),
        ({"n_trials": 10**9}, "n_trials", "must be at most 1,000,000", ""),
        ({"n_trials": True}, "n_trials", "must be a whole number", ""),
        ({"n_trials": "20"}, "n_trials", "must be a whole number", "Write 20 without quotes."),
        ({"n_trials": "twenty"}, "n_trials", "must be a whole number", ""),
        ({"n_trials": 20.0}, "n_trials", "must be a whole number", "Write 20."),
        ({"n_trials": 20.5}, "n_trials", "must be a whole number", ""),
        ({"n_trials": None}, "n_trials", "must be a whole number", "Leave it out for the default."),
        ({"seed": -1}, "seed", "must be at least 0", ""),
        ({"seed": 2**32}, "seed", "must be at most 4,294,967,295", ""),
        ({"timeout": 0}, "timeout", "must be above 0", ""),
        ({"timeout": -1.5}, "timeout", "must be above 0", ""),
        ({"timeout": True}, "timeout", "must be a number", ""),
        ({"timeout": "60"}, "timeout", "must be a number", "Write 60 without quotes."),
        ({"timeout": float("nan")}, "timeout", "must be a finite number", ""),
        ({"timeout": float("inf")}, "timeout", "must be a finite number", ""),
        ({"timeout": 1e10}, "timeout", "must be at most 1,000,000,000", ""),
        ({"timeout": 10**400}, "timeout", "must be", ""),
        ({"trial_timeout": 0}, "trial_timeout", "must be above 0", ""),
        ({"stall_timeout": 0}, "stall_timeout", "must be above 0", ""),
        ({"target_value": float("inf")}, "target_value", "must be a finite number", ""),
        ({"max_failures_in_a_row": -1}, "max_failures_in_a_row", "must be at least 0", ""),
        ({"max_failures_in_a_row": 1001}, "max_failures_in_a_row", "must be at most 1,000", ""),
        ({"early_stop": {"patience": 10_001}}, "early_stop.patience", "must be at most 10,000", ""),
        ({"max_attempts": 0}, "max_attempts", "must be at least 1", ""),
        ({"retry_errors": -1}, "retry_errors", "must be at least 0", ""),
        ({"isolation": "thread"}, "isolation", "must be 'fork', 'spawn' or 'none'", "Write none."),
        ({"isolation": "forks"}, "isolation", "must be", "Did you mean fork?"),
        ({"resources": "gpus"}, "resources", "must be 'cpu' or 'gpu'", "Did you mean gpu?"),
        ({"param_budget": 0}, "param_budget", "must be at least 1", ""),
        ({"param_budget": 1e9}, "param_budget", "must be a whole number", "Write 1000000000."),
        ({"lambda_efficiency": -0.1}, "lambda_efficiency", "must be at least 0", ""),
        ({"param_budget_hard": True}, "param_budget_hard", "needs a param_budget", "Write for example param_budget"),
        ({"memory_warning_pct": 95}, "memory_warning_pct", "a fraction between 0 and 1", "Write 0.95."),
        ({"memory_warning_pct": 0}, "memory_warning_pct", "a fraction between 0 and 1", ""),
        ({"memory_warning_pct": 950}, "memory_warning_pct", "a fraction between 0 and 1", ""),
        ({"memory_warning_pct": float("nan")}, "memory_warning_pct", "a fraction between 0 and 1", ""),
        ({"memory_grace_steps": 0}, "memory_grace_steps", "must be at least 1", ""),
        ({"prefetch_buffer_size": 0}, "prefetch_buffer_size", "must be at least 1", ""),
        ({"n_trails": 20}, "n_trails", "is not a known key", "Did you mean n_trials?"),
        (
            {"xyzzy": "text"},
            "xyzzy",
            "is not a known key",
            "Valid: name, direction, n_trials, objective, sampler, pruner,",
        ),
        ({"batch_size": ["int", 1, 4]}, "batch_size", "is not a known key", "stands under [search_space]"),
        ({3: 4}, "3", "a key must be text", ""),
        ({"code_dir": 5}, "code_dir", "must be text", ""),
        ({"code_dir": "a\0b"}, "code_dir", "must be an absolute path in UTF-8", ""),
        ({"code_dir": "\udc80"}, "code_dir", "must be an absolute path in UTF-8", ""),
        ({"objective": 5}, "objective", "must be text", ""),
        ({"objective": "train.py"}, "objective", '"path/file.py:function"', "Write train.py:objective"),
        ({"objective": "trian.py:objective"}, "objective", "there is no file trian.py", "Did you mean train.py?"),
        ({"objective": "train.py:objectiv"}, "objective", "train.py has no objectiv", "Did you mean objective?"),
        ({"objective": "train.py:RATE"}, "objective", "RATE in train.py is not callable", "Name a function"),
        ({"objective": "trian:objective"}, "objective", "there is no module trian", "Did you mean train?"),
        ({"sampler": "tpee"}, "sampler", "'tpe', 'auto', 'gp', 'cmaes',", "Did you mean tpe?"),
        ({"sampler": "TPE"}, "sampler", "'tpe', 'auto', 'gp', 'cmaes',", "Write tpe."),
        ({"sampler": 5}, "sampler", "must be a name, or a table with a name", ""),
        ({"sampler": None}, "sampler", "must be a name, or a table with a name", "Leave it out for the default."),
        ({"pruner": None}, "pruner", "must be a name, or a table with a name", 'Write "none" for no pruning'),
        ({"sampler": "bayes"}, "sampler", "must be 'tpe'", "Write tpe."),
        ({"timeout": "2h"}, "timeout", "must be a number", "Write 7200: it is in seconds."),
        ({"trial_timeout": "1.5 minutes"}, "trial_timeout", "must be a number", "Write 90: it is in seconds."),
        ({"stall_timeout": "soon"}, "stall_timeout", "must be a number", ""),
        (
            {"batch_size": 4},
            "batch_size",
            "is not a known key",
            'stands under [search_space]: batch_size = ["categorical", [4]]',
        ),
        ({"trial_config": {"memory_grace_steps": 5}}, "trial_config", "is not a known key", "without [trial_config]"),
        ({"study_name": "x"}, "study_name", "is not a known key", "Write name."),
        ({"study": {"n_trials": 5}}, "study", "is not a known key", "stand at the top, without [study]"),
        (
            {"model": {"lr": ["uniform", 0, 1]}},
            "model",
            "is not a known key",
            'under [search_space], a name with a dot in quotes: "model.lr" = ["uniform", 0, 1].',
        ),
        ({"sampler": {"name": "tpee"}}, "sampler.name", "must be 'tpe'", "Did you mean tpe?"),
        ({"sampler": {"n_startup_trials": 5}}, "sampler.name", "is missing", "Valid: tpe, auto, gp, cmaes,"),
        ({"sampler": {"name": "tpe", "options": 5}}, "sampler.options", "must be a table", ""),
        (
            {"sampler": {"name": "tpe", "n_startup_trails": 5}},
            "sampler.n_startup_trails",
            "is not a known key",
            "Did you mean n_startup_trials?",
        ),
        (
            {"sampler": {"name": "tpe", "options": {"xyzzy": 5}}},
            "sampler.options.xyzzy",
            "is not a known key",
            "Valid: n_startup_trials, n_ei_candidates, multivariate, group, constant_liar.",
        ),
        ({"sampler": {"name": "random", "points": 5}}, "sampler.points", "is not a known key", ""),
        (
            {"sampler": {"name": "tpe", "n_trials": 5}},
            "sampler.n_trials",
            "is not a known key",
            "Move n_trials above [sampler], to the keys of the study.",
        ),
        ({"sampler": {"name": "tpe", "n_ei_candidates": 0}}, "sampler.n_ei_candidates", "must be at least 1", ""),
        (
            {"sampler": {"name": "tpe", "n_ei_candidates": 10**9}},
            "sampler.n_ei_candidates",
            "must be at most 10,000",
            "",
        ),
        ({"sampler": {"name": "tpe", "multivariate": 1}}, "sampler.multivariate", "must be true or false", ""),
        (
            {"sampler": {"name": "tpe", "group": True, "multivariate": False}},
            "sampler.group",
            "works only with multivariate",
            "Leave multivariate = false out.",
        ),
        ({"sampler": {"name": "cmaes", "popsize": 2}}, "sampler.popsize", "must be at least 3", ""),
        ({"sampler": {"name": "pbt", "population": 1}}, "sampler.population", "must be at least 2", ""),
        ({"sampler": {"name": "pbt", "mutate": ["y"]}}, "sampler.mutate", "is no parameter of the search_space", "x"),
        ({"sampler": {"name": "pbt", "mutate": []}}, "sampler.mutate", "must have at least 1", ""),
        ({"sampler": {"name": "pbt", "quantile_fraction": 1}}, "sampler.quantile_fraction", "must be at most 0.5", ""),
        ({"sampler": "pbt", "pruner": "asha"}, "pruner", "is not asked by the sampler pbt", "Leave it out."),
        ({"sampler": "pbt", "repeats": 2}, "repeats", "is not possible with the sampler pbt", "Leave it out."),
        (
            {"sampler": "pbt", "search_space": {"n": ["int", 1, 3]}},
            "sampler.mutate",
            "the sampler pbt changes real numbers, and there are none",
            'mutate = ["n"]',
        ),
        ({"sampler": {"name": "grid", "points": 1}}, "sampler.points", "must be at least 2", ""),
        (
            {"sampler": "grid"},
            "search_space.x",
            "a finite number of values",
            "take the sampler grid and set points under [sampler]",
        ),
        ({"pruner": "medain"}, "pruner", "must be 'median'", "Did you mean median?"),
        ({"pruner": {"name": "percentile", "percentile": 101}}, "pruner.percentile", "must be at most 100", ""),
        ({"pruner": {"name": "percentile", "percentile": float("nan")}}, "pruner.percentile", "a finite number", ""),
        ({"pruner": {"name": "median", "percentile": 5}}, "pruner.percentile", "is not a known key", "Valid: n_"),
        (
            {"pruner": {"name": "hyperband", "min_resource": 5, "max_resource": 3}},
            "pruner.max_resource",
            "must be at least min_resource, which is 5",
            "",
        ),
        ({"pruner": {"name": "hyperband", "reduction_factor": 1}}, "pruner.reduction_factor", "at least 2", ""),
        (
            {"pruner": {"name": "asha", "min_resource": 2}},
            "pruner.min_resource",
            "not a known key",
            "Valid: grace_period,",
        ),
        ({"pruner": {"name": "asha", "grace_period": 0}}, "pruner.grace_period", "must be at least 1", ""),
        ({"pruner": {"name": "wilcoxon", "p_threshold": 2}}, "pruner.p_threshold", "must be at most 1", ""),
        ({"pruner": "threshold"}, "pruner", "threshold needs lower or upper", "Write for example"),
        (
            {"pruner": {"name": "threshold", "lower": 3.0, "upper": 2.0}},
            "pruner.upper",
            "must be at least lower, which is 3.0",
            "",
        ),
        ({"pruner": "patient"}, "pruner.patience", "is missing", "Write for example"),
        (
            {"pruner": {"name": "patient", "patience": 3, "wrapped": {"name": "median", "n_warmup": 3}}},
            "pruner.wrapped.n_warmup",
            "is not a known key",
            "Did you mean n_warmup_steps?",
        ),
        (
            {"pruner": {"name": "patient", "patience": 3, "wrapped": "medain"}},
            "pruner.wrapped",
            "must be 'median'",
            "Did you mean median?",
        ),
        ({"sampler": {"name": "qmc", "qmc_type": "sobel"}}, "sampler.qmc_type", "'sobol' or", "Did you mean sobol?"),
        ({"sampler": {"name": "nsga2", "population_size": 1}}, "sampler.population_size", "must be at least 2", ""),
        ({"sampler": {"name": "nsga3", "mutation_prob": 1.5}}, "sampler.mutation_prob", "must be at most 1", ""),
        ({"sampler": {"name": "brute_force", "points": 3}}, "sampler.points", "is not a known key", ""),
        (
            {"sampler": "brute_force"},
            "search_space.x",
            "a finite number of values",
            "take the sampler grid and set points under [sampler]",
        ),
        ({"warm_start": "first"}, "warm_start", "must be a list of names", 'warm_start = ["first-study"]'),
        ({"warm_start": ["a\0b"]}, "warm_start", "must be a list of names", "Write for example"),
        ({"warm_start": [1]}, "warm_start", "must be a list of names", "Write for example"),
        ({"warm_start": ["parabola"]}, "warm_start", "names the study itself", ""),
        *(
            (
                {"sampler": {"name": "optuna.samplers:RandomSampler", "x": value}},
                "sampler.x",
                "must be JSON without NaN",
                "Let the class",
            )
            for value in ("a\0b", {"a\0": 1}, ["\ud800"], float("nan"), {"a": float("inf")}, object())
        ),
        ({"sampler": "mine:a b"}, "sampler", 'must be a name, "package.module:Class"', ""),
        ({"pruner": {"name": ":Mine", "n": 1}}, "pruner", 'must be a name, "package.module:Class"', ""),
        (
            {"pruner": {"name": "patient", "patience": 3, "wrapped": "mine:Mine"}},
            "pruner.wrapped",
            "cannot be a class",
            "Wrap it in the class itself.",
        ),
        ({"repeats": 0}, "repeats", "must be at least 1", ""),
        ({"repeats": 2.5}, "repeats", "must be a whole number", ""),
        (
            {"repeats": 2, "objectives": {"loss": "minimize", "ms": "minimize"}},
            "repeats",
            "is for one objective",
            "Take the mean within the objective",
        ),
        ({"repaets": 3}, "repaets", "is not a known key", "Did you mean repeats?"),
        ({"sampler": "GP"}, "sampler", "must be 'tpe'", "Write gp."),
        ({"sampler": "sobol"}, "sampler", "must be 'tpe'", "Write qmc."),
        ({"sampler": "NSGAII"}, "sampler", "must be 'tpe'", "Write nsga2."),
        ({"sampler": "bruteforce"}, "sampler", "must be 'tpe'", "Write brute_force."),
        ({"pruner": "ASHA"}, "pruner", "must be 'median'", "Write asha."),
        ({"pruner": "successive_halving"}, "pruner", "must be 'median'", "Write asha."),
        ({"early_stop": 30}, "early_stop", "must be a table with a patience", "early_stop = {patience = 30}"),
        ({"early_stop": {}}, "early_stop.patience", "is missing", "Write for example early_stop"),
        ({"early_stop": {"patience": 0}}, "early_stop.patience", "must be at least 1", ""),
        (
            {"early_stop": {"patience": 9, "patince": 3}},
            "early_stop.patince",
            "is not a known key",
            "Did you mean patience?",
        ),
        ({"search_space": {}}, "search_space", "needs at least one parameter", "Write for example"),
        (
            {"search_space": {"x": {"type": ["int"], "low": 1}}},
            "search_space.x",
            "unknown type ['int']",
            "Did you mean int?",
        ),
        ({"search_space": []}, "search_space", "must be a table of parameters", ""),
        ({"search_space": {"x": ["unifrom", 0, 1]}}, "search_space.x", "unknown kind", "Did you mean uniform?"),
        (
            {"search_space": {"x": ["uniform", 0, 1], "seed": 3}},
            "search_space.seed",
            "is not a parameter",
            "Move seed above [search_space], to the keys of the study.",
        ),
    ],
)
def test_answers_each_mistake_at_its_own_key(keys: dict[str, Any], key: str, message: str, hint: str) -> None:
    found = problem(keys)
    assert found.key == key
    assert message in found.message
    assert hint in found.hint if hint else found.hint == ""


def test_reports_all_mistakes_at_once() -> None:
    # Given mistakes of every sort in one study
    found = problems(
        {
            "objective": "train.py:objectiv",
            "n_trials": 0,
            "n_trails": 3,
            "sampler": {"name": "grid", "pionts": 3},
            "pruner": {"name": "median", "n_warmup_steps": -1, "interval_steps": 0},
            "search_space": {"a": ["uniform", 1, 0], "b": ["int", 1, 5, 0], "c": ["int", 1, 5]},
        }
    )
    # Then each is reported, a missing name included
    assert set(found) == {
        "name",
        "objective",
        "n_trials",
        "n_trails",
        "sampler.pionts",
        "pruner.n_warmup_steps",
        "pruner.interval_steps",
        "search_space.a",
        "search_space.b",
    }


def test_a_grid_is_judged_beside_other_mistakes_in_the_space() -> None:
    found = problems({**GOOD, "sampler": "grid", "search_space": {"a": ["uniform", 0, 1], "b": ["uniform", 1, 0]}})
    assert set(found) == {"search_space.a", "search_space.b"}


def test_a_grid_needs_no_points_for_finite_ranges_and_is_refused_when_too_large() -> None:
    finite = {"x": ["uniform", 0, 1, 0.5], "y": ["int", 1, 9]}
    assert spec(sampler="grid", search_space=finite).sampler.name == "grid"
    assert spec(sampler={"name": "grid", "points": 5}).sampler.options == {"points": 5}
    huge = problem({"sampler": "grid", "search_space": {"a": ["int", 1, 2000], "b": ["int", 1, 2000]}})
    assert "spans a grid of 4,000,000 combinations" in huge.message


@pytest.mark.parametrize("data", [[], "study", None, 5])
def test_refuses_what_is_no_table(data: Any) -> None:
    assert problems(data)["study"].message == "must be a table of keys and values"


def test_every_message_fits_on_one_line_and_shortens_what_was_written() -> None:
    found = problem({"search_space": {"x": ["categorical", ["word"] * 500]}})
    assert "\n" not in str(found) and len(str(found)) < 300


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        spec().n_trials = 5


def test_code_dir_of_the_study_starts_from_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("def objective(params): ...")
    study = build_spec({**GOOD, "code_dir": "code"}, "here", tmp_path)
    assert study.code_dir == str((tmp_path / "code").resolve())
    with pytest.raises(InvalidInput, match="code_dir: must be an absolute path"):
        StudySpec.from_json({**GOOD, "code_dir": "code"})


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({}, []),
        ({"n_trials": 7, "sampler": "random", "pruner": "none", "seed": 1, "code_dir": "/elsewhere"}, []),
        ({"direction": "maximize"}, ["direction"]),
        ({"objective": "other.py:objective"}, ["objective"]),
        ({"search_space": {"x": ["uniform", -2.0, 3.0]}}, []),
        ({"objective": "other.py:objective", "direction": "maximize"}, ["direction", "objective"]),
    ],
)
def test_knows_what_makes_it_another_question(changed: dict[str, Any], keys: list[str]) -> None:
    assert spec().distinct_from(spec(**changed)) == keys


def test_tells_true_from_one_but_not_one_order_from_another() -> None:
    flags, digits = (spec(sampler="grid", search_space={"x": ["categorical", c]}) for c in ([True, False], [1, 0]))
    assert flags.grid_changes(digits) == ["search_space"]
    ab, ba = (spec(sampler="grid", search_space={k: ["int", 1, 2] for k in names}) for names in ("ab", "ba"))
    assert ab.grid_changes(ba) == []


def test_says_which_stored_study_cannot_be_read() -> None:
    with pytest.raises(InvalidInput, match=r"stored study:\n  future_key: is not a known key"):
        StudySpec.from_json({**GOOD, "future_key": 1})


seconds = st.none() | st.floats(1e-3, 1e9)
names = st.text(st.characters(categories=["L", "N", "P"], exclude_characters="/"), min_size=1, max_size=100)
domains = st.sampled_from(
    [
        ["uniform", 0, 1],
        ["uniform", 0.1, 0.75, 0.1],
        ["log_uniform", 1e-7, 3],
        ["int", -3, 11, 4],
        ["int_log", 1, 16],
        ["categorical", [1, 2.0, "three", None, False]],
    ]
)
samplers = st.sampled_from(
    ["tpe", "random", {"name": "cmaes", "popsize": 4}, {"name": "grid", "points": 2}, {"name": "tpe", "group": True}]
)
pruners = st.sampled_from(["none", "percentile", {"name": "hyperband", "max_resource": 9}, {"name": "median"}])


@given(
    st.fixed_dictionaries(
        {
            "name": names.filter(lambda name: name.strip(".") and not name.startswith("-")),
            "objective": st.sampled_from(["train.py:objective", "package.module:train"]),
            "search_space": st.dictionaries(names, domains, min_size=1, max_size=5),
        },
        optional={
            "direction": st.sampled_from(["minimize", "maximize"]),
            "n_trials": st.integers(1, 10**6),
            "sampler": samplers,
            "pruner": pruners,
            "seed": st.none() | st.integers(0, 2**32 - 1),
            "timeout": seconds,
            "trial_timeout": seconds,
            "stall_timeout": seconds,
            "target_value": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "isolation": st.sampled_from(["fork", "spawn", "none"]),
            "resources": st.sampled_from(["cpu", "gpu"]),
            "param_budget": st.none() | st.integers(1, 10**15),
            "lambda_efficiency": st.floats(0, 100),
            "memory_warning_pct": st.none() | st.floats(0.01, 1),
            "code_dir": st.none() | st.just("/srv/code"),
        },
    )
)
def test_a_spec_survives_json_exactly(written: dict[str, Any]) -> None:
    study = StudySpec.from_json(written)
    stored = json.dumps(study.to_json(), allow_nan=False)
    again = StudySpec.from_json(json.loads(stored))
    # repr as well, because to Python 1, 1.0 and True are equal.
    assert again == study and repr(again) == repr(study)
    assert json.dumps(again.to_json()) == stored
    assert again.distinct_from(study) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "different"),
    [
        ({}, {"lambda_efficiency": 0.2}, []),
        ({}, {"param_budget": 5}, ["param_budget"]),
        ({"param_budget": 5}, {"param_budget": 6}, ["param_budget"]),
        ({"param_budget": 5}, {"param_budget": 5, "lambda_efficiency": 0.2}, ["lambda_efficiency"]),
        ({"param_budget": 5}, {"param_budget": 5, "param_budget_hard": True}, []),
    ],
)
def test_scores_on_another_scale_are_another_study(
    mine: dict[str, Any], theirs: dict[str, Any], different: list[str]
) -> None:
    assert spec(**mine).distinct_from(spec(**theirs)) == different


def test_a_spec_says_how_it_scores() -> None:
    written = {"direction": "maximize", "param_budget": 5, "lambda_efficiency": 0.2, "param_budget_hard": True}
    assert spec(**written).scoring == Scoring(**written)
    assert spec().scoring == Scoring()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(StudySpec.model_fields)) | st.text(max_size=5), plain, max_size=6))
def test_nothing_but_invalid_input_comes_out_of_nonsense(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_spec(data, "nonsense")
    assert all(str(found) for found in caught.value.problems)


@pytest.mark.parametrize(
    ("file", "key", "message", "value", "hint"),
    [
        ("unknown_sampler.toml", "sampler", "must be 'tpe'", "tpee", "Did you mean tpe?"),
        (
            "low_above_high.toml",
            "search_space.x",
            "low 2.0 is above high -2.0",
            ["uniform", 2.0, -2.0],
            "Swap the two.",
        ),
        ("log_from_zero.toml", "search_space.x", "starts above 0", ["log_uniform", 0.0, 1e-3], "write uniform"),
        ("objective_not_found.toml", "objective", "no file trian.py", "trian.py:objective", "Did you mean train.py?"),
        ("objective_not_callable.toml", "objective", "RATE in train.py is not callable", "train.py:RATE", "Name a"),
        ("no_trials.toml", "n_trials", "must be at least 1", 0, ""),
        ("unknown_key.toml", "n_trails", "is not a known key", 20, "Did you mean n_trials?"),
        ("wrong_type.json", "n_trials", "must be a whole number", "20", "Write 20 without quotes."),
        ("empty_categorical.yaml", "search_space.x", "at least one choice", ["categorical", []], "Write for example"),
        ("bad_syntax.toml", "line 3, column 10", "expected '=' after a key", "n_trials 20", ""),
        ("studdy.toml", "file", "does not exist", ABSENT, "Did you mean study.toml?"),
        ("step_zero.toml", "search_space.x", "step must be above 0", ["int", 1, 9, 0], "Leave it out"),
    ],
)
def test_the_twelve_bad_studies(file: str, key: str, message: str, value: object, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_study_file(BAD_STUDIES / file)
    (found,) = caught.value.problems
    assert (found.key, found.value) == (key, value)
    assert message in found.message and hint in found.hint
    assert caught.value.source == str(BAD_STUDIES / file)
    assert len(str(caught.value).splitlines()) == 2


def test_a_warm_start_needs_a_search_space() -> None:
    written = {"name": "digits", "objective": "train.py:objective", "warm_start": ["first"]}
    with pytest.raises(InvalidInput, match=r"warm_start: needs a search_space \(got \['first'\]\)"):
        StudySpec.from_json(written)
    assert StudySpec.from_json({**written, "warm_start": []}).defines_by_run


@pytest.mark.parametrize(
    ("text", "can_be_held"), [("\0", False), (r"\u0000", True), ("\\\0", False), (r"\\u0000", True)]
)
def test_zero_byte_is_no_json_for_postgresql_and_the_words_for_one_are(text: str, can_be_held: bool) -> None:
    assert is_json({"pattern": [text]}) is can_be_held


class TestEnvironment:
    def test_every_mistake_is_reported_with_what_to_write(self) -> None:
        written = {
            "OMP_NUM_THREADS": 1,
            "A-B": "1",
            "PATH": "/x",
            "LD_PRELOAD": "/x.so",
            "PYTHONPATH": "/x",
            "Z": "a\0b",
        }
        with pytest.raises(InvalidInput) as caught:
            StudySpec.from_json({**GOOD, "environment": written, "isolation": "none"})
        problems = {problem.key: str(problem) for problem in caught.value.problems}
        assert 'environment.OMP_NUM_THREADS: must be text (got 1). Write "1".' in problems.values()
        assert "is no name of a variable" in problems["environment.A-B"]
        for name in ("PATH", "LD_PRELOAD", "PYTHONPATH"):
            assert "decides which code runs" in problems[f"environment.{name}"]
        assert "without zero bytes" in problems["environment.Z"]
        assert "isolation is none" in problems["environment"]
        with pytest.raises(InvalidInput, match="environment: must be a table of variables"):
            StudySpec.from_json({**GOOD, "environment": ["OMP_NUM_THREADS=1"]})

    def test_it_is_kept_and_secrets_are_warned_of(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "train.py").write_text("def objective(params): ...")
        written = {**GOOD, "objective": "train.py:objective", "environment": {"WANDB_API_KEY": "x", "DATA": "/data"}}
        spec = build_spec(written, source="study.toml", code_dir=tmp_path)
        assert StudySpec.from_json(spec.to_json()).environment == {"WANDB_API_KEY": "x", "DATA": "/data"}
        assert "WANDB_API_KEY is stored with the study" in caplog.text and "DATA" not in caplog.text
