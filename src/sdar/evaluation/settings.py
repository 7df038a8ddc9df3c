"""What is played to judge the weights, and how often: the group ``evaluation``."""

from __future__ import annotations

from sdar.config.fields import AtLeastOne, Count, settings
from sdar.rollout.settings import SamplingConfig


@settings(frozen=True)
class EvaluationSettings:
    """The fixed panel, played before, during and after training.

    ``split``               where the panel's tasks come from; it shares nothing with training
    ``panel_size``          number of tasks, all types equally
    ``every_n_iterations``  how often during training
    ``seed``                draws the panel and the sampled tokens; its own, so that runs share a panel
    ``baselines``           whether the random agent and the expert are played for the final table
    ``sampling``            how the policy samples when it is evaluated
    """

    split: str
    panel_size: AtLeastOne = 240
    every_n_iterations: AtLeastOne = 10
    seed: Count = 0
    baselines: bool = True
    sampling: SamplingConfig = SamplingConfig(temperature=0.4, max_response_tokens=48)
