"""The objective by name: judged by its source without running it, loaded where user code may run."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from highnoon.shared.domain.errors import InvalidInput, ObjectiveError, Problem
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.tracebacks import user_traceback
from highnoon.shared.objective.reference import check, load, script_of
from highnoon.shared.objective.source import import_settings_in


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for user code; what its imports leave behind in this process is taken back."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(source), encoding="utf-8")
    return path


def checked(reference: str, folder: Path | None) -> Problem | None:
    return check(ObjectiveRef.parse(reference), folder)


@pytest.mark.parametrize(
    ("reference", "where", "function", "is_file"),
    [
        ("train.py:objective", "train.py", "objective", True),
        ("code/sub dir/train.py:f", "code/sub dir/train.py", "f", True),
        ("/abs/train.py:f", "/abs/train.py", "f", True),
        ("../train.py:f", "../train.py", "f", True),
        ("train:f", "train", "f", False),
        ("package.module:f", "package.module", "f", False),
    ],
)
def test_reads_both_forms_of_a_reference(reference: str, where: str, function: str, is_file: bool) -> None:
    ref = ObjectiveRef.parse(reference)
    assert (ref.where, ref.function, ref.is_file, str(ref)) == (where, function, is_file, reference)


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("train.py", "Write train.py:objective, with the name of the function."),
        ("package.module.train", "Did you mean package.module:train?"),
        ("code/train:f", "Did you mean code/train.py:f?"),
        ("train.py:", ""),
        (":objective", ""),
        ("", ""),
        ("objective", ""),
        ("train.py:my-function", ""),
        ("package..module:f", ""),
        ("tra\nin.py:f", ""),
        ("train.py:f\0", ""),
        (
            "train.ipynb:fit",
            "A notebook cannot be imported: save the function in a .py file and write train.py:fit.",
        ),
    ],
)
def test_refuses_what_is_no_reference(reference: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ObjectiveRef.parse(reference)
    (problem,) = caught.value.problems
    assert problem.key == "objective" and problem.value == reference
    assert '"path/file.py:function" or "package.module:function"' in problem.message
    assert problem.hint == hint


@pytest.mark.parametrize(
    "source",
    [
        "def objective(params): ...",
        "def objective(params, epochs=3): ...",
        "def objective(params, *, epochs=3): ...",
        "def objective(*everything): ...",
        "def objective(params, /): ...",
        "objective = lambda params: 0.0",
        "class objective:\n    def __init__(self, params): ...",
        "from elsewhere import objective",
        "from elsewhere import train as objective",
        "import objective",
        "from elsewhere import *",
        "def __getattr__(name): ...",
        "objective = make(3)",
        "a, objective = make()",
        "objective = other = make()",
        "objective: object = make()",
        "@decorated\ndef objective(): ...",
        "@decorated\nasync def objective(params): ...",
        "objective = None\ndef objective(params): ...",
        "try:\n    from fast import objective\nexcept ImportError:\n    objective = None",
        "if FAST:\n    objective = 3\nelse:\n    def objective(params): ...",
        "with something() as objective: ...",
        "for objective in functions: ...",
        "match KIND:\n    case 1:\n        def objective(params): ...",
        "print(objective := make())",
        "# -*- coding: latin-1 -*-\ndef objective(params): ...",
        "\ufeffdef objective(params): ...",
        "def objective(params): return '\\d'",
    ],
)
def test_accepts_whatever_may_be_callable(folder: Path, source: str) -> None:
    write(folder, "train.py", source)
    assert checked("train.py:objective", folder) is None
    assert checked("train:objective", folder) is None


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("RATE = 1\ndef objectiv(params): ...", "train.py has no objective", "Did you mean objectiv?"),
        ("def fit(params): ...\ndef rate(): ...", "train.py has no objective", "It defines fit, rate."),
        ("RATE = 1", "train.py has no objective", "It defines no function."),
        ("", "train.py has no objective", "It defines no function."),
        ("def outer():\n    def objective(params): ...", "train.py has no objective", "It defines outer."),
        ("class Model:\n    def objective(self): ...", "train.py has no objective", "It defines no function."),
        ("names = [objective for objective in names]", "train.py has no objective", ""),
        ("objective: float", "train.py has no objective", ""),
        ("objective = 0.5", "objective in train.py is not callable", "Name a function"),
        ("objective: int = 5", "objective in train.py is not callable", "Name a function"),
        ("objective = 'train'", "objective in train.py is not callable", "Name a function"),
        ("objective = f'{1}'", "objective in train.py is not callable", "Name a function"),
        ("objective = None", "objective in train.py is not callable", "Name a function"),
        ("objective = [1]", "objective in train.py is not callable", "Name a function"),
        ("objective = {'a': 1}", "objective in train.py is not callable", "Name a function"),
        ("async def objective(params): ...", "is an async function", "Write def objective(params) without async."),
        ("def objective(): ...", "takes no positional argument", "It is called as objective(params)"),
        ("def objective(*, params): ...", "takes no positional argument", "It is called as objective(params)"),
        ("def objective(**params): ...", "takes no positional argument", "It is called as objective(params)"),
        ("objective = lambda: 0.0", "takes no positional argument", "It is called as objective(params)"),
        ("def objective(params, data): ...", "objective in train.py needs 2 arguments", "It is called as"),
        ("def objective(params, *, data): ...", "objective in train.py needs 2 arguments", "It is called as"),
        ("def objective(params:\n    ...", "train.py has a syntax error in line 1", ""),
        ("x = 1\nprint 'hello'", "train.py has a syntax error in line 2", ""),
        ("x = '\0'", "train.py ", ""),
    ],
)
def test_says_what_cannot_work(folder: Path, source: str, message: str, hint: str) -> None:
    write(folder, "train.py", source)
    for reference in ("train.py:objective", "train:objective"):
        problem = checked(reference, folder)
        assert problem is not None
        assert message in problem.message and hint in problem.hint
        assert (problem.key, problem.value) == ("objective", reference)


def test_finds_what_is_below_src_and_proposes_nothing_that_is_only_installed(folder: Path) -> None:
    write(folder, "src/myproj/train.py", "def objective(params): ...")
    problem = checked("myproj.train:objective", folder)
    assert problem is not None and problem.hint.startswith('It is below src: write code_dir = "src" in the study')
    assert checked("myproj.train:objective", folder / "src") is None
    write(folder, "nb.ipynb", "{}")
    problem = checked("nb:objective", folder)
    assert problem is not None and problem.hint == "There is only nb.ipynb: save the function in a .py file."
    problem = checked("strin:objective", folder)
    assert problem is not None and problem.hint == ""


def test_refuses_a_relative_import_in_a_file_that_has_no_package(folder: Path) -> None:
    write(folder, "pack/train.py", "import os\nfrom . import data\ndef objective(params): ...")
    problem = checked("pack/train.py:objective", folder)
    assert problem is not None and "has a relative import in line 2" in problem.message
    assert "such as pack.train:objective" in problem.hint
    assert checked("pack.train:objective", folder) is None


def test_the_traceback_of_an_import_has_the_users_frames_only(folder: Path) -> None:
    write(folder, "train_deep.py", "import helper_of_train")
    write(folder, "helper_of_train.py", "def fail():\n    raise ValueError('no data')\nfail()")
    with pytest.raises(ObjectiveError) as caught:
        load(ObjectiveRef.parse("train_deep.py:objective"), folder)
    assert caught.value.__cause__ is not None
    frames = [line.strip() for line in user_traceback(caught.value.__cause__).splitlines() if "File " in line]
    assert [Path(frame.split('"')[1]).name for frame in frames] == [
        "train_deep.py", "helper_of_train.py", "helper_of_train.py",
    ]  # fmt: skip


def test_survives_a_source_that_is_nested_beyond_reason(folder: Path) -> None:
    write(folder, "train.py", "x = " + "(" * 5000 + ")" * 5000)
    assert checked("train.py:objective", folder) is not None
    write(folder, "train.py", "+".join(["x"] * 20_000) + "\ndef objective(params): ...")
    checked("train.py:objective", folder)


def test_names_the_nearest_file(folder: Path) -> None:
    write(folder, "train.py", "def objective(params): ...")
    problem = checked("trian.py:objective", folder)
    assert problem is not None
    assert problem.message == f"there is no file trian.py in {folder}"
    assert problem.hint == "Did you mean train.py?"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere/train.py:objective", "there is no folder"),
        ("sub.py:objective", "there is no file sub.py"),
        (f"{'x' * 300}.py:objective", "cannot be read"),
    ],
)
def test_answers_for_paths_that_lead_nowhere(folder: Path, reference: str, message: str) -> None:
    (folder / "sub.py").mkdir()
    problem = checked(reference, folder)
    assert problem is not None and message in problem.message


def test_a_relative_path_needs_a_folder_to_start_from(folder: Path) -> None:
    path = write(folder, "train.py", "def objective(params): ...")
    problem = checked("train.py:objective", None)
    assert problem is not None and problem.hint == "Write it in full."
    assert checked(f"{path}:objective", None) is None


def test_finds_modules_in_packages_and_folders(folder: Path) -> None:
    write(folder, "pack/__init__.py", "raise SystemExit('a package must not be imported by a check')")
    write(folder, "pack/deep/train.py", "def objective(params): ...")
    write(folder, "loose/deeper/train.py", "def objective(params): ...")
    assert checked("pack.deep.train:objective", folder) is None
    assert checked("loose.deeper.train:objective", folder) is None


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("trian_digits:objective", "there is no module trian_digits", "Did you mean train_digits?"),
        ("pack.trian:objective", "there is no module pack.trian", "Did you mean train?"),
        ("pakc.train:objective", "there is no package pakc", ""),
        ("train_digits.objective:f", "train_digits is a module, not a package", ""),
        ("loose:objective", "loose is a folder without __init__.py, not a module", ""),
        ("__main__:objective", "there is no module __main__", ""),
        ("pack.train:objectiv", "train.py has no objectiv", "Did you mean objective?"),
    ],
)
def test_names_the_nearest_module(folder: Path, reference: str, message: str, hint: str) -> None:
    write(folder, "train_digits.py", "def objective(params): ...")
    write(folder, "pack/__init__.py", "")
    write(folder, "pack/train.py", "def objective(params): ...")
    write(folder, "loose/readme.txt", "")
    problem = checked(reference, folder)
    assert problem is not None
    assert problem.message == message and hint in problem.hint


def test_finds_what_is_installed_or_built_in_without_judging_compiled_code() -> None:
    assert checked("json.decoder:JSONDecoder", None) is None
    assert checked("time:sleep", None) is None
    problem = checked("json.decoder:JSONDecodr", None)
    assert problem is not None and problem.hint == "Did you mean JSONDecoder?"


def test_a_check_runs_none_of_the_users_code(folder: Path) -> None:
    # Given modules that leave a mark when they are imported
    mark = folder / "imported"
    leaves_mark = f"open({str(mark)!r}, 'w').close()\ndef objective(params): ...\n"
    for name in ("train.py", "pack/__init__.py", "pack/train.py"):
        write(folder, name, leaves_mark)
    before = set(sys.modules)
    # When they are checked in every form
    for reference in ("train.py:objective", "train:objective", "pack.train:objective", "pack:objective"):
        assert checked(reference, folder) is None
    # Then nothing was imported, and no path was added
    assert not mark.exists()
    assert not {"train", "pack"} & (set(sys.modules) - before)
    assert str(folder) not in sys.path


def test_loads_a_file_and_lets_it_import_its_neighbours(folder: Path) -> None:
    write(folder, "neighbour_of_train.py", "OFFSET = 2.0")
    write(folder, "train_with_help.py", "import neighbour_of_train as n\ndef objective(p): return p['x'] + n.OFFSET")
    function = load(ObjectiveRef.parse("train_with_help.py:objective"), folder)
    assert function({"x": 1.0}) == 3.0
    assert sys.path[-1] == str(folder), "last, so that it shadows nothing of ours"


def test_loads_a_module_of_a_package(folder: Path) -> None:
    write(folder, "pack_to_load/__init__.py", "")
    write(folder, "pack_to_load/train.py", "from . import other\ndef objective(p): return other.VALUE")
    write(folder, "pack_to_load/other.py", "VALUE = 7")
    assert load(ObjectiveRef.parse("pack_to_load.train:objective"), folder)({}) == 7
    assert sys.path[-1] == str(folder)


def test_a_loaded_function_can_be_pickled_and_its_module_imported_back(folder: Path) -> None:
    write(folder, "train_for_pickle.py", "COUNT = [0]\nCOUNT[0] += 1\ndef objective(p): return COUNT[0]")
    function = load(ObjectiveRef.parse("train_for_pickle.py:objective"), folder)
    assert pickle.loads(pickle.dumps(function)) is function
    # Then a spawned process finds the module by its plain name, and importing it back does not run it twice
    assert function.__module__ == "train_for_pickle"
    assert __import__("train_for_pickle").COUNT == [1]
    assert load(ObjectiveRef.parse("train_for_pickle.py:objective"), folder)({}) == 1


def test_files_of_the_same_name_do_not_meet(folder: Path) -> None:
    for name in ("one", "two"):
        write(folder, f"{name}/same_name.py", f"def objective(p): return {name!r}")
    ref = ObjectiveRef.parse("same_name.py:objective")
    loaded = [load(ref, folder / name) for name in ("one", "two", "one", "two")]
    assert [function({}) for function in loaded] == ["one", "two", "one", "two"]
    assert loaded[1] is loaded[3]
    assert pickle.loads(pickle.dumps(loaded[1])) is loaded[1]


@pytest.mark.parametrize("name", ["json.py", "shared.py", "time.py", "__main__.py", "a-b.c.py"])
def test_a_file_may_have_any_name_and_shadows_nothing(folder: Path, name: str) -> None:
    before = {module: sys.modules.get(module) for module in ("json", "shared", "time", "__main__")}
    write(folder, name, "def objective(p): return __name__")
    function = load(ObjectiveRef.parse(f"{name}:objective"), folder)
    assert str(function({})).startswith("objective_")
    assert before == {module: sys.modules.get(module) for module in before}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "importing train_bad.py failed: ModuleNotFoundError: No module named"),
        ("raise ValueError('no data')", "importing train_bad.py failed: ValueError: no data"),
        (
            "raise SystemExit(3)",
            "importing train_bad.py ended the program (sys.exit, code 3). What it does as a script",
        ),
        ("def objective(:", "importing train_bad.py failed: SyntaxError"),
        ("def objectiv(p): ...", "train_bad.py has no objective. Did you mean objectiv?"),
        ("objective = 3", "objective in train_bad.py is not callable: its type is int"),
    ],
)
def test_loading_fails_with_a_clear_message_and_leaves_no_half_module(folder: Path, source: str, message: str) -> None:
    write(folder, "train_bad.py", source)
    for name in ("train_bad", "json"):  # once under its plain name, once under one of its own
        write(folder, f"{name}.py", source)
        with pytest.raises(ObjectiveError) as caught:
            load(ObjectiveRef.parse(f"{name}.py:objective"), folder)
        assert message.replace("train_bad", name) in str(caught.value)
    # Then a corrected file loads in the same process
    if message.startswith("importing"):
        write(folder, "train_bad.py", "def objective(p): return 'corrected at last'")
        assert load(ObjectiveRef.parse("train_bad.py:objective"), folder)({}) == "corrected at last"


@pytest.mark.parametrize("reference", ["gone.py:objective", "gone_module:objective", "gone.away:objective"])
def test_loading_what_is_gone_names_it(folder: Path, reference: str) -> None:
    with pytest.raises(ObjectiveError, match="objective: there is no"):
        load(ObjectiveRef.parse(reference), folder)


def test_the_import_path_begins_with_the_studys_folder_where_the_objective_comes_from_it(folder: Path) -> None:
    def folders(reference: str, code_dir: Path) -> list[Path]:
        return script_of(ObjectiveRef.parse(reference), code_dir)[1]

    file = write(folder, "study/sub/train_of_study.py", "def objective(p): ...")
    write(folder, "elsewhere/calendar.py", "raise SystemExit('not of this study')")
    assert folders("sub/train_of_study.py:objective", folder / "study") == [folder / "study", file.parent]
    assert folders("sub.train_of_study:objective", folder / "study") == [folder / "study"]
    # Then a study cannot put a folder of its own before the modules of an objective that it does not bring
    assert folders(f"{file}:objective", folder / "elsewhere") == [file.parent]
    assert folders("json.decoder:JSONDecoder", folder / "elsewhere") == []


def test_settings_that_imports_read_are_seen_in_the_source(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os\n"
        'os.environ["KERAS_BACKEND"] = "numpy"\n'
        'os.environ.setdefault("OMP_NUM_THREADS", "1")\n'
        'os.environ.update({"TF_ENABLE_ONEDNN_OPTS": "0"}, XLA_FLAGS="x", HOME="/")\n'
        'os.environ |= {"JAX_ENABLE_X64": "1"}\n'
        "os.environ.update(**FURTHER)\n"
        'os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"\n'
        'os.environ["CUDA_VISIBLE_DEVICES"] = ""\n'
        'def objective(params):\n    os.environ["JAX_PLATFORMS"] = "cpu"\n'
    )
    found = import_settings_in(tmp_path / "train.py")
    assert found == ("KERAS_BACKEND", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "JAX_ENABLE_X64")
    assert import_settings_in(tmp_path / "nowhere.py") == ()
