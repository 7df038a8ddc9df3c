"""Settings of rollouts by vLLM: ``rollout.vllm``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Lt

from sdar.config.fields import AtLeastOne, Positive, settings
from sdar.errors import UserError
from sdar.exchange import has_password, is_base_url


@settings(frozen=True)
class VllmSettings:
    """How vLLM plays, and what is done about its probabilities, which differ from the policy's by their rounding.

    ``url``              base URL of a vLLM server; None: an engine in the process of the run
    ``dtype``            of the engine's weights, or of those handed to a server; None: bfloat16 where the policy is on
                         a GPU, float32 on a CPU
    ``importance_cap``   truncated importance sampling: the advantage of a token is weighed by the policy's probability
                         over the engine's, at most this; None: it is not weighed
    ``max_mismatch``     mean distance, nats per token, that the engine's log-probs of a probe may have from the
                         policy's after its weights were handed over; the run fails above it

    Of a server:

    ``weights_folder``   that it sees under the same path, where weights are handed over; None: the system's for
                         temporary files
    ``timeout_s``        longest time of a request in seconds, including the reply

    Of an engine in the process:

    ``memory_fraction``  of a GPU's memory that it takes while it plays: weights and key/value cache
    ``cpu_cache_gb``     on a CPU: memory of the key/value cache, in whole GB
    ``sleep``            on a GPU: whether it gives its memory back while the policy learns
    ``eager``            whether decode steps are launched one by one; false captures them as CUDA graphs
    """

    url: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    importance_cap: Positive | None = 2.0
    max_mismatch: Positive = 0.1
    weights_folder: str | None = None
    timeout_s: Positive = 600.0
    memory_fraction: Annotated[float, Gt(0), Lt(1)] = 0.4
    cpu_cache_gb: AtLeastOne = 1
    sleep: bool = True
    eager: bool = False

    def __post_init__(self) -> None:
        """UserError for an address that cannot be one."""
        if self.url is None:
            return
        if has_password(self.url):
            raise UserError("rollout.vllm.url must be an address without a user's name and password")
        if not is_base_url(self.url):
            raise UserError(
                f"rollout.vllm.url must be the base URL of a server, such as http://127.0.0.1:8000, got {self.url!r}"
            )
