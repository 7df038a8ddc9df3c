"""What a model must show before it plays: that sampling, scoring and learning all compute the same probabilities.

The method's signal is a difference of log-probs, so a model that is slightly wrong in one of them trains on noise, and
nothing says so. Names of architectures tell little about that; so every model computes a few rows when it is loaded:

- log-probs of sampled tokens, turn by turn with the rollouts' cache, are those that are scored afterwards;
- a row alone is the row beside a longer one, and its beginning does not depend on its end;
- the head that the policy runs by itself is the model's own;
- both hold for rows around every length that the configuration names as a window or the like, and positions near the
  end of the context change nothing about rows at its beginning;
- layers that are recomputed in the backward pass compute what they computed before.

What fails is refused, or the context is cut to a length for which it holds. The cost is bounded: short rows of at most
:data:`SHORT` tokens, and rows around a window only where they take at most :data:`MOST_WORK`, by the first layers of
each kind alone if the whole model takes more.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from sdar.errors import RunFailed, UserError
from sdar.policy.dropout import update_mode
from sdar.policy.forward import decoder, hidden_states, logits_from_hidden
from sdar.policy.generation import TurnGenerator
from sdar.policy.log_probs import score_tokens
from sdar.policy.sampling import TokenSampler
from sdar.policy.windows import CHUNKED, FULL, SLIDING, AttentionWindows, candidates
from sdar.randomness import keyed_generator

SHORT = 96
"""Tokens of the longest row that every model computes."""
MOST_WORK = 5e12
"""Floating-point operations for the rows around one window: a minute on two slow cores."""

TOLERANCE = {torch.float32: 1e-4}
"""Largest difference in nats between two ways to compute a log-prob, by the model's dtype; of others ``_COARSE``."""
_COARSE = 0.5

_ROUNDINGS = 20
"""What a rounding of the embeddings changes, times this, is accepted as well."""
_MOST_ROUNDING = 1e-2
_TURN = 3
"""Tokens that are sampled in a turn of a short row."""
_NEAR = 6
"""Tokens around a limit."""
_ENDLESS = 1 << 30
"""Tokens of a context that is no limit."""
_INSTEAD = "use a decoder with plain attention"
_FAILURES = (
    TypeError,
    AttributeError,
    ValueError,
    IndexError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    AssertionError,
)


@dataclass(frozen=True)
class Admitted:
    """How the model is used.

    ``windows``         which earlier tokens its layers attend to
    ``context_tokens``  longest row
    ``remarks``         why the context is shorter than the model's own, in sentences
    """

    windows: AttentionWindows
    context_tokens: int
    remarks: tuple[str, ...] = ()


@torch.no_grad()
def admit(
    model: PreTrainedModel, conversation: Sequence[Sequence[int]], end_id: int, limits: Sequence[int], who: str
) -> Admitted:
    """Check a model that has just been loaded, in evaluation mode and without dropout.

    Args:
        model: on any device; its weights are not changed.
        conversation: ids of a first message and of what follows its response, by the model's chat template.
        end_id: an end token.
        limits: see :func:`position_limits`.
        who: begins the sentences: the setting and the model's name.

    Raises:
        UserError: the model computes something that the policy cannot repeat; the sentence says what.
    """
    trial = _Trial(model, end_id, who)
    context, remarks = trial.context(limits)
    windows, context, remark = trial.windows(context)
    trial.check_rows(conversation, windows, context)
    return Admitted(windows, context, (*remarks, *remark))


def check_recomputation(model: PreTrainedModel, ids: Sequence[int], who: str) -> None:
    """UserError unless layers that are recomputed (gradient checkpointing) compute the same scores as others."""
    row = torch.tensor([list(ids)[:SHORT]], device=model.device)
    plain = _scored(model, row)
    update_mode(model)
    try:
        with torch.enable_grad():
            recomputed = _scored(model, row)
    except _FAILURES as problem:
        raise UserError(
            f"{who} does not run with model.gradient_checkpointing=true ({_told(problem)}); set it to false"
        ) from problem
    finally:
        model.train(False)
    error = float((plain - recomputed).abs().max())
    # They are the same computation, whatever the dtype.
    if not error <= TOLERANCE[torch.float32]:
        raise UserError(
            f"{who} computes other log-probs with model.gradient_checkpointing=true than without (by {error:.3g} "
            "nats); set it to false"
        )


@contextmanager
def unchanged_scores(model: PreTrainedModel, ids: Sequence[int], who: str, what: str) -> Iterator[None]:
    """UserError unless a row has the same scores, bit for bit, before and after what is done inside."""
    row = torch.tensor([list(ids)[:SHORT]], device=model.device)
    with torch.no_grad():
        before = _scored(model, row)
    yield
    try:
        with torch.no_grad():
            same = torch.equal(before, _scored(model, row))
        problem = "the scores are no longer those of the model as it was loaded"
    except _FAILURES as failure:
        same, problem = False, _told(failure)
    if not same:
        raise UserError(f"{who} does not work with {what}: {problem}")


def position_limits(config: PretrainedConfig, tokenizer_limit: int) -> list[int]:
    """The lengths that a (text) configuration names, longest first; the first is the model's context."""
    names = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "n_positions", "n_ctx", "seq_length")
    longest = next((int(value) for name in names if (value := getattr(config, name, None))), int(tokenizer_limit))
    nested = [getattr(config, "rope_parameters", None) or {}, getattr(config, "rope_scaling", None) or {}]
    nested += [value for part in nested for value in part.values() if isinstance(value, dict)]
    original = [part.get("original_max_position_embeddings") for part in nested]
    original.append(getattr(config, "original_max_position_embeddings", None))
    shorter = {int(value) for value in original if value and 0 < int(value) < longest}
    return [longest, *sorted(shorter, reverse=True)]


def window_limits(config: PretrainedConfig) -> list[int]:
    """The lengths at which a (text) configuration may change what is attended to, shortest first."""
    named = {
        name: value
        for name, value in vars(config).items()
        if isinstance(value, int) and any(word in name for word in ("window", "chunk", "local", "block_size"))
    }
    return sorted({value for value in named.values() if value > 1})


class _Trial:
    """The rows of one model."""

    def __init__(self, model: PreTrainedModel, end_id: int, who: str) -> None:
        self.model = model
        self.end_id = end_id
        self.who = who
        self.config: Any = model.config.get_text_config()
        self.tolerance = max(TOLERANCE.get(model.dtype, _COARSE), min(_ROUNDINGS * self._rounding(), _MOST_ROUNDING))
        self._known: dict[Any, bool] = {}

    def check_rows(self, conversation: Sequence[Sequence[int]], windows: AttentionWindows, context: int) -> None:
        """UserError unless short rows come out alike in every way."""
        room = max((min(SHORT, context) - 2 * _TURN) // 2, 1)
        said = [list(block[-room:]) for block in conversation]
        other = [self._ids(room // 3 + 1, "short"), self._ids(room, "long")]
        try:
            # First: it raises where logits are not finite, and so cannot be compared.
            sampled, rows = self._play([said, other], windows, _TURN)
            found = {
                "log-probs of tokens depend on later tokens": self._prefix_error(rows[0]),
                "logits of the whole model are not those of its decoder and output head": self._head_error(rows[0]),
                "log-probs of a row depend on the row beside it": self._neighbor_error(rows),
                "sampled and scored log-probs differ": self._sampled_error(sampled, rows),
            }
        except _FAILURES as problem:
            raise UserError(f"{self.who} {self._why(problem)}; {_INSTEAD}") from problem
        except RunFailed as problem:
            raise UserError(
                f"{self.who} gives logits that are not finite, although its weights are; use model.dtype=float32, or "
                "a model whose activations do not overflow"
            ) from problem
        for what, error in found.items():
            if not error <= self.tolerance:
                reason = self._known_reason()
                raise UserError(
                    f"{self.who} cannot be used, because {what} (by {error:.3g} nats)"
                    f"{'' if reason is None else f': it {reason}'}; {_INSTEAD}"
                )

    def context(self, limits: Sequence[int]) -> tuple[int, list[str]]:
        """The longest of the lengths up to which the positions of one row do not change another one.

        UserError if there is none.
        """
        problem = ""
        for tokens in limits:
            try:
                error = self._position_error(tokens)
            except IndexError as failure:  # a table of positions that is shorter
                problem = _told(failure)
                continue
            except _FAILURES:
                return tokens, []  # rows are not placed by numbers, or nothing runs, which the rows will tell
            if math.isnan(error):
                return tokens, []  # the rows will tell, too
            if error <= min(self.tolerance, 1e-4):
                remark = (
                    f"{self.who} has a context of {tokens} tokens here, because its position embeddings change for all "
                    f"rows of a batch when one is longer than that (its configuration allows {limits[0]})"
                )
                return tokens, [] if tokens == limits[0] else [remark]
            problem = f"log-probs of a row depend on the length of the row beside it (by {error:.3g} nats)"
        raise UserError(
            f"{self.who} cannot be used up to any length that its configuration names "
            f"({', '.join(map(str, limits))} tokens): {problem}; {_INSTEAD}"
        )

    def windows(self, context: int) -> tuple[AttentionWindows, int, list[str]]:
        """How the model takes its masks, and the context for which that is right."""
        *windowed, plain = candidates(self.config)
        limits = [limit for limit in window_limits(self.config) if limit < context]
        # A limit so near the end of the context that no row fits around it becomes the end.
        end = min([limit for limit in limits if limit + 4 * _NEAR > context], default=context)
        limits = [limit for limit in limits if limit + 4 * _NEAR <= context]
        found = next((way for way in [*windowed, plain] if all(self._agrees_around(n, way) for n in limits)), None)
        if found is None:
            end = next(limit for limit in limits if not self._agrees_around(limit, plain))
        remark = (
            f"{self.who} has a context of {end} tokens here, because sampled and scored log-probs could not be shown "
            f"to agree beyond that length, which its configuration names (it allows {context})"
        )
        return found or plain, end, [] if end == context else [remark]

    def _ids(self, count: int, name: str) -> list[int]:
        size = int(cast(Any, self.model.get_input_embeddings()).weight.shape[0])
        return [int(token) for token in keyed_generator(0, "admission", name).integers(0, size, count)]

    def _play(
        self, turns: Sequence[Sequence[Sequence[int]]], windows: AttentionWindows, count: int
    ) -> tuple[list[list[float | None]], list[list[int]]]:
        """Sample ``count`` tokens after each block of each slot; log-probs (None: fed) and ids of each slot."""
        sampler = _Recorder()
        # The plain loop asks the sampler for every token, which is listened to.
        generator = TurnGenerator(
            self.model, pad_id=self.end_id, end_ids=(), max_response_tokens=count, windows=windows, step="plain"
        )
        generator.sampler = sampler
        generator.start(len(turns))
        rows: list[list[int]] = [[] for _ in turns]
        sampled: list[list[float | None]] = [[] for _ in turns]
        for number, blocks in enumerate(zip(*turns, strict=True)):
            sampler.log_probs = []
            uniforms = {slot: keyed_generator(0, "admission", number, slot).random(count) for slot in range(len(turns))}
            answers = generator.respond({slot: list(block) for slot, block in enumerate(blocks)}, uniforms)
            found = torch.stack(sampler.log_probs, dim=1).tolist()
            for slot, answer in answers.items():
                rows[slot] += [*blocks[slot], *answer]
                sampled[slot] += [*(None for _ in blocks[slot]), *found[slot]]
        return sampled, rows

    def _sampled_error(self, sampled: Sequence[Sequence[float | None]], rows: Sequence[Sequence[int]]) -> float:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.end_id)
        values = torch.full((len(rows), width), torch.nan)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            values[number, : len(row)] = torch.tensor([torch.nan if v is None else v for v in sampled[number]])
        real = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
        mask = ~values.isnan()
        scored = _scored(self.model, ids.to(self.model.device), real, mask).cpu()
        return float((scored[mask] - values[mask]).abs().max())

    def _neighbor_error(self, rows: Sequence[Sequence[int]]) -> float:
        short, long = sorted(rows, key=len)
        short = short[: max(len(long) // 2, 2)]
        ids = torch.full((2, len(long)), self.end_id)
        ids[0, : len(short)], ids[1] = torch.tensor(short), torch.tensor(long)
        real = torch.ones_like(ids, dtype=torch.bool)
        real[0, len(short) :] = False
        beside = _scored(self.model, ids.to(self.model.device), real)[0, : len(short)]
        return float((beside - self._alone(short)).abs().max())

    def _prefix_error(self, row: Sequence[int]) -> float:
        cut = max(len(row) // 2, 2)
        return float((self._alone(row)[:cut] - self._alone(row[:cut])).abs().max())

    def _head_error(self, row: Sequence[int]) -> float:
        ids = torch.tensor([list(row)], device=self.model.device)
        whole = self.model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        return float((whole.gather(-1, ids[0, 1:, None])[:, 0] - self._alone(row)[1:]).abs().max())

    def _rounding(self) -> float:
        """How far log-probs move when the embeddings are rounded otherwise: in some models roundings grow."""
        embedding, row = self.model.get_input_embeddings(), self._ids(_NEAR, "rounding")
        step = torch.finfo(self.model.dtype).eps

        def rounded(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:  # noqa: ARG001 - as hooks are called
            return output * (1 + step * (1 - 2 * (torch.arange(output.shape[-1], device=output.device) % 2)))

        try:
            before = self._alone(row)
            hook = embedding.register_forward_hook(rounded)
            try:
                return float((before - self._alone(row)).abs().max())
            finally:
                hook.remove()
        except _FAILURES:
            return 0.0  # the rows will tell

    def _alone(self, row: Sequence[int]) -> Tensor:
        return _scored(self.model, torch.tensor([list(row)], device=self.model.device))[0]

    def _position_error(self, tokens: int) -> float:
        """How far a short row's log-probs move when the row beside it stands at the end of the context."""
        if tokens > _ENDLESS:
            return 0.0
        count = min(_NEAR, tokens)
        ids = torch.tensor([self._ids(count, "near"), self._ids(count, "far")], device=self.model.device)
        start = torch.arange(count, device=ids.device)
        near, far = (self._at(ids, torch.stack([start, start + shift])) for shift in (0, tokens - count))
        return float((near - far).abs().max())

    @torch.no_grad()
    def _at(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Log-probs of the first of two rows at given positions."""
        hidden = hidden_states(self.model, ids, position_ids=positions, use_cache=False)
        return logits_from_hidden(self.model, hidden[0, :-1]).log_softmax(-1).gather(-1, ids[0, 1:, None])

    def _agrees_around(self, limit: int, windows: AttentionWindows) -> bool:
        """Whether sampled and scored log-probs agree in rows around a limit. False also where that is too much work."""
        if (limit, windows.by_kind, *windows.sizes) in self._known:
            return self._known[limit, windows.by_kind, *windows.sizes]
        # One row reaches the limit while it is sampled, the other is longer from the start.
        turns = [
            [self._ids(max(limit - 2, 1), f"{limit} below"), self._ids(_NEAR, "then")],
            [self._ids(limit + _NEAR, f"{limit} above"), self._ids(_NEAR, "so")],
        ]
        error = float("inf")
        with self._affordable(tokens=4 * (limit + 4 * _NEAR)) as affordable:
            if affordable:
                with suppress(*_FAILURES, RunFailed):
                    error = self._sampled_error(*self._play(turns, windows, _TURN))
        agrees = error <= self.tolerance
        self._known[limit, windows.by_kind, *windows.sizes] = agrees
        return agrees

    @contextmanager
    def _affordable(self, tokens: int) -> Iterator[bool]:
        """The whole model inside, or its first layers where so many tokens are too much work. False: they still are."""
        numbers = sum(parameter.numel() for parameter in self.model.parameters())
        if 2.0 * numbers * tokens <= MOST_WORK:
            yield True
            return
        with _first_layers(self.model) as layers:
            yield layers is not None and 2.0 * layers * tokens <= MOST_WORK

    def _why(self, problem: BaseException) -> str:
        reason = self._known_reason()
        if reason is not None:
            return reason
        told = _told(problem)
        return f"does not run with separate hidden states and a key/value cache of rows of different lengths ({told})"

    def _known_reason(self) -> str | None:
        """What is known to stand in the way of an architecture, as a clause."""
        kinds = set(getattr(self.config, "layer_types", None) or getattr(self.config, "layers_block_type", None) or ())
        if states := sorted(kind for kind in map(str, kinds) if kind not in _ATTENTION):
            kept = "which keep more than the keys and values that the rollouts' cache holds"
            return f"has layers of kind {states[0]!r}, {kept}"
        if getattr(self.config, "alibi", False) or self.config.model_type == "bloom":
            return "computes its position biases (ALiBi) from a padding mask, which the rollouts' cache does not have"
        if getattr(self.model, "_is_stateful", False):
            return "keeps a recurrent state instead of keys and values"
        if "past_key_values" not in inspect.signature(decoder(self.model).forward).parameters:
            return "takes no key/value cache"
        return None


_ATTENTION = {FULL, SLIDING, CHUNKED, "attention"}


class _Recorder(TokenSampler):
    """Keeps the log-probs [B] of the tokens it drew, one entry per step."""

    log_probs: list[Tensor]

    def sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        tokens = super().sample(logits, uniforms)
        self.log_probs.append(logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0].cpu())
        return tokens


def _scored(model: PreTrainedModel, ids: Tensor, real: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Log-probs [B, T] as the policy scores them; 0 for what is not scored, without gradient to the caller."""
    real = torch.ones_like(ids, dtype=torch.bool) if real is None else real.to(ids.device)
    if mask is None:
        mask = real & (torch.arange(ids.shape[1], device=ids.device) > 0)
    return score_tokens(model, ids, real, mask.to(ids.device)).log_probs.detach()


@contextmanager
def _first_layers(model: PreTrainedModel) -> Iterator[int | None]:
    """The model with as few of its layers as hold one of each kind; their number of parameters. None: not found."""
    part: Any = decoder(model)
    config = part.config
    total = config.num_hidden_layers
    names = [name for name, child in part.named_children() if isinstance(child, nn.ModuleList) and len(child) == total]
    if len(names) != 1:
        yield None
        return
    kinds = list(getattr(config, "layer_types", None) or ()) or [None] * total
    count = 1 + max(kinds.index(kind) for kind in set(kinds))
    layers = getattr(part, names[0])
    configs = {id(c): c for c in (config, model.config.get_text_config())}.values()
    try:
        setattr(part, names[0], layers[:count])
        for each in configs:
            each.num_hidden_layers = count
        yield sum(parameter.numel() for parameter in layers[:count].parameters())
    finally:
        setattr(part, names[0], layers)
        for each in configs:
            each.num_hidden_layers = total


def _told(problem: BaseException) -> str:
    line = str(problem).strip().splitlines()
    return f"{type(problem).__name__}{f': {line[0]}' if line else ''}"
