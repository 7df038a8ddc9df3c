"""What is evaluated, and how often: the group ``evaluation``."""

from __future__ import annotations

from sdar.config.fields import AtLeastOne, Count, settings
from sdar.rollout.settings import SamplingConfig


@settings(frozen=True)
class EvaluationSettings:
    """The fixed panel, played before, during and after training.

    ``split``               split of the panel's tasks, disjoint from training; None: the environment's default
    ``panel_size``          number of tasks, balanced over the task types
    ``every_n_iterations``  how often during training
    ``seed``                seed of the panel and the sampled tokens; separate, so that runs share a panel
    ``baselines``           whether the random agent and the expert are played for the final table
    ``reuse_panels``        whether the panel of weights that an earlier run has played is taken from its record
    ``sampling``            how the policy samples during evaluation
    """

    split: str | None = None
    panel_size: AtLeastOne = 240
    every_n_iterations: AtLeastOne = 10
    seed: Count = 0
    baselines: bool = True
    reuse_panels: bool = True
    sampling: SamplingConfig = SamplingConfig(temperature=0.4, max_response_tokens=48)
