"""What a study may change about its search space, and how the rest is refused: in the user's own grammar."""

from __future__ import annotations

import pytest

from highnoon.shared.domain.param import Bool, Categorical, Float, Int, Param
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.space_change import refused_changes

BEFORE = {
    "rate": Float(1e-5, 1e-1, log=True),
    "dropout": Float(0, 0.5),
    "layers": Int(1, 8),
    "optimizer": Categorical(["adam", "sgd"]),
}


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({"rate": Float(1e-6, 1e-2, log=True), "layers": Int(0, 99, step=3)}, []),
        ({"optimizer": Categorical(["lion", "sgd", "adam"])}, []),
        ({"dropout": Float(0, 0.5, step=0.1)}, []),
        ({"momentum": Float(0, 1, default=0.9)}, []),
        (
            {"optimizer": Categorical(["adam", "sgd", "lion"]), "lion_beta": Float(0, 1, when={"optimizer": "lion"})},
            [],
        ),
        (
            {"rate": Float(1e-5, 1e-1)},
            ["rate was ['log_uniform', 1e-05, 0.1] and is now ['uniform', 1e-05, 0.1]: its scale may not change"],
        ),
        ({"layers": Int(1, 8, log=True)}, ["is now ['int_log', 1, 8]: its scale may not change"]),
        (
            {"layers": Float(1, 8)},
            ["layers was ['int', 1, 8] and is now ['uniform', 1.0, 8.0]: its type may not change"],
        ),
        ({"layers": Categorical([1, 8])}, ["its type may not change"]),
        ({"optimizer": Categorical(["adam", "lion"])}, ["choices may be added, not taken away ('sgd')"]),
        (
            {"momentum": Float(0, 1)},
            ["momentum is new and has no default for earlier trials: write for example", "'default': 0.0}"],
        ),
        ({"momentum": Float(0, 1, when={"optimizer": "sgd"})}, ["momentum is new and has no default"]),
        (
            {"rate": Float(1e-5, 1e-1), "layers": Categorical(["a"]), "new": Bool()},
            ["rate was", "layers was", "new is"],
        ),
    ],
)
def test_one_rule(changed: dict[str, Param], lines: list[str]) -> None:
    before, now = parse_space(BEFORE), parse_space({**BEFORE, **changed})
    refused = "\n".join(refused_changes(before, now))
    assert bool(refused) == bool(lines)
    for line in lines:
        assert line in refused


def test_a_parameter_may_go_and_truth_is_no_number() -> None:
    assert not refused_changes(parse_space(BEFORE), parse_space({"dropout": Float(0, 1)}))
    flags, digits = parse_space({"x": Bool()}), parse_space({"x": Categorical([1, 0])})
    assert refused_changes(flags, digits)
