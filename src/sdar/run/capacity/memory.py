"""Bytes that a process needs on its device, part by part and phase by phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sdar.objective.chunked_head import CHUNK_LOGITS
from sdar.policy.shape import ModelShape

Strategy = Literal["one", "ddp", "fsdp2"]

_MOMENTS = {"adamw": 2, "muon": 1}
"""Numbers per trained parameter that an optimizer keeps, in the parameter's own dtype."""
_MOMENTS_8BIT = 2.0
"""Bytes per trained parameter of the others."""

CONTEXT_BYTES = 1e9
"""Of a card, for CUDA's context, libraries and what the allocator cannot use (assumed)."""

_CHUNKS, _CHUNKS_SHARE = 4, 32
"""Chunks of logits, float32, that exist at once, and a card's part that they take (``objective/chunked_head.py``)."""
_SAMPLING_BYTES = 24
"""Per logit of a decode step: logits, probabilities, a comparison's copy, and cumulative sums in float64."""


@dataclass(frozen=True)
class MemoryPlan:
    """What is kept on a device.

    ``shape``          of the student
    ``parameters``     all of the student's
    ``trained``        of these, with gradient and moments
    ``copies``         further whole models: the KL term's reference, a teacher of its own
    ``strategy``       fsdp2 shares weights, gradients, moments and the reference between the processes
    ``processes``      over all nodes
    ``weight_bytes``   per number of the weights, on average
    ``trained_bytes``  per number of the trained ones, and of their gradients
    ``compute_bytes``  per number of what is computed
    ``cast``           weights that are stored otherwise than they are computed with
    ``moment_bytes``   per trained parameter, of the optimizer
    ``rows``           conversations that are played at once by a process
    ``row_tokens``     of the longest of these, its response included
    ``prompt_tokens``  of the longest prompt that is fed
    ``prefill_tokens``  of prompts that are fed at once
    ``micro_batch_tokens``  padded, in the update
    ``checkpointing``  of activations
    ``card_bytes``     memory of the card, of which chunks of logits take a share; 0: it is a CPU
    ``play_split``     cards that share the weights they play with (vLLM, tensor parallel)
    ``engine_bytes``   of an engine that plays (vLLM), its weights and cache
    ``engine_stays``   whether it keeps them while the policy learns
    ``whole_teacher``  whether a frozen teacher scores every micro-batch, with whole weights where they are shared
    """

    shape: ModelShape
    parameters: int
    trained: int
    copies: int
    strategy: Strategy
    processes: int
    weight_bytes: float
    trained_bytes: float
    compute_bytes: int
    cast: int
    moment_bytes: float
    rows: int
    row_tokens: float
    prompt_tokens: float
    prefill_tokens: float
    micro_batch_tokens: int
    checkpointing: bool
    card_bytes: float = 0.0
    play_split: int = 1
    engine_bytes: float = 0.0
    engine_stays: bool = False
    whole_teacher: bool = False

    def kept(self) -> dict[str, float]:
        """What is there all the time."""
        share = self.processes if self.strategy == "fsdp2" else 1
        return {
            "weights": self.weight_bytes * self.parameters / share,
            "moments": self.moment_bytes * self.trained / share,
            "copies": self.weight_bytes * self.parameters * self.copies / share,
            "context": CONTEXT_BYTES if self.card_bytes else 0.0,
            "engine": self.engine_bytes if self.engine_stays else 0.0,
        }

    def played(self) -> dict[str, float]:
        """While episodes are played: weights as they are computed with, cache, prompts, one step's logits."""
        shape, size = self.shape, self.compute_bytes
        fed = min(self.rows * self.prompt_tokens, max(self.prefill_tokens, self.prompt_tokens))
        return {
            "weights to compute with": self._computed() / self.play_split,
            "key/value cache": shape.cache_bytes(size) * self.rows * self.row_tokens / self.play_split,
            "prompts": size * (4 * shape.hidden + 2 * shape.intermediate) * fed,
            "logits": _SAMPLING_BYTES * shape.vocabulary * self.rows,
            "engine that plays": 0.0 if self.engine_stays else self.engine_bytes,
        }

    def learned(self) -> dict[str, float]:
        """While the update runs: gradients, activations, chunks of logits, weights as they are computed with."""
        share = self.processes if self.strategy == "fsdp2" else 1
        kept = self.shape.activation_bytes(self.compute_bytes, checkpointing=self.checkpointing)
        blocks = 2 * self.compute_bytes * (self.shape.layer_products // self.shape.layers + self.shape.head)
        return {
            "gradients": self.trained_bytes * self.trained / share,
            "weights to compute with": float(blocks) if self.strategy == "fsdp2" else self._computed(),
            "whole teacher": self._computed() if self.whole_teacher and self.strategy == "fsdp2" else 0.0,
            "activations": float(kept * self.micro_batch_tokens),
            "logits": max(4.0 * _CHUNKS * CHUNK_LOGITS, self.card_bytes / _CHUNKS_SHARE),
        }

    def stepped(self) -> dict[str, float]:
        """While the optimizer steps: gradients, and on a card as much again, since its kernels take many tensors."""
        share = self.processes if self.strategy == "fsdp2" else 1
        gradients = self.trained_bytes * self.trained / share
        return {"gradients": gradients, "temporaries": gradients if self.card_bytes else 0.0}

    def phases(self) -> dict[str, Mapping[str, float]]:
        """Phase -> what it needs on top of what is kept."""
        return {"play": self.played(), "update": self.learned(), "optimizer step": self.stepped()}

    def peak(self, phase: str) -> float:
        """Bytes of a phase, with what is kept."""
        return sum(self.phases()[phase].values()) + sum(self.kept().values())

    def largest(self) -> tuple[str, float]:
        """The phase that needs most, and its bytes."""
        phase = max(self.phases(), key=self.peak)
        return phase, self.peak(phase)

    def _computed(self) -> float:
        """A copy of weights in the dtype of the computation, or whole ones of shared weights."""
        return float(self.compute_bytes * (self.parameters if self.strategy == "fsdp2" else self.cast))


def moment_bytes(optimizer: str, trained_bytes: float) -> float:
    """Bytes per trained parameter that an optimizer keeps."""
    return _MOMENTS[optimizer] * trained_bytes if optimizer in _MOMENTS else _MOMENTS_8BIT


def told(plan: MemoryPlan, available: float, device: str) -> str | None:
    """One sentence where a device with ``available`` bytes has too little by this arithmetic; None: it has enough."""
    phase, needed = plan.largest()
    if needed <= available:
        return None
    parts = {**plan.kept(), **plan.phases()[phase]}
    largest = sorted(((size, name) for name, size in parts.items()), reverse=True)[:3]
    words = ", ".join(f"{name} {size / 1e9:.1f}" for size, name in largest)
    return (
        f"by arithmetic this run will not fit: {device} has {available / 1e9:.1f} GB, and the {phase} needs about "
        f"{needed / 1e9:.1f} ({words}); {_ADVICE['engine' if 'engine' in largest[0][1] else phase]} (docs/scaling.md)"
    )


_ADVICE = {
    "play": "lower rollout.max_concurrent_episodes, or set trainer=fsdp2",
    "update": "set model.gradient_checkpointing=true, lower optimizer.max_tokens_per_micro_batch, or set model.lora",
    "engine": "lower rollout.vllm.memory_fraction, or set rollout.vllm.sleep=true",
    "optimizer step": "set model.lora, optimizer=adamw_8bit or trainer=fsdp2",
}
