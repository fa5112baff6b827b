"""Points and settings as arguments NAME=VALUE."""

from __future__ import annotations

import pytest

from highnoon.coordinator.cli.steer import point_of, settings_of
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.space import parse_space

SPACE = parse_space({"units": ["int", 1, 64], "optimizer": ["categorical", ["adam", "sgd"]]})


def test_point_has_the_types_of_its_space() -> None:
    assert point_of(["units=32", "optimizer=sgd"], SPACE) == {"units": 32, "optimizer": "sgd"}
    assert settings_of(["units=32", "epochs=20"], SPACE) == {"units": 32, "epochs": 20}


def test_name_that_is_given_twice_is_refused() -> None:
    twice = ["units=64", "units=32", "optimizer=adam", "optimizer=adam", "width"]
    with pytest.raises(InvalidInput) as refused:
        point_of(twice, SPACE)
    assert [str(problem) for problem in refused.value.problems] == [
        "units: is given twice. Leave one of them out.",
        "optimizer: is given twice. Leave one of them out.",
        "width: is not of the form NAME=VALUE.",
    ]
    with pytest.raises(InvalidInput, match="x: is given twice"):
        point_of(["x=1", "x=2"], None)
    with pytest.raises(InvalidInput, match="epochs: is given twice"):
        settings_of(["epochs=1", "units=3", "epochs=2"], SPACE)
