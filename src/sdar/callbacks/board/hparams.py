"""The table of runs on TensorBoard's HPARAMS page, a row per run.

The page takes its columns from one of the runs it shows, so that they are the same for all: a few settings that runs
are compared by, and ``differs`` for whatever else the command set.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from sdar.callbacks.board.record import RunRecord, look_up

Plain = float | str

_COLUMNS: dict[str, tuple[str, type]] = {
    "method": ("algorithm.name", str),
    "environment": ("domain", str),
    "seed": ("seed", float),
    "differs": ("", str),
    "distillation coefficient": ("algorithm.objective.distillation_coefficient", float),
    "gate": ("gate._target_", str),
    "beta": ("gate.beta", float),
    "divergence": ("divergence._target_", str),
    "teacher": ("teacher._target_", str),
    "retrieval": ("retrieval._target_", str),
    "model": ("model.path", str),
    "KL coefficient": ("algorithm.objective.kl_coefficient", float),
    "entropy coefficient": ("algorithm.objective.entropy_coefficient", float),
    "learning rate": ("optimizer.learning_rate", float),
    "tasks per iteration": ("rollout.tasks_per_iteration", float),
    "group size": ("rollout.group_size", float),
    "iterations": ("trainer.max_epochs", float),
}
"""Column -> setting and type. The page shows the first five until it is told otherwise."""
_SORTED = {name: f"{number:02d} {name}" for number, name in enumerate(_COLUMNS)}
"""Column -> its name in the file: the page sorts by it, and shows the plain one."""
METRICS = (
    "val/success_rate",
    "val_with_skills/success_rate",
    "rollout/success_rate",
    "rollout/entropy",
    "curriculum/gap_mean",
    "curriculum/endorsed_fraction",
    "curriculum/rejected_fraction",
    "throughput/tokens_per_s",
)
"""Scalars of which the table has the last value."""


def columns(record: RunRecord) -> dict[str, Plain]:
    """What a run has in the columns, a class by its name; without those that its settings do not have."""
    kept: dict[str, Plain] = {}
    for name, (path, kind) in _COLUMNS.items():
        value = look_up(record.settings, path) if path else record.differs
        if isinstance(value, str) and value:
            kept[name] = value.rpartition(".")[2] if path.endswith("._target_") else value
        elif isinstance(value, int | float) and kind is float:
            kept[name] = float(value)
    return kept


def session_start(record: RunRecord) -> list[Summary]:
    """The columns, and a run's row of them, named by :attr:`RunRecord.title` and the time, which is nobody else's."""
    started = _time(record.run)
    row = plugin_data_pb2.SessionStartInfo(
        group_name=f"{record.title} - {started:%Y-%m-%d %H:%M:%S}", start_time_secs=started.timestamp()
    )
    for name, value in columns(record).items():
        if isinstance(value, str):
            row.hparams[_SORTED[name]].string_value = value
        else:
            row.hparams[_SORTED[name]].number_value = value
    types = {float: api_pb2.DATA_TYPE_FLOAT64, str: api_pb2.DATA_TYPE_STRING}
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=_SORTED[name], display_name=name, type=types[kind])
            for name, (_, kind) in _COLUMNS.items()
        ],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS],
    )
    return [
        _summary(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment)),
        _summary(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=row)),
    ]


def session_end(*, success: bool) -> Summary:
    """How a run ended."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=datetime.now().timestamp())
    return _summary(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _time(run: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(run.get("started")))
    except ValueError:
        return datetime.now()


def _summary(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    data.version = metadata.PLUGIN_DATA_VERSION
    described = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString())
    )
    return Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])
