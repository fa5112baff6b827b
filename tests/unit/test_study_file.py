"""Study files as text: three formats that mean the same, and places for what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.objective.study_file import load_study_file, read_table

TOML = """
name = "digits"
n_trials = 20
[sampler]
name = "tpe"
[search_space]
lr = ["log_uniform", 1e-5, 1e-3]
"on" = ["categorical", [true, false, "off"]]
"""
JSON = """
{"name": "digits", "n_trials": 20, "sampler": {"name": "tpe"},
 "search_space": {"lr": ["log_uniform", 1e-5, 1e-3], "on": ["categorical", [true, false, "off"]]}}
"""
YAML = """
name: digits
n_trials: 20
sampler: {name: tpe}
search_space:
  lr: [log_uniform, 1e-5, 1e-3]
  on: [categorical, [true, false, off]]
"""


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problem_with(path: Path) -> Problem:
    with pytest.raises(InvalidInput) as caught:
        read_table(path)
    assert caught.value.source == str(path)
    (problem,) = caught.value.problems
    return problem


def test_the_three_formats_mean_the_same(tmp_path: Path) -> None:
    written = {"s.toml": TOML, "s.json": JSON, "s.yaml": YAML, "s.yml": YAML, "s.TOML": TOML}
    tables = [read_table(write(tmp_path / name, text)) for name, text in written.items()]
    assert all(table == tables[0] for table in tables)
    assert tables[0]["search_space"] == {"lr": ["log_uniform", 1e-5, 1e-3], "on": ["categorical", [True, False, "off"]]}


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "s.toml", b"\xef\xbb\xbf" + TOML.encode()))["name"] == "digits"


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-5", 1e-5),
        ("-2.5E3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("3", 3),
        ("1_000_000", 1_000_000),
        ("0x10", 16),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("null", None),
        ("~", None),
        ("", None),
        ("True", True),
        ("'1e-5'", "1e-5"),
        ("08", "08"),
    ],
)
def test_yaml_scalars_are_those_of_yaml_1_2(tmp_path: Path, scalar: str, value: object) -> None:
    read = read_table(write(tmp_path / "s.yaml", f"x: {scalar}"))["x"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "key", "message"),
    [
        ("s.toml", 'a = 1\nb "x"', "line 2, column 3", "expected '='"),
        ("s.toml", 'name = "digits', "line 1, column 15", ""),
        ("s.toml", "a = 1\na = 2", "line 2, column 6", "a is given twice"),
        ("s.toml", "[b]\na = 1\n[b]\nc = 2", "line 3, column 3", "[b] is given twice"),
        ("s.json", '{"a": 1,,}', "line 1, column 9", "expecting property name"),
        ("s.json", '{"a":', "line 1, column 6", "expecting value"),
        ("s.json", '{"a": 1, "a": 2}', "a", "is given twice"),
        ("s.yaml", "a: 1\n\tb: 2", "line 2, column 1", "cannot start any token"),
        ("s.yaml", "a: [1, 2", "line 1, column 9", ""),
        ("s.yaml", "a: 1\nb: 2\na: 3", "line 3, column 1", "a is given twice"),
        ("s.yaml", "a: *unknown", "line 1, column 4", "undefined alias"),
        ("s.yaml", "a: 1\n---\nb: 2", "line 2, column 1", "a second document begins here"),
        ("s.yaml", "a: 1\nb: \x00", "line 2, column 4", "special characters"),
        ("s.yaml", "a: !!python/object/apply:os.getcwd []", "line 1, column 4", "could not determine"),
        ("s.yaml", "a: !!int text", "file", "cannot be read"),
        ("s.yaml", "a: !!int ''", "file", "does not fit its tag"),
        ("s.yaml", "a: !!bool maybe", "file", "does not fit its tag"),
        ("s.yaml", "a: !!timestamp x", "file", "does not fit its tag"),
        ("s.yaml", "a: !!map [1]", "file", "does not fit its tag"),
        ("s.toml", f"a = {'9' * 5000}", "file", "cannot be read (Exceeds the limit (4300"),
        ("s.toml", f"a = {'[' * 50_000}", "file", "is nested too deeply"),
        ("s.json", "[" * 200_000, "file", "is nested too deeply"),
        ("s.yaml", "[" * 5000, "file", "is nested too deeply"),
        ("s.toml", "", "file", "is empty"),
        ("s.json", " \n", "file", "is empty"),
        ("s.yaml", "# only a comment", "file", "is empty"),
        ("s.json", "[1]", "file", "must hold a table"),
        ("s.yaml", "text", "file", "must hold a table"),
        ("s.toml", b'name = "\xff"', "file", "is not UTF-8 text: byte 8 is 0xff"),
        ("s.txt", "a = 1", "file", "has no known ending"),
        ("study", "a = 1", "file", "has no known ending"),
    ],
)
def test_says_where_and_why_a_file_cannot_be_read(
    tmp_path: Path, name: str, text: str | bytes, key: str, message: str
) -> None:
    problem = problem_with(write(tmp_path / name, text))
    assert problem.key == key
    assert message in problem.message
    assert "\n" not in str(problem)


def test_shows_the_line_and_reminds_of_quotes(tmp_path: Path) -> None:
    problem = problem_with(write(tmp_path / "s.toml", "n_trials = 5\n  name = digits"))
    assert problem.value == "name = digits"
    assert problem.hint == "Text needs quotes, a list square brackets."


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("s.toml", "pruner = None", "TOML has no null: leave the key out"),
        ("s.toml", 'x = ["categorical", ["a", null]]', "TOML has no null: leave the key out"),
        ("s.toml", "param_budget_hard = True", "Write true."),
        ("s.json", '{"a": 1,}', "Leave out the last comma."),
        ("s.json", "{'a': 1}", "JSON wants double quotes."),
    ],
)
def test_says_what_to_write_instead(tmp_path: Path, name: str, text: str, hint: str) -> None:
    assert hint in problem_with(write(tmp_path / name, text)).hint


def test_warns_of_a_range_whose_end_no_step_reaches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train.py", "def objective(params): ...")
    space = '[search_space]\na = ["int", 256, 1024, 100]\nb = ["int", 1, 10, 20]\nc = ["int", 0, 10, 5]'
    load_study_file(write(tmp_path / "s.toml", f'name = "s"\nobjective = "train.py:objective"\n{space}'))
    assert [message.partition("search_space.")[2] for message in caplog.messages] == [
        "a: in steps of 100 from 256 the last value tried is 956, not 1024",
        "b: in steps of 20 from 1 the last value tried is 1, not 10",
    ]


def test_names_the_nearest_study_file(tmp_path: Path) -> None:
    write(tmp_path / "digits.toml", TOML)
    write(tmp_path / "notes.txt", "")
    assert problem_with(tmp_path / "digtis.toml").hint == "Did you mean digits.toml?"
    assert problem_with(tmp_path / "digits.json").hint == "Did you mean digits.toml?"
    assert problem_with(tmp_path / "q").hint == "Valid: digits.toml."
    assert problem_with(tmp_path).message == "is a folder"
    assert problem_with(tmp_path).hint == "Valid: digits.toml."
    assert problem_with(tmp_path / "nowhere" / "s.toml").message == "does not exist, nor does its folder"
    assert "cannot be read" in problem_with(tmp_path / ("x" * 300 + ".toml")).message


def test_overrides_win_and_are_checked_like_the_file(tmp_path: Path) -> None:
    write(tmp_path / "train.py", "def objective(params): ...")
    path = write(tmp_path / "s.toml", 'objective = "train.py:objective"' + TOML)
    study = load_study_file(path, {"n_trials": 3, "name": "again"})
    assert (study.n_trials, study.name, study.code_dir) == (3, "again", str(tmp_path.resolve()))
    with pytest.raises(InvalidInput, match="n_trials: must be at least 1"):
        load_study_file(path, {"n_trials": 0})


def test_a_relative_path_finds_its_code_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    write(tmp_path / "code" / "train.py", "def objective(params): ...")
    write(tmp_path / "code" / "s.toml", 'objective = "train.py:objective"' + TOML)
    monkeypatch.chdir(tmp_path)
    assert load_study_file(Path("code/s.toml")).code_dir == str((tmp_path / "code").resolve())
    monkeypatch.chdir(tmp_path / "code")
    assert load_study_file(Path("s.toml")).code_dir == str((tmp_path / "code").resolve())
