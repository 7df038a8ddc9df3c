"""Settings of rollouts by vLLM: ``rollout.vllm``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Lt

from sdar.config.fields import AtLeastOne, Positive, settings


@settings(frozen=True)
class VllmSettings:
    """How vLLM plays, and what is done about its probabilities, which differ from the policy's by their rounding.

    ``memory_fraction``  of a GPU's memory that the engine takes while it plays: weights and key/value cache
    ``cpu_cache_gb``     on a CPU: memory of the key/value cache, in whole GB
    ``dtype``            of the engine's weights; None: bfloat16 on a GPU, float32 on a CPU
    ``sleep``            on a GPU: whether the engine gives its memory back while the policy learns
    ``eager``            whether decode steps are launched one by one; false captures them as CUDA graphs
    ``importance_cap``   truncated importance sampling: the advantage of a token is weighed by the policy's probability
                         over the engine's, at most this; None: it is not weighed
    ``max_mismatch``     mean distance, nats per token, that the engine's log-probs of a probe may have from the
                         policy's after its weights were handed over; the run fails above it
    """

    memory_fraction: Annotated[float, Gt(0), Lt(1)] = 0.4
    cpu_cache_gb: AtLeastOne = 1
    dtype: Literal["float32", "bfloat16"] | None = None
    sleep: bool = True
    eager: bool = False
    importance_cap: Positive | None = 2.0
    max_mismatch: Positive = 0.1
