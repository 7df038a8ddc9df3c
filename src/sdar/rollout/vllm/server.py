"""A vLLM server beside the run (``rollout.vllm.url``) that has the policy's weights.

The server may have GPUs of its own and split the model over them. Weights go through a folder that both see.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdar.errors import RunFailed, UserError
from sdar.output.printable import printable
from sdar.policy.published_weights import published_weights
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.interface import Sampled
from sdar.rollout.vllm.probe import check_same_weights, policy_log_probs, probe_ids
from sdar.rollout.vllm.ranks import rank, wait_for_all
from sdar.rollout.vllm.settings import VllmSettings
from sdar.rollout.vllm.wire import API_KEY, RefusedError, Wire

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

_FILE_BYTES = 2 << 30
_PROBE_TEMPERATURE = 2.0


class VllmServer:
    """A server with the weights that the policy had at the last :meth:`take_weights`.

    All processes of a run ask the same server. The first one writes the weights, while the others wait for it.

    Args:
        policy: whose weights it has.
        settings: its address, and the folder for weights.
        most_episodes: how many responses are sampled at a time.

    Raises:
        UserError: no server answers there, or it cannot play this model.
    """

    def __init__(self, policy: LanguageModel, settings: VllmSettings, most_episodes: int) -> None:
        assert settings.url is not None
        self.settings = settings
        self._wire = Wire(settings.url, most_episodes, settings.timeout_s)
        self._model = self._find_model(policy)
        self._workers = ThreadPoolExecutor(most_episodes, thread_name_prefix="vllm")
        self._folder: Path | None = None
        self._pushes = 0

    def take_weights(self, policy: LanguageModel) -> None:
        """Take over the policy's present weights. RunFailed: the server's log-probs say that they did not arrive."""
        wait_for_all()  # nobody samples any more
        weights = published_weights(policy.model)
        if rank() == 0:
            self._push(self._as_served(policy, weights))
        else:
            for _ in weights:  # sharded ones are put together by all
                pass
        wait_for_all()
        check_same_weights(self, policy, self.settings.max_mismatch)
        if self._pushes == 0:
            self._check_processed(policy)
        self._pushes += 1

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingConfig, ends: Sequence[int]
    ) -> list[Sampled]:
        """One response to each prompt; see :class:`~sdar.rollout.vllm.interface.SamplingEngine`."""
        pairs = zip(prompts, seeds, strict=True)
        asked = [
            self._workers.submit(self._wire.complete, self._model, prompt, seed, sampling, ends)
            for prompt, seed in pairs
        ]
        try:
            with self._unrefused():
                return [answer.result() for answer in asked]
        finally:
            for answer in asked:
                answer.cancel()

    def prompt_log_probs(self, ids: Sequence[int]) -> list[float]:
        """Of the tokens of a text but its first, temperature 1, nats."""
        with self._unrefused():
            return self._wire.prompt_log_probs(self._model, ids)

    def rest(self) -> None:
        """Nothing: its memory is its own."""

    @contextmanager
    def _unrefused(self) -> Iterator[None]:
        try:
            yield
        except RefusedError as error:
            raise RunFailed(f"the vLLM server {self._wire.url} refuses a prompt ({error})") from error

    def _find_model(self, policy: LanguageModel) -> str:
        url = self._wire.url
        try:
            models = self._wire.models()
        except RefusedError as error:
            key = f" needs a key in the environment variable {API_KEY}" if error.status in (401, 403) else ""
            raise UserError(f"rollout.vllm.url={url}: the server{key or ' is none of vLLM'} ({error})") from error
        except RunFailed as error:
            raise UserError(f"rollout.vllm.url must be the address of a vLLM server that answers: {error}") from error
        if len(models) != 1:
            listed = printable(", ".join(models)) or "none"
            raise UserError(f"rollout.vllm.url={url}: the server must have one model, without adapters, got {listed}")
        ((name, context),) = models.items()
        if context is not None and context < policy.context_tokens:
            raise UserError(
                f"rollout.vllm.url={url}: the server must have a context of {policy.context_tokens} tokens, got "
                f"{context}; start it with --max-model-len {policy.context_tokens}"
            )
        return name

    def _as_served(self, policy: LanguageModel, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        dtype = self.settings.dtype or ("bfloat16" if policy.model.device.type == "cuda" else "float32")
        for name, value in weights:
            # copied in any case: tied weights must not be one in a file
            yield name, value.detach().to("cpu", getattr(torch, dtype), copy=True).contiguous()

    def _push(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="sdar-weights-", dir=self.settings.weights_folder)).resolve()
            weakref.finalize(self, rmtree, self._folder, ignore_errors=True)
        root = self._folder
        # A name of its own for each: caches of a network file system do not know it yet.
        folder = root / str(self._pushes)
        rmtree(root / str(self._pushes - 1), ignore_errors=True)
        folder.mkdir()
        write_weights(weights, folder)
        try:
            self._wire.load_weights(str(folder))
        except RefusedError as error:
            url = self._wire.url
            if self._pushes:
                raise RunFailed(f"the vLLM server {url} cannot load the weights in {folder} ({error})") from error
            if error.status in (404, 405):
                told = f"rollout.vllm.url={url}: the server takes no weights; start it with VLLM_SERVER_DEV_MODE=1"
                raise UserError(told) from error
            raise UserError(
                f"rollout.vllm.weights_folder must be a folder that the server {url} sees under the same path, and its "
                f"model that of the run; it cannot load {folder} ({error})"
            ) from error

    def _check_processed(self, policy: LanguageModel) -> None:
        """UserError where the server's log-probs are those before temperature."""
        ids = probe_ids(policy)
        (said,) = self.sample([ids], [0], SamplingConfig(_PROBE_TEMPERATURE, max_response_tokens=1), [])
        text = [*ids, *said.ids]
        processed = abs(said.log_probs[0] - float(policy_log_probs(policy, text, _PROBE_TEMPERATURE)[-1]))
        raw = abs(said.log_probs[0] - float(policy_log_probs(policy, text)[-1]))
        if raw < processed:
            raise UserError(
                f"rollout.vllm.url={self._wire.url}: the server's log-probs must be those that it samples from; start "
                "it with --logprobs-mode processed_logprobs"
            )


def write_weights(weights: Iterable[tuple[str, Tensor]], folder: Path, file_bytes: int = _FILE_BYTES) -> None:
    """Write files of about ``file_bytes`` of weights, so that no more are in memory at a time."""
    part: dict[str, Tensor] = {}
    number = size = 0
    for name, value in weights:
        part[name] = value
        size += value.nbytes
        if size >= file_bytes:
            save_file(part, folder / f"model-{number:05}.safetensors")
            part, number, size = {}, number + 1, 0
    if part:
        save_file(part, folder / f"model-{number:05}.safetensors")
