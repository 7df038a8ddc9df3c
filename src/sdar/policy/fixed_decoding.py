"""Decoding in steps of one shape, whose results stay on the device until somebody asks for them.

The plain loop of :class:`sdar.policy.generation.TurnGenerator` reads every sampled token, and a GPU waits meanwhile.
Here a step reads and writes tensors that stay in their places: the tokens sampled last, lengths, which rows go on. So
the whole step can be captured as a CUDA graph, and whether all rows have ended is looked at now and then. A row that
has ended is fed padding at the place after its last token, as in the plain loop, so both sample the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.policy.cache import SlotCache
from sdar.policy.forward import computed_dtype, hidden_states, logits_from_hidden
from sdar.policy.sampling import TokenSampler, check_finite
from sdar.policy.windows import AttentionWindows

_CAPACITY_STEP = 256
"""The tokens that a step attends over are a multiple of this, so that graphs of later turns have the same shapes."""
_WARM_UP_STEPS = 2


class FixedDecoder:
    """One response for each row of a cache.

    Args:
        model: in evaluation mode, without gradient.
        cache: holds the rows up to their last fed tokens.
        windows: which earlier tokens the model's layers attend to.
        sampler: draws the tokens.
        lengths: [B] long, tokens of each row in the cache.
        uniforms: [B, N] float64 in [0, 1), one per token that may be sampled; on the model's device, as ``lengths``.
        ends: ids that end a response.
        pad_id: id that is fed to rows that have ended.
        scored: whether log-probs of the sampled tokens are kept.
        capture: capture the step as a CUDA graph.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: SlotCache,
        windows: AttentionWindows,
        sampler: TokenSampler,
        *,
        lengths: Tensor,
        uniforms: Tensor,
        ends: Tensor,
        pad_id: int,
        scored: bool = False,
        capture: bool = False,
    ) -> None:
        rows, longest = uniforms.shape
        self.model = model
        self.cache = cache
        self.windows = windows
        self.sampler = sampler
        self.uniforms = uniforms
        self.ends = ends
        self.pad_id = pad_id
        self.capture = capture
        self.capacity = capacity(int(lengths.max()), longest)
        self.lengths = lengths.clone()
        self.going = torch.ones(rows, dtype=torch.bool, device=lengths.device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=lengths.device)
        self.column = torch.zeros(1, dtype=torch.long, device=lengths.device)
        self.usable = torch.ones((), dtype=torch.bool, device=lengths.device)
        self.sampled = torch.zeros(rows, longest, dtype=torch.long, device=lengths.device)
        self.log_probs = torch.zeros(rows, longest, device=lengths.device) if scored else None

    def decode(self, logits: Tensor, look_every: int) -> tuple[Tensor, Tensor | None]:
        """Sample until every row has ended or has N tokens.

        Args:
            logits: [B, V] float32, after each row's last token.
            look_every: >= 1, steps between looks whether all rows have ended.

        Returns:
            Tokens [B, n] and, where they are kept, log-probs [B, n], n <= N, on the device. What follows a row's first
            end token means nothing. The cache then holds each response but for its last token.

        Raises RunFailed where a row had logits that are not finite.
        """
        longest = self.uniforms.shape[1]
        self._draw(logits)
        # All steps write at the lengths as they are then, and attend over the whole capacity.
        self.cache.place(self.lengths[:, None], self.capacity)
        step: Callable[[], None] = self._step
        if self.capture and longest > _WARM_UP_STEPS + 1:
            step = self._captured()
        done = 1
        while done < longest:
            if done % look_every == 0 and not bool(self.going.any()):
                break
            step()
            done += 1
        check_finite(torch.where(self.usable, 0.0, torch.nan))
        return self.sampled[:, :done], None if self.log_probs is None else self.log_probs[:, :done]

    def _step(self) -> None:
        """Feed the tokens that were sampled last, and sample the next ones."""
        fed = torch.where(self.going, self.tokens, self.pad_id)[:, None]
        places = self.lengths[:, None]
        hidden = hidden_states(
            self.model,
            fed,
            attention_mask=self.windows.masks(places, self.capacity, computed_dtype(self.model)),
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.lengths += self.going
        self._draw(logits_from_hidden(self.model, hidden[:, -1]))

    def _draw(self, logits: Tensor) -> None:
        tokens, judged = self.sampler.draw(logits, self.uniforms.index_select(1, self.column)[:, 0])
        usable = torch.isfinite(judged.flatten())
        self.usable &= usable.all()
        # What is drawn from logits that are not finite may be no token at all, and is fed before anyone looks.
        tokens = torch.where(usable, tokens, self.pad_id)
        self.tokens.copy_(tokens)
        self.sampled.index_copy_(1, self.column, tokens[:, None])
        if self.log_probs is not None:
            self.log_probs.index_copy_(1, self.column, self.sampler.drawn_log_probs(logits, tokens)[:, None])
        self.going &= ~torch.isin(tokens, self.ends)
        self.column += 1

    def _captured(self) -> Callable[[], None]:
        """The step as a CUDA graph. What a graph needs is allocated by steps before it, which are then undone."""
        state = [self.lengths, self.going, self.tokens, self.column, self.usable, self.sampled]
        before = [tensor.clone() for tensor in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_STEPS):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        # An environment in a thread of its own may use the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step()
        replay: Callable[[], None] = graph.replay
        return replay


def capacity(longest: int, tokens: int) -> int:
    """Tokens that steps attend over, for rows of at most ``longest`` and responses of at most ``tokens``."""
    return -(-(longest + tokens) // _CAPACITY_STEP) * _CAPACITY_STEP
