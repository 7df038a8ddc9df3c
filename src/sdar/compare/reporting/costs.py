"""What the methods cost: tokens, an estimate of the arithmetic, and seconds."""

from __future__ import annotations

from sdar.compare.reporting.bands import mean_by_key
from sdar.compare.reporting.blocks import Block, Pictures, Table, Text
from sdar.compare.reporting.collection import Group
from sdar.compare.reporting.curves import cost_picture
from sdar.compare.reporting.history import FED, PARTS
from sdar.compare.reporting.tabulating import DASH, cells, mean

_ESTIMATE = (
    "FLOPs are an estimate from these tokens: 2 per parameter and token for a forward pass, 6 for learning (4 for "
    "parameters that are frozen). Attention, the evaluations and the optimizer are not counted; a prompt that a group "
    "shares counts for each of its members."
)


def costs(group: Group, draw: bool) -> list[Block]:
    """The section; [] where no run says what it took."""
    seconds = _seconds(group)
    if not seconds:
        return []
    picture = cost_picture(group) if draw else []
    return [
        *([Pictures(tuple(picture))] if picture else []),
        *seconds,
        Text("Seconds depend on the machine and on what else ran on it."),
        *_arithmetic(group),
    ]


def _seconds(group: Group) -> list[Block]:
    rows = []
    for method in group.methods:
        runs = group.of(method)
        known = [tokens for run in runs.values() if (tokens := run.tokens) is not None]
        seconds = mean_by_key([run.seconds for run in runs.values()])
        whole = [taken for seed in runs if (taken := group.runs[method, seed].seconds) is not None]
        counted = {run.iterations for run in runs.values()}
        if known or seconds or whole:
            rows.append(
                (
                    method,
                    f"{mean(known):,.0f}" if known else DASH,
                    *cells(seconds, PARTS, ",.1f"),
                    f"{mean(whole):,.1f}" if whole else DASH,
                    "-".join(str(end) for end in sorted({min(counted), max(counted)})),
                )
            )
    figures = ("sampled tokens", *(f"{part}, s" for part in PARTS), "training, s", "iterations counted")
    caption = "Mean of a run: sampled tokens, seconds by part, and seconds of all of training on the clock"
    return [Table(("method",), figures, tuple(rows), caption)] if rows else []


def _arithmetic(group: Group) -> list[Block]:
    """Tokens that went through a model and FLOPs, by method and as a multiple of the first one's."""
    found = {
        method: [operations for run in group.of(method).values() if (operations := run.flops) is not None]
        for method in group.methods
    }
    means = {method: mean(values) for method, values in found.items() if values}
    if not means:
        return [Text("FLOPs are not known: these runs did not count their tokens.")]
    baseline = means.get(group.methods[0])
    rows = [
        (
            method,
            *cells(mean_by_key([run.fed for run in group.of(method).values()]), FED, ",.0f"),
            f"{operations:.2e}",
            f"{operations / baseline:.2f}" if baseline else DASH,
        )
        for method, operations in means.items()
    ]
    figures = (*(f"{part}, tokens" for part in FED), "FLOPs", f"times those of {group.methods[0]}")
    caption = "Mean of a run: tokens that went through a model, and the estimated arithmetic"
    return [Table(("method",), figures, tuple(rows), caption), Text(_ESTIMATE)]
