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


_ITERATION = "rollout/success_rate"
"""What every iteration logs, and no panel does."""


class Glance:
    """Repeats metrics under their second tags.

    A panel is played now and then, and TensorBoard smooths and crops what has few points until nothing is left of it.
    So what a panel found is written with every iteration until the next panel.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, float]] = {}

    def hold(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """Note what of a panel's metrics is shown first, and return it under its second tag."""
        found = {tag: value for tag, value in _repeated(metrics).items() if _of_panel(tag)}
        self._held.update({tag: (step, value) for tag, value in found.items()})
        return found

    def at(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """What is shown first of these metrics, and with those of an iteration the last panel's."""
        self.hold(metrics, step)
        found = _repeated(metrics)
        if _ITERATION in metrics:
            found |= {tag: value for tag, (told, value) in self._held.items() if told < step}
        return found


def _repeated(metrics: Mapping[str, float]) -> dict[str, float]:
    found = {tag: next((metrics[name] for name in names if name in metrics), None) for tag, names in FIRST.items()}
    return {tag: value for tag, value in found.items() if value is not None}


def _of_panel(tag: str) -> bool:
    return FIRST[tag][0].startswith("val")
