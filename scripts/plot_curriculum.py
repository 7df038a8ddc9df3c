"""The curriculum of a run as a picture, from its TensorBoard events: ``python scripts/plot_curriculum.py RUN OUT.png``.

Needs the extra ``sdar[plot]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PANELS: list[tuple[str, list[tuple[str, str]]]] = [
    (
        "success rate",
        [
            ("rollout/success_rate", "training rollouts"),
            ("val/success_rate", "unseen panel, student alone"),
            ("val_with_skills/success_rate", "unseen panel, with skills"),
        ],
    ),
    (
        "share of response tokens",
        [
            ("curriculum/strongly_gated_fraction", "strongly gated (gap > 0)"),
            ("curriculum/endorsed_fraction", "endorsed (gap > 0.01)"),
            ("curriculum/rejected_fraction", "rejected (gap < -0.01)"),
        ],
    ),
    ("gap, nats", [("curriculum/gap_mean", "mean"), ("curriculum/gap_std", "standard deviation")]),
]


def main() -> None:
    """Read, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("out", type=Path, help="picture to write")
    arguments = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("error: drawing needs matplotlib; allowed is pip install 'sdar[plot]'") from None
    events = sorted(arguments.run.rglob("events.out.tfevents.*"))
    if not events:
        raise SystemExit(f"error: run={arguments.run} holds no TensorBoard events")
    accumulator = EventAccumulator(str(events[0].parent), size_guidance={"scalars": 0})
    accumulator.Reload()
    logged = set(accumulator.Tags()["scalars"])
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for tag, label in curves:
            if tag in logged:
                _draw(axes, accumulator.Scalars(tag), label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(arguments.out, dpi=110)


def _draw(axes: Any, scalars: Any, label: str) -> None:
    steps, values = [scalar.step for scalar in scalars], [scalar.value for scalar in scalars]
    axes.plot(steps, values, label=label, linewidth=1.5, marker="o" if len(steps) < 15 else None, markersize=3)


if __name__ == "__main__":
    main()
