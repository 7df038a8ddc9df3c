"""Number of episodes and how they are played: the group ``rollout``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from sdar.config.fields import AtLeastOne, Count, Fraction, Positive, Temperature, settings
from sdar.rollout.vllm.settings import VllmSettings

Context = Literal["append", "window"]
Backend = Literal["own", "vllm"]
DecodeStep = Literal["auto", "plain", "fixed", "captured"]

ENVIRONMENT_TIMEOUT_S = 600.0
"""Longest time in seconds that an environment may take for an answer, unless the settings say otherwise."""


@settings(frozen=True)
class SamplingConfig:
    """Filters of the next-token distribution. A model's own generation defaults are ignored.

    ``temperature``          0, which is greedy, or in [0.01, 100]
    ``top_p``                1 keeps every token
    ``top_k``                0 keeps every token
    ``max_response_tokens``  longest response, end token included
    """

    temperature: Temperature = 1.0
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    top_k: Count = 0
    max_response_tokens: AtLeastOne = 512


@settings(frozen=True)
class DecodeSettings:
    """How the policy's own loop decodes; it changes nothing that is sampled, up to rounding.

    ``step``        plain: tokens are read from the device after every step; fixed: steps of one shape, which stay on
                    the device; captured: the same as a CUDA graph (elsewhere it is fixed). auto: fixed on a GPU, plain
                    on a CPU, where fixed shapes cost more than they save
    ``look_every``  steps between looks whether all responses have ended; plain looks after each
    ``prefill_tokens``  padded tokens of prompts that are computed at once, which bounds their activations' memory; a
                        longer prompt is computed alone
    """

    step: DecodeStep = "auto"
    look_every: AtLeastOne = 16
    prefill_tokens: AtLeastOne = 16_384


@settings(frozen=True)
class RolloutSettings:
    """How episodes are played; the defaults are those of ``configs/rollout/append.yaml``.

    ``tasks_per_iteration``      different tasks per iteration over all processes
    ``group_size``               G, episodes per task, which are compared with each other
    ``max_concurrent_episodes``  bounds the memory of the KV cache and the pool; it does not change what is sampled
    ``overlap``                  play the concurrent episodes in two halves: while the environment answers one, the
                                 other's responses are sampled; it does not change what is sampled, up to rounding
    ``context``                  append: one growing conversation per episode; window: a fresh prompt every turn
    ``history_turns``            window only: H, past turns in a prompt
    ``max_prompt_tokens``        window only: longest prompt, without a privileged block that the policy reads; prompts
                                 that do not fit show fewer past turns. None: the model's context
    ``resample_rounds``          dynamic sampling: how often groups with equal returns are replaced by groups of other
                                 tasks; 0 disables it
    ``keep_equal_groups``        whether to learn from groups whose returns are still equal in the end
    ``sampling``                 temperature, filters and length of a response
    ``backend``                  who samples: own, the policy's own decode loop; vllm, of the extra vllm
    ``vllm``                     settings of that backend
    ``decode``                   how the policy's own loop takes its steps
    ``environment_timeout_s``    longest time in seconds that the environment may take to reset its episodes, and for a
                                 step, a text or a projection; episodes that wait longer end as ``error_environment``.
                                 None: no limit, and the environment runs in the main thread
    ``max_error_fraction``       an iteration is bad where a larger share of its episodes ended by errors
    ``max_bad_iterations``       training stops at so many bad iterations in a row; None: never
    """

    tasks_per_iteration: AtLeastOne = 6
    group_size: Annotated[int, Ge(2)] = 8
    max_concurrent_episodes: AtLeastOne = 64
    overlap: bool = False
    context: Context = "append"
    history_turns: Count = 2
    max_prompt_tokens: AtLeastOne | None = None
    resample_rounds: Count = 0
    keep_equal_groups: bool = True
    sampling: SamplingConfig = SamplingConfig(max_response_tokens=48)
    backend: Backend = "own"
    vllm: VllmSettings = VllmSettings()
    decode: DecodeSettings = DecodeSettings()
    environment_timeout_s: Positive | None = ENVIRONMENT_TIMEOUT_S
    max_error_fraction: Fraction = 0.5
    max_bad_iterations: AtLeastOne | None = 3
