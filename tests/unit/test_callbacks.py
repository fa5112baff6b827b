"""highnoon.callbacks as it is imported: light, with the nearest name, and with the extra that is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, cast

import pytest

import highnoon as hn
from highnoon.callbacks import MLflowLogger, TensorBoardLogger, WandbLogger
from highnoon.callbacks.mlflow_logger import _allowed_names
from highnoon.shared.domain.errors import InvalidInput, ServiceUnavailable, UserInputError

LOGGERS = {
    "mlflow": lambda: MLflowLogger(),
    "tensorboard": lambda: TensorBoardLogger("runs"),
    "wandb": lambda: WandbLogger("project"),
}


def test_naming_a_logger_imports_nothing_heavy() -> None:
    heavy = {"mlflow", "wandb", "tensorboard", "tensorflow", "keras", "optuna", "sqlalchemy", "numpy"}
    names = "c.CSVLogger, c.MLflowLogger, c.TensorBoardLogger, c.WandbLogger"
    code = f"import sys, highnoon.callbacks as c; {names}; print(sorted({heavy} & set(sys.modules)))"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert {name for name in hn.callbacks.__all__ if getattr(hn.callbacks, name) is None} == set()
    assert set(hn.callbacks.__all__) <= set(dir(hn.callbacks))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'CsvLogger'\. Did you mean CSVLogger\?"):
        hn.callbacks.CsvLogger  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("module", LOGGERS)
def test_missing_package_is_reported_with_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(UserInputError, match=rf'needs {module}, .*: pip install "highnoon-hpo\[{module}\]"'):
        LOGGERS[module]()


def test_leftover_wandb_folder_is_not_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, is_package=True))

    with pytest.raises(UserInputError, match="WandbLogger needs wandb"):
        WandbLogger("project")


def test_names_that_mlflow_refuses_are_replaced_and_stay_apart() -> None:
    names = ["loss", "a/b", "a b", "a_b", "a:b", "a//b", "./a", "a/", "/a", "..", ".", "", "..a", "a?b"]

    named = _allowed_names(names)

    assert [named[name] for name in names] == [
        *("loss", "a/b", "a b", "a_b", "a_b_2", "a__b", "__a", "a_", "_a", "_", "__2", "__3", "_a_2", "a_b_3"),
    ]  # fmt: skip


def test_follow_refuses_uncallable_callbacks_and_a_missing_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: Any = "print"
    with pytest.raises(InvalidInput, match=r"callbacks: must be callable \(got 'print'\)"):
        hn.callbacks.follow("digits", [print, wrong])
    for other in (7, 0, None, False, "print"):
        with pytest.raises(InvalidInput) as refused:
            hn.callbacks.follow("digits", cast(Any, other))
        assert [problem.key for problem in refused.value.problems] == ["callbacks"]
        assert f"must be functions of (study, trial) (got {other!r})" in str(refused.value)

    monkeypatch.setenv("HIGHNOON_HOME", str(tmp_path))
    with pytest.raises(ServiceUnavailable, match=f"no coordinator runs in {tmp_path}"):
        hn.callbacks.follow("digits", [print])
    with pytest.raises(ServiceUnavailable, match=f"no coordinator runs in {tmp_path}"):
        hn.callbacks.follow("digits", print)  # a single one, as `optimize` takes it


def test_follow_refuses_a_database_without_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="holds no HighNoon ledger yet: start a coordinator on it"):
        hn.callbacks.follow("digits", [print], storage=f"sqlite:///{tmp_path}/new.db")
