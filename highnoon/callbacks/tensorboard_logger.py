"""TensorBoardLogger: a run per finished trial, for the pages HPARAMS and SCALARS of TensorBoard.

Writes TensorBoard's records by its own messages. The public writer does the same through TensorFlow, which takes
seconds to import where no training runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from highnoon.callbacks.finished_trial import FinishedTrial, TrialLogger
from highnoon.shared.domain.states import TrialState
from highnoon.shared.runtime.extras import require


class TensorBoardLogger(TrialLogger):
    """Writes below `logdir`/STUDY: `tensorboard --logdir LOGDIR` shows all studies. Raises UserInputError without it.

    A run's file appears whole and is written once.
    """

    def __init__(self, logdir: str | Path) -> None:
        require({"TensorBoardLogger": ["tensorboard"]})
        self._logdir = Path(logdir).absolute()

    def _write(self, ended: FinishedTrial) -> None:
        """Nothing when its run is there."""
        run = self._logdir / _as_folder(ended.study) / f"trial-{ended.key}"
        file = run / f"events.out.tfevents.{ended.span_ms[0] // 1000}.highnoon"
        if file.exists():
            return
        run.mkdir(parents=True, exist_ok=True)
        unfinished = run / "unfinished"  # a name that TensorBoard does not read
        unfinished.write_bytes(_records(ended))
        unfinished.replace(file)


def _records(ended: FinishedTrial) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = BytesIO()
    writer = RecordWriter(stream)
    for event in _events(ended):
        writer.write(event.SerializeToString())
    return stream.getvalue()


def _events(ended: FinishedTrial) -> Iterator[Any]:
    """In the order that TensorBoard reads: its version, the parameters, what was measured, how it ended."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

    def session(tag: str, data: Any) -> Any:
        about = metadata.create_summary_metadata(data)
        return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])

    began_s, ended_s = (moment / 1000 for moment in ended.span_ms)
    start = SessionStartInfo(group_name=f"{ended.study}/{ended.key}", start_time_secs=began_s)
    for name, value in ended.trial.params.items():
        _set(start.hparams[name], value)
    status = STATUS_FAILURE if ended.trial.state is TrialState.FAIL else STATUS_SUCCESS
    end = SessionEndInfo(status=status, end_time_secs=ended_s)

    yield Event(wall_time=began_s, file_version="brain.Event:2")
    started = session(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))
    yield Event(wall_time=began_s, summary=started)
    for report in ended.trial.reports:
        reported = Summary(value=[Summary.Value(tag="report", simple_value=report.value)])
        yield Event(wall_time=ended_s, step=report.step, summary=reported)
    measured = [Summary.Value(tag=tag, simple_value=number) for tag, number in ended.results.items()]
    yield Event(wall_time=ended_s, summary=Summary(value=[*measured, *_texts(ended)]))
    yield Event(
        wall_time=ended_s,
        summary=session(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    )


def _texts(ended: FinishedTrial) -> Iterator[Any]:
    """For the page TEXT."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import PLUGIN_NAME

    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME))
    for tag, text in (("state", str(ended.trial.state)), ("cause", ended.cause), ("message", ended.message)):
        if text:
            tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
            yield Summary.Value(tag=tag, metadata=about, tensor=tensor)


def _set(value: Any, param: object) -> None:
    """A parameter in protobuf's value; to Python True is a number."""
    if isinstance(param, bool):
        value.bool_value = param
    elif isinstance(param, int | float):
        value.number_value = param
    else:
        value.string_value = str(param)


def _as_folder(study: str) -> str:
    """A study's name may begin with dots, but must not name a folder above."""
    return re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), study)
