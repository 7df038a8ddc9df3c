"""Which curves stand together on TensorBoard's page of custom scalars, and what is drawn as a band."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG, PLUGIN_NAME


def layout(*, teacher: bool, with_skills: bool, measured: bool, lines: Sequence[str] = ()) -> Layout:
    """The page of a run.

    Args:
        teacher: whether a teacher is scored.
        with_skills: whether the panel is also played with the teacher's text.
        measured: whether the gradients of the terms are measured.
        lines: tags of agents that do not learn, drawn beside the panel.
    """
    panel = ["val/success_rate"] + (["val_with_skills/success_rate"] if with_skills else [])
    success = [
        _band("success on the panel, 95 % interval", panel, lines),
        _lines("success in training and on the panel", "rollout/success_rate", *panel),
    ]
    thinks = [
        _lines("mean gap, nats", "curriculum/gap_mean"),
        _lines("tokens with an opinion, endorsed of these", "curriculum/open_fraction", "curriculum/endorsed_of_open"),
        _pattern("gap by turn, nats", r"curriculum/by_turn/gap_mean/.*"),
        _pattern("gap by part of the response, nats", r"curriculum/by_part/.*/gap_mean$"),
        _pattern("gap by sign of the advantage, nats", r"curriculum/by_advantage/.*/gap_mean$"),
        _lines("tokens endorsed, rejected", "curriculum/endorsed_fraction", "curriculum/rejected_fraction"),
        _lines("gate", "curriculum/gate_mean", "curriculum/strongly_gated_fraction"),
        _lines("coefficient of distillation", "objective/distillation_coefficient"),
    ]
    if measured:
        thinks.append(
            _lines(
                "gradient of distillation: share, cosine", "objective/distillation_share", "objective/gradient_cosine"
            )
        )
    health = [
        _lines("entropy, nats", "rollout/entropy"),
        _lines("norm of the gradient", "train/grad_norm"),
        _lines("KL of the update", "train/approx_kl"),
        _lines("responses cut", "rollout/response_truncated_fraction"),
        _lines(
            "errors, skipped steps", "rollout/end/error_environment", "rollout/end/error_tool", "train/skipped_steps"
        ),
        _lines("groups without spread", "rollout/equal_group_fraction"),
    ]
    cost = [
        _pattern("seconds of an iteration", r"time/.*"),
        _pattern("tokens per second", r"throughput/.*"),
        _pattern("tokens through a model in an iteration", r"cost/tokens_.*"),
        _lines("FLOPs of an iteration, estimated", "cost/flops"),
    ]
    categories = [
        Category(title="success", chart=success),
        *([Category(title="what the teacher thinks", chart=thinks)] if teacher else []),
        Category(title="health", chart=health),
        Category(title="cost", chart=cost),
    ]
    return Layout(category=categories)


def layout_summary(page: Layout) -> Summary:
    """A summary for the page of custom scalars."""
    tensor = TensorProto(dtype=DT_STRING, string_val=[page.SerializeToString()], tensor_shape=TensorShapeProto())
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME))
    return Summary(value=[Summary.Value(tag=CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)])


def _lines(title: str, *tags: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[f"{re.escape(tag)}$" for tag in tags]))


def _pattern(title: str, pattern: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[pattern]))


def _band(title: str, rates: Sequence[str], lines: Sequence[str]) -> Chart:
    """Rates with their intervals; a line is a band without width."""
    series = [
        MarginChartContent.Series(value=rate, lower=f"{group}/interval_low", upper=f"{group}/interval_high")
        for rate in rates
        for group in [rate.partition("/")[0]]
    ]
    series += [MarginChartContent.Series(value=tag, lower=tag, upper=tag) for tag in lines]
    return Chart(title=title, margin=MarginChartContent(series=series))
