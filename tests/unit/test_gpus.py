"""Which slot gets which GPU, what a node reports, and the error for a GPU that is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.memory.gpu import GpuDevice, Gpus
from highnoon.workers.cli import app
from highnoon.workers.gpus import gpu_slots
from highnoon.workers.node_record import NodeInfo
from tests.unit.kernel_tree import FakeNvml, KernelTree

GIB = 1 << 30


def gpus(count: int = 2, visible: str | None = None) -> Gpus:
    cards = [(number * GIB, 80 * GIB) for number in range(count)]
    return Gpus(FakeNvml(cards), ",".join(map(str, range(count))) if visible is None else visible)


def slots(wanted: str, slots_per_gpu: int = 1, **machine: object) -> tuple[str, ...]:
    return gpu_slots(wanted, slots_per_gpu=slots_per_gpu, gpus=gpus(**machine))  # type: ignore[arg-type]


def test_every_slot_has_a_gpu_and_the_first_ones_have_different_ones() -> None:
    assert slots("all") == ("GPU-x-0", "GPU-x-1")
    assert slots("all", 2) == ("GPU-x-0", "GPU-x-1", "GPU-x-0", "GPU-x-1")
    assert slots("1") == ("GPU-x-1",)
    assert slots(" 1, 0 ") == ("GPU-x-1", "GPU-x-0")
    assert slots("0,GPU-x-0") == ("GPU-x-0",), "named twice is one"


def test_numbers_count_what_the_worker_can_see() -> None:
    assert slots("0", count=3, visible="2,1") == ("GPU-x-2",)
    with pytest.raises(InvalidInput, match="there is no GPU 2"):
        slots("2", count=3, visible="2,1")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("7", r"--gpus: there is no GPU 7 \(got '7'\). This machine has 0 \(Card of tests\), 1 \(Card of tests\)"),
        ("0,7,eight", "there is no GPU 7, eight"),
        ("-1", "there is no GPU -1"),
        (" , ", "names no GPU"),
    ],
)
def test_a_gpu_that_is_not_there_is_answered_with_those_that_are(wanted: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        slots(wanted)


def test_error_on_a_machine_without_gpus_has_the_reason() -> None:
    with pytest.raises(InvalidInput, match=r"no GPU can be used here \(Driver Not Loaded\).*nvidia-smi"):
        gpu_slots("all", slots_per_gpu=1, gpus=Gpus(FakeNvml([], fails=True), "0"))
    with pytest.raises(InvalidInput, match="the driver shows none"):
        slots("all", count=2, visible="")


def test_without_the_drivers_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highnoon.shared.memory.gpu._pynvml", lambda: None)
    with pytest.raises(InvalidInput, match="pip install nvidia-ml-py"):
        gpu_slots("all", slots_per_gpu=1, gpus=Gpus())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slots-per-gpu", "2"], "needs --gpus"),
        (["--gpus", "all", "--slots", "2"], "excludes --gpus"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environ = {
        "DATABASE_URL": "postgresql://u:p@h/d", "REDIS_URL": "redis://h", "OBJECTIVES": "*", "HOME": str(tmp_path),
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(f"HIGHNOON_{name}", value)
    refused = CliRunner().invoke(app, ["start", *arguments]).exception
    assert isinstance(refused, InvalidInput) and message in str(refused)


def test_node_reports_what_it_has(tmp_path: Path) -> None:
    facts = NodeInfo(tmp_path, gpus(1)).read()
    assert (facts["memory_total_bytes"], facts["memory_used_bytes"]) == (None, None)
    assert facts["gpus"] == [
        {"uuid": "GPU-x-0", "name": "Card of tests", "memory_total_bytes": 80 * GIB, "memory_used_bytes": 0}
    ]
    assert facts["version"] and facts["cpus"] >= 1


def test_container_reports_what_it_may_use_and_not_what_its_machine_has(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path).with_host(64 * GIB, available=40 * GIB)
    no_gpus = Gpus(FakeNvml([], fails=True), "0")
    facts = NodeInfo(tmp_path, no_gpus).read()
    assert (facts["memory_total_bytes"], facts["memory_used_bytes"], facts["gpus"]) == (64 * GIB, 24 * GIB, [])

    kernel.with_cgroup(os.getpid(), 2, "/box", limit=8 * GIB, usage=3 * GIB, droppable=GIB)
    facts = NodeInfo(tmp_path, no_gpus).read()
    assert (facts["memory_total_bytes"], facts["memory_used_bytes"]) == (8 * GIB, 2 * GIB)


def test_a_driver_that_answers_in_bytes_is_understood() -> None:
    assert gpus(1).devices() == (
        GpuDevice(uuid="GPU-x-0", name="Card of tests", memory_total_bytes=80 * GIB, memory_used_bytes=0),
    )


def test_one_error_of_the_driver_does_not_end_the_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeNvml([(0, 80 * GIB)])
    readings = Gpus(driver, "0")
    driver.fails = True
    assert readings.devices() == () and readings.trouble == "Driver Not Loaded" and readings.is_readable
    driver.fails = False
    assert readings.devices() == () and driver.times_initialised == 1, "not at every reading"
    monkeypatch.setattr("highnoon.shared.memory.gpu._AGAIN_S", 0.0)
    readings = Gpus(driver, "0")
    driver.fails = True
    assert readings.devices() == ()
    driver.fails = False
    assert len(readings.devices()) == 1 and readings.trouble == ""
