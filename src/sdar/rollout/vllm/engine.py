"""A vLLM engine in this process that has the policy's weights.

Interfaces used: ``LLM.generate`` on token ids, ``collective_rpc("reload_weights")``, ``reset_prefix_cache``, ``sleep``
and ``wake_up`` (vLLM 0.32, ``vllm/entrypoints/llm.py`` and ``vllm/v1/worker/gpu_model_runner.py``).
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from sdar.errors import INTERRUPTS, UserError, told
from sdar.policy.published_weights import published_weights
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.interface import Sampled
from sdar.rollout.vllm.probe import check_same_weights
from sdar.rollout.vllm.ranks import has_ranks
from sdar.rollout.vllm.settings import VllmSettings

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights are handed over as they lie in this process
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_CPU_BATCH_TOKENS = 8192


def check_installed() -> None:
    """UserError where vLLM is missing."""
    if find_spec("vllm") is None:
        raise UserError(
            "rollout.backend=vllm needs vLLM, which is not installed; install it with: pip install 'sdar[vllm]'"
        )


class Engine:
    """vLLM with the weights that the policy had at the last :meth:`take_weights`.

    Args:
        policy: whose architecture, context and weights it has.
        settings: memory, dtype and what else is the engine's own.
        most_episodes: how many responses are sampled at a time.

    Raises:
        UserError: vLLM is missing, or it cannot play this model.
    """

    suspicion = "this release of vLLM does not take the weights of this model; set rollout.backend=own"

    def __init__(self, policy: LanguageModel, settings: VllmSettings, most_episodes: int) -> None:
        check_installed()
        check_plain(policy)
        _check_device(policy)
        self.settings = settings
        self._on_gpu = policy.model.device.type == "cuda"
        self._llm = self._build(policy, most_episodes)
        self._asleep = False

    def take_weights(self, policy: LanguageModel) -> None:
        """Take over the policy's present weights. RunFailed: the engine's log-probs say that they did not arrive."""
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": published_weights(policy.model)})
        self._llm.reset_prefix_cache()
        check_same_weights(self, policy, self.settings.max_mismatch)

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingConfig, ends: Sequence[int]
    ) -> list[Sampled]:
        """One response to each prompt; see :class:`~sdar.rollout.vllm.interface.SamplingEngine`."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_response_tokens,
                seed=seed,
                stop_token_ids=list(ends),
                ignore_eos=True,  # the chat format's end tokens alone
                logprobs=0,
                detokenize=False,
            )
            for seed in seeds
        ]
        responses = []
        for output in self._generate(prompts, parameters):
            (completion,) = output.outputs
            ids = [int(token) for token in completion.token_ids]
            log_probs = [float(entry[token].logprob) for token, entry in zip(ids, completion.logprobs, strict=True)]
            responses.append(Sampled(ids, log_probs))
        return responses

    def prompt_log_probs(self, ids: Sequence[int]) -> list[float]:
        """Of the tokens of a text but its first, temperature 1, nats."""
        from vllm import SamplingParams

        (found,) = self._generate([ids], [SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)])
        return [float(entry[token].logprob) for token, entry in zip(ids[1:], found.prompt_logprobs[1:], strict=True)]

    def rest(self) -> None:
        """Give the memory back until the next weights, where that is wanted."""
        if self._on_gpu and self.settings.sleep and not self._asleep:
            self._llm.sleep(level=2)  # the weights are the policy's, and come again
            self._asleep = True

    def _generate(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        asked = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return list(self._llm.generate(asked, list(parameters), use_tqdm=False))

    def _build(self, policy: LanguageModel, most_episodes: int) -> Any:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if not self._on_gpu:
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(self.settings.cpu_cache_gb)
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        try:
            # Weights are handed over later, so the folder has the configuration alone.
            with tempfile.TemporaryDirectory() as folder, _as_launched(policy.model.device), isolate_rng():
                from vllm import LLM

                config = copy.deepcopy(policy.model.config)
                config.architectures = [policy.architecture]  # one that was never saved does not say so
                config.save_pretrained(folder)
                return LLM(
                    model=folder,
                    runner="generate",
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    generation_config="vllm",  # the model's own defaults are ignored
                    dtype=self.settings.dtype or ("bfloat16" if self._on_gpu else "float32"),
                    max_model_len=policy.context_tokens,
                    max_num_seqs=most_episodes,
                    gpu_memory_utilization=self.settings.memory_fraction,
                    enable_prefix_caching=True,
                    enforce_eager=self.settings.eager or not self._on_gpu,
                    enable_sleep_mode=self._on_gpu and self.settings.sleep,
                    logprobs_mode="processed_logprobs",
                    seed=0,
                    **({} if self._on_gpu else _whole_prompts(policy.context_tokens)),
                    # An engine of its own in every process of the run.
                    distributed_executor_backend="external_launcher" if has_ranks() else None,
                )
        except INTERRUPTS:
            raise
        except Exception as error:
            memory = "rollout.vllm.memory_fraction" if self._on_gpu else "rollout.vllm.cpu_cache_gb"
            instead = f"change {memory}" if "memory" in told(error).lower() else "set rollout.backend=own"
            raise UserError(
                f"rollout.backend=vllm cannot play the model {policy.name!r} ({told(error)}); {instead}"
            ) from error


def _whole_prompts(context_tokens: int) -> dict[str, Any]:
    """Settings of a CPU: vLLM 0.32 cannot cut the prompt of a seeded response there (``_bookkeeping_sync``)."""
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(_CPU_BATCH_TOKENS, context_tokens)}


@contextmanager
def _as_launched(device: torch.device) -> Iterator[None]:
    """The environment variables that torchrun sets, inside: vLLM reads them, and other launchers do not set all."""
    wanted = {}
    if has_ranks():
        rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        # The local rank is the number of the GPU that the engine takes: the policy's.
        wanted = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank if device.index is None else device.index}
    added = {name: str(value) for name, value in wanted.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def check_plain(policy: LanguageModel) -> None:
    """UserError for weights that cannot be handed over."""
    if policy.quantization is not None:
        raise UserError(f"rollout.backend=vllm takes no quantized model, got {policy.quantization}; set it to own")


def _check_device(policy: LanguageModel) -> None:
    device = policy.model.device
    if device.type == "cuda" and device.index and not has_ranks():
        raise UserError(
            f"rollout.backend=vllm plays a single process on the first visible GPU, but the policy is on {device}; set "
            f"CUDA_VISIBLE_DEVICES={device.index} and trainer.devices=1"
        )
