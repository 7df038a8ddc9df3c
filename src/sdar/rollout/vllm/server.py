"""A vLLM server beside the run (``rollout.vllm.url``) that has the policy's weights.

The server may have GPUs of its own and split the model over them. Weights go through a folder that both see.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage, rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sdar.errors import RunFailed, UserError, told
from sdar.output.printable import printable
from sdar.policy.published_weights import published_weights
from sdar.policy.trainable import trainable
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.engine import check_plain
from sdar.rollout.vllm.interface import Sampled
from sdar.rollout.vllm.probe import SAMPLED_TOKENS, check_same_weights, policy_log_probs, probe_ids
from sdar.rollout.vllm.ranks import anyone, is_first
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

    suspicion = (
        "another run uses the server, or it was started with another model or dtype, with --quantization, or without "
        "--logprobs-mode processed_logprobs"
    )

    def __init__(self, policy: LanguageModel, settings: VllmSettings, most_episodes: int) -> None:
        assert settings.url is not None
        check_plain(policy)
        self.settings = settings
        self._wire = Wire(settings.url, most_episodes, settings.timeout_s)
        self._model = self._find_model(policy)
        self._workers = ThreadPoolExecutor(most_episodes, thread_name_prefix="vllm")
        self._folder: Path | None = None
        self._pushes = 0
        self._mark: Tensor | None = None
        self._probed: tuple[list[int], Tensor] | None = None

    def take_weights(self, policy: LanguageModel) -> None:
        """Take over the policy's present weights. RunFailed: the server's log-probs say that they did not arrive."""
        device, mark = policy.model.device, fingerprint(policy.model)
        # Panels without and with skills, and the iteration after them, have the same ones. Nobody samples any more.
        if anyone(self._mark is None or not torch.equal(mark, self._mark), device):
            weights = published_weights(policy.model)
            if is_first():
                self._push(self._as_served(policy, weights))
            else:
                for _ in weights:  # sharded ones are put together by all
                    pass
            anyone(True, device)  # the others wait for the first
            self._mark = mark
        check_same_weights(self, policy, self.settings.max_mismatch)
        if self._pushes == 0:
            self._check_processed(policy)
        self._pushes += 1
        ids = probe_ids(policy)
        self._probed = ids, torch.tensor(self.prompt_log_probs(ids))

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingConfig, ends: Sequence[int]
    ) -> list[Sampled]:
        """One response to each prompt; see :class:`~sdar.rollout.vllm.interface.SamplingEngine`.

        RunFailed: the weights are not those that were handed over any more.
        """
        pairs = zip(prompts, seeds, strict=True)
        asked = [
            self._workers.submit(self._wire.complete, self._model, prompt, seed, sampling, ends)
            for prompt, seed in pairs
        ]
        try:
            with self._unrefused():
                responses = [answer.result() for answer in asked]
        finally:
            for answer in asked:
                answer.cancel()
        self._check_unchanged()
        return responses

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
        stated = self.settings.dtype or ("bfloat16" if policy.model.device.type == "cuda" else "float32")
        for name, value in weights:
            dtype = getattr(torch, stated) if value.is_floating_point() else value.dtype
            # copied in any case: tied weights must not be one in a file
            yield name, value.detach().to("cpu", dtype, copy=True).contiguous()

    def _push(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        url = self._wire.url
        try:
            self._forget()
            folder = self._new_folder()
            try:
                write_weights(weights, folder)
                self._wire.load_weights(str(folder))
            finally:
                rmtree(folder, ignore_errors=True)  # they are in its memory now
            self._forget()
        except (OSError, SafetensorError) as error:
            where = self._folder or self.settings.weights_folder
            free = "" if self._folder is None else f"; {disk_usage(self._folder).free / 2**30:.1f} GiB are free"
            raise self._failed(f"rollout.vllm.weights_folder: cannot write to {where} ({told(error)}{free})") from error
        except RefusedError as error:
            if error.status in (404, 405):
                raise self._failed(
                    f"rollout.vllm.url={url}: the server takes no weights; start it with VLLM_SERVER_DEV_MODE=1"
                ) from error
            raise self._failed(
                f"rollout.vllm.weights_folder must be a folder that the server {url} can read under the same path, and "
                f"its model that of the run; it cannot load weights from {self._folder} ({error})"
            ) from error

    def _failed(self, reason: str) -> UserError | RunFailed:
        """At the first hand-over a setting is wrong; later something has happened."""
        return RunFailed(reason) if self._pushes else UserError(reason)

    def _forget(self) -> None:
        if not self._wire.forget():
            raise self._failed(
                f"rollout.vllm.url={self._wire.url}: the server answers others' requests; a run needs one of its own"
            )

    def _new_folder(self) -> Path:
        """Under another name each time, which the caches of a network file system do not know yet."""
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="sdar-weights-", dir=self.settings.weights_folder)).resolve()
            weakref.finalize(self, rmtree, self._folder, ignore_errors=True)
            if self.settings.weights_folder is not None:
                self._folder.chmod(0o755)  # the server may be another user's
        folder = self._folder / str(self._pushes)
        folder.mkdir()
        return folder

    def _check_unchanged(self) -> None:
        if self._probed is None:
            return
        ids, before = self._probed
        distance = float((torch.tensor(self.prompt_log_probs(ids)) - before).abs().mean())
        if not distance <= self.settings.max_mismatch:
            raise RunFailed(
                f"the weights of the vLLM server {self._wire.url} have changed by {distance:.2g} nats a token while it "
                "played: another run uses it, or it was started anew"
            )

    def _check_processed(self, policy: LanguageModel) -> None:
        """UserError where the server's log-probs are nearer to those before temperature."""
        ids = probe_ids(policy)
        sampling = SamplingConfig(_PROBE_TEMPERATURE, max_response_tokens=SAMPLED_TOKENS)
        (said,) = self.sample([ids], [0], sampling, [])
        processed, raw = (
            float((torch.tensor(said.log_probs) - self._scores(policy, ids, said, temperature)).abs().mean())
            for temperature in (_PROBE_TEMPERATURE, 1.0)
        )
        if raw < processed:
            raise UserError(
                f"rollout.vllm.url={self._wire.url}: the server's log-probs must be those that it samples from; start "
                "it with --logprobs-mode processed_logprobs"
            )

    @staticmethod
    def _scores(policy: LanguageModel, ids: list[int], said: Sampled, temperature: float) -> Tensor:
        return policy_log_probs(policy, [*ids, *said.ids], temperature)[len(ids) - 1 :]


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> Tensor:
    """Sums of the weights that may change, or of this process's share of them; a step of the optimizer moves them."""
    parts = [part.to_local() if isinstance(part, DTensor) else part for part in trainable(model) or model.parameters()]
    exact = torch.float32 if model.device.type == "mps" else torch.float64
    return torch.stack([part.sum(dtype=exact) for part in parts]).cpu()


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
