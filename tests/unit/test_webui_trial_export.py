"""What people take away is read back by the tools that it is for."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Params, Trial
from highnoon.shared.store.attempt_records import AttemptPlace
from highnoon.shared.views.best_config import BEST
from highnoon.shared.views.trial_export import csv_head, csv_rows, json_lines, parquet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARAMS: Params = {
    "learning_rate": 1e-05,
    "units": 64,
    "use bias": True,
    "optimizer": 'ad\'am "x" $HOME `id`\n#',
    "country": "no",
    "nothing": None,
    "größe": 1.0,
}
NAME = "digits\nimport os"


def best(value: float = 0.25, params: Params = PARAMS) -> Trial:
    return Trial(number=7, state=TrialState.COMPLETE, params=params, value=value)


def text(kind: str, **changes: Any) -> str:
    return BEST[kind].write(NAME, best(**changes))


def test_json_yaml_and_toml_say_the_same() -> None:
    read = [json.loads(text("json")), yaml.safe_load(text("yaml"))]
    assert all(one == {"study": "digits\nimport os", "trial": 7, "value": 0.25, "params": PARAMS} for one in read)

    toml = tomllib.loads(text("toml"))
    assert toml["params"] == {name: value for name, value in PARAMS.items() if value is not None}
    assert "# nothing is none" in text("toml")


def test_python_runs_and_gives_the_parameters() -> None:
    scope: dict[str, Any] = {}
    exec(compile(text("python"), "best.py", "exec"), scope)

    assert scope["best_params"] == PARAMS
    assert text("python").index("best_params") == text("python").index("\n") + 1, "a name stays inside its comment"


def test_a_shell_reads_the_variables_and_runs_nothing() -> None:
    script = text("env") + 'printf "%s|%s|%s" "$LEARNING_RATE" "$OPTIMIZER" "$USE_BIAS"'
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == '1e-05|ad\'am "x" $HOME `id`\n#|true'


@pytest.mark.parametrize("names", [("lr", "LR"), ("a.b", "a-b"), ("1x", "_1X")])
def test_two_parameters_are_not_written_as_one_variable(names: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        text("env", params=dict.fromkeys(names, 0.5))
    assert all(name in str(refused.value) for name in names)


@pytest.mark.parametrize("kind", BEST)
def test_infinity_is_no_reason_to_fail(kind: str) -> None:
    assert text(kind, value=math.inf)


def test_csv_runs_no_formula() -> None:
    trial = best(params={"x": '=HYPERLINK("http://evil")', "y": -1.5, "z": "@sum"})
    names = ["x", "y", "z"]
    (row,) = csv.DictReader(io.StringIO(csv_head(names) + csv_rows([trial], names, {})))
    assert (row["params.x"][0], row["params.z"][0], row["params.y"]) == ("'", "'", "-1.5")
    assert (row["number"], row["state"], row["value"]) == ("7", "COMPLETE", "0.25")


def test_csv_has_the_size_by_which_value_and_loss_differ() -> None:
    trial = replace(best(), loss=0.5, params_count=5000, active_params=900)
    (row,) = csv.DictReader(io.StringIO(csv_head([]) + csv_rows([trial], [], {})))
    assert (row["loss"], row["params_count"], row["active_params"]) == ("0.5", "5000", "900")


def test_json_lines_are_strict_and_one_per_trial() -> None:
    lines = json_lines([best(math.inf), best()], {}).splitlines()
    assert [json.loads(line)["value"] for line in lines] == ["inf", 0.25]


def test_parquet_has_types_and_takes_choices_of_several_kinds() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    trials = [best(params={"x": 1, "layers": 2, "mode": "auto"}), best(math.inf, params={"x": 0.5, "mode": 3})]

    table = pq.read_table(io.BytesIO(parquet(trials, ["x", "layers", "mode"], {7: AttemptPlace("node-a", 9)})))

    assert table.column("params.x").to_pylist() == [1.0, 0.5] and table.column("params.layers").to_pylist() == [2, None]
    assert table.column("params.mode").to_pylist() == ["auto", "3"]
    assert table.column("value").to_pylist() == [0.25, math.inf]
    assert (
        table.column("host").to_pylist() == ["node-a", "node-a"] and str(table.schema.field("number").type) == "int64"
    )


def test_parquet_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match=r"pyarrow.*pip install 'highnoon-hpo\[parquet\]'"):
        parquet([best()], ["x"], {})
