"""The few figures that TensorBoard shows first.

It opens on the group whose name comes first, so they are written once more in a group ``at_a_glance``.
"""

from __future__ import annotations

from collections.abc import Mapping

FIRST = {
    "at_a_glance/endorsed_by_the_teacher": ("curriculum/endorsed_of_open", "curriculum/endorsed_fraction"),
    "at_a_glance/success_rate": ("val/success_rate",),
    "at_a_glance/success_rate_in_training": ("rollout/success_rate",),
    "at_a_glance/success_rate_with_skills": ("val_with_skills/success_rate",),
}
"""Tag -> the metrics it repeats, of which the first that a run has counts."""


def at_a_glance(metrics: Mapping[str, float]) -> dict[str, float]:
    """What of these metrics is shown first, under its second tag."""
    found = {tag: next((metrics[name] for name in names if name in metrics), None) for tag, names in FIRST.items()}
    return {tag: value for tag, value in found.items() if value is not None}
