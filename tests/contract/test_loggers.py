"""What MLflow, TensorBoard and Weights & Biases themselves read back of what our loggers wrote."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highnoon.callbacks import MLflowLogger, TensorBoardLogger, WandbLogger
from highnoon.shared.domain.lease import LostAttempt
from tests.loggers import ENDINGS, log, study, with_one_trial_of_each_ending


class TestMLflow:
    @pytest.fixture(params=["sqlite", "file"])
    def uri(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return f"sqlite:///{tmp_path}/mlflow.db" if request.param == "sqlite" else f"file://{tmp_path}/mlruns"

    @pytest.fixture
    def runs(self, uri: str) -> Any:
        """All runs of the experiment `digits`, by the trial's number."""
        from mlflow import MlflowClient

        def read() -> list[Any]:
            client = MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name("digits")
            assert experiment is not None
            found = client.search_runs([experiment.experiment_id])
            return sorted(found, key=lambda run: str(run.data.tags["highnoon.number"]))

        return read

    def test_each_trial_is_a_run_with_all_its_results(self, uri: str, runs: Any) -> None:
        from mlflow import MlflowClient

        made = with_one_trial_of_each_ending()

        log(made, MLflowLogger(uri))

        complete, stopped, failed = runs()
        assert [run.info.status for run in (complete, stopped, failed)] == ["FINISHED", "KILLED", "FAILED"]
        assert complete.info.run_name == "trial 0"
        assert complete.data.params == {"rate": "0.01", "units": "3", "kind": "a"}
        measured = dict(complete.data.metrics)
        assert measured.pop("duration_s") == made.trial(0).duration_s
        assert measured == {"score": 0.75, "loss": 0.5, "model_params": 1200, "active_params": 600, "report": 1.0}
        history = MlflowClient(tracking_uri=uri).get_metric_history(complete.info.run_id, "report")
        assert [(metric.step, metric.value) for metric in history] == [(0, 2.0), (1, 1.0)]
        assert stopped.data.tags["highnoon.state"] == "PRUNED"
        assert stopped.data.tags["highnoon.cause"] == "memory_guard"
        assert failed.data.tags["highnoon.message"] == "ValueError: line one\nline two"
        started, ended = made.trial(0).started_at, made.trial(0).ended_at
        assert started is not None and ended is not None
        assert complete.info.start_time == round(started.timestamp() * 1000)
        assert complete.info.end_time == round(ended.timestamp() * 1000)

    def test_parameters_whose_names_mlflow_refuses_have_others(self, uri: str, runs: Any) -> None:
        point = {"units (first)": 1, "units (second)": 2, "/units": 3, "rate": 4}
        made = study(search_space={name: ["int", 1, 8] for name in point})
        asked = made.start_trial(ordinal=0, before=LostAttempt(params=point, trial_number=999))
        made.finish_trial(asked.trial_id, ENDINGS[0])

        log(made, MLflowLogger(uri))

        (run,) = runs()
        assert run.data.params == {"units _first_": "1", "units _second_": "2", "_units": "3", "rate": "4"}

    def test_repeated_or_unfinished_run_is_written_once(self, uri: str, runs: Any) -> None:
        from mlflow import MlflowClient

        made, logger = with_one_trial_of_each_ending(), MLflowLogger(uri)
        log(made, logger)
        log(made, logger)
        run_id = runs()[0].info.run_id
        MlflowClient(tracking_uri=uri).update_run(run_id, status="RUNNING")

        log(made, MLflowLogger(uri))

        assert [run.info.status for run in runs()] == ["FINISHED", "KILLED", "FAILED"]
        history = MlflowClient(tracking_uri=uri).get_metric_history(run_id, "score")
        assert {(metric.step, metric.value) for metric in history} == {(0, 0.75)}


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")

    def test_a_run_per_trial_that_tensorboard_reads_back(self, tmp_path: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import metadata

        made = with_one_trial_of_each_ending()
        log(made, TensorBoardLogger(tmp_path))

        folders = sorted((tmp_path / "digits").iterdir())
        assert [folder.name[:12] for folder in folders] == ["trial-00000-", "trial-00001-", "trial-00002-"]
        runs = [EventAccumulator(str(folder)).Reload() for folder in folders]
        reports = [(event.step, event.value) for event in runs[0].Scalars("report")]
        assert reports == [(0, 2.0), (1, 1.0)]
        assert [runs[0].Scalars(tag)[0].value for tag in ("score", "loss", "model_params")] == [0.75, 0.5, 1200]
        content = runs[0].PluginTagToContent("hparams")
        start = metadata.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
        assert start.hparams["rate"].number_value == 0.01
        assert start.hparams["kind"].string_value == "a"
        ends = [run.PluginTagToContent("hparams")["_hparams_/session_end_info"] for run in runs]
        assert [metadata.parse_session_end_info_plugin_data(end).status for end in ends] == [1, 1, 2]
        assert [event.tensor_proto.string_val[0] for event in runs[1].Tensors("cause")] == [b"memory_guard"]

    def test_trial_is_written_once(self, tmp_path: Path) -> None:
        made = with_one_trial_of_each_ending()
        log(made, TensorBoardLogger(tmp_path))
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

        log(made, TensorBoardLogger(tmp_path))

        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written

    def test_study_name_cannot_leave_the_folder(self, tmp_path: Path) -> None:
        log(with_one_trial_of_each_ending("..up"), TensorBoardLogger(tmp_path / "runs"))

        assert [path.name for path in tmp_path.iterdir()] == ["runs"]
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["__up"]


class TestWandb:
    def test_an_offline_run_per_trial_written_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("wandb", reason="the extra wandb is not installed")
        for variable in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            monkeypatch.setenv(variable, str(tmp_path / "own"))
        made = with_one_trial_of_each_ending()

        log(made, WandbLogger("highnoon", mode="offline", dir=tmp_path))
        folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
        log(made, WandbLogger("highnoon", mode="offline", dir=tmp_path))

        assert sorted((tmp_path / "wandb").glob("offline-run-*")) == folders
        records = [records_of(next(folder.glob("run-*.wandb"))) for folder in folders]
        by_name = {run.display_name: rest for run, rest in records}
        assert set(by_name) == {"trial 0", "trial 1", "trial 2"}
        assert by_name["trial 0"]["config"] == {"rate": "0.01", "units": "3", "kind": '"a"'}
        assert by_name["trial 0"]["report"] == ["2", "1"]
        assert by_name["trial 0"]["summary"].items() >= {"score": "0.75", "loss": "0.5", "state": '"COMPLETE"'}.items()
        assert by_name["trial 1"]["summary"].items() >= {"cause": '"memory_guard"', "state": '"PRUNED"'}.items()
        assert [by_name[f"trial {number}"]["exit_code"] for number in range(3)] == [0, 0, 1]


def records_of(path: Path) -> tuple[Any, dict[str, Any]]:
    """The run, and what was logged of it, from wandb's own file."""
    from wandb.proto.wandb_internal_pb2 import Record

    run: Any = None
    logged: dict[str, Any] = {"config": {}, "report": [], "summary": {}, "exit_code": None}
    for data in chunks_of(path.read_bytes()):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                own = [item for item in run.config.update if not item.key.startswith("_")]
                logged["config"] |= {item.key: item.value_json for item in own}
            case "history":
                items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                logged["report"] += [items["report"]] if "report" in items else []
            case "summary":
                updates = record.summary.update
                logged["summary"] |= {item.key or item.nested_key[0]: item.value_json for item in updates}
            case "exit":
                logged["exit_code"] = record.exit.exit_code
    return run, logged


def chunks_of(log: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, behind wandb's own heading of 7 bytes: all within its first block."""
    whole = 1
    position = 7
    while position + 7 <= len(log):
        _, length, kind = struct.unpack_from("<IHB", log, position)
        assert kind == whole, "a record that spans two blocks"
        yield log[position + 7 : position + 7 + length]
        position += 7 + length
