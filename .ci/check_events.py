"""Read a run's event file back and check that the tags users build dashboards on are there."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = [
    "curriculum/strongly_gated_fraction",
    "curriculum/endorsed_fraction",
    "curriculum/rejected_fraction",
    "curriculum/neutral_fraction",
    "curriculum/gate_mean",
    "curriculum/gap_mean",
    "curriculum/gap_std",
    "curriculum/teacher_context_tokens",
    "curriculum/open_fraction",
    "curriculum/endorsed_of_open",
    "curriculum/by_turn/gap_mean/00",
    "curriculum/by_turn/strongly_gated_of_open/00",
    "curriculum/by_part/thought/gap_mean",
    "curriculum/by_part/action/gap_mean",
    "curriculum/by_part/tags/gap_mean",
    "curriculum/by_part/other/open_fraction",
    "rollout/success_rate",
    "rollout/return_mean",
    "rollout/turns_mean",
    "rollout/valid_action_rate",
    "rollout/equal_group_fraction",
    "rollout/response_tokens_mean",
    "rollout/response_truncated_fraction",
    "rollout/context_tokens_max",
    "rollout/entropy",
    "rollout/end/success",
    "rollout/end/turn_limit",
    "val/success_rate",
    "val_with_skills/success_rate",
    "loss/total",
    "loss/policy",
    "loss/distillation",
    "loss/kl",
    "loss/entropy",
    "train/grad_norm",
    "train/skipped_steps",
    "train/clip_fraction",
    "train/approx_kl",
    "objective/gate_mean",
    "objective/gap_mean",
    "time/generate_s",
    "time/environment_s",
    "time/score_s",
    "time/update_s",
    "throughput/tokens_per_s",
]


def main(folder: str) -> int:
    """Exit code 0 when every tag has finite values at the iterations 0 and 1 (evaluations: from 0 on)."""
    events = EventAccumulator(str(Path(folder) / "tensorboard"))
    events.Reload()
    found = set(events.Tags()["scalars"])
    missing = [tag for tag in TAGS if tag not in found]
    by_type = [tag for tag in found if tag.startswith("val/success_rate/")]
    wrong = [
        tag
        for tag in TAGS
        if tag in found
        and (
            [event.step for event in events.Scalars(tag)][:2] != [0, 1]
            or not all(math.isfinite(event.value) for event in events.Scalars(tag))
        )
    ]
    print(f"{len(found)} tags, {len(by_type)} task types; missing: {missing or 'none'}; wrong: {wrong or 'none'}")
    return int(bool(missing or wrong or not by_type))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
